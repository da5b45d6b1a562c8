"""The records that pass between the parts: frozen, plain values, JSON round trip, no torch.

A `Candidate` says what to train, a `Group` which candidates are trained as one program and for how
long, a `Result` what came out, and a `History` is all a controller may look at.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

Scalar = bool | int | float | str | None


class Status(Enum):
    """How the training of a candidate ended; the value is the sentence for people.

    Names are written to journals: they may be added, never renamed or removed.
    """

    COMPLETE = "trained for all planned steps"
    CONVERGED = "stopped early: validation no longer improved; the best weights were kept"
    PRUNED = "stopped at a rung: other candidates were better by then"
    DEADLINE = "stopped by the time budget; the best weights so far were kept"
    DIVERGED = "diverged: the loss became infinite or not a number"
    OUT_OF_MEMORY = "did not fit into memory"
    INFEASIBLE = "not trained: it breaks a bound that was set"
    CRASHED = "its worker process died"
    FAILED = "raised an error"
    BASELINE = "baseline, not a network"

    @property
    def usable(self) -> bool:
        """Whether a result with this status has weights and a score."""
        return self in _USABLE


_USABLE = frozenset({Status.COMPLETE, Status.CONVERGED, Status.PRUNED, Status.DEADLINE})


@dataclass(frozen=True)
class Knob:
    """One hyperparameter of an architecture, optimizer or schedule: default and legal domain.

    Either `choices` (categorical) or `low`/`high` (a number; an integer where `default` is one).
    """

    default: Scalar
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Scalar, ...] | None = None
    doc: str = ""

    def allows(self, value: Scalar) -> bool:
        """Whether `value` lies in the legal domain."""
        if self.choices is not None:
            same = (c for c in self.choices if isinstance(value, bool) == isinstance(c, bool))
            return any(value == c for c in same)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if isinstance(self.default, int) and not float(value).is_integer():
            return False
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return low <= value <= high


@dataclass(frozen=True)
class Candidate:
    """What to train: plain values only, identified by the hash of its content.

    `static` decides shapes and the graph (depth, width, norm, batch size ...) and with
    `architecture` and `optimizer` chooses the program; `numeric` (learning rate, decay, dropout
    ...) is data, one value per member of a fused group. `parent` and `move` name its origin. A
    child, which `inherits`, begins with its parent's weights by a move of refine.MOVES; any other
    candidate begins anew, whatever it was derived from. `by` is the controller that proposed it
    where a mixture did: in memory only, no part of the content.
    """

    architecture: str
    static: Mapping[str, Scalar] = field(default_factory=dict)
    optimizer: str = "adamw"
    schedule: str = "constant"
    numeric: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    parent: str | None = None
    move: str | None = None
    inherits: bool = False
    by: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "static", dict(sorted(self.static.items())))
        object.__setattr__(self, "numeric", {k: float(v) for k, v in sorted(self.numeric.items())})

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits: the hash of the content."""
        return _digest(self.to_json())

    @cached_property
    def family(self) -> str:
        """Hash of what chooses the program: candidates of one family can be trained fused."""
        return _digest([self.architecture, self.static, self.optimizer])

    @cached_property
    def settings(self) -> tuple[Any, ...]:
        """All that is trained apart from the seed: equal settings are the same experiment."""
        return (
            self.architecture,
            tuple(self.static.items()),
            self.optimizer,
            self.schedule,
            tuple(self.numeric.items()),
            *self._origin,
        )

    @cached_property
    def experiment(self) -> str:
        """Hash of the `settings`; as there, 1, 1.0 and true are the same."""
        parts = [
            {k: float(v) if isinstance(v, int | float) else v for k, v in part.items()}
            for part in (self.static, self.numeric)
        ]
        return _digest([self.architecture, self.optimizer, self.schedule, *parts, *self._origin])

    @property
    def _origin(self) -> tuple[str | None, ...]:
        """Where the first weights come from; nothing for a candidate that begins anew."""
        return (self.parent, self.move) if self.inherits else ()

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.to_json() == other.to_json()

    def to_json(self) -> dict[str, Any]:
        """Plain values, every field of the content; `inherits` where it is so."""
        out: dict[str, Any] = {
            "architecture": self.architecture,
            "static": dict(self.static),
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "numeric": dict(self.numeric),
            "seed": self.seed,
            "parent": self.parent,
            "move": self.move,
        }
        return out | {"inherits": True} if self.inherits else out

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Candidate:
        """Inverse of `to_json`."""
        return cls(**value)


class Evaluation(NamedTuple):
    """One point of a candidate's learning curve (a row of curves.csv); NaN: not measured.

    Journals hold them as rows: fields are appended, with defaults.
    The last five are means over the folds, see `training/probe.py`.
    """

    step: int
    epoch: float
    lr: float
    train_loss: float
    validation: float  # the run's metric in its natural sign, uncalibrated
    grad_norm: float
    update_ratio: float = math.nan
    depth_ratio: float = math.nan
    dead_units: float = math.nan
    curvature: float = math.nan


@dataclass(frozen=True)
class Result:
    """What came out of training one candidate (or of a baseline).

    `metrics` maps "train", "validation", "audit" to the run's metric in its natural sign and unit;
    `error` is the lower-is-better form in units of the baseline's, `complexity` is normalised,
    and `reward` = -error - weight * complexity (see reward.py). `step` is that of the kept weights.
    `size_bytes` is that of the model file, at most; `layers` counts hidden weight matrices, and
    `capacity` is the logarithm of a bound on the Rademacher complexity (`training/cost.py`).
    `parameters` counts all, zeros too, as they are stored and computed with; `nonzero` those that
    are not exactly zero, and `sparsity` is the share of zeros in the weight matrices.

    Of a child alone: `difference` is the largest difference of an output to the parent's on a probe
    of training rows before a step, `drop` by how much its move made the validation metric worse,
    `gain` by how much it is better than the parent's after training, with the standard error of
    that difference, paired by row; both in the unit of the metric's lower-is-better form.
    `latency_share` is its latency over the parent's, both measured in turns.
    `accepted` for its `objective` or not, and why: `verdict` (refine/acceptance.py).
    """

    candidate: Candidate
    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[Evaluation, ...] = ()
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    parameters: int = 0
    multiply_adds: int = 0
    latency_ms: float = math.nan
    size_bytes: int = 0
    layers: int = 0
    capacity: float = math.nan
    sparsity: float = math.nan
    nonzero: int = 0
    error: float = math.nan
    complexity: float = math.nan
    reward: float = -math.inf
    controller: str = ""
    group: int = -1
    engine: str = ""
    message: str = ""
    difference: float = math.nan
    drop: float = math.nan
    gain: float = math.nan
    gain_error: float = math.nan
    latency_share: float = math.nan
    accepted: bool | None = None
    objective: str = ""
    verdict: str = ""

    @property
    def stands(self) -> bool:
        """Whether it has weights that may become the model: a child that was not accepted has not.

        What does not stand is rolled back: never the model, never a parent, never a member.
        """
        return self.status.usable and self.accepted is not False

    @cached_property
    def score(self) -> float:
        """The reward, as controllers compare it; NaN where there is none to compare with.

        Infeasible results have one, by how far they are from what is allowed; what was rolled back
        has none.
        """
        told = self.stands or self.status is Status.INFEASIBLE
        return self.reward if told and math.isfinite(self.reward) else math.nan

    def replace(self, **changes: Any) -> Result:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Plain values; infinities and NaN become strings so that the line is strict JSON."""
        out: dict[str, Any] = {"candidate": self.candidate.to_json(), "status": self.status.name}
        out["metrics"] = {k: _out(v) for k, v in self.metrics.items()}
        out["curve"] = [_row(e) for e in self.curve]
        for name in _PLAIN:
            if name not in _OF_CHILDREN or self.candidate.inherits:
                out[name] = _out(getattr(self, name))
        return out

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Result:
        """Inverse of `to_json`."""
        plain = {name: _in(value[name]) for name in _PLAIN if name in value}
        return cls(
            candidate=Candidate.from_json(value["candidate"]),
            status=Status[value["status"]],
            metrics={k: _in(v) for k, v in value["metrics"].items()},
            curve=tuple([_evaluation(row) for row in value["curve"]]),
            **plain,
        )


_PLAIN = (
    "step", "steps", "seconds", "parameters", "multiply_adds", "latency_ms", "size_bytes", "layers",
    "capacity", "sparsity", "nonzero", "error", "complexity", "reward", "controller", "group",
    "engine", "message",
    "difference", "drop", "gain", "gain_error", "latency_share", "accepted", "objective", "verdict",
)  # fmt: skip


_OF_CHILDREN = frozenset(_PLAIN[_PLAIN.index("difference") :])


@dataclass(frozen=True)
class Group:
    """Candidates of one family trained as one program, with everything decided beforehand.

    `steps` is the total every schedule refers to, whether or not a candidate lives that long.
    At each of `rungs` (steps) the best `keep` candidates stay, as far as their errors are within
    the rung's `bars`; the rest are PRUNED. Whom fewer than `ties` standard errors part from those
    that stay, stays too (fidelity.py).
    `stop_at` repeats a stop by the deadline when a run is replayed.
    """

    index: int
    candidates: tuple[Candidate, ...]
    steps: int
    rungs: tuple[int, ...] = ()
    keep: tuple[int, ...] = ()
    bars: tuple[float, ...] = ()  # errors, lower is better, from what earlier groups had there
    ties: float = 0.0
    evaluate_every: int = 1
    patience: int = 0  # evaluations without improvement; 0 = never stop early; a candidate may
    # have its own, unless the group has none
    engine: str = "stacked"
    controllers: tuple[str, ...] = ()  # who proposed each candidate
    order_seed: int = 0  # seed of the batch order, the same for a whole run
    stop_at: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, every field."""
        out: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        out["candidates"] = [c.to_json() for c in self.candidates]
        out["bars"] = [_out(b) for b in self.bars]
        return out

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Group:
        """Inverse of `to_json`."""
        fields = dict(value)
        fields["candidates"] = tuple(Candidate.from_json(c) for c in value["candidates"])
        for name in ("rungs", "keep", "controllers"):
            fields[name] = tuple(fields[name])
        fields["bars"] = tuple(_in(b) for b in fields.get("bars", ()))
        return cls(**fields)


class Hashes:
    """Hashes of what was proposed; those added leave `known`, which may be shared, as it is."""

    def __init__(self, known: AbstractSet[Hashable], more: Iterable[Hashable] = ()) -> None:
        self._known = known
        self._more = set(more)

    def __contains__(self, name: Hashable) -> bool:
        return name in self._more or name in self._known

    def add(self, name: Hashable) -> None:
        """One more."""
        self._more.add(name)


@dataclass(frozen=True)
class History:
    """Every result so far in order, and the candidates proposed but not yet finished.

    `proposed` spares a long history from being looked through at every proposal: the experiments of
    all results, and of nothing that is in neither. `children` that is False spares it too: none of
    them inherits.
    """

    results: tuple[Result, ...] = ()
    pending: tuple[Candidate, ...] = ()
    proposed: AbstractSet[str] | None = field(default=None, repr=False, compare=False)
    children: bool = field(default=True, repr=False, compare=False)  # False: it holds none

    @cached_property
    def _of_results(self) -> AbstractSet[str]:
        if self.proposed is not None:
            return self.proposed
        return {r.candidate.experiment for r in self.results}

    def experiments(self) -> Hashes:
        """`Candidate.experiment` of all that was proposed."""
        return Hashes(self._of_results, [c.experiment for c in self.pending])

    def new(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Those of `candidates` that were never proposed, each once.

        Equal settings are the same experiment, whatever the seed.
        """
        known = self.experiments()
        wanted: dict[str, Candidate] = {}
        for candidate in candidates:
            if candidate.experiment not in known:
                wanted.setdefault(candidate.experiment, candidate)
        return list(wanted.values())

    def without_children(self) -> History:
        """As a controller sees it that models the space, of which children are no samples.

        They may lie outside, and their scores are not those of their settings alone. What was
        proposed is known as before.
        """
        if not self.children:
            return self
        results = tuple(r for r in self.results if not r.candidate.inherits)
        pending = tuple(c for c in self.pending if not c.inherits)
        if len(results) == len(self.results) and len(pending) == len(self.pending):
            return self
        return History(results, pending, self._of_results)

    def networks(self) -> Iterator[Result]:
        """The results that are not baselines, in order."""
        return (r for r in self.results if r.status is not Status.BASELINE)


@dataclass(frozen=True)
class DataSpec:
    """What architectures and losses must know of the data: sizes, never values of rows.

    `cardinalities` counts the codes of each category column, code 0 (missing or unseen) included.
    `edges` maps a scaling ("quantile", "robust") to one increasing list of bin edges per numeric
    column in scaled units, for piecewise-linear embeddings. `loss` is what the loss "auto" of a
    candidate stands for, itself "auto" where the task decides; `quantile` the level of the quantile
    loss; `target_ratio` the mean of every numeric target in units of its scale, `target_low` the
    least of their values, None where that is not known. `exposure`: whether rows have one.
    """

    task: str  # one of tasks.TASKS
    n_outputs: int
    n_numeric: int
    cardinalities: tuple[int, ...] = ()
    edges: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    loss: str = "auto"
    quantile: float = 0.5
    target_ratio: tuple[float, ...] = ()
    target_low: float | None = None
    exposure: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values, every field."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DataSpec:
        """Inverse of `to_json`."""
        fields = dict(value)
        fields["cardinalities"] = tuple(fields["cardinalities"])
        fields["edges"] = {
            k: tuple(tuple(e) for e in columns) for k, columns in fields["edges"].items()
        }
        fields["target_ratio"] = tuple(fields.get("target_ratio", ()))
        return cls(**fields)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _row(evaluation: Evaluation) -> list[Any]:
    # As `_out`, quicker, for a run writes millions: v - v is 0 of finite numbers alone.
    return [v if v - v == 0 else str(v) for v in evaluation]


def _evaluation(row: Sequence[Any]) -> Evaluation:
    if str in map(type, row):
        row = [float(v) if isinstance(v, str) else v for v in row]
    return Evaluation(*row)


def _out(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _in(value: Any) -> Any:
    return float(value) if value in ("nan", "inf", "-inf") else value
