"""The ensemble of a run: grown from its networks, judged on rows it was not fitted to.

Weights are fitted on the validation rows, which also chose the members' epochs and the pool, so F
is no estimate of what comes. The estimate is cross-fitted: the rows are dealt into five parts, the
whole growth is repeated without one and scored on it; what no choice ever sees, the audit rows, is
shown beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adanet_py.calibration import fold_of
from adanet_py.ensemble.complexity import COMPLEXITIES
from adanet_py.ensemble.ensemblers import ENSEMBLERS
from adanet_py.ensemble.growth import STRATEGIES, Ensemble, Member, Setting
from adanet_py.ensemble.losses import OTHERS, Convex
from adanet_py.ensemble.objective import KINDS, Kind
from adanet_py.ensemble.pool import Pool, read_pool
from adanet_py.ensemble.weights import Floats, Weights
from adanet_py.errors import ConfigError, check_known
from adanet_py.frames import make_frame, write_csv
from adanet_py.held_out import HeldOut, Rows
from adanet_py.intervals import standard_errors
from adanet_py.metrics import get_metric, score, to_error
from adanet_py.outputs import as_outputs, in_own_unit, predictions
from adanet_py.records import Result, Status
from adanet_py.tasks import is_regression
from adanet_py.training.losses import default_loss

FOLDS = 5
# Rows from which on the penalty falls with their number, as what weights can overfit by does. By
# the cross-fitted scores of five tables: 0.01 is best with 750 rows, 0.001 with 2,250 and 3,100.
PENALTY_ROWS = 500
MEMBERS = ("networks", "given", "any")
_NEAR = ("focal", "half_squared_error")  # whose outputs mean what those of the usual losses do


@dataclass(frozen=True)
class Options:
    """How an ensemble is grown.

    `lambda_` and `beta` are in units of the loss that the best constant has, complexities in units
    of their mean: Gamma_j = (lambda_ r_j / mean r + beta) times that loss times
    min(1, 500 / rows). `most` members at most, out of `members`: networks alone, the models given
    to the search too, or any, baselines among them (see `may_join`).
    """

    ensembler: str = "adanet"
    lambda_: float = 1e-2
    beta: float = 1e-3
    kind: Kind = "scalar"
    bias: bool = False
    strategy: str = "grow"
    complexity: str = "depth"
    most: int = 16
    members: str = "networks"

    def __post_init__(self) -> None:
        check_known("ensembler", self.ensembler, ENSEMBLERS, ConfigError)
        check_known("strategy", self.strategy, STRATEGIES, ConfigError)
        check_known("complexity", self.complexity, COMPLEXITIES, ConfigError)
        check_known("kind of mixture weights", self.kind, KINDS, ConfigError)
        check_known("kind of members", self.members, MEMBERS, ConfigError)
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

    def to_json(self) -> dict[str, float | None]:
        """Plain values; what is not known is None."""
        return {k: v if math.isfinite(v) else None for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Grown:
    """An ensemble of a run, and what it is compared with.

    `members` are the results of its members in the order of `weights`; `scores` has "ensemble",
    "mean" (of the same members, each the same weight), "single", the best network, and, where a
    baseline that may join is better than that one, "baseline". "alone" is what the ensemble is
    compared with: one that is best on the other rows, judged on those it was not chosen by. The
    best of all on all rows seems better than it is, and the more so the more there were. `doubt` is
    the standard error of the difference of these two, row by row, in the metric's unit; NaN: not
    known.
    """

    options: Options
    ensemble: Ensemble
    members: tuple[Result, ...]
    scores: dict[str, Scores]
    kinds: dict[str, str] = field(default_factory=dict)  # architectures of all offered, by id
    doubt: float = math.nan

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
            "scores": {name: s.to_json() for name, s in self.scores.items()},
            "doubt": self.doubt if math.isfinite(self.doubt) else None,
        }


def why_none(held: HeldOut) -> str:
    """Why the networks of a run cannot be weighed, a sentence; empty where they can."""
    if held.loss in ("auto", default_loss(held.task).name, *_NEAR, *OTHERS):
        return ""
    known = ", ".join(OTHERS)
    return (
        f"No ensemble: the run is trained with the loss {held.loss}, and mixture weights are "
        f"fitted for cross entropy, the squared error, {known} only."
    )


def grow_ensemble(
    folder: Path,
    results: Sequence[Result],
    held: HeldOut,
    options: Options,
    left: Callable[[], float] = lambda: math.inf,
) -> Grown | None:
    """The ensemble grown from the stored predictions of `results`, the best first.

    None where there are not two members to weigh, or none is worth its penalty, or in the seconds
    `left()` it cannot be grown and scored. A third of these are for the growth, which ends with
    what it has; the score is cross-fitted in as many parts as there is time for, two at least.
    """
    joining = [r for r in results if may_join(r, options.members)]
    unit = partial(as_outputs, held.task, mean=held.mean, scale=held.scale)
    pool = read_pool(folder, joining, COMPLEXITIES[options.complexity].measure, unit)
    if len(pool.members) < 2:
        return None
    pool = _raw(pool, held)
    setting = make_setting(held.task, held.fitted(), options, held.phi)
    build = ENSEMBLERS[options.ensembler].build
    began, given = time.monotonic(), left()
    until = began + given / 3.0
    ensemble = build(replace(setting, left=_until(until)), pool.members)
    took = time.monotonic() - began
    # In two parts it is judged on half of the rows each, so one of them takes about half as long.
    if not ensemble.names or left() < 0.5 * took:
        return None
    parts = FOLDS
    if math.isfinite(given):
        parts = max(2, min(FOLDS, int(left() / max(took, 1e-3))))
    judge = _Judge(held, pool)
    at = {m.name: i for i, m in enumerate(pool.members)}
    chosen = [at[name] for name in ensemble.names]
    same = [pool.members[i] for i in chosen]
    mean = ENSEMBLERS["mean"].build(replace(setting, most=len(same)), same)
    judged = judge.scores(ensemble, build, setting, parts, left)
    if judged is None:
        return None
    ours, z, rows = judged
    scores = {"ensemble": ours, "mean": judge.fixed(mean), "single": Scores(math.nan, math.nan)}
    networks = [r for r in pool.results if r.status is not Status.BASELINE]
    if networks:
        scores["single"] = _scores_of(networks[0])
    if pool.results[0].status is Status.BASELINE:
        scores["baseline"] = _scores_of(pool.results[0])
    alone = judge.alone()[rows]
    scores["alone"] = Scores(judge.of_rows(alone, rows), _scores_of(pool.results[0]).audit)
    kinds = {r.candidate.id: r.candidate.architecture for r in pool.results}
    members = tuple(pool.results[i] for i in chosen)
    return Grown(options, ensemble, members, scores, kinds, judge.doubt(alone, z, rows))


def may_join(result: Result, members: str) -> bool:
    """Whether a result may be a member.

    A network may; with "given" a model of the user's too; with "any" every baseline, but the
    constant.
    """
    if result.status is not Status.BASELINE:
        return result.stands
    if result.controller == "given":
        return members != "networks"
    return members == "any" and result.candidate.architecture != "constant"


def _scores_of(result: Result) -> Scores:
    found = result.metrics
    return Scores(found.get("validation", math.nan), found.get("audit", math.nan))


def _raw(pool: Pool, held: HeldOut) -> Pool:
    """The pool with what is combined in the place of standardised values."""
    link, valid, audit = held.link, held.validation.offset, held.audit.offset
    members = tuple(replace(m, outputs=link.raw(m.outputs, valid)) for m in pool.members)
    return replace(pool, members=members, audit=link.raw(pool.audit, audit))


def make_setting(task: str, rows: Rows, options: Options, phi: Convex | None = None) -> Setting:
    """The penalty in units of the loss of the best constant, and less for many rows.

    `phi` is the loss where it is not that of the task.
    """
    setting = Setting(
        task,
        rows.y,
        rows.weight,
        kind=options.kind,
        bias=options.bias,
        strategy=options.strategy,
        most=options.most,
        phi=phi,
    )
    width = _outputs_of(task, rows)
    nothing = replace(setting, bias=True).fit([Member("", np.zeros((len(rows.y), width)), 0, 0.0)])
    unit = nothing.value * min(1.0, PENALTY_ROWS / len(rows.y))
    return replace(setting, lambda_=options.lambda_ * unit, beta=options.beta * unit)


def _outputs_of(task: str, rows: Rows) -> int:
    if rows.y.ndim == 2:
        return int(rows.y.shape[1])
    return int(rows.y.max()) + 1 if task == "multiclass" else 1


@dataclass(frozen=True)
class _Judge:
    """Scores of ensembles on rows they were not fitted to."""

    held: HeldOut
    pool: Pool

    def fixed(self, ensemble: Ensemble) -> Scores:
        """Of an ensemble whose weights were not fitted."""
        z = self._combine(ensemble, slice(None))
        return Scores(self._score(z, self.held.validation), self._audit(ensemble))

    def scores(
        self,
        ensemble: Ensemble,
        build: Callable[[Setting, Sequence[Member]], Ensemble],
        setting: Setting,
        parts: int,
        left: Callable[[], float],
    ) -> tuple[Scores, Floats, np.ndarray] | None:
        """Of an ensemble: each part of the rows by what is built on the others.

        Also what was scored, and on which rows. Parts for which no time is left are not scored;
        None if that is all of them.
        """
        z = self._combine(ensemble, slice(None))
        fold = fold_of(len(z), parts)
        rows = np.full(len(z), len(z) < 2 * FOLDS)
        for k in range(parts if len(z) >= 2 * FOLDS else 0):
            given = left() / (parts - k)
            if given <= 0.0:
                break
            setting = replace(setting, left=_until(time.monotonic() + given))
            fit, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            part = [replace(m, outputs=m.outputs[fit]) for m in self.pool.members]
            z[held] = self._combine(build(setting.taken(fit), part), held)
            rows[held] = True
        if not rows.any():
            return None
        return Scores(self.of_rows(z[rows], rows), self._audit(ensemble)), z[rows], rows

    def of_rows(self, z: Floats, rows: np.ndarray) -> float:
        """The metric of `z` on these validation rows."""
        return self._score(z, self.held.validation.taken(rows))

    def doubt(self, first: Floats, second: Floats, rows: np.ndarray) -> float:
        """The standard error of the difference of their metrics on `rows`, row by row."""
        held, part = self.held, self.held.validation.taken(rows)
        y, found = self._truth(part), [self._predicted(z, part) for z in (first, second)]
        return float(standard_errors(get_metric(held.metric), y, found, part.weight)[1])

    def alone(self) -> Floats:
        """Outputs of one member: on each fifth of the rows, of that which is best on the others."""
        members = self.pool.members
        z = members[0].outputs.copy()
        fold = fold_of(len(z), FOLDS)
        metric = get_metric(self.held.metric)
        for k in range(FOLDS if len(z) >= 2 * FOLDS else 0):
            fit, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            part = self.held.validation.taken(fit)
            errors = [to_error(metric, self._score(m.outputs[fit], part)) for m in members]
            z[held] = members[int(np.argmin(errors))].outputs[held]
        return z

    def _audit(self, ensemble: Ensemble) -> float:
        if not len(self.held.audit.y):
            return math.nan
        at = {m.name: i for i, m in enumerate(self.pool.members)}
        outputs = self.pool.audit[[at[name] for name in ensemble.names]]
        return self._score(ensemble.weights.combine(outputs), self.held.audit)

    def _combine(self, ensemble: Ensemble, rows: Any) -> Floats:
        members = {m.name: m for m in self.pool.members}
        if not ensemble.names:
            return np.zeros(self.pool.members[0].outputs[rows].shape) + ensemble.weights.bias
        outputs = [members[name].outputs[rows] for name in ensemble.names]
        return ensemble.weights.combine(np.stack(outputs))

    def _score(self, z: Floats, rows: Rows) -> float:
        found = self._predicted(z, rows)
        return score(get_metric(self.held.metric), self._truth(rows), found, rows.weight)

    def _predicted(self, z: Floats, rows: Rows) -> np.ndarray:
        held = self.held
        values = held.link.values(z, rows.offset)
        return np.asarray(predictions(held.task, values, 1.0, held.mean, held.scale))

    def _truth(self, rows: Rows) -> np.ndarray:
        held = self.held
        own = is_regression(held.task)
        return np.asarray(in_own_unit(rows.y, held.mean, held.scale) if own else rows.y)


def _until(moment: float) -> Callable[[], float]:
    return lambda: moment - time.monotonic()


def is_better(grown: Grown, metric: str) -> bool:
    """Whether the cross-fitted ensemble beats one member alone, chosen and judged on other rows.

    Within the doubt either is right about as often on new rows, so the difference alone decides.
    """
    found = get_metric(metric)
    ensemble, alone = (to_error(found, grown.scores[n].validation) for n in ("ensemble", "alone"))
    return ensemble < alone


COLUMNS: dict[str, str] = {
    "round": "round of the growth",
    "id": "identifier of the candidate offered",
    "member": "what it is: its architecture, or the name of the baseline",
    "depth": "its hidden layers",
    "complexity": "its r(h), in units of the pool's mean",
    "loss": "mean loss with it in the ensemble, the other weights as they were",
    "penalty": "sum of Gamma_j |w_j| with it",
    "weight": "its weight with which F is least",
    "change": "change of F = loss + penalty by it",
    "accepted": "whether it joined",
    "why": "why, or why not",
    "final_weight": "size of its weight in the finished ensemble, 0 if it is not in it",
}


def write_table(grown: Grown, path: Path) -> None:
    """Write ensemble.csv: every offer of every round, or the members where there were no rounds."""
    sizes = dict(zip(grown.ensemble.names, grown.weights.sizes().tolist(), strict=True))
    offers = grown.ensemble.offers
    rows: list[dict[str, Any]] = [
        {
            **asdict(o),
            "id": o.name,
            "member": grown.kinds.get(o.name, ""),
            "final_weight": sizes.get(o.name, 0.0),
        }
        for o in offers
    ]
    if not rows:
        rows = [
            {
                "round": 0,
                "id": r.candidate.id,
                "member": r.candidate.architecture,
                "depth": r.layers,
                "accepted": True,
                "why": f"weighed by {grown.options.ensembler}",
                "final_weight": sizes[r.candidate.id],
            }
            for r in grown.members
        ]
    write_csv(make_frame(rows, list(COLUMNS)), path)
