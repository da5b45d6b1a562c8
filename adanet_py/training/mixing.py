"""How rows are mixed with other rows at each step, as data: a function of seed and step alone.

`mixup` and `cutmix` are concentrations alpha of Beta(alpha, alpha), drawn once for a member and
step; see `architectures.perturbations.Mixup` and `Cutmix` for what is done with them. A member that
has both uses one of them at each step, with equal chances. With lambda the share of a row that is
its own, its loss is

    lambda l(out, y) + (1 - lambda) l(out, y_partner).

numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adanet_py.records import Candidate
from adanet_py.training.batches import hash_words
from adanet_py.training.general import GENERAL

Array = npt.NDArray[np.float64]
_MIXUP, _CUTMIX, _CHOICE, _COLUMNS = 101, 201, 301, 401  # what random numbers are for


@dataclass(frozen=True)
class Mixes:
    """S steps of K members."""

    share: Array  # [S, K]: share of a row's features that is its own, by mixup
    keep: npt.NDArray[np.bool_]  # [S, K, columns]: which columns are its own, by cutmix
    own: Array  # [S, K]: lambda


@dataclass(frozen=True)
class Mixer:
    """What decides the mixing of K members."""

    seeds: npt.NDArray[np.uint64]  # [K]
    mixup: Array  # [K]
    cutmix: Array  # [K]
    columns: int

    @classmethod
    def make(
        cls, candidates: Sequence[Candidate], seeds: Sequence[int], folds: int, columns: int
    ) -> Mixer | None:
        """The mixer of all candidates in all folds; None where nobody mixes."""
        alphas = [
            [float(c.numeric.get(name, GENERAL[name].default)) for c in candidates] * folds  # type: ignore[arg-type]
            for name in ("mixup", "cutmix")
        ]
        mixup, cutmix = np.array(alphas)
        if not (mixup > 0).any() and not (cutmix > 0).any():
            return None
        return cls(np.array(seeds, np.uint64), mixup, cutmix, columns)

    def select(self, index: Sequence[int]) -> Mixer:
        """Of these members only."""
        i = np.asarray(index)
        return Mixer(self.seeds[i], self.mixup[i], self.cutmix[i], self.columns)

    def take(self, start: int, stop: int) -> Mixes:
        """The mixing of steps [start, stop)."""
        steps = np.arange(start, stop).reshape(-1, 1)
        first = self._uniform(steps, _CHOICE) < 0.5
        swaps = (self.cutmix > 0) & ((self.mixup == 0) | first)
        blends = (self.mixup > 0) & ~swaps
        share = np.ones(swaps.shape)
        if blends.any():
            u, v = self._uniform(steps, _MIXUP), self._uniform(steps, _MIXUP + 1)
            share = np.where(blends, symmetric_beta(u, v, self.mixup), 1.0)
        keep = np.ones((*swaps.shape, self.columns), np.bool_)
        if swaps.any():
            u, v = self._uniform(steps, _CUTMIX), self._uniform(steps, _CUTMIX + 1)
            chance = np.where(swaps, symmetric_beta(u, v, self.cutmix), 1.0)
            column = np.arange(self.columns)
            words = hash_words(self.seeds[:, None], steps[:, :, None], _COLUMNS + column)
            keep = _as_uniform(words) < chance[:, :, None]
        return Mixes(share, keep, np.where(swaps, keep.mean(-1), share))

    def _uniform(self, steps: npt.NDArray[np.int64], use: int) -> Array:
        """Random numbers in (0, 1): [S, K]."""
        return _as_uniform(hash_words(self.seeds, steps, use))


def _as_uniform(words: npt.NDArray[np.uint64]) -> Array:
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def symmetric_beta(u: Array, v: Array, alpha: Array) -> Array:
    """Draws from Beta(alpha, alpha) out of two uniform ones in (0, 1); 1 where alpha is 0.

    x = 1/2 + sign(c) / (2 sqrt(1 + 1 / ((u^(-1/alpha) - 1) c^2))), c = cos(2 pi v): exact, without
    rejection, for every alpha > 0 (Devroye 1996, Random variate generation in one line of code,
    section 4; from Bailey's (1994) method for the t distribution).
    """
    c = np.cos(2.0 * np.pi * v)
    with np.errstate(divide="ignore", over="ignore"):
        spread = np.expm1(-np.log(u) / alpha) * c * c
        x = 0.5 + np.sign(c) / (2.0 * np.sqrt(1.0 + 1.0 / spread))
    return np.where(alpha > 0, x, 1.0)
