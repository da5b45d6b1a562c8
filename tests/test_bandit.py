"""Whose turn it is, the controller's or the refiner's, follows what both have lately earned."""

from __future__ import annotations

import math

import pytest

from adanet_py.records import Candidate, History, Result, Status
from adanet_py.refine.bandit import ENOUGH, FLOOR, SHARE, share_of_children


def fresh(i: int, reward: float, seconds: float = 1.0, group: int | None = None) -> Result:
    group = i // 8 if group is None else group
    return Result(
        Candidate("mlp", seed=i), Status.COMPLETE, reward=reward, seconds=seconds, group=group
    )


def child(i: int, reward: float, accepted: bool, seconds: float = 0.5, group: int = 1000) -> Result:
    candidate = Candidate("mlp", seed=i, parent="p", move="widen", inherits=True)
    values = {"reward": reward, "accepted": accepted, "seconds": seconds, "group": group}
    return Result(candidate, Status.COMPLETE, **values)


FRESH = tuple(fresh(i, -1.0 - 0.01 * (i % 7)) for i in range(ENOUGH))


def test_there_are_no_children_before_enough_has_come_to_an_end():
    lost = Result(Candidate("mlp", seed=99), Status.DIVERGED)
    assert share_of_children(History((*FRESH[1:], lost)), 30.0) == 0.0
    assert share_of_children(History(FRESH), None) == pytest.approx(FLOOR / 2 + (1 - FLOOR) * SHARE)


def test_accepted_children_make_more_and_rolled_back_ones_fewer():
    even = share_of_children(History(FRESH), None)
    best = tuple(child(i, -0.5 - 0.01 * i, True) for i in range(8))
    back = tuple(child(i, -0.5 - 0.01 * i, False) for i in range(8))
    poor = tuple(child(i, -2.0, True) for i in range(8))
    assert share_of_children(History(FRESH + best), None) > 1.5 * even
    few = share_of_children(History(FRESH + back), None)
    assert FLOOR / 2 < few < 0.5 * even
    assert share_of_children(History(FRESH + poor), None) < even
    several = back + tuple(child(10 + i, -0.5, False) for i in range(40))
    assert share_of_children(History(FRESH + several), None) < few


def test_what_is_cheap_earns_more_where_the_clock_may_say_so():
    results = tuple(child(i, -0.9 - 0.03 * i, True, seconds=1.0) for i in range(8))
    cheap = tuple(r.replace(seconds=0.1) for r in results)
    dear, low = History(FRESH + results), History(FRESH + cheap)
    assert share_of_children(low, math.inf) > share_of_children(dear, math.inf)
    assert share_of_children(low, None) == share_of_children(dear, None)


def test_the_end_belongs_to_those_who_need_less_time():
    # A group of the controller takes 8 seconds, one of children 4.
    results = History(FRESH + tuple(child(i, -1.0, True) for i in range(8)))
    shares = [share_of_children(results, left) for left in (100.0, 8.0, 6.0, 4.0, 1.0)]
    assert shares[0] == shares[1] < shares[2] < shares[3] == pytest.approx(shares[4])
    assert share_of_children(results, 0.0) == 0.0


def test_what_failed_at_once_is_not_free():
    failed = tuple(
        Result(child(i, 0.0, False).candidate, Status.FAILED, group=50) for i in range(16)
    )
    assert share_of_children(History(FRESH + failed), 100.0) < 0.5 * SHARE


def test_only_what_was_earned_lately_counts():
    early = tuple(child(i, -0.1, True) for i in range(50))
    late = tuple(fresh(100 + i, -1.0) for i in range(100))
    assert share_of_children(History(FRESH + early + late), None) == share_of_children(
        History(FRESH + late), None
    )
