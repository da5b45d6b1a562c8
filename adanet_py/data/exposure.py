"""The exposure of rows: for how long, or for how many, a count or an amount was counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adanet_py.data import cells
from adanet_py.errors import DataError, nearest


def read_exposure(series: pd.Series[Any]) -> NDArray[np.float64]:
    """The numbers [N] of a column of exposures; DataError for a cell that is not above 0."""
    values = cells.numbers(series)
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if bad.size:
        row, value = cells.row_number(series.index, int(bad[0])), series.iloc[int(bad[0])]
        more = f" ({bad.size:,} such rows)" if bad.size > 1 else ""
        raise DataError(
            f"Column {series.name!r} (exposure), row {row}: expected a number above 0, found "
            f"{'no value' if pd.isna(value) else repr(cells.key(value))}{more}. Correct it, or "
            "leave such rows out."
        )
    return values


@dataclass(frozen=True)
class Exposure:
    """The column of exposures, and their mean in the table the model was made of.

    An exposure is used in units of that mean, e: the mean of a row is e exp(z), z the output of a
    network, so that z near 0 is near the mean of the table.
    """

    name: str
    mean: float

    @classmethod
    def fit(cls, series: pd.Series[Any]) -> Exposure:
        """Of the rows of a table."""
        return cls(str(series.name), float(read_exposure(series).mean()))

    def relative(self, series: pd.Series[Any]) -> NDArray[np.float32]:
        """Exposures in units of their mean, float32 [N]."""
        return (read_exposure(series) / self.mean).astype(np.float32)

    def of(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        """As `relative`, of the rows of a table; DataError where it has no such column."""
        names = [str(c) for c in frame.columns]
        if names.count(self.name) != 1:
            raise DataError(
                f"Expected a column {self.name!r} with the exposure of every row, which the model "
                f"was trained with, found {names.count(self.name)}.{nearest(self.name, names)} Add "
                "it; 1 predicts rates."
            )
        series = frame.iloc[:, names.index(self.name)]
        return self.relative(series.rename(self.name))

    def to_json(self) -> dict[str, Any]:
        """Plain values, every field."""
        return {"name": self.name, "mean": self.mean}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Exposure | None:
        """Inverse of `to_json`; None of None."""
        return None if value is None else cls(value["name"], value["mean"])
