"""The tables people read: leaderboard.csv and curves.csv, derived from results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from adanet_py.frames import make_frame
from adanet_py.intervals import Interval, bootstrap
from adanet_py.metrics import Metric, to_error
from adanet_py.optimism import Scored, corrected, optimism, optimism_interval, wilcoxon
from adanet_py.records import Result, Status
from adanet_py.training.diagnostics import names

COLUMNS: dict[str, str] = {
    "rank": "place by reward, 1 is best, equal rewards by fewer parameters; empty without a score",
    "id": "identifier of the candidate: the hash of its content",
    "status": "how its training ended, as a code",
    "status_text": "the same as a sentence",
    "metric": "what train, validation and audit are measured in",
    "train": "metric on training rows, in its natural sign and unit",
    "validation": "metric on validation rows, which the search chooses by",
    "audit": "metric on audit rows, which no choice ever sees; empty where there are too few rows",
    "chosen": "whether it is the network saved as the model, or the first member of an ensemble",
    "optimism": "by how much audit is worse than validation, in the metric's unit",
    "optimism_low": "lower end of its 95 % interval; for the model",
    "optimism_high": "upper end of that interval",
    "corrected": "validation, corrected for choosing the best of the first twenty; for the model",
    "low": "lower end of the 95 % bootstrap interval of validation; for the top candidates",
    "high": "upper end of that interval",
    "tie": "group that a paired bootstrap cannot tell from its best candidate; 1 holds rank 1",
    "paired_rank": "place by tie group, in a group by fewer parameters; for the top candidates",
    "wilcoxon": "p-value of the signed-rank test that its rows' losses are those of the first",
    "simplest": "whether it has the fewest parameters of its tie group",
    "why": "why it stands where it stands, as a sentence",
    "reward": "what the search maximises: the sum of the next two columns",
    "reward_error": "minus the validation error in units of the constant baseline's",
    "reward_complexity": "minus the weight of the complexity times the next column",
    "complexity": "log10(1 + parameters) / 6, or what --complexity and --complexity-target say",
    "parameters": "number of trained parameters, zeros too, as they are stored and computed with",
    "multiply_adds": "multiplications with addition for the prediction of one row",
    "seconds": "of training, a fused group's shared equally among its members, and of scoring",
    "latency_ms": "measured time to predict 1,000 rows with the network alone, in milliseconds",
    "size_bytes": "bytes of its model file, at most",
    "layers": "hidden weight matrices of the network",
    "capacity": "log10 of a bound on its Rademacher complexity, by the norms of its weights",
    "sparsity": "share of exact zeros in its weight matrices",
    "nonzero": "number of its parameters that are not exactly zero",
    "step": "optimizer step of the weights that were kept",
    "steps": "optimizer steps taken",
    "group": "number of the group it was trained in",
    "engine": "what trained it: native, stacked or separate",
    "architecture": "its architecture, or the name of the baseline",
    "optimizer": "its optimizer",
    "schedule": "its learning-rate schedule",
    "seed": "seed of its initialisation and dropout; every other hyperparameter follows by name",
    "controller": "who proposed it; `portfolio`: the prior",
    "parent": "identifier of the candidate it was derived from",
    "move": "how it was derived from it",
    "difference": "of a child before training: largest difference of an output to its parent's",
    "drop": "of a child before training: by how much its validation error is above its parent's",
    "gain": "of a child: by how much its validation error is below its parent's",
    "gain_error": "the standard error of that, paired by row",
    "accepted": "of a child: whether it stands; if not, it is never the model or a parent",
    "verdict": "why, as a sentence",
    "message": "the sentence again, with the problems its curve shows, what went wrong or remarks",
}

CURVE_COLUMNS: dict[str, str] = {
    "candidate": "identifier of the candidate",
    "step": "optimizer steps so far",
    "epoch": "passes over the training rows so far",
    "lr": "learning rate at this step",
    "train_loss": "mean training loss since the previous row",
    "validation": "metric on validation rows, in its natural sign and unit, uncalibrated",
    "grad_norm": "norm of the gradient before clipping",
    "update_ratio": "norm of the last step's change of the weights over the norm of the weights",
    "depth_ratio": "root mean square of the gradient of the first hidden weight matrix over that "
    "of the last",
    "dead_units": "share of hidden units that give the same for all of 256 training rows; at every "
    "32nd step at most",
    "curvature": "second derivative of the batch's loss along the last step; at every 32nd step "
    "at most",
    "diagnosis": "problems the curve shows up to this row, by name",
}

_KNOBS_AFTER = "seed"
_TOP = 20


def ranked(results: Sequence[Result]) -> list[Result]:
    """Return results by falling reward, equal ones by fewer parameters, unscored ones last."""
    return sorted(results, key=lambda r: (not is_scored(r), -_reward(r), r.parameters))


def standing(results: Sequence[Result]) -> list[Result]:
    """The networks among results that may be a model, the best first; see `Result.stands`."""
    return [r for r in ranked(results) if r.stands]


def is_scored(result: Result) -> bool:
    """Whether a result has a place: it was trained, or is a baseline, and has a finite reward.

    Children that were rolled back have none.
    """
    placed = result.status is not Status.INFEASIBLE and result.accepted is not False
    return placed and math.isfinite(result.reward)


def build(
    results: Sequence[Result],
    metric: Metric,
    *,
    predictions: Mapping[str, np.ndarray] | None = None,
    y: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    top: int = _TOP,
    seed: int = 0,
    model: str | None = None,
    audit: Mapping[str, Scored] | None = None,
) -> pd.DataFrame:
    """Return the leaderboard: one row per result, best first, the columns of `COLUMNS` and knobs.

    predictions: for some candidates, by id, what was predicted for the validation rows
    (probabilities [N, C] or numbers [N], as `metrics.score` takes them), with y [N] and weight [N].
    The best `top` of those get intervals and tie groups; without predictions these stay empty.
    `model` is the id of the one saved: its optimism has an interval where its predictions are among
    those and, of audit rows, in `audit`.
    """
    order = ranked(results)
    intervals: dict[str, Interval] = {}
    if predictions and y is not None:
        ids = [r.candidate.id for r in order if is_scored(r)]
        chosen = {i: predictions[i] for i in ids if i in predictions}
        chosen = dict(list(chosen.items())[:top])
        intervals = bootstrap(metric, y, chosen, weight, seed=seed)
    simplest = _simplest(order, intervals)
    compared = [r for r in order if r.candidate.id in intervals]
    compared.sort(key=lambda r: (intervals[r.candidate.id].tie, r.parameters))
    paired = {r.candidate.id: place for place, r in enumerate(compared, start=1)}
    first = next(iter(intervals), "")
    p_values: dict[str, float] = {}
    if predictions and y is not None and weight is None and first:
        p_values = {i: wilcoxon(metric, y, predictions[first], predictions[i]) for i in intervals}
    about = None
    if predictions and y is not None and model is not None and model in predictions:
        validation = Scored(y, predictions[model], weight)
        about = _of_model(order, metric, intervals, predictions, validation, (audit or {}), model)
    rows = []
    for place, result in enumerate(order, start=1):
        interval = intervals.get(result.candidate.id)
        row = _row(result, metric, place if is_scored(result) else None)
        row["why"] = _why(place, result, order[0], metric, interval, next(iter(intervals), None))
        if interval is not None:
            row |= {"low": interval.low, "high": interval.high, "tie": interval.tie}
            row["simplest"] = result.candidate.id in simplest
            row["paired_rank"] = paired[result.candidate.id]
            row["wilcoxon"] = p_values.get(result.candidate.id)
        row["chosen"] = result.candidate.id == model
        if about is not None and row["chosen"]:
            row |= about
        rows.append(row)
    return make_frame(rows, _column_order(order))


def curves(results: Sequence[Result], metric: Metric) -> pd.DataFrame:
    """Return every evaluation of every candidate in order: the columns of `CURVE_COLUMNS`."""
    rows = [
        {
            "candidate": r.candidate.id,
            **{name: getattr(e, name) for name in list(CURVE_COLUMNS)[1:-1]},
            "diagnosis": names(r.curve[:i], metric.greater_is_better) or None,
        }
        for r in results
        for i, e in enumerate(r.curve, start=1)
    ]
    return make_frame(rows, list(CURVE_COLUMNS))


def _reward(result: Result) -> float:
    return result.reward if math.isfinite(result.reward) else -math.inf


def _knobs(result: Result) -> dict[str, Any]:
    """Every hyperparameter by its column: its own name, unless a fixed column has that."""
    knobs = {**result.candidate.static, **result.candidate.numeric}
    return {f"knob_{k}" if k in COLUMNS else k: v for k, v in knobs.items()}


def _column_order(results: Sequence[Result]) -> list[str]:
    fixed = list(COLUMNS)
    cut = fixed.index(_KNOBS_AFTER) + 1
    return fixed[:cut] + sorted({k for r in results for k in _knobs(r)}) + fixed[cut:]


def _row(result: Result, metric: Metric, rank: int | None) -> dict[str, Any]:
    candidate = result.candidate
    scored = rank is not None
    return {
        "rank": rank,
        "id": candidate.id,
        "status": result.status.name,
        "status_text": result.status.value,
        "metric": metric.name,
        **{part: result.metrics.get(part) for part in ("train", "validation", "audit")},
        "optimism": optimism(metric, result.metrics),
        "reward": result.reward if math.isfinite(result.reward) else None,
        "reward_error": -result.error if scored else None,
        "reward_complexity": result.reward + result.error if scored else None,
        "complexity": result.complexity if math.isfinite(result.complexity) else None,
        "parameters": result.parameters,
        "multiply_adds": result.multiply_adds,
        "seconds": result.seconds,
        "latency_ms": result.latency_ms,
        "size_bytes": result.size_bytes or None,
        "layers": result.layers if result.status is not Status.BASELINE else None,
        "capacity": result.capacity if math.isfinite(result.capacity) else None,
        "sparsity": result.sparsity if math.isfinite(result.sparsity) else None,
        "nonzero": result.nonzero or None,
        "step": result.step,
        "steps": result.steps,
        "group": result.group if result.group >= 0 else None,
        "engine": result.engine or None,
        "architecture": candidate.architecture,
        "optimizer": candidate.optimizer if result.status is not Status.BASELINE else None,
        "schedule": candidate.schedule if result.status is not Status.BASELINE else None,
        "seed": candidate.seed,
        **_knobs(result),
        "controller": result.controller or None,
        "parent": candidate.parent,
        "move": candidate.move,
        **{n: getattr(result, n) for n in ("difference", "drop", "gain", "gain_error", "accepted")},
        "verdict": result.verdict or None,
        "message": result.message or None,
    }


def _of_model(
    order: Sequence[Result],
    metric: Metric,
    intervals: Mapping[str, Interval],
    predictions: Mapping[str, np.ndarray],
    validation: Scored,
    audit: Mapping[str, Scored],
    model: str,
) -> dict[str, Any]:
    """The interval of the model's optimism, and its validation metric corrected for the choice."""
    out: dict[str, Any] = {}
    if model in audit:
        low, high = optimism_interval(metric, validation, audit[model])
        out |= {"optimism_low": low, "optimism_high": high}
    # What the reward adds to the error, in the metric's unit.
    able = [r for r in order if r.status.usable and r.candidate.id in intervals]
    handicaps = {}
    for r in able:
        unit = to_error(metric, r.metrics["validation"]) / r.error if r.error else 0.0
        handicaps[r.candidate.id] = -(r.reward + r.error) * abs(unit)
    known = {r.candidate.id: predictions[r.candidate.id] for r in able}
    if model in known:
        out["corrected"] = corrected(metric, validation.y, known, handicaps, validation.weight)
    return out


def _simplest(order: Sequence[Result], intervals: Mapping[str, Interval]) -> set[str]:
    best: dict[int, Result] = {}
    for result in order:
        interval = intervals.get(result.candidate.id)
        if interval is not None:
            held = best.get(interval.tie)
            if held is None or result.parameters < held.parameters:
                best[interval.tie] = result
    return {r.candidate.id for r in best.values()}


def _why(
    place: int,
    result: Result,
    best: Result,
    metric: Metric,
    interval: Interval | None,
    first: str | None,
) -> str:
    if result.status is Status.INFEASIBLE:
        return f"not trained: {result.message}"
    if result.accepted is False:
        return result.verdict
    if not is_scored(result):
        return f"no score: {result.status.value}"
    if place == 1:
        return "the best reward"
    if interval is None or first != best.candidate.id:
        return f"reward lower than the best by {best.reward - result.reward:.3g}"
    span = f"{metric.name} {interval.worse_low:.3g} to {interval.worse_high:.3g}"
    if interval.tie == 1:
        return f"cannot be told from the best on the validation rows: worse by {span}"
    return f"worse than the best by {span}"
