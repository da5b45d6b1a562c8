"""What every baseline is given, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from adanet_py.outputs import in_own_unit
from adanet_py.tasks import has_several_targets, is_regression, part_of

if TYPE_CHECKING:
    from adanet_py.data.target import Target
    from adanet_py.data.targets import AnyTarget

Features = Mapping[str, np.ndarray]

SCALING = "quantile"
DEVIANCES = ("poisson", "gamma")  # losses with a log link, by scikit-learn's names too
_LEAST = 1e-6  # of the mean: smallest amount


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


@dataclass(frozen=True)
class Problem:
    """The arguments of `run_baselines`; with an exposure `y` and `weight` are those of rates."""

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
    def width(self) -> int:
        """Columns, numbers and categories."""
        return int(self.features[SCALING].shape[1]) + len(self.offsets) - 1

    @property
    def log_link(self) -> bool:
        """Whether the mean is the exponential of what is linear in the features."""
        return self.loss in DEVIANCES

    def means(self, rows: np.ndarray) -> np.ndarray:
        """Counts or amounts in their own unit; where rounding took them below 0, just above."""
        y = in_own_unit(self.y[rows], self.target.mean, self.target.scale)
        return np.maximum(y, _LEAST * y.mean() if self.loss == "gamma" else 0.0)

    def each(self) -> list[Problem]:
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
        """The features of some rows, with their exposure if they have one."""
        names = (SCALING, "category", "exposure")
        return {n: np.asarray(self.features[n][rows]) for n in names if n in self.features}

    def weights(self, rows: np.ndarray) -> np.ndarray | None:
        """The weights of some rows, or None."""
        return None if self.weight is None else np.asarray(self.weight[rows], dtype=np.float64)


def make_problem(
    features: Features,
    y: np.ndarray,
    weight: np.ndarray | None,
    task: str,
    metric: str,
    target: AnyTarget,
    *,
    seed: int = 0,
    loss: str = "auto",
    exposure: np.ndarray | None = None,
) -> Problem:
    """What is fitted, of the arguments of `run_baselines`.

    With `exposure` [N] models are fitted to rates (the target per exposure) with weights times
    exposure, and predict rate times exposure.
    """
    if exposure is not None:
        e = np.asarray(exposure, dtype=np.float64)
        rates = in_own_unit(y, target.mean, target.scale) / beside_rows(e, y)
        y = (rates - target.mean) / target.scale
        weight = e if weight is None else np.asarray(weight) * e
        features = {**features, "exposure": exposure}
    n_outputs = y.shape[1] if has_several_targets(task) else max(1, len(target.classes))
    codes = features["category"]
    sizes = [int(codes[:, j].max(initial=0)) + 1 for j in range(codes.shape[1])]
    offsets = np.cumsum([0, *sizes])
    return Problem(features, y, weight, task, metric, target, n_outputs, seed, offsets, loss)


def sample(problem: Problem, rows: np.ndarray, limit: int) -> np.ndarray:
    """At most about `limit` of `rows`, sorted, with a row of every class that has one."""
    if len(rows) <= limit:
        return rows
    rng = np.random.default_rng(problem.seed)
    used = rng.choice(rows, limit, replace=False)
    if not is_regression(problem.task):
        _, first = np.unique(problem.y[rows], return_index=True)
        used = np.union1d(used, rows[first])
    return np.sort(used)


def beside_rows(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Values of rows [N] beside an array [N] or [N, T]."""
    return values if like.ndim == 1 else values[:, None]


def at_exposure(rates: np.ndarray, features: Features) -> np.ndarray:
    """Rates [N] or [N, T] times the exposure of their rows, where they have one."""
    if "exposure" not in features:
        return rates
    return rates * beside_rows(features["exposure"].astype(np.float64), rates)
