"""What a network has to beat: a constant, a linear model and histogram gradient boosting.

They run before any network, in this order, so that a valid model exists within seconds. They see
the same training rows and the same preprocessed features as the networks and are not tuned.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.calibration import two_sided
from adanet_py.metrics import get_metric, weighted_quantile
from adanet_py.outputs import in_own_unit, predictions
from adanet_py.tasks import has_several_targets, is_regression, part_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from adanet_py.data.splits import Split
    from adanet_py.data.target import Target
    from adanet_py.data.targets import AnyTarget

Features = Mapping[str, np.ndarray]

LINEAR_ROWS = 20_000  # more rows than this are sampled: the linear model must be there in seconds
LABEL_ROWS = 2_000  # for each of many labels at least
BOOSTING_CELLS = 8_000_000  # rows times columns; scikit-learn holds them as float64
BOOSTING_ITERATIONS = 100
LOGISTIC_STEPS = 100
_SCALING = "quantile"
_NEVER = -30.0  # logit of a class that no training row has
_DEVIANCES = ("poisson", "gamma")  # losses with a log link, by scikit-learn's names too
_LEAST = 1e-6  # of the mean: smallest amount
_HIGHEST = 20.0  # log of the largest mean in units of the average


@dataclass(frozen=True)
class Baseline:
    """One baseline and what it predicts.

    `predictions_valid` has the rows of all validation parts, one after the other, as in
    ``np.concatenate(split.valid)``; `predictions_audit` those of the audit part, averaged over
    folds. Both are probabilities [N, C], or numbers [N] in the target's own unit; with several
    targets [N, T] (see outputs.py), from a model of each. `member` is what
    `predict_member` needs, plain arrays that can be saved without pickle, or None. `parameters`
    counts one fold's model: non-zero coefficients, or leaves.
    """

    name: str
    predictions_valid: np.ndarray
    predictions_audit: np.ndarray
    parameters: int
    seconds: float
    member: dict[str, np.ndarray] | None
    message: str = ""


def run_baselines(
    features: Features,
    y: np.ndarray,
    weight: np.ndarray | None,
    split: Split,
    task: str,
    metric: str,
    target: AnyTarget,
    *,
    seconds: float,
    seed: int = 0,
    threads: int = 1,
    loss: str = "auto",
    exposure: np.ndarray | None = None,
) -> Iterator[Baseline]:
    """Yield "constant", "linear" and "hist_gradient_boosting", each as soon as it is there.

    `features`: "quantile" float [N, n_numeric] and "category" int [N, n_category]; `y` [N] class
    codes, or numbers standardised by `target`, with several targets [N, T]; `weight` [N] or None.
    With several folds there is one model per fold. `seconds` bounds the boosting: it ends with
    fewer trees or rows, and its message says so. Where `loss` is "poisson" or "gamma" linear and
    boosting minimise that deviance with a log link. With `exposure` [N] all are fitted to rates
    (the target per exposure) with weights times exposure, and predict rate times exposure.
    """
    end = time.monotonic() + seconds
    if exposure is not None:
        e = np.asarray(exposure, dtype=np.float64)
        rates = in_own_unit(y, target.mean, target.scale) / _beside_rows(e, y)
        y = (rates - target.mean) / target.scale
        weight = e if weight is None else np.asarray(weight) * e
        features = {**features, "exposure": exposure}
    n_outputs = y.shape[1] if has_several_targets(task) else max(1, len(target.classes))
    codes = features["category"]
    sizes = [int(codes[:, j].max(initial=0)) + 1 for j in range(codes.shape[1])]
    offsets = np.cumsum([0, *sizes])
    problem = _Problem(features, y, weight, task, metric, target, n_outputs, seed, offsets, loss)
    constants = [_constant(problem, rows) for rows in split.train]
    yield _from_members("constant", constants, problem, split)
    with _threads(threads):
        models = [_linear(problem, rows) for rows in split.train]
        baseline = _from_members("linear", models, problem, split)
    yield baseline
    with _threads(threads):
        baseline = _boosting(problem, split, end)
    yield baseline


@dataclass(frozen=True)
class _Problem:
    features: Features
    y: np.ndarray
    weight: np.ndarray | None
    task: str
    metric: str
    target: AnyTarget
    n_outputs: int
    seed: int
    offsets: np.ndarray  # first one-hot column of each category column, and their number
    loss: str = "auto"

    @property
    def log_link(self) -> bool:
        """Whether the mean is the exponential of what is linear in the features."""
        return self.loss in _DEVIANCES

    def means(self, rows: np.ndarray) -> np.ndarray:
        """Counts or amounts in their own unit; where rounding took them below 0, just above."""
        y = in_own_unit(self.y[rows], self.target.mean, self.target.scale)
        return np.maximum(y, _LEAST * y.mean() if self.loss == "gamma" else 0.0)

    def each(self) -> list[_Problem]:
        """A problem of its own for every target."""
        if not has_several_targets(self.task):
            return [self]
        task = part_of(self.task)
        columns: tuple[Target, ...] = self.target.columns  # type: ignore[union-attr]
        return [
            replace(self, y=self.y[:, t], task=task, target=one, n_outputs=max(1, len(one.classes)))
            for t, one in enumerate(columns)
        ]

    def take(self, rows: np.ndarray) -> Features:
        names = (_SCALING, "category", "exposure")
        return {n: np.asarray(self.features[n][rows]) for n in names if n in self.features}

    def weights(self, rows: np.ndarray) -> np.ndarray | None:
        return None if self.weight is None else np.asarray(self.weight[rows], dtype=np.float64)


@dataclass(frozen=True)
class _Fitted:
    """One fold's linear model: [n_numeric, C], [n_one_hot, C], [C]; C = 1 for regression.

    With several targets a column for each: of labels the logit of the second.
    """

    numeric: np.ndarray
    category: np.ndarray
    intercept: np.ndarray
    seconds: float
    message: str = ""
    log: bool = False  # of regression: this is the log of the mean

    @property
    def parameters(self) -> int:
        arrays = (self.numeric, self.category, self.intercept)
        return sum(int(np.count_nonzero(a)) for a in arrays)


# ---------------------------------------------------------------- constant and linear


def _beside(parts: list[_Fitted]) -> _Fitted:
    """One model of several targets from one of each."""

    def column(array: np.ndarray) -> np.ndarray:
        return array if array.shape[-1] == 1 else array[..., 1:] - array[..., :1]

    return _Fitted(
        np.hstack([column(p.numeric) for p in parts]),
        np.hstack([column(p.category) for p in parts]),
        np.hstack([column(p.intercept) for p in parts]),
        sum(p.seconds for p in parts),
        "; ".join(dict.fromkeys(p.message for p in parts if p.message)),
        parts[0].log,
    )


def _constant(problem: _Problem, rows: np.ndarray) -> _Fitted:
    if has_several_targets(problem.task):
        return _beside([_constant(each, rows) for each in problem.each()])
    start = time.monotonic()
    y, w = problem.y[rows], problem.weights(rows)
    if problem.task == "regression":
        level = get_metric(problem.metric).quantile
        if level is None:
            value = float(np.average(y, weights=w))
        else:
            value = weighted_quantile(y, level, w)
        intercept = np.array([problem.target.mean + problem.target.scale * value])
    else:
        counts = np.bincount(y, weights=w, minlength=problem.n_outputs)
        intercept = np.log(np.maximum(counts / counts.sum(), np.exp(_NEVER)))
    return _Fitted(
        np.zeros((problem.features[_SCALING].shape[1], problem.n_outputs)),
        np.zeros((int(problem.offsets[-1]), problem.n_outputs)),
        intercept,
        time.monotonic() - start,
    )


def _linear(problem: _Problem, rows: np.ndarray, limit: int | None = None) -> _Fitted:
    """Ridge or multinomial logistic regression on scaled numbers and one-hot categories.

    A logistic regression for each of several labels; ridge takes several numbers at once. With a
    log link a regression of Poisson or Gamma, for each number.
    """
    from sklearn.linear_model import Ridge

    if problem.task == "multilabel" or (problem.task == "multioutput" and problem.log_link):
        each = max(LABEL_ROWS, LINEAR_ROWS // problem.n_outputs)
        return _beside([_linear(part, rows, each) for part in problem.each()])
    start = time.monotonic()
    used, notes = _sample(problem, rows, LINEAR_ROWS if limit is None else limit), []
    if len(used) < len(rows):
        notes.append(f"fitted on {len(used):,} of {len(rows):,} training rows")
    y, w = problem.y[used], problem.weights(used)
    x = _design(problem.take(used), problem.offsets)
    n_numeric = problem.features[_SCALING].shape[1]
    if problem.log_link:
        found, converged = _log_linear(x, problem.means(used), w, problem.loss)
        if not converged:
            notes.append(f"stopped after {LOGISTIC_STEPS} iterations, not converged")
        coef, intercept = found[:-1], found[-1]
    elif is_regression(problem.task):
        ridge = Ridge(alpha=1.0, tol=1e-4).fit(x, y, w)
        scale, mean = problem.target.scale, problem.target.mean
        coef = np.atleast_2d(ridge.coef_).T * scale
        intercept = np.array([mean + scale * ridge.intercept_]).ravel()
    else:
        seen = np.unique(y)
        if len(seen) < 2:  # nothing to separate in this fold
            return _constant(problem, rows)
        found, converged = _logistic(x, np.searchsorted(seen, y), w, len(seen))
        if not converged:
            notes.append(f"stopped after {LOGISTIC_STEPS} iterations, not converged")
        coef = np.zeros((x.shape[1], problem.n_outputs))
        intercept = np.full(problem.n_outputs, _NEVER)
        coef[:, seen], intercept[seen] = found[:-1], found[-1]
    seconds = time.monotonic() - start
    words = "; ".join(notes)
    return _Fitted(coef[:n_numeric], coef[n_numeric:], intercept, seconds, words, problem.log_link)


def _log_linear(
    x: np.ndarray | csr_array, y: np.ndarray, weight: np.ndarray | None, loss: str
) -> tuple[np.ndarray, bool]:
    """Coefficients [D + 1, 1] of log means, intercept last, and whether L-BFGS converged.

    The minimum of the summed half deviance of "poisson" or "gamma" plus half the squared
    coefficients, as scikit-learn's PoissonRegressor and GammaRegressor with alpha = 1 / N, in units
    of the mean. `y` [N] are counts or amounts.
    """
    from scipy.optimize import minimize

    w = np.ones(len(y)) if weight is None else weight
    mean, total = float(np.average(y, weights=w)), float(w.sum())
    u = y / mean

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        z = np.clip(x @ flat[:-1] + flat[-1], -_HIGHEST, _HIGHEST)
        if loss == "poisson":
            value, slope = np.exp(z) - u * z, np.exp(z) - u
        else:
            value, slope = z + u * np.exp(-z), 1.0 - u * np.exp(-z)
        slope *= w
        gradient = np.append(x.T @ slope + flat[:-1], slope.sum())
        return float(w @ value + 0.5 * flat[:-1] @ flat[:-1]) / total, gradient / total

    found = minimize(
        objective,
        np.zeros(x.shape[1] + 1),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": LOGISTIC_STEPS, "gtol": 1e-5, "ftol": 64 * np.finfo(float).eps},
    )
    coef = found.x.reshape(-1, 1)
    coef[-1] += np.log(mean)
    return coef, bool(found.nit < LOGISTIC_STEPS)


def _logistic(
    x: np.ndarray | csr_array, y: np.ndarray, weight: np.ndarray | None, n_classes: int
) -> tuple[np.ndarray, bool]:
    """Coefficients [D + 1, C], intercept last, and whether L-BFGS converged.

    The minimum of the summed log loss plus half the squared coefficients, as scikit-learn's
    LogisticRegression with C = 1; two classes share one column. It is not called itself because it
    tells about convergence by a warning, and warnings cannot be caught in a thread.
    """
    from scipy.optimize import minimize

    n, width = x.shape
    w = np.ones(n) if weight is None else weight
    total = float(w.sum())
    columns = 1 if n_classes == 2 else n_classes

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        coef = flat.reshape(width + 1, columns)
        z = two_sided(x @ coef[:-1] + coef[-1])
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z)
        norm = p.sum(axis=1, keepdims=True)
        value = w @ (np.log(norm[:, 0]) - z[np.arange(n), y]) + 0.5 * np.sum(coef[:-1] ** 2)
        p /= norm
        p[np.arange(n), y] -= 1
        p *= w[:, None]
        slope = p[:, -columns:]
        gradient = np.vstack([x.T @ slope + coef[:-1], slope.sum(axis=0)])
        return float(value) / total, gradient.ravel() / total

    found = minimize(
        loss,
        np.zeros((width + 1) * columns),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": LOGISTIC_STEPS, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps},
    )
    coef = found.x.reshape(width + 1, columns)
    if columns == 1:
        coef = np.hstack([np.zeros_like(coef), coef])
    return coef, bool(found.nit < LOGISTIC_STEPS)


def _sample(problem: _Problem, rows: np.ndarray, limit: int) -> np.ndarray:
    """At most about `limit` of `rows`, sorted, with a row of every class that has one."""
    if len(rows) <= limit:
        return rows
    rng = np.random.default_rng(problem.seed)
    used = rng.choice(rows, limit, replace=False)
    if not is_regression(problem.task):
        _, first = np.unique(problem.y[rows], return_index=True)
        used = np.union1d(used, rows[first])
    return np.sort(used)


def _design(features: Features, offsets: np.ndarray) -> np.ndarray | csr_array:
    """Numbers and one-hot categories [N, D]; sparse where there are categories."""
    numeric = features[_SCALING].astype(np.float64)
    codes = features["category"]
    if codes.shape[1] == 0:
        return numeric
    from scipy.sparse import csr_array, hstack

    columns = codes + offsets[:-1]
    n, width = columns.shape
    one_hot = csr_array(
        (np.ones(n * width), columns.ravel().astype(np.int32), np.arange(0, n * width + 1, width)),
        shape=(n, int(offsets[-1])),
    )
    return hstack([csr_array(numeric), one_hot], format="csr")


def _from_members(name: str, fitted: list[_Fitted], problem: _Problem, split: Split) -> Baseline:
    """One baseline from its folds' linear models."""
    start = time.monotonic()
    members = [_member([f], problem) for f in fitted]
    valid = [
        predict_member(m, problem.take(rows), problem.task)
        for m, rows in zip(members, split.valid, strict=True)
    ]
    whole = _member(fitted, problem)
    return Baseline(
        name=name,
        predictions_valid=np.concatenate(valid),
        predictions_audit=predict_member(whole, problem.take(split.audit), problem.task),
        parameters=max(f.parameters for f in fitted),
        seconds=sum(f.seconds for f in fitted) + time.monotonic() - start,
        member=whole,
        message=fitted[0].message,
    )


def _member(fitted: list[_Fitted], problem: _Problem) -> dict[str, np.ndarray]:
    return {
        "numeric": np.stack([f.numeric for f in fitted]),
        "category": np.stack([f.category for f in fitted]),
        "intercept": np.stack([f.intercept for f in fitted]),
        "offsets": problem.offsets,
        "log": np.array([f.log for f in fitted]),
    }


def predict_member(member: Mapping[str, np.ndarray], features: Features, task: str) -> np.ndarray:
    """Predict with the `member` of a Baseline: probabilities [N, C], or numbers [N].

    With several targets [N, T], see outputs.py. `features` as in `run_baselines`, any rows. The
    folds' models (axis 0 of the member's arrays) are averaged. A category code the model never saw
    counts as missing (code 0).
    """
    numeric, codes = np.asarray(features[_SCALING], np.float64), features["category"]
    offsets = member["offsets"]
    known = codes < np.diff(offsets)
    columns = np.where(known, codes, 0) + offsets[:-1]
    total: Any = 0.0
    for k in range(len(member["intercept"])):
        z = numeric @ member["numeric"][k] + member["intercept"][k]
        for j in range(columns.shape[1]):
            z += member["category"][k][columns[:, j]]
        if "log" in member and member["log"][k]:
            z = np.exp(np.minimum(z, member["intercept"][k] + _HIGHEST))
        total = total + predictions(task, z)
    return _at_exposure(np.asarray(total / len(member["intercept"])), features)


def _beside_rows(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Values of rows [N] beside an array [N] or [N, T]."""
    return values if like.ndim == 1 else values[:, None]


def _at_exposure(rates: np.ndarray, features: Features) -> np.ndarray:
    """Rates [N] or [N, T] times the exposure of their rows, where they have one."""
    if "exposure" not in features:
        return rates
    return rates * _beside_rows(features["exposure"].astype(np.float64), rates)


# ---------------------------------------------------------------- gradient boosting


def _boosting(problem: _Problem, split: Split, end: float) -> Baseline:
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


def _boost(problem: _Problem, rows: np.ndarray, seconds: float) -> tuple[Any, int]:
    """A model of up to 100 iterations fitted within about `seconds`, and how many rows it saw."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    end = time.monotonic() + seconds
    codes = problem.features["category"]
    width = problem.features[_SCALING].shape[1] + codes.shape[1]
    # Two guesses keep the first, unmeasured iterations affordable: 8 million cells for memory and,
    # for time, a million row-columns (times classes) per second.
    affordable = int(max(seconds, 0.1) * 2e6 / (max(width, 1) * problem.n_outputs**0.5))
    used = _sample(problem, rows, max(500, min(BOOSTING_CELLS // max(width, 1), affordable)))
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
    return np.hstack([features[_SCALING], features["category"].astype(np.float32)])


def _boosted(problem: _Problem, models: list[Any], features: Features) -> np.ndarray:
    """Predictions of the model of each target."""
    parts = [_boosted_one(p, m, features) for p, m in zip(problem.each(), models, strict=True)]
    if not has_several_targets(problem.task):
        return parts[0]
    return np.stack([p if p.ndim == 1 else p[:, 1] for p in parts], axis=1)


def _boosted_one(problem: _Problem, model: Any, features: Features) -> np.ndarray:
    n = len(features[_SCALING])
    if problem.task == "regression":
        value = model.predict(_columns(features)) if n else np.zeros(0)
        if not problem.log_link:
            value = problem.target.mean + problem.target.scale * value
        return _at_exposure(np.asarray(value), features)
    out = np.zeros((n, problem.n_outputs))
    if n:
        out[:, model.classes_] = model.predict_proba(_columns(features))
    return out


@contextmanager
def _threads(limit: int) -> Iterator[None]:
    """Hold BLAS and OpenMP to `limit` threads: the workers need the other cores."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=limit):
        yield
