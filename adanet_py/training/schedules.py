"""Learning-rate schedules: factor of the base learning rate as a function of the step.

A schedule is data (one column of a table), not program: the members of a group may all follow
different ones. Step s counts from 0 behind the warm-up; the factor at s multiplies the candidate's
`lr`. numpy only.

**What `total` means.** T, the total a schedule refers to, is the number of steps its group was
planned with (less its warm-up), for every candidate alike, whether or not a rung, early stopping or
the deadline ends it sooner. A candidate that is stopped was so judged on the first part of its
schedule, as its rivals were; one that goes on past a rung goes on in its schedule, which is neither
stretched nor begun anew. So the rates depend on the plan alone and a replay has the same.

`reduce_on_plateau` hears of the evaluations: after each, the rates that remain are the planned ones
times `feedback_factor` of the errors so far. Being a pure function of the curve, it needs no state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from adanet_py.knob import Knob
from adanet_py.records import Candidate
from adanet_py.training.general import GENERAL

Array = npt.NDArray[np.float64]
Values = Mapping[str, float]


@dataclass(frozen=True)
class Schedule:
    """`factor(step [S], total, numeric)` -> [S], the multiple of the base learning rate.

    `feedback(errors, numeric)` is a further multiple for the steps that remain, given the errors
    of all evaluations so far (lower is better); None where a schedule does not ask for them.
    """

    name: str
    summary: str
    factor: Callable[[Array, int, Values], Array]
    numeric: Mapping[str, Knob] = field(default_factory=dict)
    feedback: Callable[[Sequence[float], Values], float] | None = None


def _constant(step: Array, total: int, numeric: Values) -> Array:
    return np.ones_like(step)


def _at_share(total: int, share: float) -> int:
    """The step at a share of the total; never the first, so that training begins at the base."""
    return max(1, round(share * total))


def _step(step: Array, total: int, numeric: Values) -> Array:
    """gamma^floor(s / P), P = drop_every T in whole steps (torch.optim.lr_scheduler.StepLR)."""
    return numeric["gamma"] ** np.floor(step / _at_share(total, numeric["drop_every"]))


def _multi_step(step: Array, total: int, numeric: Values) -> Array:
    """gamma^(milestones that have passed), as MultiStepLR; at half and three quarters by default
    (He et al. 2016, "Deep Residual Learning", section 4.2)."""
    passed = [step >= _at_share(total, numeric[f"milestone{i}"]) for i in (1, 2, 3)]
    return numeric["gamma"] ** np.asarray(passed, dtype=np.float64).sum(0)


def _exponential(step: Array, total: int, numeric: Values) -> Array:
    """r^(s / T): ExponentialLR with gamma = r^(1 / T)."""
    return numeric["final_ratio"] ** (step / total)


def _inverse_power(step: Array, total: int, numeric: Values) -> Array:
    """(1 + s / decay_steps)^-n: eta0 / t^n for decay_steps = 1, t counted from 1 (Robbins and
    Monro 1951 for n in (1/2, 1])."""
    return (1.0 + step / numeric["decay_steps"]) ** -numeric["power"]


def _polynomial(step: Array, total: int, numeric: Values) -> Array:
    """r + (1 - r) (1 - s / T)^power; PolynomialLR for r = 0."""
    return _between(np.maximum(1.0 - step / total, 0.0) ** numeric["power"], numeric)


def _linear(step: Array, total: int, numeric: Values) -> Array:
    """1 - (1 - r) s / T: LinearLR from 1 to r."""
    return _between(np.maximum(1.0 - step / total, 0.0), numeric)


def _cosine(step: Array, total: int, numeric: Values) -> Array:
    """r + (1 - r) (1 + cos(pi s / T)) / 2: CosineAnnealingLR with eta_min = r lr (Loshchilov and
    Hutter 2017, arXiv 1608.03983, equation 5)."""
    return _between(_half_cosine(np.minimum(step / total, 1.0)), numeric)


def _cosine_restarts(step: Array, total: int, numeric: Values) -> Array:
    """Cosine in each of n cycles, the next `growth` times as long; T is n whole cycles.

    Cycle i begins at T (g^i - 1) / (g^n - 1), or T i / n for g = 1 (Loshchilov and Hutter 2017,
    section 3). CosineAnnealingWarmRestarts with T_0 the first length and T_mult = growth.
    """
    count, growth = int(numeric["cycles"]), numeric["growth"]
    lengths = growth ** np.arange(count, dtype=np.float64)
    lengths *= total / lengths.sum()
    starts = np.concatenate([[0.0], lengths.cumsum()[:-1]])
    # A start that is a whole number but for rounding belongs to its step.
    cycle = np.searchsorted(starts, step + 1e-9 * total, side="right") - 1
    inside = (step - starts[cycle]) / lengths[cycle]
    return _between(_half_cosine(np.clip(inside, 0.0, 1.0)), numeric)


def _one_cycle(step: Array, total: int, numeric: Values) -> Array:
    """Cosine from 1 / initial_division up to 1 at the step peak_share T - 1, then down to
    1 / (initial_division final_division) at T - 1: the learning rates of OneCycleLR (Smith and
    Topin 2018, arXiv 1708.07120). `lr` is the peak."""
    first = 1.0 / numeric["initial_division"]
    last = first / numeric["final_division"]
    peak = max(numeric["peak_share"] * total - 1.0, 0.0)
    rise = np.minimum(step / peak, 1.0) if peak > 0.0 else np.ones_like(step)
    fall = np.clip((step - peak) / ((total - 1.0 - peak) or 1.0), 0.0, 1.0)
    up = 1.0 + (first - 1.0) * _half_cosine(rise)
    return np.where(step <= peak, up, last + (1.0 - last) * _half_cosine(fall))


def _warmup_stable_decay(step: Array, total: int, numeric: Values) -> Array:
    """1, and over the last D = decay_share T steps r + (1 - r) (1 - u^p), u = (s - T + D) / D.

    Hu et al. 2024 (MiniCPM, arXiv 2404.06395) for the form; p = 1/2 is the 1 - sqrt of Haegele et
    al. 2024 (arXiv 2405.18392), p = 1 is linear. The warm-up is that of every schedule.
    """
    length = numeric["decay_share"] * total
    u = np.clip((step - total + length) / length, 0.0, 1.0)
    return _between(1.0 - u ** numeric["decay_power"], numeric)


def _half_cosine(u: Array) -> Array:
    """(1 + cos(pi u)) / 2: 1 at u = 0, 0 at 1."""
    return 0.5 * (1.0 + np.cos(np.pi * u))


def _between(shape: Array, numeric: Values) -> Array:
    """From 1 down to the final ratio as `shape` goes from 1 to 0."""
    return numeric["final_ratio"] + (1.0 - numeric["final_ratio"]) * shape


def plateau_factor(
    errors: Sequence[float], factor: float, patience: float, threshold: float = 0.0
) -> float:
    """The multiple of the planned rates after evaluations with these errors, lower being better.

    A new best is an error below best (1 - threshold); NaN is none. After more than `patience`
    evaluations in a row without one the multiple is times `factor` and the count begins anew:
    ReduceLROnPlateau with mode "min", threshold_mode "rel", cooldown, min_lr and eps 0.
    """
    best, stale, out = np.inf, 0, 1.0
    for error in errors:
        if error < best * (1.0 - threshold):
            best, stale = error, 0
        else:
            stale += 1
        if stale > patience:
            out, stale = out * factor, 0
    return out


ROUNDING = 1e-9  # relative; a smaller error by less than this is no improvement


def _plateau_feedback(errors: Sequence[float], numeric: Values) -> float:
    return plateau_factor(errors, numeric["gamma"], numeric["plateau_patience"], ROUNDING)


_FINAL = Knob(0.0, 0.0, 1.0, doc="last learning rate over the first")
_GAMMA = Knob(0.1, 1e-4, 1.0, log=True, doc="factor of the learning rate at every drop")

SCHEDULES: dict[str, Schedule] = {
    "constant": Schedule("constant", "lr", _constant),
    "step": Schedule(
        "step",
        "lr * gamma^floor(step / (drop_every * total)) (torch's StepLR)",
        _step,
        {
            "gamma": _GAMMA,
            "drop_every": Knob(0.3, 1e-3, 1.0, log=True, doc="share of the steps between drops"),
        },
    ),
    "multi_step": Schedule(
        "multi_step",
        "lr * gamma^(number of milestones passed) (torch's MultiStepLR; He et al. 2016)",
        _multi_step,
        {
            "gamma": _GAMMA,
            "milestone1": Knob(0.5, 0.0, 1.0, doc="share of the steps before the first drop"),
            "milestone2": Knob(0.75, 0.0, 1.0, doc="share of the steps before the second drop"),
            "milestone3": Knob(1.0, 0.0, 1.0, doc="share before the third drop; 1 = no third"),
        },
    ),
    "exponential": Schedule(
        "exponential",
        "lr * final_ratio^(step / total)",
        _exponential,
        {"final_ratio": Knob(0.01, 1e-8, 1.0, log=True, doc=_FINAL.doc)},
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
    "polynomial": Schedule(
        "polynomial",
        "lr * (r + (1 - r) (1 - step / total)^power), r = final_ratio (torch's PolynomialLR)",
        _polynomial,
        {"power": Knob(2.0, 0.0, 8.0, doc="exponent"), "final_ratio": _FINAL},
    ),
    "linear": Schedule(
        "linear",
        "lr * (1 - (1 - final_ratio) step / total)",
        _linear,
        {"final_ratio": _FINAL},
    ),
    "cosine": Schedule(
        "cosine",
        "lr * (r + (1 - r) (1 + cos(pi step / total)) / 2), r = final_ratio "
        "(Loshchilov and Hutter 2017)",
        _cosine,
        {"final_ratio": _FINAL},
    ),
    "cosine_restarts": Schedule(
        "cosine_restarts",
        "cosine in each of several cycles, every next one growth times as long "
        "(SGDR, Loshchilov and Hutter 2017)",
        _cosine_restarts,
        {
            "cycles": Knob(3, 1, 50, doc="number of cycles"),
            "growth": Knob(1.0, 1.0, 4.0, doc="length of a cycle over that of the one before"),
            "final_ratio": Knob(0.0, 0.0, 1.0, doc="last learning rate of a cycle over its first"),
        },
    ),
    "one_cycle": Schedule(
        "one_cycle",
        "from lr / initial_division up to lr at peak_share of the steps, then down to "
        "lr / (initial_division final_division), along cosines (Smith and Topin 2018)",
        _one_cycle,
        {
            "peak_share": Knob(0.3, 0.0, 0.9, doc="share of the steps before the peak"),
            "initial_division": Knob(25.0, 1.0, 1e4, log=True, doc="peak over first rate"),
            "final_division": Knob(1e4, 1.0, 1e8, log=True, doc="first over last rate"),
        },
    ),
    "warmup_stable_decay": Schedule(
        "warmup_stable_decay",
        "lr; over the last decay_share of the steps lr * (r + (1 - r) (1 - u^decay_power)), u from "
        "0 to 1, r = final_ratio (Hu et al. 2024; Haegele et al. 2024)",
        _warmup_stable_decay,
        {
            "decay_share": Knob(0.2, 0.01, 1.0, doc="share of the steps of the decay, at the end"),
            "decay_power": Knob(0.5, 0.1, 4.0, doc="shape: 1 is linear, 0.5 is 1 - sqrt"),
            "final_ratio": _FINAL,
        },
    ),
    "reduce_on_plateau": Schedule(
        "reduce_on_plateau",
        "lr, times gamma after more than plateau_patience evaluations in a row without a new best "
        "(torch's ReduceLROnPlateau), for each candidate by its own validation",
        _constant,
        {
            "gamma": Knob(0.3, 1e-4, 1.0, log=True, doc=_GAMMA.doc),
            "plateau_patience": Knob(2, 0, 1000, doc="evaluations without a new best that pass"),
        },
        _plateau_feedback,
    ),
}


def _values(candidate: Candidate) -> dict[str, float]:
    """The numbers of a candidate, those of its schedule with their defaults."""
    knobs = SCHEDULES[candidate.schedule].numeric
    defaults = {n: float(knob.default) for n, knob in knobs.items()}  # type: ignore[arg-type]
    return defaults | candidate.numeric  # type: ignore[operator]


def learning_rates(
    candidates: Sequence[Candidate], total: int, base_default: float = 1e-3
) -> Array:
    """The planned learning rate at every step: [total, K].

    Over the first `warmup` share of the steps, W in whole steps, the rate rises linearly to the
    schedule's first one, by (t + 1) / (W + 1) (LinearLR); the schedule runs over the rest.
    """
    table = np.empty((total, len(candidates)))
    for k, candidate in enumerate(candidates):
        numeric = _values(candidate)
        share = numeric.get("warmup", float(GENERAL["warmup"].default))  # type: ignore[arg-type]
        warm = min(round(share * total), total - 1)
        step = np.arange(total - warm, dtype=np.float64)
        table[warm:, k] = SCHEDULES[candidate.schedule].factor(step, total - warm, numeric)
        table[:warm, k] = np.arange(1, warm + 1) / (warm + 1) * table[warm, k]
        table[:, k] *= numeric.get("lr", base_default)
    return table


def feedback_factor(candidate: Candidate, errors: Sequence[float]) -> float:
    """The multiple of the planned rates from now on, after evaluations with these errors."""
    feedback = SCHEDULES[candidate.schedule].feedback
    return 1.0 if feedback is None else feedback(errors, _values(candidate))
