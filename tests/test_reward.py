"""The reward orders results by error, then by size; the Pareto front is the brute-force one."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from adanet_py.metrics import METRICS
from adanet_py.pareto import hypervolume, pareto_front
from adanet_py.plan import best_of
from adanet_py.records import Candidate, Result, Status
from adanet_py.reward import (
    MEASURES,
    Bounds,
    RewardRule,
    complexity,
    error_in_baseline_units,
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
    scored = with_reward(result, METRICS["log_loss"], 0.6, RewardRule(weight=0.1))
    assert (scored.error, scored.complexity, scored.reward) == pytest.approx((0.5, 1.0, -0.6))
    failed = with_reward(Result(Candidate("mlp"), Status.FAILED), METRICS["log_loss"], 0.6)
    assert failed.reward == -math.inf


# ---------------------------------------------------------------- measures and forms


def network(**fields):
    fields = {"metrics": {"validation": 0.3}, "parameters": 1000} | fields
    return Result(Candidate("mlp"), fields.pop("status", Status.COMPLETE), **fields)


def rewarded(result, rule):
    return with_reward(result, METRICS["log_loss"], 0.6, rule)


COSTS = {"parameters": 9999, "multiply_adds": 99, "latency_ms": 0.999, "layers": 4, "capacity": 3.0}
EXPECTED = {
    "parameters": 4 / 6, "multiply_adds": 2 / 6, "latency": 0.5, "layers": 0.5,
    "capacity": math.log10(1001) / 6,
}  # fmt: skip


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_has_its_formula(measure):
    one = rewarded(network(**COSTS), RewardRule(measure, weight=0.2))
    assert one.complexity == pytest.approx(EXPECTED[measure])
    assert one.reward == pytest.approx(-0.5 - 0.2 * EXPECTED[measure])


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_grows_and_stays_finite(measure):
    values = [MEASURES[measure].normalised(v) for v in (0.0, 0.5, 3.0, 14.9, 15.1, 400.0)]
    assert values == sorted(set(values))
    assert all(math.isfinite(v) for v in values)


def test_the_absolute_reward_is_highest_at_its_target():
    """Bender et al. 2020: r = Q + beta |T / T0 - 1|."""
    rule = RewardRule("parameters", target=1000.0)
    at, half, twice = (rewarded(network(parameters=p), rule) for p in (1000, 500, 2000))
    assert at.reward == pytest.approx(-0.5)
    assert half.reward == pytest.approx(-0.5 - 0.1 * 0.5)
    assert twice.reward == pytest.approx(-0.5 - 0.1 * 1.0)
    heavier = rewarded(network(parameters=2000), RewardRule("parameters", 0.3, 1000.0))
    assert heavier.reward == pytest.approx(-0.5 - 0.3)


def test_the_default_rule_is_the_weighted_sum_of_parameters():
    one = network(parameters=999_999)
    assert rewarded(one, None) == rewarded(one, RewardRule())
    assert rewarded(one, None).reward == pytest.approx(-0.51)


@pytest.mark.parametrize("measure", [m for m in MEASURES if m != "parameters"])
def test_a_baseline_has_no_complexity_but_its_parameters(measure):
    one = rewarded(network(status=Status.BASELINE), RewardRule(measure, target=5.0))
    assert (one.complexity, one.reward) == (0.0, -0.5)


def test_what_was_not_measured_has_the_lowest_reward():
    assert rewarded(network(), RewardRule("latency")).reward == -math.inf


def test_a_result_of_an_older_journal_can_be_read():
    older = rewarded(network(**COSTS), None).to_json()
    for name in ("size_bytes", "layers", "capacity"):
        del older[name]
    read = Result.from_json(older)
    assert (read.size_bytes, read.layers, read.parameters) == (0, 0, 9999)
    assert math.isnan(read.capacity)


# ---------------------------------------------------------------- bounds


def test_bounds_say_what_breaks_them_and_by_how_much():
    bounds = Bounds(parameters=1000, latency_ms=2.0, size_bytes=4000)
    fine = network(parameters=1000, latency_ms=2.0, size_bytes=4000)
    assert (bounds.why_not(fine), bounds.excess(fine)) == ("", 0.0)
    broken = network(parameters=10_000, latency_ms=0.1, size_bytes=400_000)
    assert bounds.excess(broken) == pytest.approx(3.0)
    why = (
        "10,000 parameters, more than --max-params 1,000; 400,000 bytes, more than --max-size 4,000"
    )
    assert bounds.why_not(broken) == why
    assert bounds.why_not(network(latency_ms=math.nan)) == ""  # not measured
    assert not Bounds()
    assert Bounds(latency_ms=1.0)


def test_the_reward_of_the_infeasible_orders_them_below_what_is_worth_something():
    rule = RewardRule(bounds=Bounds(parameters=1000))
    sizes = [1001, 2000, 10**4, 10**7]
    told = [
        rewarded(network(metrics={}, parameters=p, status=Status.INFEASIBLE), rule) for p in sizes
    ]
    rewards = [r.reward for r in told]
    assert rewards == sorted(rewards, reverse=True)
    assert -2.0 < rewards[-1] < rewards[0] < -1.0
    assert [r.score for r in told] == rewards  # controllers see them
    assert best_of(told) is None  # but they never win
    poor = network().replace(reward=-50.0)
    assert best_of([*told, poor]) == poor


# ---------------------------------------------------------------- fronts


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


def test_hypervolume_of_rectangles_drawn_by_hand():
    assert hypervolume([(1, 3), (2, 1)], (4, 4)) == 3 * 1 + 2 * 2
    assert hypervolume([(1, 3), (2, 1), (2, 3), (3, 2)], (4, 4)) == 7  # dominated ones add nothing
    assert hypervolume([(4, 0), (0, 4), (5, 5), (math.nan, 0)], (4, 4)) == 0  # nothing below it
    assert hypervolume([], (1, 1)) == 0
    assert hypervolume([(0.25,), (0.5,)], (1,)) == 0.75
    assert hypervolume([(0, 0, 1), (1, 1, 0)], (2, 2, 2)) == 4 * 1 + 1 * 1


@pytest.mark.parametrize("size", [2, 3, 4])
def test_hypervolume_equals_that_of_optuna(size):
    from optuna._hypervolume import compute_hypervolume

    rng = np.random.default_rng(size)
    for _ in range(20):
        points = rng.random((rng.integers(1, 12), size)).round(1)
        expected = compute_hypervolume(points, np.full(size, 1.1))
        assert hypervolume(points.tolist(), [1.1] * size) == pytest.approx(expected, abs=1e-12)
