"""scikit-learn's histogram gradient boosting, fitted within a time and kept as plain arrays."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.baselines.problem import Baseline, Problem, sample
from adanet_py.baselines.tree_models import columns_of, first_output, new_forest, tree_baseline
from adanet_py.baselines.trees import NEVER, Forest, add_boosting
from adanet_py.metrics import get_metric

if TYPE_CHECKING:
    from adanet_py.data.splits import Split

BOOSTING_CELLS = 8_000_000  # rows times columns; scikit-learn holds them as float64
BOOSTING_ITERATIONS = 100
STOPPED_ITERATIONS = 1_000
WAITING = 15  # iterations without improvement after which one is stopped
HELD_SHARE, FEWEST_HELD = 0.1, 30  # of the training rows, to stop by
REFITTED_ROWS = 4_000  # fewer are all fitted again, once it is known for how long


@dataclass(frozen=True)
class Boosting:
    """How trees are boosted: `options` of scikit-learn's.

    `stopped`: as many trees as are best on a tenth of the training rows, which they are then not
    fitted to; else always the same number. `seed` is added to the run's.
    """

    summary: str
    options: Mapping[str, Any] = field(default_factory=dict)
    stopped: bool = False
    seed: int = 0


def boosting_baseline(
    problem: Problem, split: Split, end: float, name: str, how: Boosting
) -> Baseline:
    """A boosting of every fold and target, as many trees as the time until `end` allows."""
    start = time.monotonic()
    parts = problem.each()
    to_fit, trees, notes = len(split.train) * len(parts), [], list[str]()
    forest = new_forest(problem, len(split.train), problem.log_link)
    for fold, train in enumerate(split.train):
        for t, part in enumerate(parts):
            seconds = (end - time.monotonic()) / to_fit
            model, used, whole = _boost(part, train, seconds, how)
            to_fit -= 1
            _take(forest, part, model, fold, first_output(problem, t))
            trees.append(int(model.n_iter_))
            if used < len(train) and not notes:
                notes.append(f"fitted on {used:,} of {len(train):,} training rows")
            if not whole:
                notes.append("time")
    if "time" in notes:
        notes = [n for n in notes if n != "time"]
        notes.append(f"stopped by the time budget after {min(trees)} iterations")
    return tree_baseline(name, forest, problem, split, start, "; ".join(notes))


def _take(forest: Forest, problem: Problem, model: Any, fold: int, first: int) -> None:
    """Put one model's trees where their outputs are."""
    if problem.task == "regression":
        add_boosting(forest, model, fold, [first])
        return
    classes = model.classes_.astype(np.int64)
    if problem.task == "binary":
        add_boosting(forest, model, fold, [first])
    elif len(classes) == 2:
        forest.base[fold] = NEVER
        forest.base[fold, classes[0]] = 0.0
        add_boosting(forest, model, fold, [int(classes[1])])
    else:
        forest.base[fold] = NEVER
        add_boosting(forest, model, fold, classes.tolist())


def _boost(
    problem: Problem, rows: np.ndarray, seconds: float, how: Boosting
) -> tuple[Any, int, bool]:
    """A model fitted within about `seconds`, how many rows it saw, whether it came to its end."""
    start = time.monotonic()
    end = start + seconds
    width = problem.width
    # Two guesses keep the first, unmeasured iterations affordable: 8 million cells for memory and,
    # for time, a million row-columns (times classes) per second.
    affordable = int(max(seconds, 0.1) * 2e6 / (max(width, 1) * problem.n_outputs**0.5))
    used = sample(problem, rows, max(500, min(BOOSTING_CELLS // max(width, 1), affordable)))
    y = problem.means(used) if problem.log_link else problem.y[used]
    x = columns_of(problem.take(used))
    w = problem.weights(used)
    if problem.task != "regression" and len(np.unique(y)) < 2:
        # Boosting refuses a single class: give it one far-away row of another, without weight.
        y = np.r_[y, (y[0] + 1) % problem.n_outputs]
        x, w = np.r_[x, x[:1]], np.r_[np.ones(len(y) - 1) if w is None else w, 0.0]
    held = _held(problem, y, how)
    model = _model(problem, how, stopped=held is not None)
    most = STOPPED_ITERATIONS if held is not None else BOOSTING_ITERATIONS
    given: dict[str, Any] = {"sample_weight": w}
    if held is not None:
        fit = np.setdiff1d(np.arange(len(y)), held)
        given = {
            "sample_weight": None if w is None else w[fit],
            "X_val": x[held],
            "y_val": y[held],
            "sample_weight_val": None if w is None else w[held],
        }
        whole = _grow(model, x[fit], y[fit], given, end, most)
        best = max(1, int(np.argmax(model.validation_score_)))
        left = end - time.monotonic()
        if len(y) < REFITTED_ROWS and left > 1.5 * (time.monotonic() - start):
            model = _model(problem, how, stopped=False).set_params(max_iter=best)
            model.fit(x, y, w)
        else:
            model._predictors = model._predictors[:best]
        return model, len(used), whole
    return model, len(used), _grow(model, x, y, given, end, most)


def _held(problem: Problem, y: np.ndarray, how: Boosting) -> np.ndarray | None:
    """Training rows to stop by; None where there are too few, or some class would lose its last."""
    size = int(HELD_SHARE * len(y))
    if not how.stopped or size < FEWEST_HELD:
        return None
    held = np.random.default_rng([problem.seed, 0x57]).permutation(len(y))[:size]
    if problem.task != "regression":
        _, first = np.unique(y, return_index=True)
        held = np.setdiff1d(held, first)
    return np.sort(held)


def _model(problem: Problem, how: Boosting, stopped: bool) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    sizes = np.diff(problem.offsets)
    kind: Any = HistGradientBoostingClassifier
    options: dict[str, Any] = dict(how.options)
    if problem.task == "regression":
        kind = HistGradientBoostingRegressor
        level = get_metric(problem.metric).quantile
        options["loss"] = "squared_error" if level is None else "quantile"
        options["quantile"] = level
        if problem.log_link:
            options |= {"loss": problem.loss, "quantile": None}
    return kind(
        max_iter=2,
        early_stopping=stopped,
        n_iter_no_change=WAITING,
        warm_start=True,
        random_state=problem.seed + how.seed,
        categorical_features=np.r_[
            np.zeros(problem.width - len(sizes), bool), sizes <= 255
        ],  # its bins hold no more categories than that; the rest are used as numbers
        **options,
    )


def _grow(
    model: Any, x: np.ndarray, y: np.ndarray, given: dict[str, Any], end: float, most: int
) -> bool:
    """Fit up to `most` iterations until `end`; whether that, or the stop, was reached.

    In steps that double while they fit: a step costs at most as much per iteration as the one
    before, which had the same fixed part (binning), up to deeper trees and a busier machine.
    """
    step = model.max_iter
    while True:
        before = time.monotonic()
        model.fit(x, y, **given)
        now = time.monotonic()
        if model.max_iter >= most or model.n_iter_ < model.max_iter:
            return True
        rate = 1.3 * (now - before) / step
        step = min(2 * step, most - model.max_iter, int(min(end - now, 1e6) / rate))
        if step <= 0:
            return False
        model.set_params(max_iter=model.max_iter + step)
