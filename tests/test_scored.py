"""The history as models of rewards see it."""

from __future__ import annotations

import numpy as np

from adanet_py.controllers.scored import BEST, LATEST, scored
from adanet_py.records import Candidate, History, Result, Status
from adanet_py.space import load_space


def numbered(i: int) -> Candidate:
    return Candidate("mlp", numeric={"lr": 1e-4 * (i + 1)})


def test_of_a_long_history_models_see_the_best_and_the_latest():
    results = tuple(
        Result(
            numbered(i),
            Status.DIVERGED if i % 5 == 0 else Status.COMPLETE,
            reward=-float((i * 7919) % 4001),
        )
        for i in range(4000)
    )
    rows = scored(load_space("table"), History(results, (numbered(4000),)))
    assert len(rows.candidates) == len(rows.rewards) == BEST + LATEST + 1
    assert np.isnan(rows.rewards[-1])
    assert not np.isnan(rows.rewards[:-1]).any()
    assert list(rows.candidates[BEST:-1]) == [r.candidate for r in results[-LATEST:]]
    older = [r for r in results[:-LATEST] if r.status.usable]
    least = sorted((r.reward for r in older), reverse=True)[BEST - 1]
    assert list(rows.candidates[:BEST]) == [r.candidate for r in older if r.reward >= least]


def test_what_was_proposed_is_the_same_told_or_looked_for():
    done = tuple(Result(numbered(i), Status.COMPLETE) for i in range(3))
    told = {numbered(i).experiment for i in range(4)}
    for history in (History(done, (numbered(3),)), History(done, (numbered(3),), told)):
        again = Candidate("mlp", numeric={"lr": 1e-4}, seed=1)  # the same settings, another seed
        offered = [numbered(0), again, numbered(3), numbered(7), numbered(7)]
        assert history.new(offered) == [numbered(7)]
        taken = history.experiments()
        assert again.experiment in taken
        assert numbered(3).experiment in taken
        assert numbered(7).experiment not in taken
        taken.add(numbered(7).experiment)
        assert numbered(7).experiment in taken
        assert numbered(7).experiment not in history.experiments()
