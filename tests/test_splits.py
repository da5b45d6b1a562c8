"""Splits: every row has one place, and no information crosses to validation or audit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adanet_py.data.splits import Split, check_weights, make_split
from adanet_py.errors import ConfigError, DataError, RunError


def labels(n: int, classes: int = 3, seed: int = 0) -> np.ndarray:
    shares = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    return np.random.default_rng(seed).choice(classes, n, p=shares)


def check(split: Split, n: int) -> None:
    """What holds for every split of n rows."""
    for train, valid in zip(split.train, split.valid, strict=True):
        both = np.concatenate([train, valid, split.audit])
        assert len(np.unique(both)) == len(both) == n
        assert both.dtype == np.int64
        assert len(train)
        assert len(valid)
        for rows in (train, valid, split.audit):
            assert np.all(np.diff(rows) > 0)
    if split.kind == "folds":
        assert len(np.unique(np.concatenate(split.valid))) == n - len(split.audit)
    else:
        assert len(split.train) == 1
    assert split.how


@pytest.mark.parametrize("task", ["multiclass", "regression"])
@pytest.mark.parametrize("n", [6, 50, 999, 5500, 6000, 20_000, 120_000])
@pytest.mark.parametrize("folds", [None, 1, 3])
def test_every_row_has_one_place(n: int, task: str, folds: int | None) -> None:
    y = np.arange(n) % 3 if task == "multiclass" else np.arange(n) / n
    split = make_split(y, task, folds=folds)
    check(split, n)
    assert split.kind == ("folds" if folds == 3 or (folds is None and n < 6000) else "holdout")
    assert len(split.audit) == (0 if n < 5000 else min(5000, round(0.05 * n)))
    if split.kind == "holdout" and n >= 1000:
        assert len(split.valid[0]) == min(10_000, round(0.15 * n))


def test_the_same_arguments_give_the_same_split() -> None:
    y = labels(500)
    one, two, other = (make_split(y, "multiclass", seed=s) for s in (1, 1, 2))
    for a, b in zip(one.valid, two.valid, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.valid[0], other.valid[0])
    named = make_split(pd.Series(list("abc"))[y].reset_index(drop=True), "multiclass", seed=1)
    np.testing.assert_array_equal(named.valid[0], one.valid[0])


@pytest.mark.parametrize(("n", "folds"), [(900, 5), (9000, 1)])
def test_classes_keep_their_shares(n: int, folds: int) -> None:
    y = labels(n)
    split = make_split(y, "multiclass", folds=folds)
    for rows in (*split.valid, *((split.audit,) if len(split.audit) else ())):
        expected = np.bincount(y) * len(rows) / n
        assert np.abs(np.bincount(y[rows], minlength=3) - expected).max() <= 1.5


def test_rare_classes_are_in_every_training_part() -> None:
    y = np.zeros(200, dtype=int)
    y[[5, 90]] = 1
    for folds in (None, 1, 2, 5):
        split = make_split(y, "binary", folds=folds)
        assert all(y[train].sum() >= 1 for train in split.train)
    assert len(make_split(y, "binary").train) == 3
    y[[6, 91]] = 1
    assert len(make_split(y, "binary").train) == 4


@pytest.mark.parametrize(("n", "folds"), [(400, None), (400, 1), (9000, None), (5500, 4)])
def test_no_group_is_on_two_sides(n: int, folds: int | None) -> None:
    rng = np.random.default_rng(0)
    group = np.array([f"g{i}" for i in rng.geometric(0.02, n)])
    y = labels(n, 2)
    split = make_split(y, "binary", folds=folds, group=group)
    check(split, n)
    for train, valid in zip(split.train, split.valid, strict=True):
        sides = [set(group[rows]) for rows in (train, valid, split.audit)]
        assert not sides[0] & sides[1]
        assert not (sides[0] | sides[1]) & sides[2]
        wanted = max(100, 0.15 * n) if len(split.train) == 1 else n / len(split.train)
        assert 0.5 < len(valid) / wanted <= 1.5
    assert bool(len(split.audit)) == (n >= 5000)


def test_groups_are_chosen_with_the_classes_in_mind() -> None:
    group = np.repeat(np.arange(40), 10)
    y = (group % 4 == 0).astype(int)  # whole groups of one class
    split = make_split(y, "binary", folds=1, group=group)
    assert 0.1 < y[split.valid[0]].mean() < 0.4
    assert 0 < y[split.train[0]].mean() < 1


def test_one_giant_group_trains() -> None:
    group = np.zeros(1000, dtype=int)
    group[:60] = np.arange(60) // 6 + 1
    split = make_split(labels(1000), "multiclass", folds=1, group=group)
    assert 0 in group[split.train[0]]
    check(split, 1000)
    two = make_split(np.arange(1000) / 3, "regression", folds=1, group=group > 0)
    assert len(two.valid[0]) == 60


@pytest.mark.parametrize("n", [100, 8000])
def test_later_rows_validate_and_the_latest_audit(n: int) -> None:
    time = pd.Series(pd.date_range("2020-01-01", periods=n, freq="h"))
    time = time.sample(frac=1, random_state=0).reset_index(drop=True)
    split = make_split(np.arange(n) / n, "regression", time=time)
    check(split, n)
    parts = [split.train[0], split.valid[0]] + ([split.audit] if n >= 5000 else [])
    for earlier, later in pairwise(parts):
        assert time[earlier].max() < time[later].min()


def test_rows_of_one_moment_stay_together() -> None:
    time = np.arange(1000) // 7
    split = make_split(1000, "regression", time=time)
    check(split, 1000)
    assert not set(time[split.train[0]]) & set(time[split.valid[0]])
    few = make_split(1000, "regression", time=np.arange(1000) >= 100)
    assert len(few.train[0]) == 100
    check(make_split(9000, "regression", time=np.arange(9000) % 2), 9000)


def test_a_given_split_is_followed() -> None:
    words = np.array(["train", "valid", "audit", "train"] * 5, dtype=object)
    split = make_split(np.arange(20) % 2, "binary", split=words)
    np.testing.assert_array_equal(split.valid[0], np.arange(1, 20, 4))
    np.testing.assert_array_equal(split.audit, np.arange(2, 20, 4))
    with pytest.raises(DataError, match="no row 'valid'"):
        make_split(4, "regression", split=["train"] * 4)
    with pytest.raises(DataError, match="one class only to train on"):
        make_split([0, 0, 0, 1], "binary", split=["train", "train", "valid", "valid"])


@pytest.mark.parametrize(
    ("n", "options", "error", "message"),
    [
        (3, {}, DataError, "at least 6 rows with a target, found 3"),
        (50, {"folds": 51}, ConfigError, r"expected 1 \(a hold-out\) to 50 \(rows\), found 51"),
        (50, {"folds": 0}, ConfigError, "found 0"),
        (50, {"folds": 3, "time": np.arange(50)}, ConfigError, "cannot be combined"),
        (50, {"group": np.arange(50), "time": np.arange(50)}, ConfigError, "by group and by time"),
        (50, {"time": np.zeros(50)}, DataError, "found the same in every row"),
        (50, {"group": np.zeros(50)}, DataError, "at least 2 different groups, found 1"),
        (50, {"folds": 5, "group": np.arange(50) % 3}, DataError, "at least 5 different groups"),
    ],
)
def test_impossible_splits_are_refused(
    n: int, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_split(n, "regression", **options)


def test_as_many_groups_as_folds_is_a_group_each() -> None:
    group = np.repeat(["a", "b", "c"], [30, 50, 20])
    split = make_split(np.arange(100) % 2, "binary", group=group)
    assert sorted(len(v) for v in split.valid) == [20, 30, 50]
    for folds in (3, 5):
        group = np.arange(100) % 10
        sizes = [len(v) for v in make_split(100, "regression", folds=folds, group=group).valid]
        assert max(sizes) - min(sizes) <= 10  # one group


def test_parts_without_weight_are_refused() -> None:
    split = make_split(12, "regression", split=["train"] * 6 + ["valid"] * 3 + ["audit"] * 3)
    check_weights(np.ones(12), split)
    for rows, words in (
        (slice(6), "train on"),
        (slice(6, 9), "validate on"),
        (slice(9, 12), "aud"),
    ):
        weight = np.ones(12)
        weight[rows] = 0
        with pytest.raises(DataError, match=f"only rows of weight 0 to {words}.*Give more rows"):
            check_weights(weight, split)


def test_a_split_is_saved_and_loaded(tmp_path: Path) -> None:
    for folds in (None, 1):
        split = make_split(labels(5500), "multiclass", folds=folds)
        split.save(tmp_path / "split.npz")
        again = Split.load(tmp_path / "split.npz")
        assert (again.kind, again.how) == (split.kind, split.how)
        for name in ("train", "valid"):
            for a, b in zip(getattr(again, name), getattr(split, name), strict=True):
                np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(again.audit, split.audit)
    assert [p.name for p in tmp_path.iterdir()] == ["split.npz"]
    with pytest.raises(RunError, match="found none"):
        Split.load(tmp_path / "none.npz")
    (tmp_path / "split.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(RunError, match="is damaged"):
        Split.load(tmp_path / "split.npz")
