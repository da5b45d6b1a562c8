"""Temperature scaling of class probabilities (Guo et al. 2017), fitted on held-out rows.

One number per model: probabilities are softmax(logits / temperature). It never changes which class
is likeliest. Several labels share it: it mends the overconfidence of one network, which they have
in common, and rare labels have too few rows to fit one each. A temperature fitted and scored on the
same rows flatters itself, so scores use `cross_fitted`: each row's temperature comes from the other
rows.
"""

from __future__ import annotations

import math

import numpy as np

LOG_RANGE = (-3.0, 3.0)  # of log temperature
_TOLERANCE = 1e-7  # of log temperature
# The same where a loss is followed while a network trains: at its minimum it is good to the square.
_FOLLOWING = 1e-4
_EPS = float(np.finfo(np.float64).eps)
_STEPS = 100


def fit_temperature(
    logits: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None, start: float = 1.0
) -> float:
    """The temperature in [e^-3, e^3] with the smallest log loss.

    `logits` [N, C], or [N, 1] for a binary task (the logit of class 1); `y` [N] class codes;
    `weight` [N]. With several labels `logits` and `y` are [N, T] and the loss is the mean of
    theirs. The loss is convex in 1/T, so Newton steps inside a shrinking bracket find its
    only minimum; deterministic. Where the loss does not depend on T (no row, equal or non-finite
    logits) the answer is 1.
    """
    margin, weight = _flat(logits, y, weight)
    return _fit(margin, weight, start)


def followed_loss(
    logits: np.ndarray, y: np.ndarray, weight: np.ndarray | None, start: float
) -> tuple[float, float]:
    """The log loss at the temperature fitted from `start` on, and that temperature.

    Arguments as of `fit_temperature`; the loss is the metric of that name, clipped as that is. NaN
    without a row or weight.
    """
    margin, weight = _flat(logits, y, weight)
    t = _fit(margin, weight, start, _FOLLOWING)
    if margin.shape[1] == 0 or (weight is not None and not np.any(weight)):
        return float("nan"), t
    if len(margin) == 1:
        scaled = margin[0] / t
        rows = np.maximum(scaled, 0.0) + np.log1p(np.exp(-np.abs(scaled)))
    else:
        top = margin.max(axis=0)
        scaled = margin - top
        scaled /= t
        rows = np.log(np.exp(scaled, out=scaled).sum(axis=0))
        rows += top / t
    rows = np.clip(rows, -np.log1p(-_EPS), -np.log(_EPS))
    return float(np.average(rows, weights=weight)), t


def _flat(
    logits: np.ndarray, y: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Margins and weights; several labels are so many rows after each other."""
    if np.ndim(y) == 2:
        weight = None if weight is None else np.repeat(weight, np.shape(y)[1])
        logits, y = np.reshape(logits, (-1, 1)), np.reshape(y, -1)
    return _margins(np.asarray(logits, np.float64), np.asarray(y).astype(np.int64)), weight


def _margins(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far the logit of every class is above the true one's: [C, N]; of two the other's [1, N].

    The loss of a row is log sum_c exp(margin_c / T), the true class's own margin being 0. Classes
    come first because numpy adds up rows of many numbers much faster than many rows of few.
    """
    if z.shape[1] == 1:
        return np.where(y == 1, -z[:, 0], z[:, 0])[None]
    margin = np.empty(z.shape[::-1])  # or numpy would lay it out as z is
    np.subtract(z.T, z[np.arange(len(z)), y], out=margin)
    return margin[1 - y, np.arange(len(z))][None] if len(margin) == 2 else margin


def _fit(
    margin: np.ndarray, weight: np.ndarray | None, start: float, tolerance: float = _TOLERANCE
) -> float:
    """`fit_temperature` from margins [C, N]; the last step is no longer than `tolerance`."""
    if margin.shape[1] == 0 or not np.isfinite(margin).all():
        return 1.0
    w = np.ones(margin.shape[1]) if weight is None else np.asarray(weight, dtype=np.float64)
    if w.sum() <= 0:
        return 1.0
    if not margin.any():
        return 1.0
    low, high = (-LOG_RANGE[1], -LOG_RANGE[0])  # bracket of log(1/T)
    ends = {low, high}  # that were not looked at
    top = margin.max(axis=0) if len(margin) > 1 else margin[0]
    below = margin - top if len(margin) > 1 else margin
    b = float(np.clip(-np.log(start), low, high))
    for i in range(_STEPS):
        slope, bend = _derivatives(below, top, w, b)
        ends.discard(b)
        if slope == 0 or (b == high and slope < 0) or (b == low and slope > 0):
            break
        low, high = (low, b) if slope > 0 else (b, high)
        step = -slope / bend if bend > 0 else -math.copysign(math.inf, slope)
        end = high if step > 0 else low
        if not low < b + step < high:  # the minimum may lie at the end of the range
            new = end if end in ends else (low + high) / 2
        elif i >= 8 and i % 2 == 1:  # Newton crawls where every row is right
            new = (low + high) / 2
        else:
            new = b + step
        if abs(new - b) < tolerance:
            return float(np.exp(-new))
        b = new
    return float(np.exp(-b))


def _derivatives(
    below: np.ndarray, top: np.ndarray, weight: np.ndarray, b: float
) -> tuple[float, float]:
    """First and (positive part of the) second derivative of the mean loss by b = log(1/T).

    Margins [C, N] are below + top [N], their largest; of two classes there is one, and top is not
    read.
    """
    scaled = below * np.exp(b)
    if len(scaled) == 1:
        mean = _sigmoid(scaled[0]) * scaled[0]
        variance = mean * (scaled[0] - mean)
    else:
        p = np.exp(scaled)
        total = p.sum(axis=0)
        p *= scaled
        shifted = p.sum(axis=0) / total
        p *= scaled
        variance = p.sum(axis=0) / total - shifted**2
        mean = shifted + top * np.exp(b)
    slope = float(weight @ mean / weight.sum())
    bend = float(weight @ variance / weight.sum())
    return slope, bend + max(slope, 0.0)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)), precise at both ends."""
    e = np.exp(-np.abs(z))
    return np.where(z > 0, 1.0, e) / (1.0 + e)


def cross_fitted(
    logits: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None, folds: int = 5
) -> np.ndarray:
    """A temperature per row [N], each fitted on the rows of the other folds only.

    Rows are assigned to folds by a hash of their position, so the same rows always meet the same
    folds. With fewer than two rows per fold there is nothing to fit on: 1 everywhere.
    """
    n = len(logits)
    out = np.ones(n)
    if n < 2 * folds:
        return out
    margin, weight = _flat(logits, y, weight)
    # The whole's temperature is only a starting point for Newton: the answer does not depend on it
    # beyond the tolerance of the search.
    start = _fit(margin, weight, 1.0)
    fold = fold_of(n, folds)
    labels = margin.shape[1] // n
    for k in range(folds):
        others = np.repeat(fold != k, labels)
        w = None if weight is None else np.asarray(weight)[others]
        out[fold == k] = _fit(margin.compress(others, axis=1), w, start)
    return out


def fold_of(n: int, folds: int) -> np.ndarray:
    """Fold of each row position [N]: Knuth's multiplicative hash, spread over `folds`."""
    hashed = (np.arange(n, dtype=np.uint64) * np.uint64(2654435761)) % np.uint64(2**32)
    return ((hashed * np.uint64(folds)) >> np.uint64(32)).astype(np.int64)


def probabilities(logits: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
    """softmax(logits / temperature): float64 [..., N, C], C = 2 for logits [..., N, 1].

    `temperature` is a number or one per row [N].
    """
    t = np.asarray(temperature, dtype=np.float64)
    z = np.asarray(logits, dtype=np.float64) / (t[..., None] if t.ndim else t)
    if z.shape[-1] == 1:
        return np.concatenate([_sigmoid(-z), _sigmoid(z)], axis=-1)
    z = np.moveaxis(z, -1, 0).copy()  # classes first, see `_margins`
    z -= z.max(axis=0)
    np.exp(z, out=z)
    z /= z.sum(axis=0)
    return np.ascontiguousarray(np.moveaxis(z, 0, -1))


def label_probabilities(logits: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
    """sigmoid(logits / temperature), label by label: float64 [N, T] for logits [N, T].

    `temperature` is a number or one per row [N].
    """
    t = np.asarray(temperature, dtype=np.float64)
    return probabilities(np.asarray(logits)[..., None], t[..., None] if t.ndim else t)[..., 1]


def two_sided(logits: np.ndarray) -> np.ndarray:
    """Logits as float64 with a column per class: one column z becomes (0, z)."""
    z = np.asarray(logits, dtype=np.float64)
    if z.shape[-1] != 1:
        return z
    return np.concatenate([np.zeros_like(z), z], axis=-1)
