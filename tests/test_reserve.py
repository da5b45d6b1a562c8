"""What is kept of a time budget follows what the run has measured."""

from __future__ import annotations

import pytest

from adanet_py import reserve
from adanet_py.reserve import GROUP, TABLES, Reserve


def test_without_a_budget_nothing_is_kept():
    assert Reserve(None).seconds(check=100.0) == 0.0


def test_it_is_a_share_of_a_small_budget_at_most():
    assert Reserve(2.0).seconds(check=100.0) == reserve.MOST * 2.0


def test_the_longest_end_of_a_group_counts(monkeypatch):
    kept, now = Reserve(1000.0), [0.0]
    monkeypatch.setattr(reserve.time, "monotonic", lambda: now[0])
    assert kept.seconds(check=0.0) == TABLES + 2 * GROUP
    for heard, ended in ((1.0, 3.0), (5.0, 5.5)):
        now[0] = heard
        kept.heard(7)
        now[0] = ended
        kept.ended(7)
    kept.ended(8)  # it never said anything
    assert kept.seconds(check=1.0) == TABLES + 2 * 2.0 + 3 * 1.0


def test_what_an_ensemble_will_take_follows_from_what_an_offer_took():
    kept, least = Reserve(1000.0), reserve.ENSEMBLE_SECONDS
    assert kept.for_ensemble(cells=100, offers=20) == least
    kept.has_weighed(0.02)
    kept.has_weighed(0.04)
    rounds = sum(20 - r for r in range(reserve.ROUNDS))  # offers weighed in 16 rounds
    assert kept.for_ensemble(100, 20) == pytest.approx(2 * 0.03 * rounds)
    assert kept.for_ensemble(100, 3) == least  # of few offers
    kept.has_weighed(1e6)
    assert kept.for_ensemble(100, 20) == reserve.ENSEMBLE_MOST * 1000.0
    assert Reserve(None).for_ensemble(100, 20) == 0.0
