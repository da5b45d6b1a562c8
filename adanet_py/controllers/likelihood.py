"""Hyperparameters of the Gaussian process (process.py): the most probable ones.

They maximise the marginal likelihood (Rasmussen and Williams 2006, equation 5.8) times their
priors, which are log-normal; a weight's grows smaller with the number of factors, so that the
process is as smooth in forty dimensions as in four (Hvarfner et al. 2024, arXiv 2402.02229).

The search is BFGS (Nocedal and Wright 2006, algorithm 6.1) in units of the deviations of the
priors, which make the problem round, with steps that are cut to two fifths until the loss falls
(Armijo). It ends where it expects to gain less than `_ENOUGH`: a change of the logarithm of the
probability that no data could tell.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adanet_py.controllers.columns import Floats
from adanet_py.controllers.features import Features
from adanet_py.controllers.points import Places
from adanet_py.controllers.process import CONSTANT, Kernel, squared_distances

JITTER = 1e-6  # least variance of the noise
_WEIGHT = 1.0  # logarithm of the sum of the weights of all factors, by the prior
_STEPS = 20  # of the search for hyperparameters
_ENOUGH = 0.02  # of the logarithm of the probability
_BOUND = 12.0  # of the logarithms of hyperparameters
_LONGEST = 2.0  # step of one of them, in deviations of its prior

Loss = Callable[[Floats], tuple[float, Floats]]


def fit(features: Features, x: Floats, y: Floats, start: Floats | None = None) -> Floats:
    """The logarithms [P] of the most probable hyperparameters of points with features `x` [n, F]
    and rewards `y` [n], which have mean 0 and variance 1; by the prior alone where there are none.

    One search, from `start` or else the mode of the prior, which is narrow enough for the
    likelihood to have no other mode of weight in a few hundred results.
    """
    factor = features.factor
    factors, counts = features.first_count, len(set(factor[factor >= features.first_count]))
    middle, width = _priors(factors, counts)
    found = middle if start is None else start
    if len(x):

        def loss(gap: Floats) -> tuple[float, Floats]:
            value, gradient = _loss(middle + width * gap, x, y, factor, factors, middle, width)
            return value, gradient * width

        found = middle + width * _least(loss, (found - middle) / width)
    # Few digits, so that the order of a sum on another machine changes nothing that follows.
    out: Floats = np.clip(found, -_BOUND, _BOUND).round(3)
    return out


def kernel_of(features: Features, theta: Floats) -> Kernel:
    """The kernel with hyperparameters whose logarithms [P] are `theta`, as of `fit`."""
    return _kernel(theta, features.factor, features.first_count)


def _least(loss: Loss, start: Floats) -> Floats:
    """Where the loss is least, by a search from `start` [P]."""
    at, inverse, first = start, np.eye(len(start)), True
    value, gradient = loss(at)
    for _ in range(_STEPS):
        step = -inverse @ gradient
        slope = float(step @ gradient)
        if -slope < 2.0 * _ENOUGH:  # a parabola falls by half of this
            break
        step *= min(1.0, _LONGEST / float(np.abs(step).max()))
        slope = float(step @ gradient)
        share = 1.0
        while share > 1e-3:
            new = at + share * step
            new_value, new_gradient = loss(new)
            if new_value <= value + 1e-4 * share * slope:
                break
            share *= 0.4
        else:
            break
        moved, turned = new - at, new_gradient - gradient
        at, value, gradient = new, new_value, new_gradient
        bend = float(moved @ turned)
        if bend > 1e-10:
            if first:  # of the size of the curvature that was met (Nocedal and Wright, 6.20)
                inverse *= bend / float(turned @ turned)
                first = False
            pushed = inverse @ turned
            inverse += np.outer(moved, moved) * ((1.0 + float(turned @ pushed) / bend) / bend)
            both = np.outer(moved, pushed) / bend
            inverse -= both + both.T
    return at


def _priors(factors: int, counts: int) -> tuple[Floats, Floats]:
    """Means and deviations of the logarithms: weights, two scales, noise."""
    weight = _WEIGHT - np.log(max(factors, 1))
    middle = [weight] * factors + [0.0] * counts + [0.0, 0.0 if counts else -_BOUND, -3.0]
    width = [1.5] * factors + [1.5] * counts + [1.0, 1.0, 1.5]
    return np.array(middle), np.array(width)


def _kernel(theta: Floats, factor: Places, factors: int) -> Kernel:
    of_factors = np.exp(theta[:-3])
    scale, scale_of_counts, noise = np.exp(theta[-3:]).tolist()
    first = int(np.searchsorted(factor, factors))
    if first == len(factor):
        scale_of_counts = 0.0
    return Kernel(of_factors[factor], (scale, scale_of_counts), noise + JITTER, first)


def _loss(
    theta: Floats, x: Floats, y: Floats, factor: Places, factors: int, middle: Floats, width: Floats
) -> tuple[float, Floats]:
    """Minus the logarithm of likelihood times prior, and its gradient."""
    from scipy.linalg import lapack

    kernel = _kernel(theta, factor, factors)
    n = len(x)
    covariance = np.full((n, n), CONSTANT)
    parts = []
    for part, scale in zip(kernel.parts(), kernel.scales, strict=True):
        if scale:
            root = np.sqrt(5.0 * kernel.weights[part])
            squared = squared_distances(*(x[:, part] * root,) * 2)
            r = np.sqrt(squared)
            e = np.exp(-r)
            e *= scale
            slope = r + 1.0
            squared *= 1.0 / 3.0
            squared += slope
            squared *= e
            slope *= e  # -5/6 of it is the derivative by the weighted squared distance
            parts.append((part, squared, slope))
            covariance += squared
    diagonal = np.einsum("ii->i", covariance)
    diagonal += kernel.noise
    root, info = lapack.dpotrf(covariance, lower=1, clean=1)
    gap = (theta - middle) / width
    if info:
        return np.inf, np.zeros(len(theta))
    inverse, _ = lapack.dpotri(root, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    solved = inverse @ y
    value = 0.5 * float(y @ solved) + float(np.log(np.diagonal(root)).sum())
    value += 0.5 * float(gap @ gap)
    inner = inverse  # twice d loss / d covariance
    inner -= np.outer(solved, solved)
    gradient = gap / width
    per_feature = np.zeros(len(factor))
    for index, (part, known, slope) in enumerate(parts):
        gradient[-3 + index] += 0.5 * np.vdot(inner, known)
        slope *= inner
        f = x[:, part]
        pushed = slope @ f
        pushed -= slope.sum(axis=1)[:, None] * f
        per_feature[part] = (5.0 / 6.0) * np.einsum("ij,ij->j", f, pushed)
    weights = len(theta) - 3
    gradient[:weights] += np.exp(theta[:weights]) * np.bincount(
        factor, per_feature, minlength=weights
    )
    gradient[-1] += 0.5 * (kernel.noise - JITTER) * float(np.trace(inner))
    return value, gradient
