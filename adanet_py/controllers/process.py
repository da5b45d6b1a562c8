"""A Gaussian process over the features of points.

The covariance of the rewards of two points, in units of the deviation of the rewards, is

    k(x, x') = CONSTANT + s_1 m(r_1) + s_2 m(r_2),   m(r) = (1 + sqrt5 r + 5/3 r^2) exp(-sqrt5 r)

(Matern 5/2; Rasmussen and Williams 2006, equation 4.17) plus noise on the diagonal. r_1^2 = sum_f
w_f d_f^2 over the factors (features.py) with a weight, the inverse square of a length scale, of its
own each; r_2 is the same over the counts. The constant stands for an unknown mean. Hyperparameters
are found in likelihood.py.

The inverse of the root of the covariance is kept, not the root: products with it are several times
as fast as solving triangular systems, and the noise keeps it well conditioned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from adanet_py.controllers.columns import Floats

CONSTANT = 1.0  # variance of the mean
_LEAST = 1e-12  # variance of a point


@dataclass(frozen=True)
class Kernel:
    """Hyperparameters: `weights` of features [F], `scales` of the two parts, `noise` variance."""

    weights: Floats
    scales: tuple[float, float]
    noise: float
    first_count: int  # number of the first feature that counts

    def between(self, a: Floats, b: Floats) -> Floats:
        """Covariances [n, m] of the features [n, F] and [m, F], without noise."""
        return self.from_rows(self.rows(a), b)

    def rows(self, features: Floats) -> tuple[Floats, ...]:
        """What points with features [n, F] are in the product that gives squared distances."""
        out = []
        for part, root in self._roots:
            scaled = features[:, part] * root
            n, width = scaled.shape
            row = np.ones((n, width + 2))
            np.multiply(scaled, -2.0, out=row[:, :width])
            np.einsum("ij,ij->i", scaled, scaled, out=row[:, width])
            out.append(row)
        return tuple(out)

    def from_rows(self, rows: tuple[Floats, ...], features: Floats) -> Floats:
        """Covariances [n, m] of points with `rows` and points with features [m, F]."""
        out = np.full((len(rows[0]), len(features)), CONSTANT)
        for row, (part, root), scale in zip(rows, self._roots, self._sizes, strict=True):
            scaled = features[:, part] * root
            m, width = scaled.shape
            column = np.ones((m, width + 2))
            column[:, :width] = scaled
            np.einsum("ij,ij->i", scaled, scaled, out=column[:, width + 1])
            squared = row @ column.T
            out += matern(np.maximum(squared, 0.0, out=squared), scale)
        return out

    @cached_property
    def _roots(self) -> list[tuple[slice, Floats]]:
        """The parts that there are, and what their features are multiplied by."""
        parts = zip(self.parts(), self.scales, strict=True)
        return [(part, np.sqrt(5.0 * self.weights[part])) for part, scale in parts if scale]

    @cached_property
    def _sizes(self) -> list[float]:
        return [scale for scale in self.scales if scale]

    @property
    def variance(self) -> float:
        """The prior variance of any point."""
        return CONSTANT + sum(self.scales)

    def parts(self) -> tuple[slice, slice]:
        """The features of the factors, and those that count."""
        return slice(0, self.first_count), slice(self.first_count, None)


def squared_distances(a: Floats, b: Floats) -> Floats:
    """Squared distances [n, m] of rows [n, F] and [m, F]."""
    out: Floats = (-2.0 * a) @ b.T
    out += np.einsum("ij,ij->i", a, a)[:, None]
    out += np.einsum("ij,ij->i", b, b)
    return np.maximum(out, 0.0, out=out)


def matern(squared: Floats, scale: float) -> Floats:
    """scale (1 + r + r^2 / 3) exp(-r) of r^2, which is overwritten."""
    r = np.sqrt(squared)
    squared *= 1.0 / 3.0
    squared += r
    squared += 1.0
    np.subtract(math.log(scale), r, out=r)
    squared *= np.exp(r, out=r)
    return squared


def inverse_root(covariance: Floats) -> Floats:
    """The inverse of the lower triangular root of a covariance [n, n]."""
    from scipy.linalg import lapack

    found, _ = lapack.dtrtri(np.linalg.cholesky(covariance).T, lower=0)
    out: Floats = found.T
    return out


class Posterior:
    """What is known of the mean reward of every point; made by `posterior_of`.

    `solved` [n] is the inverse of the covariance of the points with `features` [n, F] times their
    rewards, `inverse` [n, n] that of its root.
    """

    def __init__(self, kernel: Kernel, features: Floats, inverse: Floats, solved: Floats) -> None:
        self.kernel, self._features = kernel, features
        self._rows, self._inverse, self._solved = kernel.rows(features), inverse, solved

    def at(self, features: Floats) -> Beliefs:
        """Beliefs about the points with these features [m, F]."""
        cross = self.kernel.from_rows(self._rows, features)
        half = self._inverse @ cross
        variance = self.kernel.variance - np.einsum("ij,ij->j", half, half)
        return Beliefs(self.kernel, features, self._solved @ cross, variance, half)

    def smoothed(self, rewards: Floats) -> Floats:
        """The means [n] at the points given, whose rewards are `rewards`.

        As the covariance K with noise on its diagonal takes what is solved to the rewards, K
        without it takes it to the rewards less the noise times what is solved.
        """
        out: Floats = rewards - self.kernel.noise * self._solved
        return out

    def assume(self, features: Floats) -> Posterior:
        """The same means, with the variances after measuring points with these features [m, F]."""
        if not len(features):
            return self
        old, n, m = self._inverse, len(self._features), len(features)
        half = old @ self.kernel.from_rows(self._rows, features)  # [n, m]
        left = self.kernel.between(features, features) - half.T @ half
        left[np.diag_indices(m)] += self.kernel.noise
        inverse = np.zeros((n + m, n + m))
        inverse[:n, :n] = old
        inverse[n:, n:] = new = inverse_root(left)
        inverse[n:, :n] = -new @ (half.T @ old)
        # What is measured at its mean adds nothing to the means of others.
        solved = np.append(self._solved, np.zeros(m))
        return Posterior(self.kernel, np.vstack([self._features, features]), inverse, solved)


def posterior_of(kernel: Kernel, features: Floats, rewards: Floats) -> Posterior:
    """The posterior given points with features [n, F] and their rewards [n]."""
    covariance = kernel.between(features, features)
    covariance[np.diag_indices(len(features))] += kernel.noise
    inverse = inverse_root(covariance)
    return Posterior(kernel, features, inverse, (inverse @ rewards) @ inverse)


class Beliefs:
    """Means and variances [m] of points."""

    def __init__(
        self, kernel: Kernel, features: Floats, mean: Floats, variance: Floats, half: Floats
    ) -> None:
        self._kernel, self._features, self._half = kernel, features, half
        self.mean, self.variance = mean, np.maximum(variance, _LEAST)

    def join(self, others: Sequence[Beliefs]) -> Beliefs:
        """Beliefs of the same posterior about the points of all."""
        every = [self, *others]
        return Beliefs(
            self._kernel,
            np.vstack([b._features for b in every]),
            np.concatenate([b.mean for b in every]),
            np.concatenate([b.variance for b in every]),
            np.hstack([b._half for b in every]),
        )

    def assume(self, place: int) -> None:
        """As `Posterior.assume`, of the point at `place`, in place."""
        cross = self._kernel.between(self._features[place : place + 1], self._features)
        cross -= self._half[:, place] @ self._half
        row = cross / np.sqrt(cross[0, place] + self._kernel.noise)
        self._half = np.vstack([self._half, row])
        self.variance = np.maximum(self.variance - row[0] * row[0], _LEAST)
