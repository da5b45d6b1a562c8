"""scikit-learn's histogram gradient boosting: to be beaten, never saved."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.baselines.problem import (
    SCALING,
    Baseline,
    Features,
    Problem,
    at_exposure,
    sample,
)
from adanet_py.metrics import get_metric
from adanet_py.tasks import has_several_targets

if TYPE_CHECKING:
    from adanet_py.data.splits import Split

BOOSTING_CELLS = 8_000_000  # rows times columns; scikit-learn holds them as float64
BOOSTING_ITERATIONS = 100


def boosting_baseline(problem: Problem, split: Split, end: float) -> Baseline:
    """scikit-learn's histogram gradient boosting with its defaults, as many trees as time allows.

    A tree ensemble cannot be saved as a few plain arrays, so it stands in the leaderboard to be
    beaten and is never the saved model.
    """
    start = time.monotonic()
    audit = problem.take(split.audit)
    valid_parts, audit_parts, trees, leaves = [], [], [], []
    notes: list[str] = []
    parts = problem.each()
    to_fit = len(split.train) * len(parts)
    for train, valid in zip(split.train, split.valid, strict=True):
        models = []
        for part in parts:
            model, used = _boost(part, train, (end - time.monotonic()) / to_fit)
            to_fit -= 1
            models.append(model)
            trees.append(int(model.n_iter_))
            if used < len(train) and not notes:
                notes.append(f"fitted on {used:,} of {len(train):,} training rows")
        valid_parts.append(_boosted(problem, models, problem.take(valid)))
        audit_parts.append(_boosted(problem, models, audit))
        leaves.append(
            sum(t.get_n_leaf_nodes() for m in models for step in m._predictors for t in step)
        )
    if min(trees) < BOOSTING_ITERATIONS:
        notes.append(f"stopped by the time budget after {min(trees)} iterations")
    return Baseline(
        name="hist_gradient_boosting",
        predictions_valid=np.concatenate(valid_parts),
        predictions_audit=np.mean(audit_parts, axis=0),
        parameters=max(leaves),
        seconds=time.monotonic() - start,
        member=None,
        message="; ".join(notes),
    )


def _boost(problem: Problem, rows: np.ndarray, seconds: float) -> tuple[Any, int]:
    """A model of up to 100 iterations fitted within about `seconds`, and how many rows it saw."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    end = time.monotonic() + seconds
    codes = problem.features["category"]
    width = problem.features[SCALING].shape[1] + codes.shape[1]
    # Two guesses keep the first, unmeasured iterations affordable: 8 million cells for memory and,
    # for time, a million row-columns (times classes) per second.
    affordable = int(max(seconds, 0.1) * 2e6 / (max(width, 1) * problem.n_outputs**0.5))
    used = sample(problem, rows, max(500, min(BOOSTING_CELLS // max(width, 1), affordable)))
    sizes = np.diff(problem.offsets)
    kind: Any = HistGradientBoostingClassifier
    options: dict[str, Any] = {}
    if problem.task == "regression":
        kind = HistGradientBoostingRegressor
        level = get_metric(problem.metric).quantile
        options["loss"] = "squared_error" if level is None else "quantile"
        options["quantile"] = level
        if problem.log_link:
            options = {"loss": problem.loss}
    model = kind(
        max_iter=2,
        early_stopping=False,
        warm_start=True,
        random_state=problem.seed,
        categorical_features=np.r_[
            np.zeros(width - codes.shape[1], bool), sizes <= 255
        ],  # its bins hold no more categories than that; the rest are used as numbers
        **options,
    )
    y = problem.means(used) if problem.log_link else problem.y[used]
    x = _columns(problem.take(used))
    w = problem.weights(used)
    if problem.task != "regression" and len(np.unique(y)) < 2:
        # Boosting refuses a single class: give it one far-away row of another, without weight.
        y = np.r_[y, (y[0] + 1) % problem.n_outputs]
        x, w = np.r_[x, x[:1]], np.r_[np.ones(len(y) - 1) if w is None else w, 0.0]
    # Steps that double while they fit: a step costs at most as much per iteration as the one
    # before, which had the same fixed part (binning), up to deeper trees and a busier machine.
    step = model.max_iter
    while True:
        before = time.monotonic()
        model.fit(x, y, w)
        now = time.monotonic()
        rate = 1.3 * (now - before) / step
        step = min(2 * step, BOOSTING_ITERATIONS - model.max_iter, int((end - now) / rate))
        if step <= 0:
            break
        model.set_params(max_iter=model.max_iter + step)
    return model, len(used)


def _columns(features: Features) -> np.ndarray:
    return np.hstack([features[SCALING], features["category"].astype(np.float32)])


def _boosted(problem: Problem, models: list[Any], features: Features) -> np.ndarray:
    """Predictions of the model of each target."""
    parts = [_boosted_one(p, m, features) for p, m in zip(problem.each(), models, strict=True)]
    if not has_several_targets(problem.task):
        return parts[0]
    return np.stack([p if p.ndim == 1 else p[:, 1] for p in parts], axis=1)


def _boosted_one(problem: Problem, model: Any, features: Features) -> np.ndarray:
    n = len(features[SCALING])
    if problem.task == "regression":
        value = model.predict(_columns(features)) if n else np.zeros(0)
        if not problem.log_link:
            value = problem.target.mean + problem.target.scale * value
        return at_exposure(np.asarray(value), features)
    out = np.zeros((n, problem.n_outputs))
    if n:
        out[:, model.classes_] = model.predict_proba(_columns(features))
    return out
