"""From a table to the arrays a network reads: fitted on training rows, saved as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adanet_py.data import cells
from adanet_py.data.columns import Column
from adanet_py.data.encoders import FITTERS, READERS, Encoder, read_category, unreadable
from adanet_py.data.scaling import bin_edges
from adanet_py.data.spec import DataSpec
from adanet_py.data.targets import AnyTarget
from adanet_py.errors import DataError, RunError, nearest

Features = dict[str, NDArray[Any]]

SCALINGS = ("quantile", "robust")
_VERSION = 1
_CHUNK = 65_536  # rows transformed at once: bounds memory for any table
_FIT_ROWS = 100_000  # enough rows for the spread of derived numbers and for bin edges


@dataclass(frozen=True)
class Preprocessor:
    """The fitted preprocessing of a table; see `transform`. Plain values, JSON round trip.

    `edges` maps a scaling to the bin edges of every numeric input; `notes` are for people.
    """

    encoders: tuple[Encoder, ...]
    edges: Mapping[str, tuple[tuple[float, ...], ...]]
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the table columns that `transform` needs."""
        return tuple(e.name for e in self.encoders)

    @cached_property
    def numeric_names(self) -> tuple[str, ...]:
        """Names of the numeric inputs, in the order of the arrays' columns."""
        names: list[str] = []
        for encoder in self.encoders:
            names += encoder.outputs
            if encoder.indicator:
                names.append(f"{encoder.name} is missing")
        return tuple(names)

    @cached_property
    def category_names(self) -> tuple[str, ...]:
        """Names of the category columns, in the order of the array's columns."""
        return tuple(e.name for e in self.encoders if e.kind == "category")

    def transform(self, frame: pd.DataFrame) -> Features:
        """Inputs for the rows of `frame`, whose columns may be in any order and more than needed.

        Returns "quantile" and "robust", float32 [N, n_numeric], and "category", int32
        [N, n_category], 0 for missing, unseen or rare values. Cells that cannot be read are
        missing. Raises DataError for a missing column and for an infinite number.
        """
        frame = self._checked(frame)
        out: Features = {
            name: np.empty((len(frame), len(self.numeric_names)), dtype=np.float32)
            for name in SCALINGS
        }
        out["category"] = np.empty((len(frame), len(self.category_names)), dtype=np.int32)
        for start in range(0, len(frame), _CHUNK):
            rows = slice(start, start + _CHUNK)
            self._fill(frame.iloc[rows], {name: array[rows] for name, array in out.items()})
        return out

    def doubts(self, frame: pd.DataFrame) -> tuple[str, ...]:
        """A note per column with cells that are not empty but that `transform` reads as missing."""
        frame = self._checked(frame)
        notes = []
        for position, encoder in enumerate(self.encoders):
            at = unreadable(encoder, frame.iloc[:, position])
            if at.size:
                value = cells.key(frame.iat[int(at[0]), position])
                notes.append(
                    f"Column {encoder.name!r}: expected {encoder.expected}, found {value!r} in row "
                    f"{cells.row_number(frame.index, int(at[0]))}: treated as missing ({at.size} "
                    f"of {len(frame)} cells)."
                )
        return tuple(notes)

    def _checked(self, frame: pd.DataFrame) -> pd.DataFrame:
        names = [str(c) for c in frame.columns]
        missing = [c for c in self.columns if c not in set(names)]
        if missing:
            more = f" (and {len(missing) - 1} more: {missing[1:6]})" if len(missing) > 1 else ""
            raise DataError(
                f"The table has no column {missing[0]!r}{more}, which the model was trained on."
                f"{nearest(missing[0], names)} Columns found: {', '.join(names[:40])}."
            )
        twice = (
            [c for c in self.columns if names.count(c) > 1] if len(set(names)) < len(names) else []
        )
        if twice:
            raise DataError(
                f"The table has {names.count(twice[0])} columns {twice[0]!r}: rename one."
            )
        places = {name: i for i, name in enumerate(names)}
        chosen = frame.iloc[:, [places[c] for c in self.columns]]
        return chosen.set_axis(list(self.columns), axis=1)

    def _fill(self, frame: pd.DataFrame, out: Features) -> None:
        at = code_at = 0
        for position, encoder in enumerate(self.encoders):
            series = frame.iloc[:, position]
            if encoder.kind == "category":
                out["category"][:, code_at] = read_category(encoder, series)
                code_at += 1
                continue
            raw = READERS[encoder.kind](encoder, series)
            for values, scale in zip(raw, encoder.scales, strict=True):
                if scale is None:
                    filled = np.where(np.isnan(values), 0.0, values)
                    out["quantile"][:, at] = out["robust"][:, at] = filled
                else:
                    filled = np.where(np.isnan(values), scale.center, values)
                    out["quantile"][:, at] = scale.quantile(filled)
                    out["robust"][:, at] = scale.robust(filled)
                at += 1
            if encoder.indicator:
                out["quantile"][:, at] = out["robust"][:, at] = np.isnan(raw[0])
                at += 1

    def spec(self, target: AnyTarget) -> DataSpec:
        """Sizes for an architecture; one output for binary, regression and each of several."""
        sizes = tuple(len(e.values) + 1 for e in self.encoders if e.kind == "category")
        ratios = np.atleast_1d(target.mean) / np.atleast_1d(target.scale)
        return DataSpec(
            target.task,
            target.n_outputs,
            len(self.numeric_names),
            sizes,
            self.edges,
            target_ratio=tuple(ratios.tolist()),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values: the whole of what `transform` needs."""
        return {
            "version": _VERSION,
            "encoders": [e.to_json() for e in self.encoders],
            "edges": {k: [list(e) for e in v] for k, v in self.edges.items()},
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Preprocessor:
        """Inverse of `to_json`; raises RunError for what a newer version wrote."""
        if value["version"] > _VERSION:
            raise RunError(
                f"The preprocessing has version {value['version']}, this program reads up to "
                f"{_VERSION}. Update it."
            )
        edges = {k: tuple(tuple(e) for e in v) for k, v in value["edges"].items()}
        encoders = tuple(Encoder.from_json(e) for e in value["encoders"])
        return cls(encoders, edges, tuple(value["notes"]))


def fit_preprocessor(
    frame: pd.DataFrame, columns: Sequence[Column], *, seed: int = 0
) -> Preprocessor:
    """Fit the preprocessing of `columns` to the rows of `frame`, which must be training rows only.

    `seed` chooses the rows that bin edges are taken from when there are many. Raises DataError
    when no column says anything in these rows.
    """
    notes: list[str] = []
    rows = np.arange(len(frame))
    if len(rows) > _FIT_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _FIT_ROWS, replace=False))
    encoders: list[Encoder] = []
    for column in columns:
        if column.kind == "dropped":
            continue
        encoder = FITTERS[column.kind](column, frame[column.name], rows)
        if encoder is None:
            notes.append(
                f"Column {column.name!r} is not used: it says nothing in the training rows."
            )
        else:
            encoders.append(encoder)
    if not encoders:
        raise DataError("Expected a column that varies in the training rows, found none.")
    plain = Preprocessor(tuple(encoders), {})
    sample = plain.transform(frame.iloc[rows])
    edges = {name: tuple(bin_edges(column) for column in sample[name].T) for name in SCALINGS}
    return Preprocessor(plain.encoders, edges, tuple(notes))
