"""The contract of every schedule: bounded, one row per step, warm-up in front, as in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adanet_py.records import Candidate
from adanet_py.training.schedules import SCHEDULES, Schedule, learning_rates

TOTAL = 40


@pytest.fixture(params=sorted(SCHEDULES))
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return SCHEDULES[request.param]


def defaults(schedule: Schedule) -> dict[str, float]:
    return {n: float(k.default) for n, k in schedule.numeric.items()}


def follow(schedule: str, total: int = TOTAL, **numeric: float) -> np.ndarray:
    """Learning rates [total] of one candidate."""
    return learning_rates([Candidate("mlp", schedule=schedule, numeric=numeric)], total)[:, 0]


def test_the_key_is_the_name_and_the_knobs_have_legal_defaults(schedule: Schedule) -> None:
    assert SCHEDULES[schedule.name] is schedule
    assert schedule.summary
    assert all(knob.allows(knob.default) for knob in schedule.numeric.values())


@pytest.mark.parametrize("end", ["low", "default", "high"])
def test_starts_at_one_stays_in_the_unit_interval_and_never_rises(
    schedule: Schedule, end: str
) -> None:
    numeric = {n: float(getattr(k, end)) for n, k in schedule.numeric.items()}
    factor = schedule.factor(np.arange(TOTAL, dtype=np.float64), TOTAL, numeric)
    assert factor.shape == (TOTAL,)
    assert factor[0] == 1.0
    assert np.isfinite(factor).all()
    assert (factor >= 0.0).all()
    assert (np.diff(factor) <= 0.0).all()


def test_a_vector_of_steps_equals_one_step_at_a_time(schedule: Schedule) -> None:
    steps, numeric = np.arange(TOTAL, dtype=np.float64), defaults(schedule)
    singles = [schedule.factor(steps[i : i + 1], TOTAL, numeric)[0] for i in range(TOTAL)]
    np.testing.assert_array_equal(schedule.factor(steps, TOTAL, numeric), singles)


def test_the_table_of_a_group_equals_the_table_of_each_candidate() -> None:
    candidates = [
        Candidate("mlp", schedule=name, numeric={"lr": 0.01 * (i + 1), "warmup": 0.1 * (i % 3)})
        for i, name in enumerate(sorted(SCHEDULES))
    ]
    together = learning_rates(candidates, TOTAL)
    assert together.shape == (TOTAL, len(candidates))
    for k, candidate in enumerate(candidates):
        np.testing.assert_array_equal(together[:, k], learning_rates([candidate], TOTAL)[:, 0])


@pytest.mark.parametrize(
    ("name", "numeric", "end"),
    [
        ("constant", {}, 1.0),
        ("exponential", {"final_ratio": 0.02}, 0.02),
        ("inverse_power", {"power": 0.5, "decay_steps": 1.0}, 1 / np.sqrt(TOTAL + 1)),
        ("inverse_power", {"power": 2.0, "decay_steps": TOTAL}, 0.25),
        ("cosine", {}, 0.0),
    ],
)
def test_ends_at_its_end_value(name: str, numeric: dict[str, float], end: float) -> None:
    last = SCHEDULES[name].factor(np.array([float(TOTAL)]), TOTAL, numeric)
    np.testing.assert_allclose(last, [end], atol=1e-15)


def test_inverse_power_is_lr_over_t_to_the_n() -> None:
    t = np.arange(1, TOTAL + 1)
    np.testing.assert_allclose(follow("inverse_power", lr=0.3, power=0.7), 0.3 / t**0.7)


@pytest.mark.parametrize("name", ["cosine", "exponential"])
def test_equals_the_schedule_of_torch(name: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler: torch.optim.lr_scheduler.LRScheduler
    if name == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=TOTAL)
    else:
        gamma = 0.01 ** (1.0 / TOTAL)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)
    expected = []
    for _ in range(TOTAL):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(follow(name, lr=0.3), expected, rtol=1e-12)


def test_warmup_rises_linearly_to_the_base_rate(schedule: Schedule) -> None:
    rates = follow(schedule.name, lr=0.5, warmup=0.25)
    np.testing.assert_allclose(rates[:10], 0.5 * np.arange(1, 11) / 11, rtol=1e-14)
    assert rates[10] == 0.5
    # What follows is the schedule over the remaining steps.
    np.testing.assert_array_equal(rates[10:], follow(schedule.name, TOTAL - 10, lr=0.5))


def test_the_rate_is_the_base_rate_times_the_factor(schedule: Schedule) -> None:
    np.testing.assert_allclose(
        follow(schedule.name, lr=0.02), 2.0 * follow(schedule.name, lr=0.01), rtol=1e-14
    )
    assert follow(schedule.name)[0] == 1e-3
    assert follow(schedule.name, lr=0.0).max() == 0.0


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 0.9])
def test_very_short_trainings_have_finite_rates(
    schedule: Schedule, total: int, warmup: float
) -> None:
    rates = follow(schedule.name, total, lr=0.1, warmup=warmup)
    assert rates.shape == (total,)
    assert np.isfinite(rates).all()
    assert (rates > 0).all()
