"""Which point a search proposes: by improvement on what, and by how much noise (acquisition.py)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adanet_py.controllers import gp
from adanet_py.controllers.acquisition import Effort, Search, Tried
from adanet_py.controllers.columns import Floats, columns_of
from adanet_py.records import History, Result, Status
from adanet_py.space import sample

sys.path.insert(0, str(Path(__file__).parent))
from spaces import ZOO

SPACE = ZOO["all types"]
COLUMNS = columns_of(SPACE)
LR = next(j for j, d in enumerate(COLUMNS.decisions) if d.name.endswith("sgd.lr"))


@dataclass
class Known:
    """Beliefs that were given."""

    mean: Floats
    variance: Floats

    def join(self, others: Sequence[Known]) -> Known:
        every = [self, *others]
        return Known(
            np.concatenate([b.mean for b in every]), np.concatenate([b.variance for b in every])
        )

    def assume(self, place: int) -> None:
        pass


class Slope:
    """The mean falls with the learning rate, and the variance rises with it."""

    def at(self, points: Floats) -> Known:
        rate = np.nan_to_num(points[:, LR])
        return Known(-rate, 0.01 + rate**2)

    def assume(self, points: Floats) -> Slope:
        return self


def rate_of_the_first(best: float, noise: float) -> float:
    points = np.array([COLUMNS.encode(dict(a)) for a in ({"optimizer": "sgd"},)])
    tried = Tried(points[:0], np.empty(0))
    given = np.full(len(COLUMNS.decisions), np.nan)
    given[[d.name for d in COLUMNS.decisions].index("optimizer")] = 0.0
    rng, effort = np.random.default_rng(0), Effort(200, 0, 0, 0, 0)
    search = Search(COLUMNS, Slope(), tried, np.array([0.0]), effort, rng, best, noise)
    point = search.next(given)
    assert point is not None
    return float(point[LR])


def test_without_noise_what_is_least_known_may_be_the_best_and_with_much_of_it_the_mean_decides():
    assert rate_of_the_first(best=3.0, noise=0.0) > 0.9
    assert rate_of_the_first(best=3.0, noise=100.0) < 0.1


def test_the_process_improves_on_the_best_result(monkeypatch):
    known = [sample(SPACE, np.random.default_rng([1, i])) for i in range(12)]
    results = tuple(Result(c, Status.COMPLETE, reward=float(i)) for i, c in enumerate(known))
    seen = []

    class Watched(Search):
        def __init__(self, *given, **named):
            seen.append((given[2].rewards, given[6], given[7]))
            super().__init__(*given, **named)

    monkeypatch.setattr(gp, "Search", Watched)
    gp.propose(SPACE, History(results), 2, np.random.default_rng(0))
    ((rewards, best, noise),) = seen
    assert best == np.nanmax(rewards)
    assert noise > 0.0
