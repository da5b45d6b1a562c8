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
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

Scalar = bool | int | float | str | None


_HASHES = ("id", "family", "settings", "experiment")  # of a candidate, each computed once


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
class Candidate:
    """What to train: plain values only, identified by the hash of its content.

    `static` decides shapes and the graph (depth, width, norm, batch size ...); with `architecture`
    and `optimizer` it chooses the program. `numeric` (learning rate, decay, dropout ...) is data:
    one value for each candidate of a group. `parent` (an id) and `move` name its origin. A child,
    one that `inherits`, begins with its parent's weights, changed by a move of refine.MOVES; any
    other candidate begins anew, whatever it was derived from. `by` is the controller that proposed
    it where a mixture of them did: in memory only, no part of the content.
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
        """All that decides the outcome but the seed: equal settings are the same experiment."""
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
        """Hash of the `settings`; 1, 1.0 and true are the same, as they compare equal there."""
        parts = [
            {k: float(v) if isinstance(v, int | float) else v for k, v in part.items()}
            for part in (self.static, self.numeric)
        ]
        return _digest([self.architecture, self.optimizer, self.schedule, *parts, *self._origin])

    def proposed_by(self, controller: str) -> Candidate:
        """The same with that in `by`; hashes that are known stay known."""
        out = replace(self, by=controller)
        out.__dict__.update({k: v for k, v in self.__dict__.items() if k in _HASHES})
        return out

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

    The last five are means over the folds, see `training/probe.py`. Journals hold evaluations as
    rows without names: new fields come last, with a default.
    """

    step: int
    epoch: float
    lr: float
    train_loss: float  # the mean since the evaluation before
    validation: float  # the run's metric in its natural sign, uncalibrated
    grad_norm: float
    update_ratio: float = math.nan
    depth_ratio: float = math.nan
    dead_units: float = math.nan
    curvature: float = math.nan


@dataclass(frozen=True)
class Result:
    """What came out of training one candidate, or of a baseline.

    A child is a candidate that inherits its parent's weights. Its move changed the network before
    anything was trained; training then went on. NaN and 0 stand for what was not measured.
    """

    candidate: Candidate
    status: Status
    # "train", "validation" and "audit" -> the run's metric, in its natural sign and unit.
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[Evaluation, ...] = ()
    step: int = 0  # that of the weights which were kept
    steps: int = 0  # that were trained
    seconds: float = 0.0  # of training, an equal share of what its group took, and of its scores
    parameters: int = 0  # all of them, zeros too, as they are stored and computed with
    multiply_adds: int = 0  # of predicting one row
    latency_ms: float = math.nan  # of predicting 1,000 rows, measured
    size_bytes: int = 0  # of the model file, at most
    layers: int = 0  # hidden weight matrices
    capacity: float = math.nan  # log10 of a bound on Rademacher complexity (training/cost.py)
    sparsity: float = math.nan  # the share of zeros in the weight matrices
    nonzero: int = 0  # parameters that are not exactly zero
    error: float = math.nan  # validation, lower is better, in units of the baseline's
    complexity: float = math.nan  # normalised, see reward.py
    reward: float = -math.inf  # -error - weight * complexity, higher is better
    controller: str = ""  # who proposed it
    group: int = -1  # with which it was trained
    engine: str = ""
    message: str = ""  # what more is to be said of its end, for people
    # Of a child only; compared with its parent by the metric's lower-is-better form.
    difference: float = math.nan  # before training: the largest of an output, on training rows
    drop: float = math.nan  # before training: by how much its validation is worse
    gain: float = math.nan  # after training: by how much its validation is better
    gain_error: float = math.nan  # the standard error of `gain`, paired by row
    latency_share: float = math.nan  # its latency over the parent's, measured in turns
    accepted: bool | None = None  # whether it is better than its parent by `objective`
    objective: str = ""
    verdict: str = ""  # why it was accepted or not (refine/acceptance.py)

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


# The fields that are written as they are, in their order.
_PLAIN = tuple(f.name for f in fields(Result))[4:]
_OF_CHILDREN = frozenset(_PLAIN[_PLAIN.index("difference") :])


@dataclass(frozen=True)
class Group:
    """Candidates of one family trained as one program, with everything decided beforehand.

    At each of `rungs` (steps) the best `keep` candidates stay, as far as their errors are within
    the rung's `bars`; the rest are PRUNED. A candidate stays too where its error differs from the
    worst of those by fewer than `ties` standard errors (fidelity.py).
    """

    index: int
    candidates: tuple[Candidate, ...]
    steps: int  # that schedules refer to, whether or not a candidate lives that long
    rungs: tuple[int, ...] = ()
    keep: tuple[int, ...] = ()  # how many, at each rung
    bars: tuple[float, ...] = ()  # errors, lower is better, from what earlier groups had there
    ties: float = 0.0
    evaluate_every: int = 1  # steps
    # Evaluations without improvement after which training stops; 0 = it never stops early. A
    # candidate may have its own, unless the group has none.
    patience: int = 0
    engine: str = "stacked"
    controllers: tuple[str, ...] = ()  # who proposed each candidate
    order_seed: int = 0  # seed of the batch order, the same for a whole run
    own_order: bool = False  # whether every candidate has a batch order of its own
    # Of the training rows, seen until each rung; none: all of them from the start.
    row_shares: tuple[float, ...] = ()
    stop_at: int | None = None  # the step at which the deadline came, where a run is replayed

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
        for name in ("rungs", "keep", "controllers", "row_shares"):
            fields[name] = tuple(fields.get(name, ()))
        fields["bars"] = tuple(_in(b) for b in fields.get("bars", ()))
        return cls(**fields)


class Hashes:
    """A set of hashes that can grow without a copy: `known` may be shared and stays as it is."""

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

    Two fields spare a long history from being looked through at every proposal. `proposed`, where
    given, holds the experiments of all results (and may hold those of what is pending). `children`
    is False where it is known that no candidate inherits.
    """

    results: tuple[Result, ...] = ()
    pending: tuple[Candidate, ...] = ()
    proposed: AbstractSet[str] | None = field(default=None, repr=False, compare=False)
    children: bool = field(default=True, repr=False, compare=False)

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
        """The history for a controller that models scores over the space: children left out.

        A child may lie outside the space, and its score is not that of its settings alone. What was
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
