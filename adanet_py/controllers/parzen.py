"""Parzen density over the columns of a space, relative to its prior (Watanabe 2023, section 3).

The density of a point x is p(x) = 1 + sum_i prod_j k_j(x_j, c_ij) over the components c_i, where
the product runs over the columns active in both and the 1 is the prior itself as a component.
Everything is relative to the prior: a kernel is its probability over that of the prior, so a column
that a component lacks counts 1, and conditional spaces need no treatment of their own.

- Ranges have the prior 1 on the unit interval and a normal kernel cut off at its ends.
- Choices have the prior p_c and the kernel k(c, v) = (1 - e) s(c, v) / p_c + e. Of words
  s(c, v) = [c = v]; of rising numbers s is a normal over the ranks, with sum 1 over c.

Bandwidths shrink with the number n of components: h = WIDTH n^(-1/(d + 4)) for d columns (Scott's
rule), at least 1 / (n + 1) up to 1 / 100 (Bergstra et al. 2011), and e = a / (a + n), a = SPREAD C,
for C choices. The constants were chosen by scripts/compare_controllers.py, on other seeds than
those of its table.

The sum of log k over columns is a scalar product of features of x and of c, so the densities of
many points under many components are one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from adanet_py.controllers.columns import Floats
from adanet_py.space import Decision

WIDTH = 0.07  # bandwidth of a single component, in units of the range
SPREAD = 0.3  # of a choice's kernel that is the prior, in units of C / n where that is small
_FINEST = 100  # components after which the bandwidth shrinks no further than 1 / _FINEST


class Parzen:
    """A mixture of the prior and of `components` [n, D] (NaN: not active), over D `decisions`."""

    def __init__(self, decisions: Sequence[Decision], components: Floats) -> None:
        self._components, n = components, len(components)
        h = WIDTH * max(n, 1) ** (-1.0 / (len(decisions) + 4))
        self._width = max(h, 1.0 / min(_FINEST, n + 1))
        self._ranges = [j for j, d in enumerate(decisions) if d.kind != "choice"]
        self._choices = [j for j, d in enumerate(decisions) if d.kind == "choice"]
        self._priors = {j: prior(decisions[j]) for j in self._choices}
        self._kernels = {j: _kernel(decisions[j], self._width, n) for j in self._choices}
        self._features = self._of_components(components)

    def sample(self, m: int, rng: np.random.Generator) -> Floats:
        """`m` points [m, D], as if every column were active."""
        from scipy.special import ndtr, ndtri

        n, columns = self._components.shape
        padded = np.vstack([self._components, np.full((1, columns), np.nan)])  # last: the prior
        base = padded[rng.integers(n + 1, size=m)]
        out = rng.random((m, columns))
        low, high = ndtr(-base / self._width), ndtr((1.0 - base) / self._width)
        near = np.clip(base + self._width * ndtri(low + out * (high - low)), 0.0, 1.0)
        missing = np.isnan(base)
        for j in self._choices:
            shares = np.column_stack([self._kernels[j] * self._priors[j][:, None], self._priors[j]])
            borders = np.cumsum(shares, axis=0)[:-1].T  # [values of a component or none, C - 1]
            known = np.where(missing[:, j], len(borders) - 1, base[:, j]).astype(np.intp)
            out[:, j] = (out[:, j, None] >= borders[known]).sum(axis=1)
        ranges = self._ranges
        out[:, ranges] = np.where(missing[:, ranges], out[:, ranges], near[:, ranges])
        return out

    def add(self, components: Floats) -> None:
        """More components [k, D]; the bandwidths stay."""
        self._features = np.vstack([self._features, self._of_components(components)])

    def log_density(self, points: Floats) -> Floats:
        """log p(x) of `points` [m, D]: [m]; not normalised."""
        logs = self._of_points(points) @ self._features.T
        return log_sum(np.column_stack([logs, np.zeros(len(points))]))

    def log_kernel(self, points: Floats, components: Floats) -> Floats:
        """log k(x, c) of `points` [m, D] and `components` [k, D]: [m, k]."""
        logs: Floats = self._of_points(points) @ self._of_components(components).T
        return logs

    def _of_points(self, x: Floats) -> Floats:
        """Features [m, F] of points."""
        ranges = x[:, self._ranges]
        active = ~np.isnan(ranges)
        at = np.where(active, ranges, 0.0)
        parts = [at**2, at, active.astype(np.float64)]
        for j in self._choices:  # one-hot; a column that is not active equals no position
            parts.append((x[:, j, None] == np.arange(len(self._priors[j]))).astype(np.float64))
        return np.concatenate(parts, axis=1)

    def _of_components(self, c: Floats) -> Floats:
        """Features [n, F] of components, which make log k with those of points."""
        from scipy.special import ndtr

        ranges, h = c[:, self._ranges], self._width
        active = ~np.isnan(ranges)
        at = np.where(active, ranges, 0.5)
        inside = ndtr((1.0 - at) / h) - ndtr(-at / h)
        constant = -0.5 * (at / h) ** 2 - np.log(inside * h * np.sqrt(2.0 * np.pi))
        parts = [active * (-0.5 / h**2), active * (at / h**2), active * constant]
        for j in self._choices:
            logs = np.vstack([np.log(self._kernels[j]).T, np.zeros(len(self._priors[j]))])
            parts.append(logs[np.where(np.isnan(c[:, j]), -1, c[:, j]).astype(np.intp)])
        return np.concatenate(parts, axis=1)


def log_sum(logs: Floats) -> Floats:
    """log of the sum of exp over the last axis."""
    top = logs.max(axis=-1, keepdims=True)
    total: Floats = top[..., 0] + np.log(np.exp(logs - top).sum(axis=-1))
    return total


@lru_cache(maxsize=1024)
def prior(decision: Decision) -> Floats:
    """The share of every choice: [C]."""
    count = len(decision.domain)
    return np.array(decision.prior) if decision.prior else np.full(count, 1.0 / count)


@lru_cache(maxsize=4096)  # a long history always gives the same n, so the same kernels
def _kernel(decision: Decision, width: float, n: int) -> Floats:
    """k(c, v) of choice c around a component's choice v: [C, C]; see the module."""
    shares = prior(decision)
    count = len(shares)
    near = np.eye(count)
    if decision.ordered:
        ranks = (np.arange(count) + 0.5) / count
        near = np.exp(-0.5 * ((ranks[:, None] - ranks) / width) ** 2)
        near /= near.sum(axis=0)
    spread = SPREAD * count / (SPREAD * count + max(n, 1))
    kernel: Floats = (1.0 - spread) * near / shares[:, None] + spread
    return kernel
