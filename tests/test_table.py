"""Reading tables, and every bad input with its message."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adanet_py.data.table import infer_columns, infer_task, read_table
from adanet_py.errors import DataError

N = 60


@pytest.fixture
def good() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "a": rng.normal(size=N),
            "b": rng.choice(list("xyz"), N),
            "target": rng.choice(["p", "q"], N),
        }
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to_file(content: str | bytes | pd.DataFrame, name: str = "t.csv") -> Path:
        path = tmp_path / name
        if isinstance(content, pd.DataFrame):
            content.to_csv(path, index=False)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8")
        return path

    return to_file


# Reading


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.parquet", "t.feather"])
def test_every_file_type_gives_the_same_table(
    good: pd.DataFrame, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name.endswith((".parquet", ".feather")):
        getattr(good, f"to_{name.rsplit('.', 1)[1]}")(path)
    else:
        good.to_csv(path, index=False, sep="\t" if ".tsv" in name else ",")
    table = read_table(path)
    assert list(table.frame) == ["a", "b"]
    # pandas before 3.1 may read a float from text one unit in the last place off.
    np.testing.assert_allclose(table.frame["a"], good["a"], rtol=1e-14)
    assert table.frame["b"].tolist() == good["b"].tolist()
    assert table.target is not None
    assert table.target.tolist() == good["target"].tolist()


def test_empty_cells_are_missing_and_words_are_not(write: Callable[..., Path]) -> None:
    rows = "\n".join(["NA,1,p", ",2,q", "null,,p", "x,NA,q", "None,5,p", "x,6,q"] * 5)
    table = read_table(write(f"word,number,target\n{rows}\n"))
    assert table.frame["word"].isna().sum() == 5
    assert set(table.frame["word"].dropna()) == {"NA", "null", "x", "None"}
    columns, notes = infer_columns(table.frame)
    assert [c.kind for c in columns] == ["category", "numeric"]
    assert any("5 cells 'NA' are read as missing" in n for n in notes)


def test_a_stray_word_far_down_does_not_change_the_cells_before(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adanet_py.data.files._CELLS_PER_CHUNK", 10)  # 1,000 rows a chunk
    cells = [f"{i:05d}" for i in range(3000)]
    cells[2500] = "oops"
    path = write("code,target\n" + "".join(f"{c},{i % 2}\n" for i, c in enumerate(cells)))
    assert read_table(path).frame["code"].tolist() == cells


def test_chunks_of_integers_and_floats_join(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adanet_py.data.files._CELLS_PER_CHUNK", 10)
    values = [str(i) for i in range(1500)] + ["", "0.5"] + ["3"] * 700
    path = write("v,target\n" + "".join(f"{v},{i % 2}\n" for i, v in enumerate(values)))
    expected = [float(v) if v else np.nan for v in values]
    np.testing.assert_array_equal(read_table(path).frame["v"], expected)


def test_roles_are_no_features_and_time_is(good: pd.DataFrame) -> None:
    frame = good.assign(
        w=1.5, g=np.arange(N) // 3, t=np.arange(N), part=["train", "Val", "test"] * 20
    )
    table = read_table(frame, weight="w", group="g", time_column="t", split="part", drop=["b"])
    assert list(table.frame) == ["a", "t"]
    assert table.weight is not None
    assert table.weight.tolist() == [1.5] * N
    assert table.split is not None
    assert table.split.tolist() == ["train", "valid", "audit"] * 20
    assert list(read_table(frame, time_column="t", drop=["t"]).frame) == [
        "a",
        "b",
        "w",
        "g",
        "part",
    ]


def test_a_split_may_come_from_a_file(good: pd.DataFrame, write: Callable[..., Path]) -> None:
    path = write(pd.DataFrame({"split": ["train", "valid"] * 30}), "parts.csv")
    assert (read_table(good, split=str(path)).split == "valid").sum() == 30
    short = write(pd.DataFrame({"split": ["train"] * 3}), "short.csv")
    with pytest.raises(DataError, match="each of the 60 rows of the DataFrame, found 3"):
        read_table(good, split=str(short))


def test_rows_without_a_target_are_dropped_and_said(good: pd.DataFrame) -> None:
    good.loc[3:5, "target"] = None
    table = read_table(good.assign(w=np.arange(N)), weight="w")
    assert table.notes == (
        "Dropped 3 of 60 rows: the target 'target' is missing there (first: row 4).",
    )
    assert table.weight is not None
    assert len(table.frame) == len(table.weight) == 57
    assert 4 not in table.frame.index
    assert table.frame.index.equals(table.weight.index)
    predicted = read_table(good, target="target", require_target=False)
    assert len(predicted.frame) == N
    assert list(predicted.frame) == ["a", "b"]


def test_rows_are_named_as_in_the_file_after_rows_were_dropped(good: pd.DataFrame) -> None:
    good.loc[0:9, "target"] = None
    good.loc[20, "a"] = np.inf
    with pytest.raises(DataError, match="'a', row 21: expected a finite number, found inf"):
        infer_columns(read_table(good).frame)


def test_arrays_and_pairs(good: pd.DataFrame) -> None:
    x = np.arange(12.0).reshape(6, 2)
    table = read_table((x, [0, 1] * 3))
    assert list(table.frame) == ["x0", "x1"]
    assert table.target is not None
    assert table.target.tolist() == [0, 1] * 3
    assert list(read_table(x, require_target=False).frame) == ["x0", "x1"]
    pair = read_table((good[["a", "b"]].set_index(np.arange(N)[::-1]), good["target"]))
    assert pair.target is not None
    assert pair.target.tolist() == good["target"].tolist()


def test_the_users_frame_is_left_alone(good: pd.DataFrame) -> None:
    before = good.copy()
    read_table((good, np.arange(N)))
    infer_columns(read_table(good).frame)
    pd.testing.assert_frame_equal(good, before)


# Bad input


BAD_FILES: dict[str, tuple[str | bytes, str, str]] = {
    "empty": ("", "t.csv", "is empty: expected a header"),
    "blank": ("\n\n  \n", "t.csv", "is empty: expected a header"),
    "no rows": ("a,b,target\n", "t.csv", "expected rows after the header"),
    "semicolons": ("a;b;target\n1;2;x\n", "t.csv", "'a;b;target': it looks separated by semi"),
    "tabs": ("a\tb\ttarget\n1\t2\tx\n", "t.csv", "looks separated by tabs"),
    "commas": ("a,b,target\n1,2,x\n", "t.tsv", "looks separated by commas"),
    "spaces": ("a b target\n1 2 x\n3 4 y\n", "t.csv", "looks separated by spaces"),
    "decimal commas": (
        "a, in m;b;target\n1,5;2;x\n2,5;3,7;y\n", "t.csv",
        "found 2 columns, the first 'a': it looks separated by semicolons",
    ),
    "no header": ("1,2,x\n3,4,y\n5,6,y\n", "t.csv", "is the header line missing"),
    "names twice": ("a,b,a\n1,2,3\n", "t.csv", r"found 'a' 2 times \(columns 1, 3\)"),
    "long row": ("a,target\n1,x\n2,y\n1,2,y\n", "t.csv", "Expected 2 fields in line 4, saw 3"),
    "long first row": ("a,target\n1,2,x\n", "t.csv", "names 2 columns, the first row has 3"),
    "open quote": ('a,target\n1,"x\n2,y\n', "t.csv", "Check the delimiter and quotes"),
    "latin": ("a,target\n1,é\n".encode("latin1"), "t.csv", "expected UTF-8 text.*0xe9"),
    "no gzip": ("a,b\n1,2\n", "t.csv.gz", "expected a file compressed with gzip.*take .gz off"),
    "cut gzip": (gzip.compress(os.urandom(900).hex().encode())[:500], "t.csv.gz", "cannot be read"),
    "no parquet": ("hello", "t.parquet", "cannot be read"),
    "no feather": ("hello", "t.feather", "cannot be read"),
    "spreadsheet": ("hello", "t.xlsx", "expected a file ending in .csv"),
    "no target": ("a,outcome\n1,2\n", "t.csv", "which column is the target.*Columns: a, outcome"),
    "two targets": ("y,Class,a\n1,2,3\n", "t.csv", "Several could be .y, Class."),
    "target only": ("target\nx\ny\n", "t.csv", "at least one feature column beside 'target'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_explained(write: Callable[..., Path], case: str) -> None:
    content, name, message = BAD_FILES[case]
    with pytest.raises(DataError, match=message) as caught:
        read_table(write(content, name))
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_nearest(write: Callable[..., Path], tmp_path: Path) -> None:
    write("a\n1\n", "titanic.csv")
    with pytest.raises(DataError, match=r"No such file.*Did you mean 'titanic.csv'\?"):
        read_table(tmp_path / "titanik.csv")
    with pytest.raises(DataError, match="found a folder"):
        read_table(tmp_path)
    with pytest.raises(DataError, match="There is no folder"):
        read_table(tmp_path / "nowhere" / "t.csv")


BAD_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "target": ({"target": "targt"}, r"no column 'targt' \(target\). Did you mean 'target'\?"),
    "drop": ({"drop": ["c"]}, r"no column 'c' \(column to drop\)"),
    "drop target": ({"drop": ["target"]}, "is the target and cannot be"),
    "weight": ({"weight": "b"}, r"'b' \(weight\), row 1: expected a number of at least 0"),
    "negative": ({"weight": "a"}, r"'a' \(weight\), row \d+: expected a number of at least 0"),
    "time": ({"time_column": "b"}, r"'b' \(time\), row 1: expected a date or a number"),
    "split": ({"split": "b"}, "row 1: expected train, valid or test, found"),
    "no split": ({"split": "aa"}, r"a column of the DataFrame or a file.* Did you mean 'a'\?"),
    "group": ({"group": "c"}, r"no column 'c' \(group\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_roles_are_explained(good: pd.DataFrame, case: str) -> None:
    options, message = BAD_OPTIONS[case]
    with pytest.raises(DataError, match=message):
        read_table(good, **options)


def test_gaps_in_a_group_column_are_refused(good: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"'g' \(group\), row 2: expected a value, found none"):
        read_table(good.assign(g=["u", None, "v"] * 20), group="g")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (5, "found int"),
        (None, "found NoneType"),
        ((np.ones((4, 2)), np.ones(3)), "found 3 and 4"),
        ((np.ones(4), np.ones(4)), r"shape \[rows, columns\], found shape \[4\]"),
        ((np.ones((4, 2)), np.ones((4, 2, 2))), r"\[N\] or \[N, targets\], found \[4, 2, 2\]"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "'a' 2 times"),
        (pd.DataFrame({"a": [], "target": []}), "expected rows, found none"),
        (pd.DataFrame({("a", 1): [1], ("a", 2): [2]}), "level"),
    ],
)  # fmt: skip
def test_bad_objects_are_explained(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(data)


def test_a_stray_word_in_a_numeric_target_is_dropped_and_said(
    good: pd.DataFrame, write: Callable[..., Path]
) -> None:
    good["target"] = [*map(str, np.random.default_rng(1).normal(size=N - 1)), "oops"]
    table = read_table(write(good))
    assert len(table.frame) == N - 1
    assert "row 60 is 'oops'" in table.notes[0]
    assert infer_task(table.target) == "regression"
    with pytest.raises(DataError, match="row 60: expected a number, found 'oops'"):
        read_table(write(good), strict=True)
