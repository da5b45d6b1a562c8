"""Targets: which task, and labels and values to numbers and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from adanet_py.data.table import Target, fit_target, infer_task
from adanet_py.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b"] * 10, "binary"),
        ([True, False] * 10, "binary"),
        ([0, 1] * 10, "binary"),
        ([1.5, 2.5] * 10, "binary"),
        (["a", "b", "c"] * 10, "multiclass"),
        (list(range(3)) * 10, "multiclass"),
        ([10, 20, 40] * 10, "multiclass"),
        (list(range(30)) * 10, "regression"),
        ([0, 1, 2, 3, 4, 8, 16] * 10, "regression"),
        ([0] * 50 + [1] * 20 + [2] * 5 + [3], "regression"),
        (np.linspace(0, 1, 20), "regression"),
        ([str(v) for v in np.linspace(0, 1, 20)], "regression"),
        (range(20), "regression"),
    ],
)
def test_tasks_are_inferred(values: Any, task: str) -> None:
    series = pd.Series(values, name="t")
    assert infer_task(series) == task
    assert infer_task(series, task) == task


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        (["a"] * 9, "auto", "at least two different values, found only 'a' in all 9 rows"),
        ([None] * 9, "auto", "has no value in any row"),
        ([0, 1, 0], "auto", "at least 6 rows with a target, found 3"),
        (["a", "b", "c"] * 3, "binary", "expected two classes for the task binary, found 3"),
        (["1", "b", "3"] * 3, "regression", r"row 2: expected a number .*found 'b'"),
    ],
)
def test_impossible_tasks_are_refused(values: Any, task: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        infer_task(pd.Series(values, name="t", dtype=object), task)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'regression'"):
        infer_task(pd.Series([1, 2]), "regresion")


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["no", "yes "] * 3, ("no", "yes")),
        (["010", "2"] * 3, ("010", "2")),
        ([True, False] * 3, (False, True)),
        ([1.0, 0.0, np.nan] * 3, (0, 1)),
        ([0.5, 1.5] * 3, (0.5, 1.5)),
        ([10, 9, 8] * 3, (8, 9, 10)),
    ],
)
def test_labels_keep_their_type_and_come_back(values: Any, classes: tuple[Any, ...]) -> None:
    series = pd.Series(values, name="t").dropna()
    target = fit_target(series, "binary" if len(classes) == 2 else "multiclass")
    assert target.classes == classes
    assert [type(c) for c in target.classes] == [type(c) for c in classes]
    assert Target.from_json(target.to_json()) == target
    codes = target.encode(series)
    assert codes.dtype == np.int64
    plain = [v.strip() if isinstance(v, str) else v for v in series]
    assert target.decode(codes).tolist() == plain
    assert target.n_outputs == (1 if len(classes) == 2 else len(classes))


def test_labels_match_across_types() -> None:
    target = fit_target(pd.Series([0, 1] * 3), "binary")
    assert target.encode(pd.Series(["1", "0"])).tolist() == [1, 0]
    assert target.encode(pd.Series([1.0, 0.0])).tolist() == [1, 0]
    with pytest.raises(DataError, match=r"row 2: expected one of the classes 0, 1, found '2'"):
        target.encode(pd.Series([0, 2]))
    with pytest.raises(DataError, match=r"row 1: .* found a missing value"):
        target.encode(pd.Series([None, 1.0]))


def test_bad_classes_are_refused() -> None:
    labels = pd.Series(["p", "q"] * 5 + ["r"], name="t")
    with pytest.raises(DataError, match=r"found one of class 'r', row 11. Remove that row"):
        fit_target(labels, "multiclass")
    with pytest.raises(DataError, match="use the task regression"):
        fit_target(pd.Series([1, 2, 3] * 3 + [4]), "multiclass")
    with pytest.raises(DataError, match="at least two classes, found 'p'"):
        fit_target(pd.Series(["p"] * 5), "binary")
    with pytest.raises(DataError, match=r"'1.1' and '1.10' are the same number"):
        fit_target(pd.Series(["1.1", "1.10", "x"] * 3), "multiclass")


def test_a_target_of_names_or_dates_is_no_class() -> None:
    names = pd.Series([f"name {i}" for i in range(50)] + ["name 0"] * 5, name="t")
    with pytest.raises(DataError, match=r"classes that repeat, or numbers, found 50 different val"):
        fit_target(names, "multiclass")


def test_a_target_whose_variance_underflows_is_refused() -> None:
    with pytest.raises(DataError, match=r"varies too little to compute with.*Multiply it"):
        fit_target(pd.Series([1.0, 2.0, 3.0]) * 1e-200, "regression")
    with pytest.raises(DataError, match=r"too large to compute with.*Divide it"):
        fit_target(pd.Series([1.0, 2.0, 3.0]) * 1e200, "regression")
    assert fit_target(pd.Series([1.0, 2.0, 3.0]) * 1e-120, "regression").scale > 0


def test_regression_targets_are_standardised() -> None:
    values = pd.Series([1.0, 2.0, 3.0, 6.0], name="t")
    target = fit_target(values, "regression")
    encoded = target.encode(values)
    assert encoded.dtype == np.float32
    assert abs(float(encoded.mean())) < 1e-6
    assert float(encoded.std()) == pytest.approx(1.0)
    np.testing.assert_allclose(target.decode(encoded), values, rtol=1e-6)
    with pytest.raises(DataError, match="expected different values, found 2"):
        fit_target(pd.Series([2.0] * 6), "regression")
    with pytest.raises(DataError, match="row 2: expected a finite number"):
        fit_target(pd.Series([2.0, np.inf]), "regression")
