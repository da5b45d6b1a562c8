"""How one column becomes inputs of a network: fitting, and reading cells the fitted way."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adanet_py.data import cells
from adanet_py.data.columns import Column
from adanet_py.data.scaling import Scale, fit_scale
from adanet_py.errors import DataError

_MAX_CATEGORIES = 1000
_MIN_COUNT = 2  # a category seen once in training teaches nothing a network could reuse
_HASHES = 64
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Encoder:
    """How one column becomes inputs.

    `outputs` names its numeric inputs and `scales` holds, for each, how it is scaled (None: used as
    it is). `values` are the category vocabulary in order of code from 1, or the false and the true
    word of a boolean. `indicator` adds an input that says "missing". `start` is the first day of a
    date column, in days since 1970.
    """

    name: str
    kind: str
    outputs: tuple[str, ...] = ()
    scales: tuple[Scale | None, ...] = ()
    values: tuple[str, ...] = ()
    format: str = ""
    start: float = 0.0
    indicator: bool = False

    @property
    def expected(self) -> str:
        """What a cell should hold, for people."""
        if self.kind == "boolean":
            return f"{self.values[0]!r} or {self.values[1]!r}"
        return {"numeric": "a number", "date": "a date"}.get(self.kind, "text")

    @cached_property
    def codes(self) -> dict[str, int]:
        """Category value to code, from 1."""
        return {value: code for code, value in enumerate(self.values, start=1)}

    def to_json(self) -> dict[str, Any]:
        """Plain values, every field."""
        out = {name: getattr(self, name) for name in self.__dataclass_fields__}
        out["scales"] = [None if s is None else s.to_json() for s in self.scales]
        return out

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Encoder:
        """Inverse of `to_json`."""
        fields = dict(value)
        fields["scales"] = tuple(None if s is None else Scale.from_json(s) for s in value["scales"])
        for name in ("outputs", "values"):
            fields[name] = tuple(value[name])
        return cls(**fields)


# One reader per kind: raw values [N] of every output, NaN where missing.


def _read_numeric(encoder: Encoder, series: pd.Series[Any]) -> list[NDArray[np.float64]]:
    values = cells.numbers(series)
    if np.isinf(values).any():
        at = int(np.flatnonzero(np.isinf(values))[0])
        raise DataError(
            f"Column {encoder.name!r}, row {cells.row_number(series.index, at)}: expected a finite "
            f"number, found {values[at]}. Correct it or leave the cell empty."
        )
    return [values]


def _read_boolean(encoder: Encoder, series: pd.Series[Any]) -> list[NDArray[np.float64]]:
    low, high = (cells.number(word) for word in encoder.values)
    if low is not None and high is not None and cells.holds_numbers(series):
        values = cells.numbers(series)
        return [np.where(values == high, 1.0, np.where(values == low, -1.0, np.nan))]
    found = cells.factor(series)
    table = [v if v else math.nan for v in cells.truth(found.values, *encoder.values)]
    return [cells.look_up(table, found.codes)]


def _read_date(encoder: Encoder, series: pd.Series[Any]) -> list[NDArray[np.float64]]:
    parts = _date_parts(cells.dates(series, encoder.format), encoder.start)
    return [parts[name.removeprefix(f"{encoder.name} ")] for name in encoder.outputs]


def _read_text(encoder: Encoder, series: pd.Series[Any]) -> list[NDArray[np.float64]]:
    count, hashed = _hash_words(series)
    return [count, *hashed.T]


READERS = {
    "numeric": _read_numeric, "boolean": _read_boolean, "date": _read_date, "text": _read_text
}  # fmt: skip


def unreadable(encoder: Encoder, series: pd.Series[Any]) -> NDArray[np.int64]:
    """Positions of the cells that hold something, but not what the column holds."""
    if encoder.kind not in ("numeric", "boolean", "date"):
        return np.empty(0, dtype=np.int64)
    if encoder.kind == "numeric" and cells.holds_numbers(series):
        return np.empty(0, dtype=np.int64)
    read = READERS[encoder.kind](encoder, series)[0]
    found = cells.factor(series)
    numbers = [cells.number(v) for v in found.values]
    word = np.append([v is None or not math.isnan(v) for v in numbers], False)[found.codes]
    return np.flatnonzero(np.isnan(read) & word.astype(bool))


def read_category(encoder: Encoder, series: pd.Series[Any]) -> NDArray[np.int32]:
    """Category codes [N]: 0 for missing, unseen and rare values."""
    found = cells.factor(series)
    table = np.zeros(len(found.values) + 1, dtype=np.int32)
    known = encoder.codes
    table[:-1] = [known.get(cells.key(v), 0) for v in found.values]
    return table[found.codes]


def _date_parts(moments: NDArray[np.datetime64], start: float) -> dict[str, NDArray[np.float64]]:
    """Numbers a date is made of, [N] each, NaN where missing; circles as sine and cosine."""
    missing = np.isnat(moments)
    moments = np.where(missing, np.datetime64(0, "s"), moments)
    day, month = moments.astype("datetime64[D]"), moments.astype("datetime64[M]")
    seconds = (moments - day).astype(np.float64)
    circles = {
        "month": month.astype(np.int64) % 12 / 12,
        "weekday": (day.astype(np.int64) + 3) % 7 / 7,  # 1970-01-01 was a Thursday
        "hour": seconds / 86_400,
    }
    parts = {
        "year": moments.astype("datetime64[Y]").astype(np.float64) + 1970,
        "day of month": (day - month.astype("datetime64[D]")).astype(np.float64) + 1,
        "days since start": moments.astype(np.float64) / 86_400 - start,
    }
    for name, turn in circles.items():
        parts[f"{name} sin"] = np.sin(2 * np.pi * turn)
        parts[f"{name} cos"] = np.cos(2 * np.pi * turn)
    return {name: np.where(missing, np.nan, values) for name, values in parts.items()}


def _hash_words(series: pd.Series[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Number of words [N], and signed counts of hashed words of length 1, [N, 64].

    The hashing trick with signs (Weinberger et al. 2009); crc32 is the same in every process.
    """
    found = cells.factor(series)
    # Category codes would repeat the work of equal texts, so distinct texts are hashed once.
    place: dict[str, int] = {}
    counts = np.zeros(len(found.values) + 1)
    owners: list[int] = []
    slots: list[int] = []
    for owner, value in enumerate(found.values):
        words = _WORD.findall(cells.key(value).lower())
        counts[owner] = len(words)
        for word in words:
            slot = place.get(word)
            if slot is None:
                slot = place[word] = zlib.crc32(word.encode("utf-8", "replace"))
            owners.append(owner)
            slots.append(slot)
    hashes = np.array(slots, dtype=np.int64)
    signs = np.where(hashes >> 16 & 1, 1.0, -1.0)
    flat = np.array(owners, dtype=np.int64) * _HASHES + hashes % _HASHES
    table = np.bincount(flat, signs, len(counts) * _HASHES).reshape(len(counts), _HASHES)
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    counts[-1] = np.nan
    return counts[found.codes], unit[found.codes]


# One fitter per kind: the encoder, or None for a column that says nothing in these rows.


def _fit_numeric(column: Column, series: pd.Series[Any], rows: NDArray[Any]) -> Encoder | None:
    blank = Encoder(column.name, "numeric", (column.name,), (None,))
    values = _read_numeric(blank, series)[0]
    scale = fit_scale(values)
    indicator = bool(np.isnan(values).any())
    if scale is None:
        if np.isnan(values).all() or not indicator:
            return None
        center = float(values[~np.isnan(values)][0])
        scale = Scale((center,), (0.0,), center, 1.0)
    return Encoder(column.name, "numeric", (column.name,), (scale,), indicator=indicator)


def _fit_boolean(column: Column, series: pd.Series[Any], rows: NDArray[Any]) -> Encoder | None:
    found = cells.factor(series)
    words = sorted({cells.key(found.values[i]) for i in found.used})
    if len(words) < 2 and found.counts.sum() == len(series):
        return None
    pair = _pair(words)
    encoder = Encoder(column.name, "boolean", (column.name,), (None,), pair)
    indicator = bool(np.isnan(_read_boolean(encoder, series)[0]).any())
    return Encoder(column.name, "boolean", (column.name,), (None,), pair, indicator=indicator)


def _pair(words: list[str]) -> tuple[str, str]:
    """The false and the true word of a two-valued column."""
    read = {w: number for w in words if (number := cells.number(w)) is not None}
    if len(read) == len(words) == 2:
        low, high = sorted(read, key=lambda w: read[w])
        return low, high
    false = [w for w in words if w.lower() in cells.FALSE_WORDS]
    true = [w for w in words if w.lower() in cells.TRUE_WORDS]
    if len(words) == 2 and not (len(false) == len(true) == 1):
        return words[0], words[1]
    return (false or ["false"])[0], (true or ["true"])[0]


def _fit_date(column: Column, series: pd.Series[Any], rows: NDArray[Any]) -> Encoder | None:
    moments = cells.dates(series, column.format)
    known = moments[~np.isnat(moments)]
    if not known.size:
        return None
    start = float(known.min().astype(np.float64) / 86_400)
    indicator = bool(np.isnat(moments).any())
    parts = _date_parts(moments[rows], start)
    outputs: list[str] = []
    scales: list[Scale | None] = []
    for name, values in parts.items():
        scale = fit_scale(values)
        if scale is not None:  # a year is no input where there is only one
            outputs.append(f"{column.name} {name}")
            scales.append(None if name.endswith((" sin", " cos")) else scale)
    if not outputs:
        return None
    return Encoder(
        column.name, "date", tuple(outputs), tuple(scales),
        format=column.format, start=start, indicator=indicator,
    )  # fmt: skip


def _fit_text(column: Column, series: pd.Series[Any], rows: NDArray[Any]) -> Encoder | None:
    count, _ = _hash_words(series.iloc[rows])
    scale = fit_scale(count)
    names = [f"{column.name} words", *(f"{column.name} #{i}" for i in range(_HASHES))]
    if np.isnan(count).all():
        return None
    if scale is None:
        center = float(count[~np.isnan(count)][0])
        scale = Scale((center,), (0.0,), center, 1.0)
    return Encoder(column.name, "text", tuple(names), (scale, *[None] * _HASHES))


def _fit_category(column: Column, series: pd.Series[Any], rows: NDArray[Any]) -> Encoder | None:
    found = cells.factor(series)
    counts: dict[str, int] = {}
    for code in found.used:
        value = cells.key(found.values[code])
        counts[value] = counts.get(value, 0) + int(found.counts[code])
    frequent = [v for v, count in counts.items() if count >= _MIN_COUNT]
    frequent.sort(key=lambda v: (-counts[v], v))
    kept = frequent[:_MAX_CATEGORIES]
    if not kept or counts[kept[0]] == len(series):
        return None
    return Encoder(column.name, "category", values=tuple(kept))


FITTERS = {
    "numeric": _fit_numeric, "boolean": _fit_boolean, "date": _fit_date, "text": _fit_text,
    "category": _fit_category,
}  # fmt: skip
