"""Learning-rate schedules: factor of the base learning rate as a function of the step.

Every schedule refers to the total number of steps its group was planned with, whether or not a
candidate is stopped earlier at a rung. All members of a group may follow different schedules: a
schedule is data (one column of a table), not program. numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from adanet_py.records import Candidate, Knob
from adanet_py.training.general import GENERAL

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """`factor(step [S], total, numeric)` -> [S], the multiple of the base learning rate."""

    name: str
    summary: str
    factor: Callable[[Array, int, Mapping[str, float]], Array]
    numeric: Mapping[str, Knob] = field(default_factory=dict)


def _constant(step: Array, total: int, numeric: Mapping[str, float]) -> Array:
    return np.ones_like(step)


def _exponential(step: Array, total: int, numeric: Mapping[str, float]) -> Array:
    return numeric["final_ratio"] ** (step / total)


def _inverse_power(step: Array, total: int, numeric: Mapping[str, float]) -> Array:
    return (1.0 + step / numeric["decay_steps"]) ** -numeric["power"]


def _cosine(step: Array, total: int, numeric: Mapping[str, float]) -> Array:
    return 0.5 * (1.0 + np.cos(np.pi * np.minimum(step / total, 1.0)))


SCHEDULES: dict[str, Schedule] = {
    "constant": Schedule("constant", "lr", _constant),
    "exponential": Schedule(
        "exponential",
        "lr * final_ratio^(step / total)",
        _exponential,
        {"final_ratio": Knob(0.01, 1e-8, 1.0, log=True, doc="last learning rate over the first")},
    ),
    "inverse_power": Schedule(
        "inverse_power",
        "lr / (1 + step / decay_steps)^power; decay_steps = 1 is lr / t^n, t counted from 1",
        _inverse_power,
        {
            "power": Knob(0.5, 0.0, 4.0, doc="exponent n"),
            "decay_steps": Knob(1.0, 1.0, 1e6, log=True, doc="steps after which t reaches 2"),
        },
    ),
    "cosine": Schedule(
        "cosine", "lr * (1 + cos(pi step / total)) / 2 (Loshchilov and Hutter 2017)", _cosine
    ),
}


def learning_rates(
    candidates: Sequence[Candidate], total: int, base_default: float = 1e-3
) -> Array:
    """The learning rate at every step: [total, K].

    Warm-up rises linearly over the first `warmup` share of the steps; the schedule then runs over
    the remaining ones.
    """
    table = np.empty((total, len(candidates)))
    for k, candidate in enumerate(candidates):
        schedule = SCHEDULES[candidate.schedule]
        numeric = {n: float(knob.default) for n, knob in schedule.numeric.items()}  # type: ignore[arg-type]
        numeric |= candidate.numeric
        share = numeric.get("warmup", float(GENERAL["warmup"].default))  # type: ignore[arg-type]
        warm = min(round(share * total), total - 1)
        step = np.arange(total - warm, dtype=np.float64)
        table[:warm, k] = np.arange(1, warm + 1) / (warm + 1)
        table[warm:, k] = schedule.factor(step, total - warm, numeric)
        table[:, k] *= numeric.get("lr", base_default)
    return table
