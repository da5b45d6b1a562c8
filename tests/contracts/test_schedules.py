"""The contract of every schedule: equal to torch's or to the paper's formula, bounded, per member.

A new entry of SCHEDULES needs a line in TORCH or PAPER and its end in ENDS; the rest is at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as of_torch

from adanet_py.records import Candidate
from adanet_py.training.schedules import (
    SCHEDULES,
    Schedule,
    feedback_factor,
    learning_rates,
    plateau_factor,
)

TOTAL = 40
LR = 0.3
Make = Callable[[torch.optim.Optimizer, int], of_torch.LRScheduler]

# name, numbers, torch's scheduler of the same: optimizer, total -> scheduler
TORCH: list[tuple[str, Mapping[str, float], Make]] = [
    ("constant", {}, lambda o, t: of_torch.ConstantLR(o, 1.0)),
    ("step", {}, lambda o, t: of_torch.StepLR(o, round(0.3 * t), 0.1)),
    (
        "step",
        {"gamma": 0.7, "drop_every": 0.05},
        lambda o, t: of_torch.StepLR(o, max(1, round(0.05 * t)), 0.7),
    ),
    ("multi_step", {}, lambda o, t: of_torch.MultiStepLR(o, [t // 2, round(0.75 * t)], 0.1)),
    (
        "multi_step",
        {"gamma": 0.5, "milestone1": 0.9, "milestone2": 0.2, "milestone3": 0.2},
        lambda o, t: of_torch.MultiStepLR(o, [round(0.2 * t), round(0.2 * t), round(0.9 * t)], 0.5),
    ),
    ("exponential", {}, lambda o, t: of_torch.ExponentialLR(o, 0.01 ** (1.0 / t))),
    ("polynomial", {}, lambda o, t: of_torch.PolynomialLR(o, t, 2.0)),
    ("polynomial", {"power": 0.5}, lambda o, t: of_torch.PolynomialLR(o, t, 0.5)),
    ("linear", {}, lambda o, t: of_torch.LinearLR(o, 1.0, 0.0, t)),
    ("linear", {"final_ratio": 0.2}, lambda o, t: of_torch.LinearLR(o, 1.0, 0.2, t)),
    ("cosine", {}, lambda o, t: of_torch.CosineAnnealingLR(o, t)),
    ("cosine", {"final_ratio": 0.1}, lambda o, t: of_torch.CosineAnnealingLR(o, t, 0.1 * LR)),
    (
        "cosine_restarts",
        {"cycles": 4.0, "final_ratio": 0.1},
        lambda o, t: of_torch.CosineAnnealingWarmRestarts(o, t // 4, 1, 0.1 * LR),
    ),
    ("one_cycle", {}, lambda o, t: of_torch.OneCycleLR(o, LR, t, cycle_momentum=False)),
    (
        "one_cycle",
        {"peak_share": 0.61, "initial_division": 5.0, "final_division": 100.0},
        lambda o, t: of_torch.OneCycleLR(
            o, LR, t, pct_start=0.61, cycle_momentum=False, div_factor=5.0, final_div_factor=100.0
        ),
    ),
]


def cosine_restarts(s: float, total: float, cycles: int, growth: float, low: float) -> float:
    """Loshchilov and Hutter 2017, section 3: one T_i after the other."""
    length = total / sum(growth**i for i in range(cycles))
    while s >= length * (1 - 1e-12):
        s, length = s - length, length * growth
    return low + 0.5 * (1 - low) * (1 + math.cos(math.pi * s / length))


def stable_decay(s: float, total: float, share: float, power: float, low: float) -> float:
    """Haegele et al. 2024, equation 1 (power 1/2), down to `low`."""
    start = total - share * total
    return 1.0 if s < start else 1 - (1 - low) * ((s - start) / (share * total)) ** power


# name, numbers, the formula: step, total -> factor
PAPER: list[tuple[str, Mapping[str, float], Callable[[int, int], float]]] = [
    ("inverse_power", {"power": 0.7}, lambda s, t: (s + 1) ** -0.7),
    ("inverse_power", {"power": 2.0, "decay_steps": 7.0}, lambda s, t: (1 + s / 7) ** -2.0),
    (
        "polynomial",
        {"power": 3.0, "final_ratio": 0.1},
        lambda s, t: 0.1 + 0.9 * (1 - s / t) ** 3,
    ),
    (
        "cosine_restarts",
        {"cycles": 3.0, "growth": 2.0},
        lambda s, t: cosine_restarts(s, t, 3, 2.0, 0.0),
    ),
    (
        "cosine_restarts",
        {"cycles": 5.0, "growth": 1.3, "final_ratio": 0.2},
        lambda s, t: cosine_restarts(s, t, 5, 1.3, 0.2),
    ),
    ("warmup_stable_decay", {}, lambda s, t: stable_decay(s, t, 0.2, 0.5, 0.0)),
    (
        "warmup_stable_decay",
        {"decay_share": 0.63, "decay_power": 2.0, "final_ratio": 0.1},
        lambda s, t: stable_decay(s, t, 0.63, 2.0, 0.1),
    ),
    ("reduce_on_plateau", {}, lambda s, t: 1.0),  # as long as nothing was evaluated
]

# The factor at `total`, where the training ends, with the default numbers.
ENDS: dict[str, float] = {
    "constant": 1.0, "step": 1e-3, "multi_step": 1e-3, "exponential": 0.01,
    "inverse_power": 1 / math.sqrt(TOTAL + 1), "polynomial": 0.0, "linear": 0.0, "cosine": 0.0,
    "cosine_restarts": 0.0, "one_cycle": 1 / 25e4, "warmup_stable_decay": 0.0,
    "reduce_on_plateau": 1.0,
}  # fmt: skip
RISING = {"cosine_restarts", "one_cycle"}  # the others never do


@pytest.fixture(params=sorted(SCHEDULES))
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return SCHEDULES[request.param]


def defaults(schedule: Schedule) -> dict[str, float]:
    return {n: float(k.default) for n, k in schedule.numeric.items()}


def follow(schedule: str, total: int = TOTAL, **numeric: float) -> np.ndarray:
    """Learning rates [total] of one candidate."""
    return learning_rates([Candidate("mlp", schedule=schedule, numeric=numeric)], total)[:, 0]


def run_torch(make: Make, total: int, warm: int = 0) -> list[float]:
    """The learning rates of torch's scheduler, behind a linear warm-up of `warm` steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = make(optimizer, total - warm)
    if warm:
        for group in optimizer.param_groups:
            group["lr"] = LR  # what comes first starts from the base rate
        rise = of_torch.LinearLR(optimizer, 1 / (warm + 1), 1.0, warm)
        scheduler = of_torch.SequentialLR(optimizer, [rise, scheduler], [warm])
    rates = []
    for _ in range(total):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


def test_every_schedule_is_compared_with_torch_or_a_paper() -> None:
    named = {name for name, *_ in TORCH} | {name for name, *_ in PAPER}
    assert named == set(SCHEDULES) == set(ENDS)


def test_the_key_is_the_name_and_the_knobs_have_legal_defaults(schedule: Schedule) -> None:
    assert SCHEDULES[schedule.name] is schedule
    assert schedule.summary
    assert all(knob.allows(knob.default) for knob in schedule.numeric.values())
    assert all(knob.doc for knob in schedule.numeric.values())


@pytest.mark.parametrize("total", [TOTAL, 100, 12])
@pytest.mark.parametrize(("name", "numeric", "make"), TORCH)
def test_equals_the_schedule_of_torch(
    name: str, numeric: Mapping[str, float], make: Make, total: int
) -> None:
    rates = follow(name, total, lr=LR, **numeric)
    np.testing.assert_allclose(rates, run_torch(make, total), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("name", "numeric", "make"), [t for t in TORCH if t[0] != "one_cycle"])
def test_with_warm_up_equals_the_sequence_of_torch(
    name: str, numeric: Mapping[str, float], make: Make
) -> None:
    # OneCycleLR sets the rate of the optimizer itself, which SequentialLR does not know of.
    rates = follow(name, 50, lr=LR, warmup=0.2, **numeric)
    np.testing.assert_allclose(rates, run_torch(make, 50, warm=10), rtol=1e-10, atol=1e-14)


def test_restarts_that_grow_equal_those_of_torch() -> None:
    rates = follow("cosine_restarts", 42, lr=LR, cycles=3.0, growth=2.0)
    want = run_torch(lambda o, t: of_torch.CosineAnnealingWarmRestarts(o, 6, 2), 42)
    np.testing.assert_allclose(rates, want, rtol=1e-10)


@pytest.mark.parametrize("total", [TOTAL, 97])
@pytest.mark.parametrize(("name", "numeric", "formula"), PAPER)
def test_equals_the_formula_of_the_paper(
    name: str, numeric: Mapping[str, float], formula: Callable[[int, int], float], total: int
) -> None:
    want = [LR * formula(s, total) for s in range(total)]
    np.testing.assert_allclose(follow(name, total, lr=LR, **numeric), want, rtol=1e-10)


@pytest.mark.parametrize("end", ["low", "default", "high"])
def test_starts_at_one_and_stays_in_the_unit_interval(schedule: Schedule, end: str) -> None:
    numeric = {n: float(getattr(k, end)) for n, k in schedule.numeric.items()}
    factor = schedule.factor(np.arange(TOTAL, dtype=np.float64), TOTAL, numeric)
    assert factor.shape == (TOTAL,)
    assert np.isfinite(factor).all()
    assert (factor >= 0.0).all()
    assert (factor <= 1.0).all()
    if schedule.name == "one_cycle" and end != "low":  # at the low end the peak comes first
        assert factor[0] == pytest.approx(1.0 / numeric["initial_division"])
    else:
        assert factor[0] == 1.0
    if schedule.name not in RISING:
        assert (np.diff(factor) <= 0.0).all()


def test_ends_at_its_end_value(schedule: Schedule) -> None:
    last = schedule.factor(np.array([float(TOTAL)]), TOTAL, defaults(schedule))
    np.testing.assert_allclose(last, [ENDS[schedule.name]], rtol=1e-12, atol=1e-15)


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
    swapped = learning_rates(candidates[::-1], TOTAL)
    np.testing.assert_array_equal(swapped, together[:, ::-1])


def test_warm_up_rises_linearly_to_the_first_rate(schedule: Schedule) -> None:
    rates = follow(schedule.name, lr=0.5, warmup=0.25)
    after = follow(schedule.name, TOTAL - 10, lr=0.5)
    np.testing.assert_allclose(rates[:10], after[0] * np.arange(1, 11) / 11, rtol=1e-14)
    # What follows is the schedule over the remaining steps.
    np.testing.assert_array_equal(rates[10:], after)


def test_the_rate_is_the_base_rate_times_the_factor(schedule: Schedule) -> None:
    np.testing.assert_allclose(
        follow(schedule.name, lr=0.02), 2.0 * follow(schedule.name, lr=0.01), rtol=1e-14
    )
    assert follow(schedule.name).max() <= 1e-3
    assert follow(schedule.name, lr=0.0).max() == 0.0


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 0.9])
def test_very_short_trainings_have_finite_rates(
    schedule: Schedule, total: int, warmup: float
) -> None:
    rates = follow(schedule.name, total, lr=0.1, warmup=warmup)
    assert rates.shape == (total,)
    assert np.isfinite(rates).all()
    assert (rates > 0).all()


# ------------------------------------------------------------------ reduce on plateau


def plateau_of_torch(errors: list[float], factor: float, patience: int, threshold: float) -> float:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = of_torch.ReduceLROnPlateau(
        optimizer, "min", factor, patience, threshold, "rel", cooldown=0, min_lr=0.0, eps=0.0
    )
    for error in errors:
        scheduler.step(error)
    return float(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("threshold", [0.0, 1e-9, 0.05])
@pytest.mark.parametrize("patience", [0, 1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_plateaus_are_those_of_torch(seed: int, patience: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    errors = (rng.random(40).round(1) + np.linspace(2.0, 1.0, 40)).tolist()
    errors[5], errors[20], errors[21] = math.nan, math.inf, math.nan
    got = [plateau_factor(errors[:n], 0.3, patience, threshold) for n in range(41)]
    want = [plateau_of_torch(errors[:n], 0.3, patience, threshold) for n in range(41)]
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert got[0] == 1.0
    assert (np.diff(got) <= 0.0).all()
    assert got[-1] < 1.0


def test_only_schedules_that_ask_for_evaluations_follow_them() -> None:
    errors = [1.0] * 9
    for name, schedule in SCHEDULES.items():
        candidate = Candidate("mlp", schedule=name, numeric={"lr": 0.1})
        assert feedback_factor(candidate, []) == 1.0
        assert (feedback_factor(candidate, errors) < 1.0) == (schedule.feedback is not None)
    numeric = {"gamma": 0.5, "plateau_patience": 3.0}
    candidate = Candidate("mlp", schedule="reduce_on_plateau", numeric=numeric)
    assert feedback_factor(candidate, errors) == 0.25
    # A difference of rounding, which another engine may have, is no improvement.
    assert feedback_factor(candidate, [1.0 - 1e-13 * i for i in range(9)]) == 0.25
