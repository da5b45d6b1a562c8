"""From a table to what workers train on: columns, task, split, preprocessing, arrays on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.class_weight import ClassWeight, check_class_weight, class_weights
from adanet_py.data import targets
from adanet_py.data.cells import numbers, row_number
from adanet_py.data.columns import Column, infer_columns
from adanet_py.data.exposure import Exposure
from adanet_py.data.preprocess import Preprocessor, fit_preprocessor
from adanet_py.data.source import ArraySource, write_arrays
from adanet_py.data.splits import Split, check_weights, make_split
from adanet_py.data.table import read_table
from adanet_py.data.targets import AnyTarget
from adanet_py.errors import ConfigError, DataError
from adanet_py.journal import write_atomic
from adanet_py.metrics import check_values, check_weighted
from adanet_py.objective import Objective, check_loss, choose_objective
from adanet_py.tasks import is_regression
from adanet_py.training.losses import AUTO, LOSSES, Loss

if TYPE_CHECKING:
    import pandas as pd

    from adanet_py.config import SearchConfig

PROBE_ROWS = 64  # rows the saved model is checked on
_MANIFEST_BYTES = 4096  # of a model file: names, one candidate, checksums, the zip


@dataclass(frozen=True)
class Prepared:
    """Everything known of the data once training starts; the rows themselves are in `source`."""

    name: str
    task: str
    metric: str
    target_name: str | tuple[str, ...]  # several names where there are several targets
    target: AnyTarget
    columns: tuple[Column, ...]
    preprocessor: Preprocessor
    split: Split
    source: ArraySource
    class_weight: tuple[Any, ...] | None  # of each class; of several targets such a tuple each
    notes: tuple[str, ...]
    exposure: Exposure | None = None

    @property
    def rows(self) -> int:
        """Rows of the largest training part."""
        return max(len(r) for r in self.split.train)

    @cached_property
    def model_bytes(self) -> int:
        """Bytes of a model file without its weights, at most."""
        parts = [self.preprocessor.to_json(), self.source.spec.to_json(), self.target.to_json()]
        return sum(len(json.dumps(part)) for part in parts) + _MANIFEST_BYTES

    @property
    def target_scale(self) -> tuple[Any, Any]:
        """(mean, scale) that undo the standardisation of a number; lists where there are several.

        They are plain values.
        """
        mean, scale = np.asarray(self.target.mean), np.asarray(self.target.scale)
        return (mean.tolist(), scale.tolist())


def read(
    config: SearchConfig,
    data: Any,
    types: Mapping[str, str] | None = None,
    losses: Mapping[str, Loss] = LOSSES,
) -> _Read:
    """Read and check the data: every error a user can make with it is raised here."""
    check_loss(config.loss, config.quantile, losses)
    splitting = {
        "--split": config.split,
        "--group": config.group,
        "--time-column": config.time_column,
    }
    given = [option for option, column in splitting.items() if column is not None]
    if len(given) > 1:
        raise ConfigError(
            f"Expected at most one of {', '.join(splitting)}, found {' and '.join(given)}. "
            "Leave out all but one."
        )
    table = read_table(
        data,
        target=config.target,
        drop=config.drop,
        weight=config.weight,
        group=config.group,
        time_column=config.time_column,
        split=config.split,
        exposure=config.exposure,
        strict=config.strict,
    )
    assert table.target is not None
    task = targets.infer(table.target, config.task)
    objective = choose_objective(task, config.loss, config.quantile, config.metric, losses)
    exposure = None if table.exposure is None else Exposure.fit(table.exposure)
    if exposure is not None and not losses[objective.loss].log_link:
        fitting = ", ".join(n for n, loss in losses.items() if loss.log_link)
        raise ConfigError(
            f"--exposure: expected a loss with a log link ({fitting}), found {objective.loss}. Use "
            "--loss with one of them, or leave --exposure out."
        )
    if table.weight is not None:
        check_weighted(objective.metric, task)
    target = targets.fit(table.target, task)
    check_class_weight(config.class_weight, task, target.classes)
    low = None
    if is_regression(task):
        values = targets.all_numbers(table.target)
        if config.loss == AUTO:  # what was asked for is what cannot be
            check_values(objective.metric, values)
        for column in targets.each(table.target):
            check_target(losses[objective.loss], column, numbers(column))
        check_values(objective.metric, values)
        low = float(values.min())
    columns, notes = infer_columns(table.frame, types=types, strict=config.strict)
    split = make_split(
        table.target,
        task,
        folds=config.folds,
        group=table.group,
        time=table.time,
        split=table.split,
        seed=config.seed,
    )
    if table.weight is not None:
        check_weights(np.asarray(table.weight), split)
    told = (objective.note,) if objective.note else ()
    return _Read(
        table, task, objective, low, exposure, target, columns, split, (*told, *table.notes, *notes)
    )


def check_target(loss: Loss, target: pd.Series[Any], values: np.ndarray) -> None:
    """Raise DataError where the loss is not defined for a number of the target, `values` [N]."""
    holds = np.ones(len(values), bool) if loss.domain is None else loss.domain.holds(values)
    bad = np.flatnonzero(~holds)
    if bad.size:
        row = row_number(target.index, int(bad[0]))
        more = f" ({bad.size} such rows)" if bad.size > 1 else ""
        raise DataError(
            f"The target {target.name!r}, row {row}: expected a number of {loss.domain} (the loss "
            f"is {loss.name}), found {values[bad[0]]:g}{more}. Leave such rows out, or use another "
            "--loss."
        )


@dataclass(frozen=True)
class _Read:
    table: Any
    task: str
    objective: Objective
    low: float | None  # the least value of numeric targets
    exposure: Exposure | None
    target: AnyTarget
    columns: tuple[Column, ...]
    split: Split
    notes: tuple[str, ...]


def prepare(found: _Read, folder: Path, class_weight: ClassWeight = "none") -> Prepared:
    """Fit the preprocessing on the training rows, write arrays and descriptions into the run."""
    table, split, objective = found.table, found.split, found.objective
    rows = np.unique(np.concatenate(split.train))
    preprocessor = fit_preprocessor(table.frame.iloc[rows], found.columns)
    features = preprocessor.transform(table.frame)
    y = found.target.encode(table.target)
    weight = None if table.weight is None else np.asarray(table.weight, dtype=np.float32)
    factors = class_weights(
        class_weight, found.target.classes, y[rows], None if weight is None else weight[rows]
    )
    told = (
        f"Task: {found.task}, {targets.describe(table.target)}, metric "
        f"{objective.metric.name}, loss {objective.loss}"
        f"{'' if found.exposure is None else f', exposure {found.exposure.name!r}'}.",
        describe_columns(found.columns),
    )
    notes = (*told, *found.notes, *preprocessor.notes, f"Split: {split.how}.")
    split.save(folder / "split.npz")
    spec = replace(
        preprocessor.spec(found.target),
        loss=objective.loss,
        quantile=objective.quantile,
        target_low=found.low,
        exposure=found.exposure is not None,
    )
    relative = None if found.exposure is None else found.exposure.relative(table.exposure)
    write_arrays(folder / "cache", features, y, weight, spec, exposure=relative)
    frame = table.frame
    if found.exposure is not None:
        frame = frame.assign(**{found.exposure.name: table.exposure})
    probe = frame.iloc[probe_rows(split)].reset_index(drop=True)
    probe.to_feather(folder / "cache" / "probe.feather")
    about = {
        "name": table.name,
        "task": found.task,
        "metric": objective.metric.name,
        "target_name": targets.names(table.target),
        "target": found.target.to_json(),
        "columns": [[c.name, c.kind, c.reason, c.format] for c in found.columns],
        "preprocessor": preprocessor.to_json(),
        "class_weight": factors,
        "exposure": None if found.exposure is None else found.exposure.to_json(),
        "notes": notes,
    }
    write_atomic(folder / "prepared.json", json.dumps(about).encode())
    return load_prepared(folder)


def has_prepared(folder: Path) -> bool:
    """Whether a run's folder holds prepared data."""
    return (folder / "prepared.json").exists() and (folder / "cache" / "arrays.json").exists()


def load_prepared(folder: Path) -> Prepared:
    """What `prepare` wrote."""
    about = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
    weights = about["class_weight"]
    return Prepared(
        name=about["name"],
        task=about["task"],
        metric=about["metric"],
        target_name=targets.names_from_json(about["target_name"]),
        target=targets.from_json(about["target"]),
        columns=tuple(Column(*c) for c in about["columns"]),
        preprocessor=Preprocessor.from_json(about["preprocessor"]),
        split=Split.load(folder / "split.npz"),
        source=ArraySource.open(folder / "cache"),
        class_weight=None
        if weights is None
        else tuple(tuple(w) if isinstance(w, list) else w for w in weights),
        notes=tuple(about["notes"]),
        exposure=Exposure.from_json(about.get("exposure")),
    )


def probe_rows(split: Split) -> np.ndarray:
    """Validation rows the saved model is checked on, as many of every fold."""
    each = max(1, PROBE_ROWS // len(split.valid))
    return np.sort(np.concatenate([v[:each] for v in split.valid]))


def describe_columns(columns: tuple[Column, ...], shown: int = 6) -> str:
    """One line: how many columns are of which kind, and their first names."""
    parts = []
    for kind in dict.fromkeys(c.kind for c in columns if c.kind != "dropped"):
        names = [c.name for c in columns if c.kind == kind]
        listed = ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
        parts.append(f"{len(names)} {kind} ({listed})")
    return f"Columns: {'; '.join(parts)}."
