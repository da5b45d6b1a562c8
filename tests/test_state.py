"""The state of a run, as events come in."""

from __future__ import annotations

import pytest

from adanet_py.plan import best_of
from adanet_py.proposing import with_failures
from adanet_py.records import Candidate, Group, History, Result, Status
from adanet_py.state import State


def event(group: int, value: int = 0) -> dict[str, object]:
    results = [
        Result(Candidate("mlp", seed=10 * group + i), Status.COMPLETE, reward=-float(i + value))
        for i in range(1 + group % 2)
    ]
    return {"group": group, "results": [r.to_json() for r in results]}


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [2, 0, 4, 3, 1], [0, 1, 3, 2, 3, 4]])
@pytest.mark.parametrize("asked", [True, False])
def test_results_are_in_the_order_of_their_groups_whenever_they_come(order, asked):
    state = State()
    for index in range(5):
        group = Group(index, (Candidate("mlp", seed=10 * index),), steps=1)
        state.apply("group", group.to_json())
    for count, index in enumerate(order):
        state.apply("results", event(index, value=count))
        if not asked:
            continue
        expected = [r for i in sorted(state.results) for r in state.results[i]]
        assert state.finished() == expected
        for before in range(6):
            below = [r for i in sorted(state.results) if i < before for r in state.results[i]]
            assert state.finished(before) == below
    assert state.finished() == [r for i in range(5) for r in state.results[i]]


def test_the_best_known_is_that_of_all():
    state = State()
    for count, index in enumerate([3, 1, 0, 2]):
        state.apply("results", event(index, value=3 - count))
        assert state.best == best_of(state.finished())


def test_what_cannot_fit_is_a_failure_in_the_history():
    history, candidate = History((Result(Candidate("mlp"), Status.COMPLETE),)), Candidate("resnet")
    assert with_failures(history, ()) is history
    shown = with_failures(history, [candidate])
    assert [r.status for r in shown.results] == [Status.COMPLETE, Status.FAILED]
    assert shown.pending == (candidate,)
