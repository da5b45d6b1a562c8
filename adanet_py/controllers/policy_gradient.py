"""Training a policy (policy.py) on rewards: natural policy gradient, and the clipped objective.

REINFORCE (Williams 1992, "Simple statistical gradient-following algorithms for connectionist
reinforcement learning"; for architectures Zoph and Le 2017, arXiv 1611.01578) follows
E[(A - b) grad log pi], A the advantage and b a baseline. Here:

- A is the rank of the reward among the past points as an exponential score, -log(1 - q) - 1 for
  the share q below: only order counts, and differences among the best count most.
- Points were decided by policies of the past. The importance weight of each is pi now over pi at
  the time it was decided, truncated (Ionides 2008) to [LEAST, MOST].
- The step is along the natural gradient, the solution w of the least-squares problem
  sum_i weight_i (A_i - b - w . score_i)^2 + RIDGE |w|^2 (Kakade 2001; with the baseline fitted
  beside it: Peters and Schaal 2008, "Natural actor-critic", table 1). It needs far fewer
  points than the plain gradient.
- The entropy bonus pulls logits to those of the prior: at every step the share DECAY of what was
  learned is given up.
- The step is shortened such that, to second order, log pi changes by TRUST nats^2 at most
  on average over the weighted points, a trust region.

`clipped_step` climbs instead, in a few epochs, the objective of proximal policy optimization
(Schulman et al. 2017, arXiv 1707.06347, equation 7) over the decisions j of the past points,

    mean_ij weight_i min(r_ij A_i, clip(r_ij, 1 - CLIP, 1 + CLIP) A_i),   r = pi / pi_old,

pi_old being the policy before the step. The importance weights are pi_old over pi at the time of
the decision, so that what bounds a step is apart from what corrects for age (Hilton et al. 2022,
arXiv 2110.00641). The baseline is
the weighted mean of A, the gradient the plain one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adanet_py.controllers.policy import (
    Codes,
    Floats,
    Heads,
    Kernels,
    Policy,
    Scores,
    log_probability,
    residuals_of,
    scores,
    untrained,
)

SHORTEST, LONGEST = 64, 256  # past points that train a policy, the latest
WORK = 3.5e5  # points squared times decisions that a step may take
LEAST, MOST = 0.1, 3.0  # importance weights
STEP = 4.0  # length of a natural step, in units of w
DECAY = 0.4
RIDGE = 0.2  # in units of the mean squared length of a score
TRUST = 50.0
CLIP = 0.2
EPOCHS = 3
CLIMB = 4.0  # length of a plain step, in units of the gradient, ...
REACH = 0.3  # ... but by no more than this does the bias of any cell change
LOSS = 0.1  # DECAY of clipped steps, which are smaller


@dataclass(frozen=True, eq=False)
class Learner:
    """A policy, and of its past points the log-probability [n] when each was decided."""

    policy: Policy
    behaviour: Floats


def beginner(heads: Heads) -> Learner:
    """Nothing learned, nothing seen."""
    return Learner(untrained(heads), np.empty(0))


def window(heads: Heads) -> int:
    """How many past points train a policy."""
    decisions = max(1, sum(len(h.base) > 1 for h in heads.all))
    return int(np.clip(np.sqrt(WORK / decisions), SHORTEST, LONGEST))


def remember(learner: Learner, points: Codes, decided_by: Policy) -> Learner:
    """More past points [m, D], decided by another policy; the latest are kept."""
    policy = learner.policy
    kept = slice(-window(policy.heads), None)
    known = np.vstack([policy.points, points])[kept]
    new = np.zeros((len(points), policy.coefficients.shape[1]))
    coefficients = np.vstack([policy.coefficients, new])[kept]
    behaviour = np.append(learner.behaviour, log_probability(decided_by, points))[kept]
    return Learner(Policy(policy.heads, known, coefficients), behaviour)


def advantages(rewards: Floats) -> Floats:
    """Exponential scores of the ranks of `rewards` [n]: about mean 0 and variance 1; ties share."""
    ordered = np.sort(rewards)
    below = np.searchsorted(ordered, rewards, "left") + np.searchsorted(ordered, rewards, "right")
    out: Floats = -np.log1p(-0.5 * below / len(rewards)) - 1.0
    return out


def importance(now: Floats, then: Floats) -> Floats:
    """Weights from log-probabilities [n] now and when decided, truncated."""
    weights: Floats = np.exp(np.clip(now - then, np.log(LEAST), np.log(MOST)))
    return weights


def natural_step(learner: Learner, rewards: Floats, share: float = 1.0) -> Learner:
    """One step on the `rewards` [n] of the past points; `share` of a whole one."""
    policy = learner.policy
    found = scores(policy)
    weights = importance(found.log_probabilities.sum(axis=1), learner.behaviour)
    w = _natural(found, weights, advantages(rewards))
    # The change of log pi of every point to first order: what the trust region bounds.
    change = STEP * found.products @ w
    size = float(weights @ change**2 / weights.sum())
    length = STEP * share * min(1.0, np.sqrt(TRUST / size) if size > 0 else 1.0)
    kept = (1.0 - DECAY) ** share
    coefficients = kept * policy.coefficients + length * w[:, None] * found.residuals
    return Learner(Policy(policy.heads, policy.points, coefficients), learner.behaviour)


def clipped_step(learner: Learner, rewards: Floats, share: float = 1.0) -> Learner:
    """Some epochs on the `rewards` [n] of the past points; `share` of the length of whole ones."""
    policy, known = learner.policy, Kernels(learner.policy)
    count, width = policy.coefficients.shape
    cells = known.places % max(1, width)
    old, residuals = residuals_of(policy, known)
    now: Floats = np.bincount(known.rows, old, minlength=count).astype(np.float64)
    weights = importance(now, learner.behaviour)
    advantage = advantages(rewards)
    advantage = advantage - np.average(advantage, weights=weights)
    kept = (1.0 - LOSS) ** share
    logs, coefficients = old, (kept * policy.coefficients).ravel()
    for epoch in range(EPOCHS):
        if epoch:
            logs, residuals = residuals_of(policy, known)
        slope = weights[known.rows] * clipped_slope(np.exp(logs - old), advantage[known.rows])
        gradient = np.repeat(slope, known.sizes) * residuals / weights.sum()
        biases = np.bincount(cells, gradient, minlength=width)
        steepest = np.abs(biases).max(initial=0.0)
        length = share * min(CLIMB, REACH / steepest if steepest > 0.0 else CLIMB)
        coefficients[known.places] += length * gradient
        policy = Policy(policy.heads, policy.points, coefficients.reshape(count, width))
    return Learner(policy, learner.behaviour)


def clipped_slope(ratio: Floats, advantage: Floats) -> Floats:
    """Derivative with respect to log r of min(r A, clip(r, 1 - CLIP, 1 + CLIP) A)."""
    inside = np.where(advantage > 0.0, ratio < 1.0 + CLIP, ratio > 1.0 - CLIP)
    out: Floats = inside * ratio * advantage
    return out


def _natural(found: Scores, weights: Floats, advantage: Floats) -> Floats:
    """Coefficients [n] of the scores in w; see the module."""
    scale = float(np.mean(np.diag(found.products))) or 1.0
    system = found.products + np.diag(RIDGE * scale / weights)
    ones = np.ones(len(advantage))
    solved = np.linalg.solve(system, np.column_stack([advantage, ones]))
    baseline = solved[:, 0].sum() / solved[:, 1].sum()
    out: Floats = solved[:, 0] - baseline * solved[:, 1]
    return out
