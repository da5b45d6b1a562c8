"""Column types: what each column is taken for, and what is said about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adanet_py.data.table import fit_target, infer_columns, infer_task, read_table
from adanet_py.errors import ConfigError, DataError

N = 60


@pytest.fixture
def good() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"a": rng.normal(size=N), "b": rng.choice(list("xyz"), N)})


def kinds(frame: pd.DataFrame, **options: Any) -> dict[str, str]:
    columns, _ = infer_columns(frame, **options)
    return {c.name: c.kind for c in columns}


def shared(name: str) -> Path:
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("ADANET_SHARED_DATA", default)) / "tables" / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"real data set {path.name} is not on this machine")
    return path


def test_kinds_of_columns() -> None:
    n = 400
    i = np.arange(n)
    rng = np.random.default_rng(0)
    words = rng.choice("red green blue small large round flat".split(), (n, 6))
    frame = pd.DataFrame(
        {
            "real": rng.normal(size=n),
            "count": rng.poisson(4, n),
            "year": 1990 + i % 25,
            "flag": i % 2,
            "one_two": 1 + i % 2,
            "truth": i % 2 == 0,
            "answer": np.where(i % 3 == 0, "Yes", "no"),
            "colour": rng.choice(["red", "green"], n),
            "shop_id": i % 40,
            "zip": 10_000 + i % 50,
            "icd": rng.choice([250, 401, 427, 585, 714], n),
            "day": pd.date_range("2020-01-01", periods=n).strftime("%d/%m/%Y"),
            "moment": pd.date_range("2020-01-01", periods=n),
            "comment": [" ".join(w) + str(k) for k, w in enumerate(words)],
            "PassengerId": i + 7,
            "row": i + 1,
            "hash": [f"u{k}" for k in i],
            "constant": "same",
            "nothing": None,
            "only_some": np.where(i % 2 == 0, 3.0, np.nan),
        }
    )
    expected = {
        "real": "numeric", "count": "numeric", "year": "numeric", "flag": "boolean",
        "one_two": "boolean", "truth": "boolean", "answer": "boolean", "colour": "category",
        "shop_id": "category", "zip": "category", "icd": "category", "day": "date",
        "moment": "date", "comment": "text", "PassengerId": "dropped", "row": "dropped",
        "hash": "dropped", "constant": "dropped", "nothing": "dropped", "only_some": "category",
    }  # fmt: skip
    assert kinds(frame) == expected
    _, notes = infer_columns(frame)
    for name in ("PassengerId", "row", "hash", "constant", "nothing"):
        assert any(f"Column '{name}' is not used" in note for note in notes)


def test_kinds_survive_a_csv_file(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "truth": [True, False, True] * 20,
            "maybe": ["t", "f", ""] * 20,
            "number": [1.5, None, 2.5] * 20,
            "word": ["x", "y", " "] * 20,
            "target": [0, 1, 2] * 20,
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    table = read_table(tmp_path / "t.csv")
    assert kinds(table.frame) == {
        "truth": "boolean", "maybe": "boolean", "number": "numeric", "word": "category"
    }  # fmt: skip


def test_types_can_be_given(good: pd.DataFrame) -> None:
    frame = good[["a", "b"]].assign(c=np.arange(N) % 7)
    assert kinds(frame, types={"c": "category", "b": "dropped"})["c"] == "category"
    assert kinds(frame.astype({"c": "category"}))["c"] == "category"
    with pytest.raises(ConfigError, match="Unknown column in types 'd'"):
        infer_columns(frame, types={"d": "numeric"})
    with pytest.raises(ConfigError, match="Did you mean 'numeric'"):
        infer_columns(frame, types={"a": "numerical"})
    with pytest.raises(DataError, match="'b': expected numbers as asked for, found none"):
        infer_columns(frame, types={"b": "numeric"})


def test_a_stray_word_is_named_and_strict_refuses_it(good: pd.DataFrame, tmp_path: Path) -> None:
    good["a"] = good["a"].astype(str)
    good.loc[16, "a"] = "n.a.x"
    good.to_csv(tmp_path / "t.csv", index=False)
    table = read_table(tmp_path / "t.csv", require_target=False)
    columns, notes = infer_columns(table.frame)
    assert columns[0].kind == "numeric"
    assert "Column 'a' holds numbers, but row 17 is 'n.a.x': treated as missing" in notes[0]
    with pytest.raises(DataError, match=r"'a': expected numbers, found row 17 is 'n.a.x'"):
        infer_columns(table.frame, strict=True)


def test_many_words_make_a_category_and_it_is_said() -> None:
    frame = pd.DataFrame({"a": [*map(str, range(20)), "x", "y", "x", "y", "x"] * 2, "b": range(50)})
    columns, notes = infer_columns(frame)
    assert columns[0].kind == "category"
    assert any("10 of 50 cells are no numbers (row 21 is 'x'" in n for n in notes)


def test_a_stray_word_among_dates() -> None:
    days = ["2020-01-05"] * 30 + ["2021-03-04 10:00"] * 29 + ["soon"]
    frame = pd.DataFrame({"c": days})
    columns, notes = infer_columns(frame)
    assert columns[0].format == "ISO8601"
    assert "row 60 is 'soon'" in notes[0]
    with pytest.raises(DataError, match="row 60 is 'soon'"):
        infer_columns(frame, strict=True)


def test_swapped_days_and_months_are_said() -> None:
    both = pd.DataFrame({"d": [f"{1 + i % 12:02d}/{1 + i % 11:02d}/2020" for i in range(N)]})
    columns, notes = infer_columns(both)
    assert columns[0].format == "%m/%d/%Y"
    assert "could be swapped" in notes[0]
    clear = pd.DataFrame({"d": [f"{1 + i % 28:02d}/{1 + i % 11:02d}/2020" for i in range(N)]})
    columns, notes = infer_columns(clear)
    assert columns[0].format == "%d/%m/%Y"
    assert not notes


def test_infinity_and_lists_are_refused(good: pd.DataFrame) -> None:
    good.loc[11, "a"] = -np.inf
    with pytest.raises(DataError, match="'a', row 12: expected a finite number, found -inf"):
        infer_columns(good)
    with pytest.raises(DataError, match="'c': expected numbers, text or dates"):
        infer_columns(pd.DataFrame({"c": [[1, 2]] * 3}))


def test_a_table_without_use_is_refused() -> None:
    frame = pd.DataFrame({"c": ["same"] * N, "u": [f"u{i}" for i in range(N)]})
    with pytest.raises(DataError, match="at least one usable feature column, found none"):
        infer_columns(frame)


def test_a_lone_counting_column_is_the_feature() -> None:
    assert kinds(pd.DataFrame({"x": np.arange(N)})) == {"x": "numeric"}


# Real tables

REAL = {
    "titanic": (
        "Survived", "binary",
        {"PassengerId": "dropped", "Sex": "category", "Age": "numeric", "Name": "text"},
    ),
    "telco_churn": ("Churn", "binary", {"Partner": "boolean", "TotalCharges": "numeric"}),
    "bike_sharing_hour": ("cnt", "regression", {"instant": "dropped", "dteday": "date"}),
    "adult": ("class", "binary", {"age": "numeric", "education": "category"}),
    "letter": ("class", "multiclass", {"x-box": "numeric"}),
    "abalone": ("Rings", "regression", {"Sex": "category"}),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_tables_are_understood(name: str) -> None:
    target, task, some = REAL[name]
    table = read_table(shared(name), target=target)
    found = kinds(table.frame)
    assert {c: found[c] for c in some} == some
    assert table.target is not None
    assert infer_task(table.target) == task
    fit_target(table.target, task)
