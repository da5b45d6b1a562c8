"""What each column of a table is: number, truth value, category, date, free text, or of no use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adanet_py.data import cells
from adanet_py.errors import ConfigError, DataError, check_known

KINDS = ("numeric", "boolean", "category", "date", "text", "dropped")
_ENOUGH = 0.95  # share of cells that must be readable for a column of text to be numbers or dates
_FEW_ROWS = 20  # below this, distinct values say nothing about identifiers
_CODE_WORDS = frozenset(
    {"id", "ids", "code", "codes", "zip", "zipcode", "postcode", "postal", "type", "category",
     "sku", "region", "district", "county", "country", "state", "city", "station", "store",
     "shop", "branch", "department", "dept"}
)  # fmt: skip
_ID_WORDS = frozenset({"id", "ids", "uuid", "guid", "index", "key", "rowid", "unnamed", "rownames"})
_TRUTHS = ((0.0, 1.0), (-1.0, 1.0), (1.0, 2.0))


@dataclass(frozen=True)
class Column:
    """A column, what it was taken for and why (`reason` is for people).

    `format` is the strptime format of a date column of text, or "ISO8601", or "".
    """

    name: str
    kind: str
    reason: str = ""
    format: str = ""


def infer_columns(
    frame: pd.DataFrame, *, types: Mapping[str, str] | None = None, strict: bool = False
) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """The kind of every column of `frame`, and notes for the user.

    `types` overrides the inference for named columns with one of `KINDS`.
    Raises DataError for an infinite value, for a stray word in a column of numbers when `strict`,
    and when no usable column is left; ConfigError for an unknown name or kind in `types`.
    """
    types = dict(types or {})
    for name, kind in types.items():
        check_known("column in types", name, [str(c) for c in frame.columns], ConfigError)
        check_known(f"kind for column {name!r}", kind, KINDS, ConfigError)
    columns: list[Column] = []
    notes: list[str] = []
    for name in frame.columns:
        column = _Look(frame[name], strict, notes).kind(types.get(name))
        columns.append(column)
    columns = _keep_one(columns)
    notes.extend(f"Column {c.name!r} is not used: {c.reason}." for c in columns if _dropped(c))
    if all(_dropped(c) for c in columns):
        reasons = "; ".join(f"{c.name!r}: {c.reason}" for c in columns[:10])
        raise DataError(
            f"Expected at least one usable feature column, found none ({reasons}). "
            "Add columns to learn from."
        )
    return tuple(columns), tuple(notes)


def _dropped(column: Column) -> bool:
    return column.kind == "dropped"


_COUNTER = "counts the rows"


def _keep_one(columns: list[Column]) -> list[Column]:
    # A lone column 1, 2, 3, ... is what the user wants to learn from, not a row number.
    if any(not _dropped(c) for c in columns):
        return columns
    return [Column(c.name, "numeric", "numbers") if c.reason == _COUNTER else c for c in columns]


class _Look:
    """One column under inspection: the findings several rules share."""

    def __init__(self, series: pd.Series[Any], strict: bool, notes: list[str]) -> None:
        self.series = series
        self.name = str(series.name)
        self.strict = strict
        self.notes = notes

    def kind(self, given: str | None) -> Column:
        """Decide, or follow `given` as far as the cells allow."""
        series = self.series
        if given == "dropped":
            return Column(self.name, "dropped", "asked for")
        if pd.api.types.is_datetime64_any_dtype(series.dtype) and given in (None, "date"):
            if series.nunique(dropna=False) == 1:
                return Column(self.name, "dropped", "every row has the same date")
            return Column(self.name, "date", "dates")
        if given is None and _categories_given(series):
            return Column(self.name, "category", "a categorical column")
        text = not cells.holds_numbers(series) or pd.api.types.is_bool_dtype(series.dtype)
        if given in ("category", "text", "boolean"):
            return Column(self.name, given, "asked for")
        return self._text(given) if text else self._numbers(cells.numbers(series), given)

    def _text(self, given: str | None) -> Column:
        found = cells.factor(self.series)
        used = found.used
        values = [found.values[i] for i in used]
        present = int(found.counts.sum())
        if given is None:
            if not present:
                return Column(self.name, "dropped", "no row has a value")
            if len(values) == 1 and present == len(self.series):
                return Column(self.name, "dropped", f"every row has {_short(values[0])}")
            if len(values) == 2 and {abs(t) for t in cells.truth(values, "0", "1")} == {1.0}:
                if sum(cells.truth(values, "0", "1")) == 0:
                    return Column(self.name, "boolean", "two values: " + _two(values))
        if given in (None, "numeric"):
            column = self._numbers_in_text(found, given)
            if column is not None:
                return column
        if given in (None, "date"):
            column = self._dates_in_text(found, given)
            if column is not None:
                return column
        return self._words(found, values, present)

    def _numbers_in_text(self, found: cells.Factor, given: str | None) -> Column | None:
        read = [cells.number(v) for v in found.values]
        words = np.array([v is None for v in read], dtype=bool)
        blanks = np.array([v is not None and np.isnan(v) for v in read], dtype=bool)
        stray = int(found.counts[words].sum())
        missing = int(found.counts[blanks].sum())
        good = int(found.counts.sum()) - stray - missing
        if not good:
            if given:
                raise DataError(f"Column {self.name!r}: expected numbers as asked for, found none.")
            return None
        if good < _ENOUGH * (good + stray) and given is None:
            if 2 * good > good + stray:
                self.notes.append(
                    f"Column {self.name!r} is taken for categories: {stray} of {good + stray} "
                    f"cells are no numbers ({self._places(found, words)})."
                )
            return None
        if stray:
            where = self._places(found, words)
            if self.strict:
                raise DataError(
                    f"Column {self.name!r}: expected numbers, found {where}. "
                    "Correct it, or run without strict to treat it as missing."
                )
            self.notes.append(
                f"Column {self.name!r} holds numbers, but {where}: treated as missing "
                f"({stray} of {good + stray + missing} cells)."
            )
        if missing:
            tokens = sorted({cells.key(found.values[i]) for i in found.used if blanks[i]})
            self.notes.append(
                f"Column {self.name!r}: {missing} cells {', '.join(map(repr, tokens[:5]))} "
                "are read as missing numbers."
            )
        return self._numbers(cells.look_up(read, found.codes), given)

    def _places(self, found: cells.Factor, which: NDArray[np.bool_]) -> str:
        """Row and value of the first three cells whose code is marked in `which`."""
        at = np.flatnonzero(np.append(which, False)[found.codes])
        listed = ", ".join(
            f"row {cells.row_number(self.series.index, int(i))} is "
            f"{_short(found.values[found.codes[i]])}"
            for i in at[:3]
        )
        return listed + (f" and {len(at) - 3} more" if len(at) > 3 else "")

    def _dates_in_text(self, found: cells.Factor, given: str | None) -> Column | None:
        values = [cells.as_text(found.values[i]) for i in found.used]
        date_format, ambiguous = cells.find_date_format(found, 0.5 if given else _ENOUGH)
        if not date_format:
            if given:
                raise DataError(f"Column {self.name!r}: expected dates as asked for, found none.")
            return None
        if ambiguous:
            self.notes.append(
                f"Column {self.name!r}: day and month could be swapped; read as {date_format}."
            )
        read = cells.read_dates(values, date_format)
        bad = np.isnat(read) & np.array([cells.number(v) is None for v in values], dtype=bool)
        if bad.any():
            which = np.zeros(len(found.values), dtype=bool)
            which[np.array(found.used)[bad]] = True
            where = self._places(found, which)
            if self.strict:
                raise DataError(
                    f"Column {self.name!r}: expected dates ({date_format}), found {where}. "
                    "Correct it, or run without strict to treat it as missing."
                )
            self.notes.append(f"Column {self.name!r} holds dates, but {where}: treated as missing.")
        return Column(self.name, "date", f"dates ({date_format})", date_format)

    def _words(self, found: cells.Factor, values: list[Any], present: int) -> Column:
        distinct = len(values)
        texts = [cells.key(v) for v in values[:: max(1, distinct // 1000)]]
        words = float(np.mean([len(t.split()) for t in texts]))
        if words >= 3 and distinct > max(_FEW_ROWS, 0.2 * present):
            return Column(self.name, "text", f"free text, about {words:.0f} words")
        if distinct == present and len(self.series) >= _FEW_ROWS:
            return Column(self.name, "dropped", "an identifier: every row has another value")
        return Column(self.name, "category", f"{distinct} different values")

    def _numbers(self, values: NDArray[np.float64], given: str | None) -> Column:
        infinite = np.flatnonzero(np.isinf(values))
        if infinite.size:
            row = cells.row_number(self.series.index, int(infinite[0]))
            more = f" ({infinite.size} such cells)" if infinite.size > 1 else ""
            raise DataError(
                f"Column {self.name!r}, row {row}: expected a finite number, found "
                f"{values[infinite[0]]}{more}. Correct it or leave the cell empty."
            )
        if given == "numeric":
            return Column(self.name, "numeric", "asked for")
        known = values[~np.isnan(values)]
        distinct = np.unique(known)
        if not distinct.size:
            return Column(self.name, "dropped", "no row has a value")
        if distinct.size == 1:
            if known.size == values.size:
                return Column(self.name, "dropped", f"every row has {distinct[0]:g}")
            return Column(self.name, "category", f"{distinct[0]:g} or missing")
        if distinct.size == 2 and tuple(distinct) in _TRUTHS:
            return Column(self.name, "boolean", f"two values: {_two(distinct.tolist())}")
        if np.array_equal(distinct, np.floor(distinct)):
            return self._integers(values, known, distinct)
        return Column(self.name, "numeric", "numbers")

    def _integers(
        self, values: NDArray[np.float64], known: NDArray[np.float64], distinct: NDArray[np.float64]
    ) -> Column:
        words = set(_words_of(self.name))
        unique = distinct.size == values.size
        if unique and (words & _ID_WORDS or re.match(r"ID[a-z_ ]", self.name)):
            return Column(self.name, "dropped", "an identifier: every row has another value")
        if unique and values.size >= _FEW_ROWS and values[0] in (0, 1):
            if np.array_equal(values, np.arange(values.size) + values[0]):
                return Column(self.name, "dropped", _COUNTER)
        if words & _CODE_WORDS and distinct[0] >= 0:
            return Column(self.name, "category", f"codes, by its name; {distinct.size} values")
        if _sparse_codes(known, distinct):
            return Column(self.name, "category", f"codes: {distinct.size} scattered integers")
        return Column(self.name, "numeric", "integers")


def _categories_given(series: pd.Series[Any]) -> bool:
    """Whether the user made it categorical: of text it may as well come from a file."""
    if not isinstance(series.dtype, pd.CategoricalDtype) or series.nunique() < 2:
        return False
    return not any(isinstance(v, str) for v in series.cat.categories)


def _sparse_codes(known: NDArray[np.float64], distinct: NDArray[np.float64]) -> bool:
    """Few integers of one length (at least three digits), far apart in no regular steps."""
    if distinct[0] < 100 or distinct.size > 100 or known.size < 20 * distinct.size:
        return False
    if len(str(int(distinct[0]))) != len(str(int(distinct[-1]))) or distinct[-1] > 2**53:
        return False
    gaps = np.diff(distinct).astype(np.int64)
    return bool(np.gcd.reduce(gaps) == 1 and gaps.sum() > 10 * distinct.size)


def _words_of(name: str) -> list[str]:
    split = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [w.lower() for w in re.findall(r"[A-Za-z]+", split)]


def _short(value: Any) -> str:
    text = repr(cells.key(value))
    return text if len(text) <= 40 else text[:37] + "...'"


def _two(values: list[Any]) -> str:
    return " and ".join(sorted(_short(v) for v in values))
