"""Whose turn it is in a search, the controller's or the refiner's: a bandit with two arms.

As in a mixture of controllers (controllers/mixture.py) the last `WINDOW` results are ranked by
reward and earn by their ranks; a child that was rolled back or failed earns nothing, so children
earn by what they improve. An arm's quality is what it earned for what it cost, in units of both
together and drawn towards 1 by `PRIOR` imagined results with the mean of both:

    q_a = (earned by a / mean earned + PRIOR) / (cost of a / mean cost + PRIOR)

The cost of a result are its seconds of training; where no clock may enter a decision, 1. Of a group
that would outlast the deadline the part r_a = min(1, seconds left / usual seconds of its groups)
can be trained; children need fewer, so more of the end is theirs. Shares are probability matching
with a floor, sharpened as there; `SHARE` is that of children where both arms are as good:

    p_children = FLOOR / 2 + (1 - FLOOR) w_c (r_c q_c)^2 / (w_c (r_c q_c)^2 + w_f (r_f q_f)^2)

Before `ENOUGH` candidates of the controller have come to a usable end there are no children. All of
it is read from the results, so that a search that is resumed decides the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import islice

import numpy as np

from adanet_py.controllers.mixture import PRIOR, SHARPNESS, WINDOW, earnings
from adanet_py.plan import CHILD_EPOCHS
from adanet_py.records import History, Result, Status

ENOUGH = 16  # candidates of the controller
SHARE = 0.2  # of the groups
FLOOR = 0.05  # of all groups, evenly between the arms
GROUPS = 5  # latest groups of an arm that tell what one usually takes
_UNTRAINED = (Status.BASELINE, Status.INFEASIBLE)


def share_of_children(history: History, left: float | None) -> float:
    """Probability that the next group is one of children.

    `left`: seconds until training must end; None where no clock may enter the decision.
    """
    usable = (r for r in history.results if not r.candidate.inherits and r.status.usable)
    if len(list(islice(usable, ENOUGH))) < ENOUGH:
        return 0.0
    trained = (r for r in reversed(history.results) if r.status not in _UNTRAINED)
    results = list(islice(trained, WINDOW))
    child = np.array([r.candidate.inherits for r in results])
    earned = earnings(np.array([r.score for r in results]))
    costs = np.array([r.seconds if left is not None else 1.0 for r in results])
    known = costs > 0.0  # one that failed at once has cost as much as others, else it were free
    costs[~known] = costs[known].mean() if known.any() else 1.0
    arms = np.array([~child, child], dtype=np.float64)
    mean_earned, mean_cost = earned.mean() or 1.0, costs.mean()
    quality = (arms @ earned / mean_earned + PRIOR) / (arms @ costs / mean_cost + PRIOR)
    if left is not None:
        quality *= _trainable([r for r in results if not r.candidate.inherits],
                              [r for r in results if r.candidate.inherits], left)  # fmt: skip
    weights = np.array([1.0 - SHARE, SHARE]) * quality**SHARPNESS
    if not weights.sum() > 0.0:
        return 0.0
    return float(FLOOR / 2.0 + (1.0 - FLOOR) * weights[1] / weights.sum())


def _trainable(fresh: Sequence[Result], children: Sequence[Result], left: float) -> Sequence[float]:
    """Which part of a usual group of each arm the seconds `left` are enough for."""
    of_children = _usual_seconds(children)
    of_fresh = _usual_seconds(fresh) or of_children / CHILD_EPOCHS
    of_children = of_children or CHILD_EPOCHS * of_fresh
    return [min(1.0, max(0.0, left) / s) if s else 1.0 for s in (of_fresh, of_children)]


def _usual_seconds(results: Sequence[Result]) -> float:
    """The median of the latest groups, 0 where none was measured; `results` the newest first."""
    groups: dict[int, float] = {}
    for r in results:
        if r.group not in groups and len(groups) == GROUPS:
            break
        groups[r.group] = groups.get(r.group, 0.0) + r.seconds
    return statistics.median(groups.values()) if groups else 0.0
