"""A Gaussian process over the features of points, and its hyperparameters.

The covariance of the rewards of two points, in units of the deviation of the rewards, is

    k(x, x') = CONSTANT + s_1 m(r_1) + s_2 m(r_2),   m(r) = (1 + sqrt5 r + 5/3 r^2) exp(-sqrt5 r)

(Matern 5/2; Rasmussen and Williams 2006, equation 4.17) plus noise on the diagonal. r_1^2 = sum_f
w_f d_f^2 over the factors (features.py) with a weight, the inverse square of a length scale, of its
own each; r_2 is the same over the counts. The constant stands for an unknown mean.

Hyperparameters maximise the marginal likelihood (equation 5.8) times their priors, which are
log-normal; a weight's grows smaller with the number of factors, so that the process is as smooth in
forty dimensions as in four (Hvarfner et al. 2024, arXiv 2402.02229).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adanet_py.controllers.columns import Floats
from adanet_py.controllers.features import Features
from adanet_py.controllers.points import Places

CONSTANT = 1.0  # variance of the mean
JITTER = 1e-6  # least variance of the noise
_ROOT5 = 5.0**0.5
_LEAST = 1e-12  # variance of a point
_WEIGHT = 1.0  # logarithm of the sum of the weights of all factors, by the prior
_STEPS = 40  # of the search for hyperparameters
_BOUND = 12.0  # of the logarithms of hyperparameters


@dataclass(frozen=True)
class Kernel:
    """Hyperparameters: `weights` of features [F], `scales` of the two parts, `noise` variance."""

    weights: Floats
    scales: tuple[float, float]
    noise: float
    first_count: int  # number of the first feature that counts

    def between(self, a: Floats, b: Floats) -> Floats:
        """Covariances [n, m] of the features [n, F] and [m, F], without noise."""
        out = np.full((len(a), len(b)), CONSTANT)
        for part, scale in zip(self._parts(), self.scales, strict=True):
            if scale:
                root = np.sqrt(self.weights[part])
                out += scale * _matern(_squared(a[:, part] * root, b[:, part] * root))
        return out

    @property
    def variance(self) -> float:
        """The prior variance of any point."""
        return CONSTANT + sum(self.scales)

    def _parts(self) -> tuple[slice, slice]:
        return slice(0, self.first_count), slice(self.first_count, None)


def _squared(a: Floats, b: Floats) -> Floats:
    """Squared distances [n, m] of rows."""
    out = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2.0 * (a @ b.T)
    return np.maximum(out, 0.0)


def _matern(squared: Floats) -> Floats:
    r = _ROOT5 * np.sqrt(squared)
    out: Floats = (1.0 + r + r * r / 3.0) * np.exp(-r)
    return out


class Posterior:
    """What is known of the mean reward of every point, given features [n, F] and rewards [n]."""

    def __init__(self, kernel: Kernel, features: Floats, rewards: Floats) -> None:
        from scipy.linalg import cho_solve

        self.kernel, self._features, self._rewards = kernel, features, rewards
        covariance = kernel.between(features, features)
        covariance[np.diag_indices(len(features))] += kernel.noise
        self._root = np.linalg.cholesky(covariance)
        self._solved = cho_solve((self._root, True), rewards)

    def at(self, features: Floats) -> Beliefs:
        """Beliefs about the points with these features [m, F]."""
        from scipy.linalg import solve_triangular

        cross = self.kernel.between(self._features, features)
        half = solve_triangular(self._root, cross, lower=True, check_finite=False)
        variance = self.kernel.variance - (half * half).sum(axis=0)
        return Beliefs(self.kernel, features, cross.T @ self._solved, variance, half)

    def assume(self, features: Floats) -> Posterior:
        """The same means, with the variances after measuring points with these features [m, F]."""
        if not len(features):
            return self
        means = self.kernel.between(features, self._features) @ self._solved
        both = np.vstack([self._features, features])
        return Posterior(self.kernel, both, np.append(self._rewards, means))


class Beliefs:
    """Means and variances [m] of points."""

    def __init__(
        self, kernel: Kernel, features: Floats, mean: Floats, variance: Floats, half: Floats
    ) -> None:
        self._kernel, self._features, self._half = kernel, features, half
        self.mean, self.variance = mean, np.maximum(variance, _LEAST)

    def __add__(self, other: Beliefs) -> Beliefs:
        """Beliefs of the same posterior about the points of both."""
        return Beliefs(
            self._kernel,
            np.vstack([self._features, other._features]),
            np.append(self.mean, other.mean),
            np.append(self.variance, other.variance),
            np.hstack([self._half, other._half]),
        )

    def assume(self, place: int) -> None:
        """As `Posterior.assume`, of the point at `place`, in place."""
        cross = self._kernel.between(self._features[place : place + 1], self._features)
        cross -= self._half[:, place] @ self._half
        row = cross / np.sqrt(cross[0, place] + self._kernel.noise)
        self._half = np.vstack([self._half, row])
        self.variance = np.maximum(self.variance - row[0] * row[0], _LEAST)


def fit(features: Features, x: Floats, y: Floats) -> Kernel:
    """The most probable kernel of points with features `x` [n, F] and rewards `y` [n], which have
    mean 0 and variance 1; the most probable by the prior alone where there are none.

    One search, from the mode of the prior, which is narrow enough for the likelihood to have no
    other mode of weight in a few hundred results.
    """
    from scipy.optimize import minimize

    factor = features.factor
    factors, counts = features.first_count, len(set(factor[factor >= features.first_count]))
    middle, width = _priors(factors, counts)
    found = middle
    if len(x):
        known, bounds = (x, y, factor, factors, middle, width), [(-_BOUND, _BOUND)] * len(middle)
        options = {"maxiter": _STEPS}
        done = minimize(_loss, middle, known, "L-BFGS-B", jac=True, bounds=bounds, options=options)
        found = done.x
    # Few digits, so that the order of a sum on another machine changes nothing that follows.
    return _kernel(np.round(found, 3), factor, factors)


def _priors(factors: int, counts: int) -> tuple[Floats, Floats]:
    """Means and deviations of the logarithms: weights, two scales, noise."""
    weight = _WEIGHT - np.log(max(factors, 1))
    middle = [weight] * factors + [0.0] * counts + [0.0, 0.0 if counts else -_BOUND, -3.0]
    width = [1.5] * factors + [1.5] * counts + [1.0, 1.0, 1.5]
    return np.array(middle), np.array(width)


def _kernel(theta: Floats, factor: Places, factors: int) -> Kernel:
    of_factors = np.exp(theta[:-3])
    scale, scale_of_counts, noise = (float(v) for v in np.exp(theta[-3:]))
    first = int(np.searchsorted(factor, factors))
    if first == len(factor):
        scale_of_counts = 0.0
    return Kernel(of_factors[factor], (scale, scale_of_counts), noise + JITTER, first)


def _loss(
    theta: Floats, x: Floats, y: Floats, factor: Places, factors: int, middle: Floats, width: Floats
) -> tuple[float, Floats]:
    """Minus the logarithm of likelihood times prior, and its gradient."""
    from scipy.linalg import cho_solve, lapack

    kernel = _kernel(theta, factor, factors)
    n = len(x)
    covariance = np.full((n, n), CONSTANT)
    parts = []
    for part, scale in zip(kernel._parts(), kernel.scales, strict=True):
        if scale:
            squared = _squared(*(x[:, part] * np.sqrt(kernel.weights[part]),) * 2)
            r = _ROOT5 * np.sqrt(squared)
            e = np.exp(-r)
            value = scale * (1.0 + r + r * r / 3.0) * e
            parts.append((part, value, -scale * (5.0 / 6.0) * (1.0 + r) * e))
            covariance += value
    covariance[np.diag_indices(n)] += kernel.noise
    root, info = lapack.dpotrf(covariance, lower=1, clean=1)
    gap = (theta - middle) / width
    if info:
        return 1e10, np.zeros(len(theta))
    solved = cho_solve((root, True), y, check_finite=False)
    loss = 0.5 * (y @ solved) + np.log(np.diag(root)).sum() + 0.5 * (gap @ gap)
    inverse, _ = lapack.dpotri(root, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    inner = 0.5 * (inverse - np.outer(solved, solved))  # d loss / d covariance
    gradient = gap / width
    per_feature = np.zeros(len(factor))
    for index, (part, value, slope) in enumerate(parts):
        gradient[-3 + index] += (inner * value).sum()
        push = inner * slope
        f = x[:, part]
        per_feature[part] = 2.0 * (push.sum(axis=1) @ (f * f)) - 2.0 * (f * (push @ f)).sum(axis=0)
    weights = len(theta) - 3
    gradient[:weights] += np.exp(theta[:weights]) * np.bincount(
        factor, per_feature, minlength=weights
    )
    gradient[-1] += (kernel.noise - JITTER) * np.trace(inner)
    return float(loss), gradient
