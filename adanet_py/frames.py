"""Tables for people: columns of one plain type, CSV files that spreadsheets take as they are."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from adanet_py.journal import write_atomic


def make_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A table of rows by column name, in the order of `columns`; what a row lacks is empty."""
    return pd.DataFrame({name: _column([row.get(name) for row in rows]) for name in columns})


def _column(values: Sequence[Any]) -> pd.Series:
    """A column of one plain type where possible: integers stay integers beside empty cells."""
    kinds = {type(v) for v in values if v is not None}
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds == {int}:
        return pd.Series(values, dtype="Int64")
    if kinds and kinds <= {int, float}:
        return pd.Series([math.nan if v is None else v for v in values], dtype="float64")
    return pd.Series(values, dtype=object)


def write_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table for people and spreadsheets, atomically, text that reads as a formula escaped.

    Raises RunError or StorageError where the file cannot be written.
    """
    safe = frame.copy()
    safe.columns = [escape_formula(c) for c in frame.columns]
    for position, (_, column) in enumerate(frame.items()):
        if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
            safe.isetitem(position, [escape_formula(v) for v in column])
    write_atomic(path, safe.to_csv(index=False))


def escape_formula(value: Any) -> Any:
    """Return text with a quote before it where a spreadsheet could take it for a formula.

    That is text whose first visible character is one of ``= + - @`` in any width, or whose first
    is a tab or line break (OWASP, CSV injection). Other values are returned unchanged.
    """
    if not isinstance(value, str) or not value:
        return value
    visible = (c for c in value if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf"))
    first = unicodedata.normalize("NFKC", next(visible, " "))
    return "'" + value if first[0] in "=+-@" or value[0] in "\t\r\n" else value
