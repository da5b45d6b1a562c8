"""How single cells are read: numbers, category keys, dates.

Training and prediction read cells through the same functions, so that a column that arrives as
integers in one file, floats in the next and text in a third means the same in all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adanet_py.errors import DataError

# Words that mean "no value" in a column whose other cells are numbers or dates. In a column of
# words they stay what they are: "NA" may be Namibia, "None" may be an answer.
MISSING_WORDS = frozenset(
    {"na", "n/a", "nan", "null", "none", "nil", "?", "-", "--", ".", "<na>", "#n/a", "nat"}
)
TRUE_WORDS = frozenset({"true", "t", "yes", "y", "on", "1"})
FALSE_WORDS = frozenset({"false", "f", "no", "n", "off", "0"})

# Tried in this order; the first that reads (nearly) every cell is taken.
DATE_FORMATS = (
    "ISO8601",
    "%m/%d/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M:%S %p",
    "%d/%m/%Y", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S",
    "%m/%d/%y", "%d/%m/%y", "%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S",
    "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d-%m-%Y", "%d-%m-%Y %H:%M",
    "%m-%d-%Y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y",
)  # fmt: skip
_PLAIN_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?")
_DATE_SHAPE = re.compile(
    r"\s*(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}[- ][A-Za-z]{3,9}[- ]\d{2,4}"
    r"|[A-Za-z]{3,9} \d{1,2}, \d{4})"
)


@dataclass(frozen=True)
class Factor:
    """A column as codes into its distinct values.

    `codes` [N]: position in `values`, -1 where the cell is missing (blank text included);
    `counts` [len(values)]: how many cells hold each value, 0 for unused ones.
    """

    codes: NDArray[np.int64]
    values: list[Any]
    counts: NDArray[np.int64]

    @property
    def used(self) -> list[int]:
        """Codes that occur."""
        return [int(i) for i in np.flatnonzero(self.counts)]


def factor(series: pd.Series[Any]) -> Factor:
    """Distinct values of a column of any type.

    Raises DataError for cells that are lists, dictionaries or arrays.
    """
    if isinstance(series.dtype, pd.CategoricalDtype):
        codes = series.cat.codes.to_numpy().astype(np.int64)
        categories = series.cat.categories
        if len(categories) > len(series):  # a few rows of a long table: most are not here
            codes, present = pd.factorize(np.where(codes < 0, np.nan, codes))
            categories = categories[present.astype(np.int64)]
        values = categories.tolist()
    else:
        try:
            raw, distinct = pd.factorize(series)
        except TypeError as error:
            raise DataError(
                f"Column {series.name!r}: expected numbers, text or dates in its cells, found "
                "lists, dictionaries or arrays. Unpack it into columns or drop it."
            ) from error
        codes, values = raw.astype(np.int64), distinct.tolist()
    blank = [i for i, v in enumerate(values) if isinstance(v, str) and not v.strip()]
    if blank:
        codes = np.where(np.isin(codes, blank), -1, codes)
    counts = np.bincount(codes[codes >= 0], minlength=len(values)).astype(np.int64)
    return Factor(codes, values, counts)


def holds_numbers(series: pd.Series[Any]) -> bool:
    """Whether the type of the column is numeric, so that no cell needs parsing."""
    dtype = series.dtype
    if pd.api.types.is_complex_dtype(dtype):
        raise DataError(
            f"Column {series.name!r}: expected real numbers, found complex ones. "
            "Split it into real and imaginary part."
        )
    return bool(pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_timedelta64_dtype(dtype))


def numbers(series: pd.Series[Any]) -> NDArray[np.float64]:
    """The column as float64 [N]; missing and unreadable cells are NaN, durations are seconds."""
    if pd.api.types.is_timedelta64_dtype(series.dtype):
        return np.asarray(series.dt.total_seconds(), dtype=np.float64)
    if holds_numbers(series):
        if isinstance(series.dtype, np.dtype):
            return series.to_numpy().astype(np.float64, copy=False)
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return np.full(len(series), np.nan)
    cells = factor(series)
    return look_up([number(v) for v in cells.values], cells.codes)


def look_up(table: Sequence[float | None], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """`table[codes]` as float64 [N]; NaN for code -1 and for None."""
    values = np.full(len(table) + 1, np.nan)
    values[:-1] = [math.nan if v is None else v for v in table]
    return values[codes]


def number(value: Any) -> float | None:
    """The number a cell holds, NaN for a word that means missing, None for anything else."""
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in MISSING_WORDS:
            return math.nan
        if "_" in text:  # float() would read 1_000 as a thousand
            return None
    else:
        text = value
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def key(value: Any) -> str:
    """The text by which a category value is known.

    3, 3.0, "3" and "003" are all "3", and 1.5 and "1.50" are "1.5": whether a column arrives as
    text or as numbers depends on the other rows of its file, so the value may not.
    """
    if isinstance(value, str):
        text = value.strip()
        return text if _PLAIN_NUMBER.fullmatch(text) is None else _number_key(text)
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else f"{float(value):.12g}"
    return str(value)


def _number_key(text: str) -> str:
    whole, _, decimals = text.partition(".")
    if decimals.strip("0"):
        return f"{float(text):.12g}"
    return str(int(whole)) if len(whole) <= 1000 else whole


def truth(values: Sequence[Any], false: str, true: str) -> list[float]:
    """-1, +1 or 0 (neither) for each value of a two-valued column; case does not matter.

    Where the two are usual words for false and true (no and yes), so are the other such words.
    """
    known = {false.lower(): -1.0, true.lower(): 1.0}
    if false.lower() in FALSE_WORDS and true.lower() in TRUE_WORDS:
        known |= dict.fromkeys(FALSE_WORDS, -1.0) | dict.fromkeys(TRUE_WORDS, 1.0)
    return [known.get(key(v).lower(), 0.0) for v in values]


def find_date_format(found: Factor, enough: float = 0.95) -> tuple[str, bool]:
    """The format that reads at least the share `enough` of the cells, or "".

    The flag says whether the other order of day and month would read all of them as well.
    """
    texts, counts = [], []
    for value, count in zip(map(as_text, found.values), found.counts.tolist(), strict=True):
        if count and isinstance(value, str) and value.strip().lower() not in MISSING_WORDS:
            texts.append(value.strip())
            counts.append(count)
    shaped = [_DATE_SHAPE.match(text) is not None for text in texts]
    if not texts or np.dot(shaped, counts) < enough * sum(counts):
        return "", False

    def share(date_format: str, every: int = 1) -> float:
        read = ~np.isnat(read_dates(texts[::every], date_format))
        return float(np.average(read, weights=counts[::every]))

    every = max(1, len(texts) // 50)
    best, most = "", 0.0
    for date_format in DATE_FORMATS:
        if share(date_format, every) > 0.5 * enough:  # a few texts tell most formats out
            read = share(date_format)
            if read >= enough and read > most:
                best, most = date_format, read
    swapped = best.replace("%m", "%_").replace("%d", "%m").replace("%_", "%d")
    return best, swapped != best and share(swapped) == 1.0


def read_dates(texts: Sequence[Any], date_format: str) -> NDArray[np.datetime64]:
    """Each text as datetime64[s] in UTC, NaT where it cannot be read."""
    clean = [t.strip() if isinstance(t, str) else None for t in texts]
    column = pd.Series(clean, dtype=object)
    read = pd.to_datetime(column, format=date_format, errors="coerce", utc=True)
    return read.dt.tz_localize(None).to_numpy().astype("datetime64[s]")


def dates(series: pd.Series[Any], date_format: str) -> NDArray[np.datetime64]:
    """The column as datetime64[s] [N]; NaT where missing or unreadable."""
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        plain = series.dt.tz_convert("UTC").dt.tz_localize(None) if series.dt.tz else series
        return plain.to_numpy().astype("datetime64[s]")
    cells = factor(series)
    table = np.full(len(cells.values) + 1, np.datetime64("NaT"), dtype="datetime64[s]")
    if cells.values:
        table[:-1] = read_dates([as_text(v) for v in cells.values], date_format or "ISO8601")
    return table[cells.codes]


def as_text(value: Any) -> Any:
    """The value, or ISO text for the Python dates of an object column."""
    return value.isoformat() if hasattr(value, "isoformat") else value


def row_number(index: pd.Index[Any], position: int) -> int:
    """The row as people count it: the first data row is 1, dropped rows are counted."""
    if pd.api.types.is_integer_dtype(index.dtype):
        return int(index[position]) + 1
    return position + 1
