"""Several target columns at once: labels of two values each, or numbers; and what reads either.

`Targets` is to a DataFrame of target columns what `Target` is to one column. `infer`, `fit` and
`from_json` take one column (a Series) or several (a DataFrame).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adanet_py.data import cells
from adanet_py.data.target import Label, Target, fit_target, infer_task
from adanet_py.errors import ConfigError, DataError, check_known
from adanet_py.tasks import ONE_TARGET, TASKS, part_of

_SHOWN = 6  # names of columns in a message


@dataclass(frozen=True)
class Targets:
    """How several target columns are encoded: each as a `Target` of its own."""

    task: str  # "multilabel" or "multioutput"
    names: tuple[str, ...]
    columns: tuple[Target, ...]

    @property
    def n_outputs(self) -> int:
        """Network outputs: one logit per label, one value per number."""
        return len(self.columns)

    @property
    def classes(self) -> tuple[tuple[Label, ...], ...]:
        """The two labels of every column; empty for numbers."""
        return tuple(c.classes for c in self.columns) if self.task == "multilabel" else ()

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """Mean of every column [T]; 0 for labels."""
        return np.array([c.mean for c in self.columns])

    @cached_property
    def scale(self) -> NDArray[np.float64]:
        """Scale of every column [T]; 1 for labels."""
        return np.array([c.scale for c in self.columns])

    def encode(self, frame: pd.DataFrame) -> NDArray[Any]:
        """Codes 0 and 1, int64 [N, T], or standardised values, float32 [N, T].

        The columns of `frame` are the targets in their order, whatever their names. Raises
        DataError for another number of columns, a missing cell, an unknown label or a cell that is
        no number.
        """
        if frame.shape[1] != len(self.columns):
            raise DataError(
                f"Expected the {len(self.columns)} targets {_listed(self.names)}, found "
                f"{frame.shape[1]}. Name a column for each."
            )
        each = [column.encode(frame.iloc[:, t]) for t, column in enumerate(self.columns)]
        return np.stack(each, axis=1)

    def decode(self, encoded: NDArray[Any]) -> NDArray[Any]:
        """Inverse of `encode`, [N, T]: float64 values, or labels.

        Labels keep their type where it is the same in all columns, else the array has objects.
        """
        each = [c.decode(np.asarray(encoded)[:, t]) for t, c in enumerate(self.columns)]
        kinds = {a.dtype for a in each}
        out = np.empty((len(encoded), len(each)), dtype=kinds.pop() if len(kinds) == 1 else object)
        for t, column in enumerate(each):
            out[:, t] = column
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain values, every field."""
        return {
            "task": self.task,
            "names": list(self.names),
            "columns": [c.to_json() for c in self.columns],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Targets:
        """Inverse of `to_json`."""
        columns = tuple(Target.from_json(c) for c in value["columns"])
        return cls(value["task"], tuple(value["names"]), columns)


AnyTarget = Target | Targets


def from_json(value: Mapping[str, Any]) -> AnyTarget:
    """Inverse of the `to_json` of either."""
    return Targets.from_json(value) if "columns" in value else Target.from_json(value)


def infer(target: pd.Series[Any] | pd.DataFrame, task: str = "auto") -> str:
    """The task of one target column (`infer_task`) or of several (`infer_tasks`).

    Raises ConfigError where `task` asks for another number of columns.
    """
    if isinstance(target, pd.DataFrame):
        return infer_tasks(target, task)
    if task != "auto":
        check_known("task", task, ("auto", *TASKS), ConfigError)
        if task not in ONE_TARGET:
            raise ConfigError(
                f"--task {task}: expected several target columns, found one, {target.name!r}. Name "
                "more (--target a --target b), or leave --task out."
            )
    return infer_task(target, task)


def infer_tasks(targets: pd.DataFrame, task: str = "auto") -> str:
    """The task several target columns ask for: "multilabel" or "multioutput".

    "multilabel" where every column has two different values; "multioutput" where every column is
    of numbers, none has two values only and at least one is a quantity by the rules of
    `infer_task`. Everything else must be said by `task`, which is checked against the values.
    Raises DataError or ConfigError where the columns do not allow any or that task.
    """
    if task != "auto":
        check_known("task", task, ("auto", *TASKS), ConfigError)
    if task in ONE_TARGET:
        raise ConfigError(
            f"--task {task}: expected one target column, found {_listed(list(targets.columns))}. "
            "Use multilabel or multioutput, or search for one target at a time."
        )
    if task == "multioutput":
        for name in targets:
            infer_task(targets[name], "regression")
        return task
    kinds = {str(name): infer_task(targets[name]) for name in targets}
    if set(kinds.values()) == {"binary"}:
        return "multilabel"
    if task == "multilabel":
        name = next(n for n, kind in kinds.items() if kind != "binary")
        raise DataError(
            f"The target {name!r}: expected two different values (the task is multilabel), found "
            f"{len({cells.key(v) for v in targets[name].dropna()})}. Leave it out, or make a label "
            "of it."
        )
    quantities = {n: _reads_as_numbers(targets[n]) for n in kinds}
    if (
        all(quantities.values())
        and "binary" not in kinds.values()
        and "regression" in set(kinds.values())
    ):
        return "multioutput"
    found = {
        "labels of two values": [n for n, k in kinds.items() if k == "binary"],
        "classes": [n for n, k in kinds.items() if k == "multiclass"],
        "numbers": [n for n, k in kinds.items() if k == "regression"],
    }
    words = "; ".join(f"{what}: {_listed(names)}" for what, names in found.items() if names)
    hint = "search for the others on their own."
    if all(quantities.values()):
        hint = "or, where all are quantities, use the task multioutput."
    raise DataError(
        "Several targets: expected labels of two values in every column, or numbers in every "
        f"column, found {words}. Name only targets of one kind, {hint}"
    )


def fit(target: pd.Series[Any] | pd.DataFrame, task: str) -> AnyTarget:
    """Fit one target column (`fit_target`) or each of several; raises what `fit_target` does."""
    if not isinstance(target, pd.DataFrame):
        return fit_target(target, task)
    columns = tuple(fit_target(target[name], part_of(task)) for name in target)
    return Targets(task, tuple(str(name) for name in target), columns)


def encode(fitted: AnyTarget, target: pd.Series[Any] | pd.DataFrame) -> NDArray[Any]:
    """`fitted.encode`; DataError where it is for one target column and finds several, or not."""
    if isinstance(fitted, Targets):
        return fitted.encode(target if isinstance(target, pd.DataFrame) else target.to_frame())
    if isinstance(target, pd.DataFrame):
        raise DataError(f"Expected one target, found {_listed(list(target.columns))}. Name one.")
    return fitted.encode(target)


def describe(target: pd.Series[Any] | pd.DataFrame) -> str:
    """``target 'a'`` or ``targets 'a', 'b'``."""
    if isinstance(target, pd.DataFrame):
        return f"targets {_listed(list(target.columns))}"
    return f"target {target.name!r}"


def names(target: pd.Series[Any] | pd.DataFrame) -> str | tuple[str, ...]:
    """The name of one target column, or those of several."""
    if isinstance(target, pd.DataFrame):
        return tuple(str(name) for name in target)
    return str(target.name)


def names_from_json(value: str | Sequence[str]) -> str | tuple[str, ...]:
    """`names` as it was before it became JSON."""
    return value if isinstance(value, str) else tuple(value)


def all_numbers(target: pd.Series[Any] | pd.DataFrame) -> NDArray[np.float64]:
    """Every number of one target column [N] or of several [N, T]."""
    if isinstance(target, pd.DataFrame):
        return np.stack([cells.numbers(column) for column in each(target)], axis=1)
    return cells.numbers(target)


def each(target: pd.Series[Any] | pd.DataFrame) -> list[pd.Series[Any]]:
    """The target columns one by one."""
    if isinstance(target, pd.DataFrame):
        return [target.iloc[:, t] for t in range(target.shape[1])]
    return [target]


def _reads_as_numbers(target: pd.Series[Any]) -> bool:
    """Whether every cell that has a value reads as a number."""
    return not (np.isnan(cells.numbers(target)) & ~np.asarray(target.isna(), dtype=bool)).any()


def _listed(names: Sequence[Any]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(str(n)) for n in names[:_SHOWN]) + more
