"""Ways to weigh members: AdaNet and what it is compared with. One function, one line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from adanet_py.ensemble.growth import Ensemble, Member, Setting, grow
from adanet_py.ensemble.objective import row_shares
from adanet_py.ensemble.weights import Weights

DRAWS = 50  # of greedy selection with replacement


class Ensembler(NamedTuple):
    """`build(setting, pool)` makes an ensemble of members, the best first."""

    build: Callable[[Setting, Sequence[Member]], Ensemble]
    summary: str


def average(setting: Setting, pool: Sequence[Member]) -> Ensemble:
    """The plain mean of the first `setting.most` members."""
    members = pool[: setting.most]
    objective = setting.objective(members)
    weights = objective.uniform()
    return Ensemble(tuple(m.name for m in members), weights, objective.value(weights))


def greedy(setting: Setting, pool: Sequence[Member]) -> Ensemble:
    """Greedy selection with replacement (Caruana et al. 2004).

    `DRAWS` times the member joins with which the mean of all drawn so far has the least loss, the
    same one again if need be; the best mean on the way is kept. A weight is how often its member
    was drawn.
    """
    loss = setting.loss
    outputs = np.stack([m.outputs for m in pool]).astype(np.float64)
    share = row_shares(len(setting.y), setting.weight)
    total, counts = np.zeros(outputs.shape[1:]), np.zeros(len(pool))
    best, least = counts, np.inf
    for drawn in range(1, DRAWS + 1):
        values = [float(share @ loss.rows((total + h) / drawn, setting.y)) for h in outputs]
        j = int(np.argmin(values))
        total = total + outputs[j]
        counts = counts.copy()
        counts[j] += 1
        if values[j] < least:
            best, least = counts, values[j]
    used = np.flatnonzero(best).tolist()
    members = [pool[j] for j in used]
    objective = replace(setting, bias=False).objective(members)
    each = objective.uniform()
    shares = best[used] / best.sum() * len(used)
    mixture = each.mixture * shares.reshape(-1, *[1] * (each.mixture.ndim - 1))
    weights = Weights(mixture, each.bias)
    return Ensemble(tuple(m.name for m in members), weights, objective.value(weights))


def stacking(setting: Setting, pool: Sequence[Member]) -> Ensemble:
    """All of the first `setting.most` members, weighed without a penalty, with a bias."""
    return replace(setting, lambda_=0.0, beta=0.0, bias=True).fit(pool[: setting.most])


ENSEMBLERS: dict[str, Ensembler] = {
    "adanet": Ensembler(grow, "grown while F falls (Cortes et al. 2017)"),
    "mean": Ensembler(average, "the plain mean of the best members"),
    "greedy": Ensembler(greedy, "greedy selection with replacement (Caruana et al. 2004)"),
    "stacking": Ensembler(stacking, "all weighed for the least loss, without a penalty"),
}
