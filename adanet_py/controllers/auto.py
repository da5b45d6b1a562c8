"""The default: a mixture (mixture.py) of models of the reward and of searches around the best.

The Gaussian process gets most of the first proposals, for it needs the fewest results; where it
does not earn its share, the forest, the density ratios of TPE, hill climbing or evolution take
over. It takes the longest to think, so that the others go on without it after `LONG` results.
"""

from __future__ import annotations

from adanet_py.controllers import evolution, gp, local_search, surrogate, tpe
from adanet_py.controllers.mixture import mixture

LONG = 500  # results

propose = mixture(
    {
        "gp": gp.propose,
        "surrogate": surrogate.propose,
        "local_search": local_search.propose,
        "tpe": tpe.propose,
        "evolution": evolution.propose,
    },
    {"gp": 12.0, "surrogate": 1.0, "local_search": 1.0, "tpe": 1.0, "evolution": 1.0},
    {"gp": LONG},
)
