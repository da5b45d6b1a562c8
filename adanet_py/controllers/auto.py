"""The default: a mixture (mixture.py) of models of the reward and of searches around the best.

The Gaussian process gets nearly all of the first proposals, for it needs the fewest results, and
alone it did better than with a seventh left to others; where it does not earn its share, the
forest, the density ratios of TPE, hill climbing or evolution take over. The models take the longest
to think: after so many results as `UNTIL` says the others, a millisecond or two for a proposal, go
on without them.
"""

from __future__ import annotations

from adanet_py.controllers import evolution, gp, local_search, surrogate, tpe
from adanet_py.controllers.mixture import mixture

UNTIL = {"gp": 500, "surrogate": 2000}  # results
FLOOR = 0.01  # of all proposals

propose = mixture(
    {
        "gp": gp.propose,
        "surrogate": surrogate.propose,
        "local_search": local_search.propose,
        "tpe": tpe.propose,
        "evolution": evolution.propose,
    },
    {"gp": 400.0, "surrogate": 2.0, "local_search": 1.0, "tpe": 1.0, "evolution": 1.0},
    UNTIL,
    FLOOR,
)
