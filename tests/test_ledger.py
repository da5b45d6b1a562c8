"""What is kept of a history from call to call is what its results say."""

from __future__ import annotations

import numpy as np
import pytest

from adanet_py.controllers.columns import columns_of
from adanet_py.controllers.ledger import ledger_of
from adanet_py.records import Candidate, History, Result, Status
from adanet_py.space import load_space, sample

SPACE = load_space("table")
DRAWN = [sample(SPACE, np.random.default_rng(i)) for i in range(12)]


def result(i: int) -> Result:
    if i % 5 == 4:
        return Result(Candidate("constant", optimizer="", schedule=""), Status.BASELINE, reward=1.0)
    status = Status.FAILED if i % 4 == 1 else Status.COMPLETE
    return Result(DRAWN[i], status, reward=float(i))


RESULTS = tuple(result(i) for i in range(12))


@pytest.mark.parametrize(
    "order",
    [range(8), range(12), [0, 1, 2, 9, 3, 4, 5], [0, 1, 2, 3, 4], [], [7, 6]],
)
def test_a_ledger_after_others_is_one_made_afresh(order):
    # In the order of the list each follows those before it: longer, shorter, changed within.
    told = tuple(RESULTS[i] for i in order)
    ledger = ledger_of(SPACE, History(told))
    assert ledger.results == told
    expected = [r.score for r in told]
    np.testing.assert_array_equal(ledger.scores, np.array(expected, dtype=float))
    assert ledger.networks.tolist() == [r.status is not Status.BASELINE for r in told]
    places = [columns_of(SPACE).place_of(SPACE, r.candidate) for r in told]
    assert list(ledger.places(SPACE)) == places
    assert ledger.keys(SPACE) == {p.key for p in places if p is not None}
    ids = [r.candidate.id for r in told]
    assert list(ledger.column("ids", lambda some: [r.candidate.id for r in some])) == ids
    assert ledger_of(SPACE, History(told, tuple(DRAWN))) is ledger

    def best(some):
        return sorted(some, key=lambda r: -r.reward)[:2]

    assert list(ledger.chosen("best", best)) == best(told)


def test_equal_results_that_are_other_objects_are_read_anew():
    first = ledger_of(SPACE, History(RESULTS[:3]))
    changed = (RESULTS[0], RESULTS[1].replace(reward=7.0, status=Status.COMPLETE), RESULTS[2])
    second = ledger_of(SPACE, History(changed))
    assert second.scores.tolist() == [0.0, 7.0, 2.0]
    assert np.isnan(first.scores[1])  # a ledger does not change


def test_two_views_of_a_history_are_each_read_once():
    space, read = load_space("table"), []

    def of(some):
        read.extend(some)
        return [r.reward for r in some]

    for count in range(1, 13):
        told = RESULTS[:count]
        part = tuple(r for r in told if r is not RESULTS[2])  # as without a child
        assert ledger_of(space, History(told)).column("rewards", of) == [r.reward for r in told]
        assert ledger_of(space, History(part)).column("rewards", of) == [r.reward for r in part]
    assert len(read) <= 12 + 9
