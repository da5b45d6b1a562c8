"""The reward orders results by error, then by size; the Pareto front is the brute-force one."""

from __future__ import annotations

import math
import random

import pytest

from adanet_py.metrics import METRICS
from adanet_py.records import Candidate, Result, Status
from adanet_py.reward import (
    complexity,
    error_in_baseline_units,
    pareto_front,
    reward,
    with_reward,
)


def test_error_is_counted_in_baselines():
    assert error_in_baseline_units(METRICS["log_loss"], 0.3, 0.6) == 0.5
    assert error_in_baseline_units(METRICS["accuracy"], 0.9, 0.8) == pytest.approx(0.5)
    assert error_in_baseline_units(METRICS["r2"], 0.75, 0.0) == 0.25
    assert error_in_baseline_units(METRICS["rmse"], 7.0, 7.0) == 1


@pytest.mark.parametrize("baseline", [1.0, math.nan])
def test_a_baseline_that_is_no_unit_leaves_the_error_in_its_own(baseline):
    assert error_in_baseline_units(METRICS["accuracy"], 0.75, baseline) == 0.25


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_has_no_finite_error_has_the_lowest_reward(value):
    error = error_in_baseline_units(METRICS["accuracy"], value, 0.5)
    assert error == math.inf
    assert reward(error, 0.5) == -math.inf
    assert reward(math.nan, 0.5) == -math.inf


def test_complexity_is_one_at_a_million_and_grows():
    assert complexity(0) == 0
    assert complexity(999_999) == pytest.approx(1)
    sizes = [complexity(10**k) for k in range(9)]
    assert sizes == sorted(sizes)


def test_reward_weighs_both_parts():
    assert reward(0.5, 0.8, weight=0.01) == pytest.approx(-0.508)
    assert reward(0.5, 0.8) > reward(0.51, 0.1)  # a little error outweighs much size
    assert reward(0.5, 0.1) > reward(0.5, 0.8)


def test_with_reward_fills_the_parts_in():
    result = Result(
        Candidate("mlp"), Status.COMPLETE, metrics={"validation": 0.3}, parameters=999_999
    )
    scored = with_reward(result, METRICS["log_loss"], 0.6, weight=0.1)
    assert (scored.error, scored.complexity, scored.reward) == pytest.approx((0.5, 1.0, -0.6))
    failed = with_reward(Result(Candidate("mlp"), Status.FAILED), METRICS["log_loss"], 0.6)
    assert failed.reward == -math.inf


def brute_force(points):
    def dominates(p, q):
        return all(a <= b for a, b in zip(p, q, strict=True)) and tuple(p) != tuple(q)

    clean = [p for p in points if not any(map(math.isnan, p))]
    return [p in clean and not any(dominates(q, p) for q in clean) for p in points]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pareto_front_equals_brute_force(size):
    rng = random.Random(size)
    for _ in range(200):
        choices = [0.0, 1.0, 2.0, 3.0, math.inf, math.nan]
        points = [[rng.choice(choices) for _ in range(size)] for _ in range(rng.randrange(12))]
        assert pareto_front(points) == brute_force(points)


def test_pareto_front_of_nothing():
    assert pareto_front([]) == []
