"""Random search: every choice drawn by its prior, every range evenly in its scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from adanet_py.controllers.families import Proposal, propose_family_by_family
from adanet_py.records import Candidate, History, Scalar
from adanet_py.space import SearchSpace, fill


def propose(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """A program at random and `n` random settings for it (Bergstra and Bengio 2012)."""

    def draw(program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None) -> Proposal:
        return fill(space, program or {}, rng), None, None

    return propose_family_by_family(space, history, n, rng, draw)
