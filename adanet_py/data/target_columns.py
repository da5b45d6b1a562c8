"""Target columns of a table: which are meant, their cells, and the rows that lack one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adanet_py.data import cells
from adanet_py.errors import DataError


def target_names(target: str | Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The columns meant by `target`, each once; a text that is no column is cut at its commas.

    Raises DataError for a name given twice or left out between commas. Whether the columns exist
    is for the caller to see.
    """
    out: list[str] = []
    for given in [target] if isinstance(target, str) else target:
        parts = [given] if given in names or "," not in given else given.split(",")
        out += [part if part in names else part.strip() for part in parts]
        if "" in out:
            raise DataError(
                f"Target {given!r}: expected names of columns separated by single commas, found an "
                "empty one. Leave out the comma."
            )
    twice = [name for i, name in enumerate(out) if name in out[:i]]
    if twice:
        raise DataError(f"The target {twice[0]!r} was given twice. Name every target once.")
    return tuple(out)


def beside(columns: Sequence[pd.Series[Any]]) -> pd.Series[Any] | pd.DataFrame | None:
    """One column as it is, several as a DataFrame."""
    if len(columns) > 1:
        return pd.DataFrame({column.name: column for column in columns})
    return columns[0] if columns else None


def read_targets(
    columns: Sequence[pd.Series[Any]], strict: bool
) -> tuple[list[pd.Series[Any]], NDArray[np.bool_], list[str]]:
    """The columns as they are used, the rows [N] in which none is missing, and notes.

    Unreadable cells of an otherwise numeric column are missing, or an error where `strict`. Raises
    DataError for an infinite value, and where no row has every target.
    """
    read = [_read_target(column, strict) for column in columns]
    labels = [column for column, _ in read]
    present = [~np.asarray(column.isna(), dtype=bool) for column in labels]
    rows: NDArray[np.bool_] = np.logical_and.reduce(present)
    notes = [note for _, each in read for note in each]
    return labels, rows, notes + _missing_rows(labels, present, rows)


def _read_target(labels: pd.Series[Any], strict: bool) -> tuple[pd.Series[Any], list[str]]:
    """The target with unreadable cells of an otherwise numeric column made missing."""
    if cells.holds_numbers(labels):
        infinite = np.flatnonzero(np.isinf(cells.numbers(labels)))
        if infinite.size:
            row = cells.row_number(labels.index, int(infinite[0]))
            raise DataError(
                f"The target {labels.name!r}, row {row}: expected a finite number, found "
                f"{labels.iloc[int(infinite[0])]}. Correct it, or leave the cell empty to leave "
                "the row out."
            )
        return labels, []
    found = cells.factor(labels)
    labels = labels.mask(pd.Series(found.codes < 0, index=labels.index))
    read = [cells.number(v) for v in found.values]
    values = cells.look_up(read, found.codes)
    words = np.append([v is None for v in read], False)[found.codes].astype(bool)
    blank = np.isnan(values) & ~words
    quantity = np.unique(values[~np.isnan(values)]).size
    good = int(np.isfinite(values).sum())
    if not good or not (words.any() or (blank & (found.codes >= 0)).any()):
        return labels, []
    # Words in a quantity are mistakes; words among few numbers are more likely class labels.
    if words.any() and (good < 0.95 * (good + words.sum()) or quantity <= 20):
        return labels, []
    at = np.flatnonzero(words)
    if not at.size:
        return pd.Series(values, index=labels.index, name=labels.name), []
    row, value = cells.row_number(labels.index, int(at[0])), cells.key(labels.iloc[int(at[0])])
    more = f" ({at.size} such cells)" if at.size > 1 else ""
    if strict:
        raise DataError(
            f"The target {labels.name!r}, row {row}: expected a number, found {value!r}{more}. "
            "Correct it, or run without strict to leave the row out."
        )
    note = f"The target {labels.name!r} holds numbers, but row {row} is {value!r}{more}."
    return pd.Series(values, index=labels.index, name=labels.name), [note]


def _missing_rows(
    labels: Sequence[pd.Series[Any]],
    present: Sequence[NDArray[np.bool_]],
    rows: NDArray[np.bool_],
) -> list[str]:
    """What to say of rows that lack a target: `rows` [N] have all, `present` each column's."""
    for column, there in zip(labels, present, strict=True):
        if not there.any():
            raise DataError(
                f"The target {column.name!r}: expected values, found none in any of {len(rows)} "
                "rows. Choose another target, or fill it in."
            )
    missing = int((~rows).sum())
    if not missing:
        return []
    if not rows.any():
        raise DataError(
            "The targets: expected rows that have all of them, found none. Choose fewer targets, "
            "or fill them in."
        )
    first = cells.row_number(labels[0].index, int(np.flatnonzero(~rows)[0]))
    what = f"the target {labels[0].name!r} is missing there (first: row {first})"
    if len(labels) > 1:
        each = [(c.name, int((~p).sum())) for c, p in zip(labels, present, strict=True)]
        counts = ", ".join(f"{name!r} in {n}" for name, n in each if n)
        what = f"a target is missing there ({counts}; first: row {first})"
    return [f"Dropped {missing} of {len(rows)} rows: {what}."]
