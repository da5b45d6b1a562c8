"""The self-contained artifact: one file with preprocessing, members, weights of the mixture.

A model file is a zip of three parts, JSON and safetensors only, so loading executes no code:
``manifest.json`` (task, classes, members, checksum), ``preprocessor.json`` and
``weights.safetensors``. Architectures are named and looked up in the registry, never imported from
a path in the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.baselines import count_folds, kind_of, one_fold, predict_member
from adanet_py.data.exposure import Exposure
from adanet_py.data.preprocess import Features, Preprocessor
from adanet_py.data.table import read_table
from adanet_py.data.targets import AnyTarget, all_numbers, encode, from_json, names_from_json
from adanet_py.ensemble.links import Link
from adanet_py.ensemble.weights import Weights
from adanet_py.errors import ConfigError, RunError, check_known
from adanet_py.journal import write_atomic
from adanet_py.metrics import Metric, check_values, check_weighted, common, resolve_metric, score
from adanet_py.outputs import as_outputs, predictions
from adanet_py.own import Own
from adanet_py.records import Candidate, DataSpec
from adanet_py.tasks import has_several_targets, is_regression, part_of
from adanet_py.training.losses import choose_loss, loss_name

if TYPE_CHECKING:
    import pandas as pd


VERSION = 4  # of models with ONNX graphs; 3 with trees, 2 of ensembles of others, 1 of a single one
MODEL_FILE = "model.adanet"
_PARTS = ("manifest.json", "preprocessor.json", "weights.safetensors")
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Member:
    """One network (in all its folds) or one baseline of a model.

    `arrays` are its weights: for a network "<fold>/<parameter>", for a baseline those of
    `baselines.Baseline.member`.
    """

    kind: str  # "network", "linear", "trees" or "onnx"
    arrays: Mapping[str, np.ndarray]
    candidate: Candidate
    folds: int = 1
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class Model:
    """What predicts: raw rows in, labels, probabilities or values out.

    With `weights` it is an ensemble: the outputs of its members, logits over their temperature or
    standardised values, are combined by them. `own` holds what the user gave as objects, which a
    file cannot carry. `exposure` is the column by which it predicts counts or amounts: those
    expected of a row at its exposure.
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
        """The usual metrics of the task on rows that have the target.

        `metric`, any that suits the task, comes first, by default the run's own. `weight` names a
        column of row weights; metrics that take none are then left out, or, where it is asked for,
        a ConfigError. `on_note` is told of rows left out, for want of a target, say.
        """
        scored = self._scored(data, target, on_note, metric, weight)
        return scored.metrics(self.task, scored.y, scored.outputs, scored.first)

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
        whole = scored.metrics(self.task, scored.y, scored.outputs, scored.first)
        each = {}
        if has_several_targets(self.task):
            alone = part_of(self.task)
            for t, name in enumerate(self.target_name):
                column = scored.outputs[:, t]
                if not is_regression(alone):
                    column = np.stack([1 - column, column], axis=1)
                each[name] = scored.metrics(alone, scored.y[:, t], column)
        return whole, each

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
        return _Scored(y, outputs, weights, first)

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
        """Probabilities [N, C] or values [N] of the mixture; see outputs.py for several targets."""
        return self.outputs_of(self.features(frame))

    def outputs_of(self, features: Features) -> np.ndarray:
        """Probabilities or values of rows that are read already, see `features`."""
        if self.weights is None:
            return self._predict(self.members[0], features)
        link, exposure = Link.of_spec(self.spec), features.get("exposure")
        offset = None if exposure is None else np.log(exposure.astype(np.float64))
        raw = [link.raw(self.member_outputs(m, features), offset) for m in self.members]
        return self.finish(link.values(self.weights.combine(np.stack(raw)), offset), 1.0)

    def member_outputs(self, member: Member, features: Features) -> np.ndarray:
        """Outputs of a member [N, n_outputs]: logits, or standardised values."""
        if member.kind != "network":
            found = predict_member(member.arrays, features, self.task)
            return as_outputs(self.task, found, self.target.mean, self.target.scale)
        raw = self.fold_outputs(member, features).mean(0).astype(np.float64)
        return np.asarray(raw / member.temperature)

    def _predict(self, member: Member, features: Features) -> np.ndarray:
        if member.kind != "network":
            return predict_member(member.arrays, features, self.task)
        return self.finish(self.fold_outputs(member, features).mean(0), member.temperature)

    def finish(self, outputs: np.ndarray, temperature: float) -> np.ndarray:
        """Network outputs [N, n_outputs] as probabilities [N, C] or values [N]."""
        mean, scale = self.target.mean, self.target.scale
        return predictions(self.task, outputs, temperature, mean, scale)

    def fold_outputs(self, member: Member, features: Features) -> np.ndarray:
        """Outputs of a network member's folds as they are scored [F, N, n_outputs]; loads torch."""
        import torch

        from adanet_py.training.engines.program import as_members, merge_members, per_row

        modules, scaling = self._networks[self.members.index(member)]
        loss = choose_loss(member.candidate.static, self.spec, self.own.all_losses())
        numeric = torch.from_numpy(features[scaling])
        category = torch.from_numpy(features["category"])
        exposure = features.get("exposure")
        offset = 0.0 if exposure is None else per_row(torch.from_numpy(exposure).log())
        out = []
        with torch.inference_mode():
            for module in modules:
                parts = [
                    as_members(module(n, c), 1)
                    for n, c in zip(numeric.split(_CHUNK), category.split(_CHUNK), strict=True)
                ]
                out.append(merge_members(torch.cat(parts) + offset, self.task, loss).numpy())
        return np.stack(out)

    @cached_property
    def _networks(self) -> list[tuple[list[Any], str]]:
        """Modules of every fold and the scaling, for every network member."""
        import torch

        from adanet_py.training.engines.program import build_module, load_weights

        known = self.own.loadable_architectures()
        out: list[tuple[list[Any], str]] = []
        for member in self.members:
            modules = []
            name = member.candidate.architecture
            if member.kind == "network":
                check_known("architecture", name, known, RunError)
            for f in range(member.folds if member.kind == "network" else 0):
                module = build_module(known[name], member.candidate, self.spec, 0)
                prefix = f"{f}/"
                state = {
                    n.removeprefix(prefix): torch.from_numpy(np.array(v))
                    for n, v in member.arrays.items()
                    if n.startswith(prefix)
                }
                try:
                    load_weights(module, state)
                except RuntimeError:
                    raise RunError(
                        f"The model file does not hold the weights of the {name} network it names. "
                        "Use an intact copy."
                    ) from None
                modules.append(module.eval())
            scaling = "quantile"
            if member.kind == "network":
                scaling = str(known[name].complete(member.candidate.static)["scaling"])
            out.append((modules, scaling))
        return out

    @property
    def _version(self) -> int:
        """The oldest format that has what the model has."""
        kinds = {m.kind for m in self.members}
        if kinds & {"onnx", "trees"}:
            return VERSION if "onnx" in kinds else 3
        return 1 if self.weights is None else 2

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model file, atomically."""
        write_atomic(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """What is in the model file."""
        from safetensors.numpy import save

        arrays = {
            f"{i}/{n}": np.ascontiguousarray(v)
            for i, member in enumerate(self.members)
            for n, v in member.arrays.items()
        }
        weights = save(arrays)
        preprocessor = json.dumps(self.preprocessor.to_json()).encode()
        manifest = {
            "format": "adanet_py model",
            "version": self._version,
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
            "sha256": {
                "preprocessor.json": hashlib.sha256(preprocessor).hexdigest(),
                "weights.safetensors": hashlib.sha256(weights).hexdigest(),
            },
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, content in zip(
                _PARTS, (json.dumps(manifest).encode(), preprocessor, weights), strict=True
            ):
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
        return buffer.getvalue()


@dataclass(frozen=True)
class _Scored:
    """Truth (codes, or numbers in their own unit), predictions, weights and the first metric."""

    y: np.ndarray
    outputs: np.ndarray
    weights: np.ndarray | None
    first: Metric

    def metrics(
        self, task: str, y: np.ndarray, outputs: np.ndarray, first: Metric | None = None
    ) -> dict[str, float]:
        """`first` and the usual metrics of `task` that are defined for truth and weights."""
        shown = [
            m
            for m in (*([] if first is None else [first]), *common(task))
            if task in m.tasks
            and (m.domain is None or m.domain.holds(y).all())
            and (self.weights is None or task not in m.unweighted)
        ]
        return {m.name: score(m, y, outputs, self.weights) for m in shown}


def load(path: str | os.PathLike[str], *, own: Own | None = None) -> Model:
    """Load a model from its file or from a run folder; executes no code from it.

    `own`: the objects the model uses, where the user gave it any.
    Raises RunError for a missing, damaged or newer file.
    """
    found = Path(path)
    if found.is_dir():
        found = found / MODEL_FILE
    if not found.is_file():
        hint = "Give a folder a search printed as its run, or a file saved from one."
        if Path(path).is_dir() and (Path(path) / "journal.jsonl").exists():
            hint = "That run has not saved a model yet: go on with it by `resume`."
        raise RunError(
            f"Expected a model file or a run folder with one at {path}, found none. {hint}"
        )
    parts = _read_parts(found)
    try:
        manifest = json.loads(parts["manifest.json"])
        if manifest.get("format") != "adanet_py model":
            raise ValueError("it is not a model of adanet_py")
        if int(manifest["version"]) > VERSION:
            raise RunError(
                f"{found} was written by a newer version (format {manifest['version']}, this "
                f"program reads up to {VERSION}). Update adanet_py."
            )
        for name in _PARTS[1:]:
            if hashlib.sha256(parts[name]).hexdigest() != manifest["sha256"][name]:
                raise ValueError(f"the checksum of {name} does not fit")
        return _build(manifest, parts, own or Own())
    except RunError:
        raise
    except Exception as error:  # damaged content fails in many ways; all mean the same to a user
        raise RunError(f"{found} cannot be read as a model: {error}. Use an intact copy.") from None


def _read_parts(path: Path) -> dict[str, bytes]:
    """The known parts of a model file and nothing else."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            # Stored as they are: a small file cannot unfold into a large one.
            stored = all(i.compress_type == zipfile.ZIP_STORED for i in infos)
            if sorted(i.filename for i in infos) != sorted(_PARTS) or not stored:
                raise zipfile.BadZipFile(f"expected the parts {', '.join(_PARTS)}")
            return {name: archive.read(name) for name in _PARTS}
    except Exception as error:  # damaged bytes fail in many ways; all mean the same to a user
        raise RunError(f"{path} is not a model file: {error}. Use an intact copy.") from None


def _build(
    manifest: Mapping[str, Any],
    parts: Mapping[str, bytes],
    own: Own,
) -> Model:
    from safetensors.numpy import load as load_arrays

    known, losses = own.loadable_architectures(), own.all_losses()
    spec = DataSpec.from_json(manifest["spec"])
    arrays = load_arrays(parts["weights.safetensors"])
    members = []
    for i, value in enumerate(manifest["members"]):
        prefix = f"{i}/"
        weights = {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}
        fields = {k: value[k] for k in ("kind", "folds", "temperature")}
        candidate = Candidate.from_json(value["candidate"])
        if fields["kind"] == "network" and candidate.architecture not in known:
            raise RunError(
                f"The model uses the architecture {candidate.architecture!r}, which is not one of "
                f"{', '.join(known)}. If it is your own, give it again (architectures=...)."
            )
        loss = loss_name(candidate.static, spec)
        if fields["kind"] == "network" and loss not in losses:
            raise RunError(
                f"The model uses the loss {loss!r}, which is not one of {', '.join(losses)}. If it "
                "is your own, give it again (losses=...)."
            )
        members.append(Member(arrays=weights, candidate=candidate, **fields))
    weighed = manifest.get("weights")
    return Model(
        target_name=names_from_json(manifest["target_name"]),
        metric=manifest["metric"],
        target=from_json(manifest["target"]),
        preprocessor=Preprocessor.from_json(json.loads(parts["preprocessor.json"])),
        spec=spec,
        members=tuple(members),
        about=manifest["about"],
        own=own,
        exposure=Exposure.from_json(manifest.get("exposure")),
        weights=None if weighed is None else Weights.from_json(weighed),
    )


def network_member(path: Path) -> Member:
    """The member a candidate's file in a run folder holds."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()["about"])
        names = [n for n in file.keys() if n.startswith("weights/")]
        arrays = {n.removeprefix("weights/"): file.get_tensor(n) for n in names}
    candidate = Candidate.from_json(about["candidate"])
    return Member("network", arrays, candidate, about["folds"], about["temperature"])


def baseline_member(path: Path, candidate: Candidate) -> Member:
    """The member a baseline's file in a run folder holds."""
    from safetensors.numpy import load_file

    arrays = {n[7:]: v for n, v in load_file(path).items() if n.startswith("member/")}
    return Member(kind_of(arrays), arrays, candidate, count_folds(arrays))


def verify(
    model: Model, frame: pd.DataFrame, fold: Sequence[int], expected: Sequence[np.ndarray]
) -> float:
    """Largest difference between what was scored and what the model gives on the probe rows.

    `expected` are of each member the raw outputs [N, n_outputs] stored while training (of a
    baseline: probabilities or values), row i by that of fold `fold[i]`. Relative to their size.
    """
    features, largest = model.features(frame), 0.0
    for member, stored in zip(model.members, expected, strict=True):
        found = _of_folds(model, member, features)[np.asarray(fold), np.arange(len(frame))]
        size = np.maximum(1.0, np.abs(stored))
        if found.shape != stored.shape or not np.isfinite(found).all():
            return float("inf")
        largest = max(largest, float((np.abs(found - stored) / size).max(initial=0.0)))
    return largest


def _of_folds(model: Model, member: Member, features: Features) -> np.ndarray:
    """What every fold of a member makes of the rows, as it is stored [F, N, ...]."""
    if member.kind == "network":
        return model.fold_outputs(member, features)
    folds = range(count_folds(member.arrays))
    return np.stack(
        [predict_member(one_fold(member.arrays, f), features, model.task) for f in folds]
    )
