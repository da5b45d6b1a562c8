"""A constant and a linear model: plain arrays, which a model file can hold."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
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
from adanet_py.calibration import two_sided
from adanet_py.metrics import get_metric, weighted_quantile
from adanet_py.outputs import predictions
from adanet_py.tasks import has_several_targets, is_regression

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from adanet_py.data.splits import Split

LINEAR_ROWS = 20_000  # more rows than this are sampled: the linear model must be there in seconds
LABEL_ROWS = 2_000  # for each of many labels at least
LOGISTIC_STEPS = 100
_NEVER = -30.0  # logit of a class that no training row has
_HIGHEST = 20.0  # log of the largest mean in units of the average


@dataclass(frozen=True)
class Fitted:
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
        """Numbers that are not 0."""
        arrays = (self.numeric, self.category, self.intercept)
        return sum(int(np.count_nonzero(a)) for a in arrays)


def _beside(parts: list[Fitted]) -> Fitted:
    """One model of several targets from one of each."""

    def column(array: np.ndarray) -> np.ndarray:
        return array if array.shape[-1] == 1 else array[..., 1:] - array[..., :1]

    return Fitted(
        np.hstack([column(p.numeric) for p in parts]),
        np.hstack([column(p.category) for p in parts]),
        np.hstack([column(p.intercept) for p in parts]),
        sum(p.seconds for p in parts),
        "; ".join(dict.fromkeys(p.message for p in parts if p.message)),
        parts[0].log,
    )


def constant_model(problem: Problem, rows: np.ndarray) -> Fitted:
    """The shares of the classes, or the number that suits the metric: its quantile, or the mean."""
    if has_several_targets(problem.task):
        return _beside([constant_model(each, rows) for each in problem.each()])
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
    return Fitted(
        np.zeros((problem.features[SCALING].shape[1], problem.n_outputs)),
        np.zeros((int(problem.offsets[-1]), problem.n_outputs)),
        intercept,
        time.monotonic() - start,
    )


def linear_model(problem: Problem, rows: np.ndarray, limit: int | None = None) -> Fitted:
    """Ridge or multinomial logistic regression on scaled numbers and one-hot categories.

    A logistic regression for each of several labels; ridge takes several numbers at once. With a
    log link a regression of Poisson or Gamma, for each number.
    """
    from sklearn.linear_model import Ridge

    if problem.task == "multilabel" or (problem.task == "multioutput" and problem.log_link):
        each = max(LABEL_ROWS, LINEAR_ROWS // problem.n_outputs)
        return _beside([linear_model(part, rows, each) for part in problem.each()])
    start = time.monotonic()
    used, notes = sample(problem, rows, LINEAR_ROWS if limit is None else limit), []
    if len(used) < len(rows):
        notes.append(f"fitted on {len(used):,} of {len(rows):,} training rows")
    y, w = problem.y[used], problem.weights(used)
    x = _design(problem.take(used), problem.offsets)
    n_numeric = problem.features[SCALING].shape[1]
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
            return constant_model(problem, rows)
        found, converged = _logistic(x, np.searchsorted(seen, y), w, len(seen))
        if not converged:
            notes.append(f"stopped after {LOGISTIC_STEPS} iterations, not converged")
        coef = np.zeros((x.shape[1], problem.n_outputs))
        intercept = np.full(problem.n_outputs, _NEVER)
        coef[:, seen], intercept[seen] = found[:-1], found[-1]
    seconds = time.monotonic() - start
    words = "; ".join(notes)
    return Fitted(coef[:n_numeric], coef[n_numeric:], intercept, seconds, words, problem.log_link)


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


def _design(features: Features, offsets: np.ndarray) -> np.ndarray | csr_array:
    """Numbers and one-hot categories [N, D]; sparse where there are categories."""
    numeric = features[SCALING].astype(np.float64)
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


def from_members(name: str, fitted: list[Fitted], problem: Problem, split: Split) -> Baseline:
    """One baseline from its folds' linear models."""
    start = time.monotonic()
    members = [_member([f], problem) for f in fitted]
    valid = [
        predict_linear(m, problem.take(rows), problem.task)
        for m, rows in zip(members, split.valid, strict=True)
    ]
    whole = _member(fitted, problem)
    return Baseline(
        name=name,
        predictions_valid=np.concatenate(valid),
        predictions_audit=predict_linear(whole, problem.take(split.audit), problem.task),
        parameters=max(f.parameters for f in fitted),
        seconds=sum(f.seconds for f in fitted) + time.monotonic() - start,
        member=whole,
        message=fitted[0].message,
    )


def _member(fitted: list[Fitted], problem: Problem) -> dict[str, np.ndarray]:
    return {
        "numeric": np.stack([f.numeric for f in fitted]),
        "category": np.stack([f.category for f in fitted]),
        "intercept": np.stack([f.intercept for f in fitted]),
        "offsets": problem.offsets,
        "log": np.array([f.log for f in fitted]),
    }


def predict_linear(member: Mapping[str, np.ndarray], features: Features, task: str) -> np.ndarray:
    """As `predict_member`, of a linear model: probabilities [N, C], or numbers [N].

    With several targets [N, T], see outputs.py. `features` as in `run_baselines`, any rows. The
    folds' models (axis 0 of the member's arrays) are averaged. A category code the model never saw
    counts as missing (code 0).
    """
    numeric, codes = np.asarray(features[SCALING], np.float64), features["category"]
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
    return at_exposure(np.asarray(total / len(member["intercept"])), features)
