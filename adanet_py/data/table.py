"""Reading a table: features, target and the columns with a role of their own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adanet_py.data import cells
from adanet_py.data.columns import KINDS, Column, infer_columns
from adanet_py.data.files import check_names, read_file, suspect_header
from adanet_py.data.target import Target, fit_target, infer_task
from adanet_py.data.target_columns import beside, read_targets, target_names
from adanet_py.errors import DataError, nearest

__all__ = [
    "KINDS", "Column", "Table", "Target", "fit_target", "infer_columns", "infer_task", "read_table",
]  # fmt: skip

_TARGET_NAMES = ("target", "class", "label", "y")
_PARTS = {
    "train": "train", "training": "train",
    "valid": "valid", "validation": "valid", "val": "valid",
    "test": "audit", "audit": "audit", "holdout": "audit",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table taken apart: every series has the index of `frame`, the original row numbers from 0.

    `frame` holds the features with their original values; `split` the words "train", "valid" and
    "audit"; `time` numbers or datetime64; `weight` non-negative float64; `exposure` what it was in
    the table. Several targets are a DataFrame. `notes` are for people.
    """

    frame: pd.DataFrame
    target: pd.Series[Any] | pd.DataFrame | None = None
    weight: pd.Series[Any] | None = None
    group: pd.Series[Any] | None = None
    time: pd.Series[Any] | None = None
    split: pd.Series[Any] | None = None
    exposure: pd.Series[Any] | None = None
    name: str = "table"
    notes: tuple[str, ...] = ()


def read_table(
    data: Any,
    *,
    target: str | Sequence[str] | None = None,
    drop: Sequence[str] = (),
    weight: str | None = None,
    group: str | None = None,
    time_column: str | None = None,
    split: str | None = None,
    exposure: str | None = None,
    strict: bool = False,
    require_target: bool = True,
) -> Table:
    """Read a table from a path, a DataFrame, an array of features, or a pair (features, target).

    `target` is a column, several, or names separated by commas (where no column has that name as
    it is); it defaults to the one column called target, class, label or y. `drop`, `weight`,
    `group`, `split` and `exposure` are no features; `time_column` stays one unless it is also in
    `drop`.
    `split` names a column, or a file with one such column and a row per row. Rows without a
    target are dropped with a note, unless `require_target` is false (prediction), where the
    target is optional and all rows stay.

    In CSV an empty cell is missing. Raises DataError, with what was expected and found, for
    everything that cannot be used; see the checks here, in files.py and in columns.py.
    """
    frame, name, target = _frame_of(data, target)
    names = [str(c) for c in frame.columns]
    check_names(names, name)
    frame.columns = pd.Index(names, dtype=object)
    if not len(frame):
        raise DataError(f"{name}: expected rows, found none. Add rows.")
    if require_target and target is None:
        target = _default_target(names, name)
    targets = () if target is None else target_names(target, names)
    if require_target or set(targets) <= set(names):
        for wanted in targets:
            _check_column(wanted, names, "target", name)
    else:
        targets = ()
    roles = {"weight": weight, "group": group, "time column": time_column, "exposure": exposure}
    for role, column in roles.items():
        if column is not None:
            _check_column(column, names, role, name)
    for column in drop:
        _check_column(column, names, "column to drop", name)
    for role, column in (*roles.items(), ("split", split), *(("column to drop", d) for d in drop)):
        if column is not None and column in targets:
            raise DataError(f"{column!r} is the target and cannot be the {role} as well.")

    notes: list[str] = []
    labels = [frame[column] for column in targets]
    rows: NDArray[np.bool_] | None = None
    if labels and require_target:
        labels, rows, said = read_targets(labels, strict)
        notes += said
    parts: dict[str, Any] = {
        "target": beside(labels),
        "weight": None if weight is None else _read_weight(frame[weight]),
        "group": None if group is None else _no_gaps(frame[group], "group"),
        "time": None if time_column is None else _read_time(frame[time_column]),
        "split": None if split is None else _read_split(frame, split, name),
        "exposure": None if exposure is None else frame[exposure],
    }
    gone = {*drop, *targets, weight, group, exposure, split if split in frame else None}
    features = frame[[c for c in names if c not in gone]]
    if not features.shape[1]:
        raise DataError(
            f"{name}: expected at least one feature column beside "
            f"{', '.join(sorted(map(repr, gone - {None})))}, found none. Add columns to learn from."
        )
    if rows is not None and not rows.all():
        features = features[rows]
        parts = {k: None if v is None else v[rows] for k, v in parts.items()}
    return Table(features, name=name, notes=tuple(notes), **parts)


def _frame_of(
    data: Any, target: str | Sequence[str] | None
) -> tuple[pd.DataFrame, str, str | Sequence[str] | None]:
    """The whole table with row numbers 0, 1, ... as index, its name, and the target's columns."""
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        return read_file(path).reset_index(drop=True), path.name, target
    if isinstance(data, pd.DataFrame):
        frame = data.reset_index(drop=True) if data.columns.nlevels == 1 else None
        if frame is None:
            raise DataError("Expected one level of column names, found several. Flatten them.")
        return frame, "the DataFrame", target
    if not isinstance(data, tuple):
        return _features(data), "the array", target
    if len(data) != 2:
        raise DataError(f"Expected a pair (features, target), found a tuple of {len(data)}.")
    frame, labels = _features(data[0]), data[1]
    if labels is None:
        return frame, "the array", target
    if not isinstance(labels, pd.Series):
        if hasattr(labels, "tocsr"):
            labels = labels.toarray()
        column = np.asarray(labels)
        if column.ndim == 2 and column.shape[1] > 1:
            return _with_targets(frame, labels, target)
        if column.ndim == 2 and column.shape[1] == 1:
            column = column[:, 0]
        if column.ndim != 1:
            raise DataError(
                f"Expected a target of shape [N] or [N, targets], found {list(column.shape)}."
            )
        labels = pd.Series(column)
    if target is not None and not isinstance(target, str):
        raise DataError(
            f"Expected as many names of targets as there are, found {len(target)} and 1."
        )
    if len(labels) != len(frame):
        raise DataError(
            f"Expected as many target values as rows, found {len(labels)} and {len(frame)}."
        )
    taken = {str(c) for c in frame.columns}
    wanted = target or str(labels.name if labels.name is not None else "target")
    if wanted in taken:
        if target is not None or labels.name is not None:
            raise DataError(
                f"The target was given beside features that have a column {wanted!r} as well. "
                "Leave one of them out."
            )
        wanted = next(n for n in ("y", "target_", "y_", "the target") if n not in taken)
    frame[wanted] = labels.reset_index(drop=True).set_axis(frame.index)
    return frame, "the array", wanted


def _with_targets(
    frame: pd.DataFrame, labels: Any, target: str | Sequence[str] | None
) -> tuple[pd.DataFrame, str, Sequence[str]]:
    """The table of features and several targets [N, T], as `_frame_of` returns it."""
    named = isinstance(labels, pd.DataFrame)
    columns = labels.reset_index(drop=True) if named else pd.DataFrame(np.asarray(labels))
    if len(columns) != len(frame):
        raise DataError(
            f"Expected as many target values as rows, found {len(columns)} and {len(frame)}."
        )
    count = columns.shape[1]
    taken = {str(c) for c in frame.columns}
    if target is not None:
        wanted = list(target_names(target, ()))
        if len(wanted) != count:
            raise DataError(
                f"Expected as many names of targets as there are, found {len(wanted)} and {count}."
            )
    elif named:
        wanted = [str(c) for c in columns.columns]
    else:
        stem = next(s for s in ("target", "y", "target_", "y_", "the target ")
                    if not taken & {f"{s}{t}" for t in range(count)})  # fmt: skip
        wanted = [f"{stem}{t}" for t in range(count)]
    check_names(wanted, "the targets")
    both = sorted(taken & set(wanted))
    if both:
        raise DataError(
            f"The targets were given beside features that have a column {both[0]!r} as well. "
            "Leave one of them out."
        )
    columns = columns.set_axis(wanted, axis=1).set_axis(frame.index).infer_objects()
    return pd.concat([frame, columns], axis=1), "the array", wanted


def _features(data: Any) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data.reset_index(drop=True)
    if hasattr(data, "tocsr"):
        raise DataError(
            "Expected a dense array or DataFrame, found a sparse matrix: use toarray()."
        )
    array = np.asarray(data)
    if array.ndim == 0:
        raise DataError(
            "Expected a path, a DataFrame, an array or a pair (features, target), found "
            f"{type(data).__name__}."
        )
    if array.ndim != 2:
        raise DataError(
            f"Expected an array of shape [rows, columns], found shape {list(array.shape)}."
        )
    frame = pd.DataFrame(array, columns=[f"x{i}" for i in range(array.shape[1])])
    return frame.infer_objects() if array.dtype == object else frame


def _default_target(names: list[str], where: str) -> str:
    found = [n for n in names if n.lower() in _TARGET_NAMES]
    if len(found) == 1:
        return found[0]
    why = f"Several could be ({', '.join(found)})"
    if not found:
        why = f"None is called {', '.join(_TARGET_NAMES[:-1])} or {_TARGET_NAMES[-1]}"
    raise DataError(
        f"{where}: which column is the target? {why}. Name it with --target (target=...). "
        f"Columns: {_list(names)}.{suspect_header(names)}"
    )


def _check_column(column: str, names: list[str], role: str, where: str) -> None:
    if column not in names:
        raise DataError(
            f"{where} has no column {column!r} ({role}).{nearest(column, names)} "
            f"Columns: {_list(names)}.{suspect_header(names)}"
        )


def _list(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:40]) + (f" and {len(listed) - 40} more" if len(listed) > 40 else "")


def _such_rows(at: NDArray[np.int64]) -> str:
    return f"({at.size:,} such row{'s' if at.size > 1 else ''})"


def _no_gaps(series: pd.Series[Any], role: str) -> pd.Series[Any]:
    at = np.flatnonzero(cells.factor(series).codes < 0)
    if at.size:
        row = cells.row_number(series.index, int(at[0]))
        raise DataError(
            f"Column {series.name!r} ({role}), row {row}: expected a value, found none "
            f"{_such_rows(at)}. Fill it in, or choose another column."
        )
    return series


def _read_weight(series: pd.Series[Any]) -> pd.Series[Any]:
    values = cells.numbers(series)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        row, value = cells.row_number(series.index, int(bad[0])), series.iloc[int(bad[0])]
        raise DataError(
            f"Column {series.name!r} (weight), row {row}: expected a number of at least 0, found "
            f"{'no value' if pd.isna(value) else repr(cells.key(value))} {_such_rows(bad)}. "
            "Correct it, or choose another column."
        )
    if not values.any():
        raise DataError(
            f"Column {series.name!r} (weight): expected some above 0, found only 0. "
            "Choose another column."
        )
    return pd.Series(values, index=series.index, name=series.name)


def _read_time(series: pd.Series[Any]) -> pd.Series[Any]:
    values: NDArray[Any]
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        values = cells.dates(series, "")
    else:
        values = cells.numbers(series)
        if np.isnan(values).all():
            values = cells.dates(series, cells.find_date_format(cells.factor(series))[0])
    gaps = np.flatnonzero(np.isnat(values) if values.dtype.kind == "M" else ~np.isfinite(values))
    if gaps.size:
        at = int(gaps[0])
        value = series.iloc[at]
        raise DataError(
            f"Column {series.name!r} (time), row {cells.row_number(series.index, at)}: expected a "
            f"date or a number, found {'no value' if pd.isna(value) else repr(cells.key(value))} "
            f"{_such_rows(gaps)}. Correct it, or choose another column."
        )
    return pd.Series(values, index=series.index, name=series.name)


def _read_split(frame: pd.DataFrame, split: str, where: str) -> pd.Series[Any]:
    if split in frame:
        series, origin = frame[split], f"column {split!r}"
    elif Path(split).is_file():
        origin = split
        other = read_file(Path(split))
        if other.shape[1] > 1 and "split" not in other:
            raise DataError(
                f"{split}: expected one column or one called split, found "
                f"{_list(map(str, other.columns))}."
            )
        series = other["split"] if "split" in other else other.iloc[:, 0]
        if len(series) != len(frame):
            raise DataError(
                f"{split}: expected a row for each of the {len(frame)} rows of {where}, found "
                f"{len(series)}."
            )
        series = series.set_axis(frame.index)
    else:
        raise DataError(
            f"Split {split!r}: expected a column of {where} or a file, found neither."
            f"{nearest(split, map(str, frame.columns))} Columns: {_list(map(str, frame.columns))}."
        )
    found = cells.factor(series)
    parts = [_PARTS.get(cells.key(v).lower(), "") for v in found.values]
    words = np.array([*parts, ""], dtype=object)[found.codes]
    bad = np.flatnonzero(words == "")
    if bad.size:
        row, value = cells.row_number(series.index, int(bad[0])), series.iloc[int(bad[0])]
        raise DataError(
            f"Split {origin}, row {row}: expected train, valid or test, found "
            f"{'no value' if pd.isna(value) else repr(cells.key(value))} {_such_rows(bad)}."
        )
    return pd.Series(words, index=frame.index, name="split")
