"""Proximal policy optimization (Schulman et al. 2017, arXiv 1707.06347), with importance weights.

As `reinforce`, but the policies are trained by clipped plain steps instead of natural ones.
"""

from __future__ import annotations

import numpy as np

from adanet_py.controllers.policy_gradient import clipped_step
from adanet_py.controllers.reinforce import propose_by
from adanet_py.records import Candidate, History
from adanet_py.space import SearchSpace


def propose(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """Draws from the policy trained on the clipped objective."""
    return propose_by(clipped_step, space, history, n, rng)
