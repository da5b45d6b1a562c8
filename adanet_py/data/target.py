"""The target column: which task it is, and labels or values as numbers and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adanet_py.data import cells
from adanet_py.data.splits import MIN_ROWS
from adanet_py.errors import ConfigError, DataError, check_known
from adanet_py.tasks import ONE_TARGET

Label = bool | int | float | str
_MANY = 20  # more distinct integers than this are a quantity, not classes


@dataclass(frozen=True)
class Target:
    """How the target is encoded: sorted labels for classes, mean and scale for regression."""

    task: str
    classes: tuple[Label, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @property
    def n_outputs(self) -> int:
        """Network outputs: one logit for two classes, one per class for more, one value."""
        return len(self.classes) if self.task == "multiclass" else 1

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {cells.key(label): code for code, label in enumerate(self.classes)}

    def encode(self, series: pd.Series[Any]) -> NDArray[np.int64] | NDArray[np.float32]:
        """Class codes, int64 [N], or standardised values, float32 [N].

        Raises DataError for a missing cell, an unknown label or a cell that is no number.
        """
        if self.task == "regression":
            values = _numbers(series)
            _refuse(series, np.isnan(values), "a number", "a missing value")
            return ((values - self.mean) / self.scale).astype(np.float32)
        found = cells.factor(series)
        codes = np.full(len(found.values) + 1, -1, dtype=np.int64)
        codes[:-1] = [self._codes.get(cells.key(v), -1) for v in found.values]
        encoded = codes[found.codes]
        _refuse(series, encoded < 0, f"one of the classes {_listed(self.classes)}")
        return encoded

    def decode(self, encoded: NDArray[Any]) -> NDArray[Any]:
        """Inverse of `encode`, [N]: labels in their own type, or float64 values."""
        if self.task == "regression":
            return np.asarray(encoded, dtype=np.float64) * self.scale + self.mean
        return self.labels[np.asarray(encoded, dtype=np.int64)]

    @cached_property
    def labels(self) -> NDArray[Any]:
        """The classes as an array [C]: bool, int64, float64 or object (text)."""
        text = any(isinstance(label, str) for label in self.classes)
        return np.array(self.classes, dtype=object if text else None)

    def to_json(self) -> dict[str, Any]:
        """Plain values, every field."""
        return {
            "task": self.task, "classes": list(self.classes), "mean": self.mean, "scale": self.scale
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Target:
        """Inverse of `to_json`."""
        return cls(value["task"], tuple(value["classes"]), value["mean"], value["scale"])


def infer_task(target: pd.Series[Any], task: str = "auto") -> str:
    """The task one target asks for: "binary", "multiclass" or "regression".

    Text, truth values and two different values are classes; so are integers when they are few
    (at most 20), repeat, and either form a range without gaps or are at most five. All else is a
    quantity. `task` other than "auto" is checked against the values; "multiclass" with two
    classes becomes "binary". Raises DataError when the values do not allow any or that task.
    """
    if task != "auto":
        check_known("task", task, ("auto", *ONE_TARGET), ConfigError)
    found = cells.factor(target)
    used = found.used
    numeric = cells.holds_numbers(target)
    rows = int(found.counts.sum())
    if 0 < rows < MIN_ROWS:
        raise DataError(f"Expected at least {MIN_ROWS} rows with a target, found {rows}. Add rows.")
    if task == "regression":
        _numbers(target)
        return task
    distinct = len(used) if numeric else len({cells.key(found.values[i]) for i in used})
    if distinct == 0:
        raise DataError(f"The target {target.name!r} has no value in any row. Choose another.")
    if distinct == 1:
        raise DataError(
            f"The target {target.name!r}: expected at least two different values, found only "
            f"{found.values[used[0]]!r} in all {rows} rows. Choose another target, or add rows "
            "with another value."
        )
    if task == "binary" and distinct != 2:
        raise DataError(
            f"The target {target.name!r}: expected two classes for the task binary, found "
            f"{distinct}. Use multiclass or regression."
        )
    if distinct == 2:
        return "binary"
    if task == "multiclass":
        return task
    if numeric and distinct > _MANY:
        return "regression"
    return "multiclass" if _are_classes(found) else "regression"


def _are_classes(found: cells.Factor) -> bool:
    read = [cells.number(found.values[i]) for i in found.used]
    values = np.array([np.nan if v is None else v for v in read])
    if np.isnan(values).any():
        return True
    counts = found.counts[found.counts > 0]
    if values.size > _MANY or not np.array_equal(values, np.floor(values)):
        return False
    if counts.min() < 2 or 5 * values.size > counts.sum():
        return False
    return values.size <= 5 or bool(np.ptp(values) == values.size - 1)


def fit_target(target: pd.Series[Any], task: str) -> Target:
    """Labels, or mean and standard deviation, of a target without missing cells.

    Raises DataError for one class only, a class with a single row, a constant or non-numeric
    regression target.
    """
    if task == "regression":
        values = _numbers(target)
        _refuse(target, np.isnan(values), "a number", "a missing value")
        with np.errstate(over="ignore", invalid="ignore"):
            mean, scale = float(values.mean()), float(values.std())
        if not np.isfinite(scale):
            raise DataError(
                f"The target {target.name!r} is too large to compute with: expected values below "
                "about 1e150. Divide it by a constant."
            )
        if values.min() == values.max():
            raise DataError(
                f"The target {target.name!r}: expected different values, found {values[0]:g} in "
                "every row. Choose another target."
            )
        if scale < 1e-150:
            raise DataError(
                f"The target {target.name!r} varies too little to compute with (standard deviation "
                f"{scale:g}): expected more than 1e-150. Multiply it by a constant."
            )
        return Target(task, (), mean, scale)
    found = cells.factor(target)
    rows: dict[str, int] = {}
    labels: dict[str, Label] = {}
    for code in found.used:
        label = found.values[code]
        name = cells.key(label)
        rows[name] = rows.get(name, 0) + int(found.counts[code])
        other = labels.setdefault(name, _label(label))
        if isinstance(other, str) and isinstance(label, str) and other != label.strip():
            raise DataError(
                f"The target {target.name!r}: the classes {other!r} and {label.strip()!r} are the "
                "same number. Rename one, or make them one."
            )
    if len(labels) < 2:
        raise DataError(
            f"The target {target.name!r}: expected at least two classes, found "
            f"{_listed(tuple(labels.values())) or 'none'}."
        )
    single = sorted(name for name, count in rows.items() if count == 1)
    numeric = all(cells.number(v) is not None for v in labels.values())
    if 2 * len(single) > len(rows) > _MANY and not numeric:
        raise DataError(
            f"The target {target.name!r}: expected classes that repeat, or numbers, found "
            f"{len(rows):,} different values in {len(target):,} rows, such as "
            f"{labels[single[0]]!r}. Choose another target, or make classes of it."
        )
    if single:
        at = np.flatnonzero([cells.key(v) == single[0] for v in target.tolist()])[0]
        more = f" (and {len(single) - 1} other classes)" if len(single) > 1 else ""
        hint = " If the target is a quantity, use the task regression." if numeric else ""
        raise DataError(
            f"The target {target.name!r}: expected at least two rows of every class, found one of "
            f"class {labels[single[0]]!r}{more}, row {cells.row_number(target.index, int(at))}. "
            f"Remove that row, merge the class into another or add rows of it.{hint}"
        )
    plain = list(labels.values())
    if any(isinstance(label, str) for label in plain):
        plain = [label if isinstance(label, str) else cells.key(label) for label in plain]
    return Target(task, tuple(sorted(plain)))


def _label(value: Any) -> Label:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return int(value) if float(value).is_integer() else float(value)
    return value.strip() if isinstance(value, str) else cells.key(value)


def _numbers(target: pd.Series[Any]) -> NDArray[np.float64]:
    values = cells.numbers(target)
    unread = np.isnan(values) & ~np.asarray(target.isna(), dtype=bool)
    if unread.any() and not cells.holds_numbers(target):
        _refuse(target, unread, "a number (the task is regression)")
    _refuse(target, np.isinf(values), "a finite number")
    return values


def _refuse(
    target: pd.Series[Any], bad: NDArray[np.bool_], expected: str, found: str | None = None
) -> None:
    """Raise DataError naming the first row marked in `bad`, if there is one."""
    at = np.flatnonzero(bad)
    if at.size:
        row = cells.row_number(target.index, int(at[0]))
        value = target.iloc[int(at[0])]
        shown = found or ("a missing value" if pd.isna(value) else repr(cells.key(value)))
        more = f" ({at.size} such rows)" if at.size > 1 else ""
        raise DataError(
            f"The target {target.name!r}, row {row}: expected {expected}, found {shown}{more}."
        )


def _listed(classes: tuple[Label, ...]) -> str:
    return ", ".join(map(repr, classes[:10])) + (" ..." if len(classes) > 10 else "")
