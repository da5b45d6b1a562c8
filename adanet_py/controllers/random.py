"""Random search: every choice and every range drawn uniformly in its scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from adanet_py.controllers.families import Proposal, propose
from adanet_py.records import Candidate, History, Scalar
from adanet_py.space import SearchSpace, fill


def random(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """A program at random and `n` random settings for it (Bergstra and Bengio 2012)."""

    def draw(program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None) -> Proposal:
        return fill(space, program or {}, rng), None, None

    return propose(space, history, n, rng, draw)
