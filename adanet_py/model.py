"""A model: raw rows in, labels, probabilities or values out; of one member or an ensemble.

It is self-contained: preprocessing, members and weights of the mixture go into one file, see
model_file.py, which is loaded without executing any code from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.baselines import count_folds, one_fold, predict_member
from adanet_py.data.exposure import Exposure
from adanet_py.data.preprocess import Features, Preprocessor
from adanet_py.data.spec import DataSpec
from adanet_py.data.table import read_table
from adanet_py.data.targets import AnyTarget, all_numbers, encode, from_json, names_from_json
from adanet_py.ensemble.links import Link
from adanet_py.ensemble.weights import Weights
from adanet_py.errors import ConfigError, RunError
from adanet_py.journal import write_atomic
from adanet_py.member import Member, Networks, with_prefix
from adanet_py.metrics import Metric, check_values, check_weighted, common, resolve_metric, score
from adanet_py.model_file import Content, find, oldest_version, pack, readable, unpack
from adanet_py.outputs import as_outputs, predictions
from adanet_py.own import Own
from adanet_py.records import Candidate
from adanet_py.tasks import has_several_targets, is_regression, part_of
from adanet_py.training.losses import loss_name

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Model:
    """What predicts: raw rows in, labels, probabilities or values out.

    With `weights` it is an ensemble: the outputs of its members, logits over their temperature or
    standardised values, are combined by them. Without, it has one member. `own` holds what the user
    gave as objects, which a file cannot carry. `exposure` is the column by which it predicts counts
    or amounts: those expected of a row at its exposure. `metric` is the one it was chosen by,
    `about` what else is known of it (plain values: its score, its parameters ...).
    """

    target_name: str | tuple[str, ...]
    metric: str
    target: AnyTarget
    preprocessor: Preprocessor
    spec: DataSpec
    members: tuple[Member, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    own: Own = field(default_factory=Own, repr=False)
    exposure: Exposure | None = None
    weights: Weights | None = None

    @property
    def task(self) -> str:
        """binary, multiclass, multilabel, regression or multioutput."""
        return self.target.task

    @property
    def classes(self) -> tuple[Any, ...]:
        """Class labels in the order of the columns of `predict_proba`; empty for numbers.

        With several targets the two labels of each.
        """
        return self.target.classes

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns prediction needs."""
        return self.preprocessor.columns + (() if self.exposure is None else (self.exposure.name,))

    def predict(self, data: Any) -> np.ndarray:
        """Labels or values [N], one per row of `data` (path, DataFrame or array), in order.

        With several targets [N, T]. Raises DataError naming a column that is missing.
        """
        outputs = self._outputs(self._frame(data))
        if is_regression(self.task):
            return outputs
        labels = has_several_targets(self.task)
        return self.target.decode(outputs > 0.5 if labels else outputs.argmax(1))

    def predict_proba(self, data: Any) -> np.ndarray:
        """Class probabilities [N, C]; ConfigError for regression.

        With several targets [N, T], of the second label of each (see `classes`).
        """
        if is_regression(self.task):
            raise ConfigError("Probabilities were asked for, but this model is for regression.")
        return self._outputs(self._frame(data))

    def evaluate(
        self,
        data: Any,
        target: str | Sequence[str] | None = None,
        on_note: Callable[[str], None] | None = None,
        *,
        metric: str | None = None,
        weight: str | None = None,
    ) -> dict[str, float]:
        """The usual metrics of the task on the rows of `data` that have the target: name -> value.

        `target` names its column or columns, where they are called otherwise than in the run.
        `metric`, any that suits the task, comes first, by default the run's own. `weight` names a
        column of row weights; metrics that take none are then left out. `on_note` is told, in a
        sentence, which rows are left out and why.

        Raises DataError for data that lack a column, ConfigError for a `metric` that does not suit
        the task or the values, or takes no weights where there are some.
        """
        return self._scored(data, target, on_note, metric, weight).metrics()

    def evaluate_targets(
        self,
        data: Any,
        target: str | Sequence[str] | None = None,
        on_note: Callable[[str], None] | None = None,
        *,
        metric: str | None = None,
        weight: str | None = None,
    ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """What `evaluate` returns, and of each target alone: name -> metric -> value."""
        scored = self._scored(data, target, on_note, metric, weight)
        each = {}
        if has_several_targets(self.task):
            each = {name: scored.alone(t).metrics() for t, name in enumerate(self.target_name)}
        return scored.metrics(), each

    def _scored(
        self,
        data: Any,
        target: str | Sequence[str] | None,
        on_note: Callable[[str], None] | None,
        metric: str | None,
        weight: str | None,
    ) -> _Scored:
        """Predictions of the rows that have the target, and what they are compared with."""
        table = read_table(data, target=target or self.target_name, weight=weight)
        assert table.target is not None
        first = resolve_metric(metric or self.metric, self.task)
        weights = None if table.weight is None else np.asarray(table.weight)
        if weights is not None and metric is not None:
            check_weighted(first, self.task)
        for note in table.notes:
            if on_note is not None:
                on_note(note)
        y: np.ndarray = encode(self.target, table.target)
        outputs = self._outputs(table.frame)
        if is_regression(self.task):
            y = all_numbers(table.target)  # exact: a 0 that is none any more has no deviance
            if metric is not None:
                check_values(first, y)
        return _Scored(self.task, y, outputs, weights, first)

    def _frame(self, data: Any) -> pd.DataFrame:
        import pandas as pd

        if isinstance(data, pd.DataFrame):
            # Names as text, as when the model was fitted; a missing one is said by `transform`.
            return data.set_axis([str(c) for c in data.columns], axis=1)
        return read_table(data, require_target=False).frame

    def features(self, frame: pd.DataFrame) -> Features:
        """What the members read of the rows of a table: inputs and, where there is one, exposure.

        Raises DataError for a missing column.
        """
        features = self.preprocessor.transform(frame)
        if self.exposure is not None:
            features["exposure"] = self.exposure.of(frame)
        return features

    def _outputs(self, frame: pd.DataFrame) -> np.ndarray:
        return self.outputs_of(self.features(frame))

    def outputs_of(self, features: Features) -> np.ndarray:
        """What it predicts of rows that are read already, see `features`.

        Probabilities [N, C] or values [N]; with several targets [N, T], see outputs.py.
        """
        if self.weights is None:
            [member] = self.members
            if member.kind != "network":
                return predict_member(member.arrays, features, self.task)
            return self.finish(self.fold_outputs(member, features).mean(0), member.temperature)
        link, exposure = Link.of_spec(self.spec), features.get("exposure")
        offset = None if exposure is None else np.log(exposure.astype(np.float64))
        raw = [link.raw(self.member_outputs(m, features), offset) for m in self.members]
        return self.finish(link.values(self.weights.combine(np.stack(raw)), offset), 1.0)

    def member_outputs(
        self, member: Member, features: Features, fold: int | None = None
    ) -> np.ndarray:
        """Outputs of a member [N, n_outputs]: logits over its temperature, or standardised values.

        Those of its folds are averaged, unless one `fold` is asked for.
        """
        if member.kind != "network":
            arrays = member.arrays if fold is None else one_fold(member.arrays, fold)
            found = predict_member(arrays, features, self.task)
            return as_outputs(self.task, found, self.target.mean, self.target.scale)
        raw = self._networks_of(member).outputs(features, fold).mean(0).astype(np.float64)
        return np.asarray(raw / member.temperature)

    def finish(self, outputs: np.ndarray, temperature: float) -> np.ndarray:
        """Network outputs [N, n_outputs] as probabilities [N, C] or values [N]."""
        mean, scale = self.target.mean, self.target.scale
        return predictions(self.task, outputs, temperature, mean, scale)

    def fold_outputs(self, member: Member, features: Features) -> np.ndarray:
        """What each fold of a member makes of rows, as a run stores it and scores it [F, N, ...].

        Of a network its raw outputs, of a baseline probabilities or values.
        """
        if member.kind == "network":
            return self._networks_of(member).outputs(features)
        folds = [one_fold(member.arrays, f) for f in range(count_folds(member.arrays))]
        return np.stack([predict_member(arrays, features, self.task) for arrays in folds])

    def _networks_of(self, member: Member) -> Networks:
        return self._networks[self.members.index(member)]

    @cached_property
    def _networks(self) -> dict[int, Networks]:
        """The modules of every network member, by its place."""
        return {
            i: Networks.of(member, self.spec, self.own)
            for i, member in enumerate(self.members)
            if member.kind == "network"
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model file, atomically."""
        write_atomic(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """What is in the model file."""
        arrays = {f"{i}/{n}": v for i, m in enumerate(self.members) for n, v in m.arrays.items()}
        manifest = {
            "version": oldest_version({m.kind for m in self.members}, self.weights is not None),
            "target_name": self.target_name,
            "metric": self.metric,
            "target": self.target.to_json(),
            "spec": self.spec.to_json(),
            "exposure": None if self.exposure is None else self.exposure.to_json(),
            "members": [
                {
                    "kind": m.kind,
                    "candidate": m.candidate.to_json(),
                    "folds": m.folds,
                    "temperature": m.temperature,
                }
                for m in self.members
            ],
            "weights": None if self.weights is None else self.weights.to_json(),
            "about": dict(self.about),
        }
        return pack(Content(manifest, self.preprocessor.to_json(), arrays))


@dataclass(frozen=True)
class _Scored:
    """Predictions beside the truth `y` (codes, or numbers in their own unit) and row weights.

    `first` is the metric that is shown before the usual ones of the task.
    """

    task: str
    y: np.ndarray
    outputs: np.ndarray
    weights: np.ndarray | None
    first: Metric | None

    def metrics(self) -> dict[str, float]:
        """`first` and the usual metrics of the task, those that truth and weights allow."""
        shown = [
            m
            for m in (*([] if self.first is None else [self.first]), *common(self.task))
            if self.task in m.tasks
            and (m.domain is None or m.domain.holds(self.y).all())
            and (self.weights is None or self.task not in m.unweighted)
        ]
        return {m.name: score(m, self.y, self.outputs, self.weights) for m in shown}

    def alone(self, t: int) -> _Scored:
        """Target `t` of several."""
        task, outputs = part_of(self.task), self.outputs[:, t]
        if not is_regression(task):
            outputs = np.stack([1 - outputs, outputs], axis=1)
        return _Scored(task, self.y[:, t], outputs, self.weights, None)


def load(path: str | os.PathLike[str], *, own: Own | None = None) -> Model:
    """Load a model from its file or from a run folder; executes no code from it.

    `own`: the objects the model uses, where the user gave it any.
    Raises RunError for a missing, damaged or newer file.
    """
    found = find(path)
    content = unpack(found)
    with readable(found):
        return _build(content, own or Own())


def _build(content: Content, own: Own) -> Model:
    manifest = content.manifest
    spec = DataSpec.from_json(manifest["spec"])
    members = []
    for i, value in enumerate(manifest["members"]):
        member = Member(
            value["kind"],
            with_prefix(content.arrays, f"{i}/"),
            Candidate.from_json(value["candidate"]),
            value["folds"],
            value["temperature"],
        )
        if member.kind == "network":
            _check_network(member.candidate, spec, own)
        members.append(member)
    weighed = manifest.get("weights")
    return Model(
        target_name=names_from_json(manifest["target_name"]),
        metric=manifest["metric"],
        target=from_json(manifest["target"]),
        preprocessor=Preprocessor.from_json(content.preprocessor),
        spec=spec,
        members=tuple(members),
        about=manifest["about"],
        own=own,
        exposure=Exposure.from_json(manifest.get("exposure")),
        weights=None if weighed is None else Weights.from_json(weighed),
    )


def _check_network(candidate: Candidate, spec: DataSpec, own: Own) -> None:
    """Raise RunError where a model's network needs what only its user can give."""
    known, losses = own.loadable_architectures(), own.all_losses()
    if candidate.architecture not in known:
        raise RunError(
            f"The model uses the architecture {candidate.architecture!r}, which is not one of "
            f"{', '.join(known)}. If it is your own, give it again (architectures=...)."
        )
    loss = loss_name(candidate.static, spec)
    if loss not in losses:
        raise RunError(
            f"The model uses the loss {loss!r}, which is not one of {', '.join(losses)}. If it "
            "is your own, give it again (losses=...)."
        )
