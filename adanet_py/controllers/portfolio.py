"""The prior first: configurations that did well on other data, each with small changes beside it.

They come as the starts of the space, where a search puts those of its prior before its own
(adanet_py/portfolio.py), and every controller begins with the starts. This one does nothing else:
its other members change few numbers of the start, and after the last start programs are random.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from adanet_py.controllers.families import Proposal, propose_family_by_family
from adanet_py.records import Candidate, History, Scalar
from adanet_py.space import SearchSpace, fill, mutate_assignment

_SECOND_CHANGE = 0.6  # chance of one more changed number, again and again


def propose(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """The starts of the space in their order, then random programs; see the module."""
    numbers = {d.name for d in space.decisions if not d.static}

    def draw(program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None) -> Proposal:
        if anchor is None or program is None:
            return fill(space, program or {}, rng), None, None
        child, move = mutate_assignment(
            space, fill(space, {**anchor, **program}, rng), rng, numbers
        )
        while move is not None and rng.random() < _SECOND_CHANGE:
            child, move = mutate_assignment(space, child, rng, numbers)
        return child, None, None

    return propose_family_by_family(space, history, n, rng, draw)
