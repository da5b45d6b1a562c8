"""The ensemble of a run: grown from its networks, judged on rows it was not fitted to.

Weights are fitted on the validation rows, which also chose the members' epochs and the pool, so F
is no estimate of what comes. The estimate is cross-fitted: the rows are dealt into five parts, the
whole growth is repeated without one and scored on it; what no choice ever sees, the audit rows, is
shown beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adanet_py.calibration import fold_of
from adanet_py.ensemble.complexity import COMPLEXITIES
from adanet_py.ensemble.ensemblers import ENSEMBLERS
from adanet_py.ensemble.growth import STRATEGIES, Ensemble, Member, Offer, Setting
from adanet_py.ensemble.objective import KINDS, Kind
from adanet_py.ensemble.pool import Pool, Rows, read_pool
from adanet_py.ensemble.weights import Floats, Weights
from adanet_py.errors import ConfigError, check_known
from adanet_py.metrics import get_metric, score, to_error
from adanet_py.outputs import in_own_unit, predictions
from adanet_py.prepare import Prepared
from adanet_py.records import Result
from adanet_py.tasks import is_regression
from adanet_py.training.losses import default_loss

FOLDS = 5


@dataclass(frozen=True)
class Options:
    """How an ensemble is grown.

    `lambda_` and `beta` are in units of the loss that the best constant has, complexities in units
    of their mean: Gamma_j = (lambda_ r_j / mean r + beta) times that loss. `most` members at most.
    """

    ensembler: str = "adanet"
    lambda_: float = 1e-3
    beta: float = 1e-3
    kind: Kind = "scalar"
    bias: bool = False
    strategy: str = "grow"
    complexity: str = "depth"
    most: int = 16

    def __post_init__(self) -> None:
        check_known("ensembler", self.ensembler, ENSEMBLERS, ConfigError)
        check_known("strategy", self.strategy, STRATEGIES, ConfigError)
        check_known("complexity", self.complexity, COMPLEXITIES, ConfigError)
        check_known("kind of mixture weights", self.kind, KINDS, ConfigError)
        for name, value in (("lambda", self.lambda_), ("beta", self.beta)):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"--{name}: expected a number of 0 or more, found {value}.")
        if self.most < 1:
            raise ConfigError(f"Expected at least 1 member, found {self.most}.")


@dataclass(frozen=True)
class Scores:
    """The run's metric: cross-fitted on the validation rows, and on the audit rows or NaN."""

    validation: float
    audit: float


@dataclass(frozen=True)
class Grown:
    """An ensemble of a run, and what it is compared with.

    `members` are the results of its members in the order of `weights`; `scores` has "ensemble",
    "mean" (of the same members, each the same weight) and "single", the best network.
    """

    options: Options
    ensemble: Ensemble
    members: tuple[Result, ...]
    scores: dict[str, Scores]
    offers: tuple[Offer, ...]

    @property
    def weights(self) -> Weights:
        """Of the members."""
        return self.ensemble.weights

    def to_json(self) -> dict[str, Any]:
        """Plain values but for the offers, which `ensemble.csv` has."""
        return {
            "options": asdict(self.options),
            "members": list(self.ensemble.names),
            "weights": self.weights.to_json(),
            "scores": {
                name: {k: v if math.isfinite(v) else None for k, v in asdict(s).items()}
                for name, s in self.scores.items()
            },
        }


def why_none(prepared: Prepared) -> str:
    """Why the networks of a run cannot be weighed, a sentence; empty where they can."""
    loss = prepared.source.spec.loss
    usual = default_loss(prepared.task).name
    if loss not in ("auto", usual):
        return (
            f"No ensemble: the run is trained with the loss {loss}, and mixture weights are fitted "
            f"for {usual} only."
        )
    return ""


def grow_ensemble(
    folder: Path,
    prepared: Prepared,
    results: Sequence[Result],
    validation: Rows,
    audit: Rows,
    options: Options,
) -> Grown | None:
    """The ensemble grown from the stored predictions of `results`, the best first.

    None where there are not two members to weigh.
    """
    pool = read_pool(folder, results, COMPLEXITIES[options.complexity].measure)
    if len(pool.members) < 2:
        return None
    setting = _setting(prepared.task, validation, options)
    build = ENSEMBLERS[options.ensembler].build
    ensemble = build(setting, pool.members)
    if not ensemble.names:
        return None
    judge = _Judge(prepared, validation, audit, pool)
    at = {m.name: i for i, m in enumerate(pool.members)}
    chosen = [at[name] for name in ensemble.names]
    mean = ENSEMBLERS["mean"].build
    same = [pool.members[i] for i in chosen]
    scores = {
        "ensemble": judge.scores(ensemble, lambda s, m: build(s, m), setting, pool.members),
        "mean": judge.scores(mean(replace(setting, most=len(same)), same), None, setting, same),
        "single": Scores(
            pool.results[0].metrics.get("validation", math.nan),
            pool.results[0].metrics.get("audit", math.nan),
        ),
    }
    members = tuple(pool.results[i] for i in chosen)
    return Grown(options, ensemble, members, scores, ensemble.offers)


def _setting(task: str, rows: Rows, options: Options) -> Setting:
    """The penalty in units of the loss of the best constant."""
    setting = Setting(
        task,
        rows.y,
        rows.weight,
        kind=options.kind,
        bias=options.bias,
        strategy=options.strategy,
        most=options.most,
    )
    width = _outputs_of(task, rows)
    nothing = replace(setting, bias=True).fit([Member("", np.zeros((len(rows.y), width)), 0, 0.0)])
    unit = nothing.value
    return replace(setting, lambda_=options.lambda_ * unit, beta=options.beta * unit)


def _outputs_of(task: str, rows: Rows) -> int:
    if rows.y.ndim == 2:
        return int(rows.y.shape[1])
    return int(rows.y.max()) + 1 if task == "multiclass" else 1


@dataclass(frozen=True)
class _Judge:
    """Scores of ensembles on rows they were not fitted to."""

    prepared: Prepared
    validation: Rows
    audit: Rows
    pool: Pool

    def scores(
        self,
        ensemble: Ensemble,
        build: Callable[[Setting, Sequence[Member]], Ensemble] | None,
        setting: Setting,
        members: Sequence[Member],
    ) -> Scores:
        """Of `ensemble`; `build` repeats its fit for the cross-fitted score (None: no fit)."""
        by_name = {m.name: m for m in members}
        z = self._combine(ensemble, by_name)
        if build is not None:
            fold = fold_of(len(z), FOLDS)
            for k in range(FOLDS if len(z) >= 2 * FOLDS else 0):
                fit, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
                part = [replace(m, outputs=m.outputs[fit]) for m in members]
                found = build(setting.taken(fit), part)
                z[held] = self._combine(found, by_name, held)
        audit = math.nan
        if len(self.audit.y):
            at = {m.name: i for i, m in enumerate(self.pool.members)}
            outputs = self.pool.audit[[at[name] for name in ensemble.names]]
            audit = self._score(ensemble.weights.combine(outputs), self.audit)
        return Scores(self._score(z, self.validation), audit)

    def _combine(
        self, ensemble: Ensemble, members: dict[str, Member], rows: Any = slice(None)
    ) -> Floats:
        first = next(iter(members.values())).outputs[rows]
        if not ensemble.names:
            return np.zeros(first.shape) + ensemble.weights.bias
        return ensemble.weights.combine(
            np.stack([members[name].outputs[rows] for name in ensemble.names])
        )

    def _score(self, z: Floats, rows: Rows) -> float:
        target, task = self.prepared.target, self.prepared.task
        y = rows.y
        if is_regression(task):
            y = in_own_unit(y, target.mean, target.scale)
        found = predictions(task, z, 1.0, target.mean, target.scale)
        return score(get_metric(self.prepared.metric), y, found, rows.weight)


def is_better(grown: Grown, metric: str) -> bool:
    """Whether the cross-fitted ensemble beats the best network on the validation rows."""
    found = get_metric(metric)
    ours = to_error(found, grown.scores["ensemble"].validation)
    return ours < to_error(found, grown.scores["single"].validation)
