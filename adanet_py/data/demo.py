"""The data set a search without data uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

WORDS = (
    "No data given: searching on the Wisconsin breast cancer data that come with scikit-learn "
    "(569 rows, 30 numeric columns, target 'diagnosis'). "
    "Give a CSV, Parquet or Feather file and --target to use your own."
)


def load_demo() -> tuple[pd.DataFrame, str, str]:
    """(table, name of its target, what to tell the user)."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer(as_frame=True)
    frame = bunch.frame.rename(columns={"target": "diagnosis"})
    frame["diagnosis"] = frame["diagnosis"].map(dict(enumerate(bunch.target_names)))
    return frame, "diagnosis", WORDS
