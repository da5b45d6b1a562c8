"""What scikit-learn hands to an estimator, checked as it asks, as the table that a search reads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    check_X_y,
    validate_data,
)

from adanet_py.class_weight import check_class_weight, class_weights, read_class_weight
from adanet_py.errors import AdanetError

# Names of the columns put beside the features, which no table of a user is likely to have.
TARGET, WEIGHT = "target of the estimator", "weight of the estimator"
EXPOSURE = "exposure of the estimator"


def fit_input(
    estimator: BaseEstimator, X: Any, y: Any, *, numeric: bool
) -> tuple[pd.DataFrame, np.ndarray]:
    """Features as a table of N rows and the target [N] or [N, T], for `fit`.

    scikit-learn's checks are made and the names of the features noted in the estimator; `numeric`:
    the target holds numbers. Raises ValueError for shapes and values that cannot be used.
    """
    several = _columns(y) > 1
    if isinstance(X, pd.DataFrame):
        validate_data(estimator, X, y, skip_check_array=True)
        rows = np.zeros((len(X), 1))  # the frame's values are checked where they are read
        _, y = check_X_y(
            rows,
            y,
            ensure_min_samples=2,
            y_numeric=numeric,
            multi_output=several,
            estimator=estimator,
        )
        return _named(X), _dense(y)
    X, y = validate_data(
        estimator,
        X,
        y,
        dtype=None,
        ensure_all_finite="allow-nan",
        ensure_min_samples=2,
        y_numeric=numeric,
        multi_output=several,
    )
    return _from_array(X), _dense(y)


def predict_input(estimator: BaseEstimator, X: Any) -> pd.DataFrame:
    """Features as a table of N rows, for a fitted estimator; ValueError for other columns."""
    check_is_fitted(estimator)
    if isinstance(X, pd.DataFrame):
        return _named(validate_data(estimator, X, reset=False, skip_check_array=True))
    return _from_array(
        validate_data(estimator, X, reset=False, dtype=None, ensure_all_finite="allow-nan")
    )


@contextmanager
def value_errors() -> Iterator[None]:
    """Errors of the input as ValueError, the type scikit-learn's tools expect."""
    try:
        yield
    except AdanetError as error:
        raise ValueError(str(error)) from error


def with_columns(
    frame: pd.DataFrame, y: np.ndarray, sample_weight: Any, exposure: Any
) -> tuple[pd.DataFrame, list[str]]:
    """The features with target, weights and exposures beside them; the names of the targets."""
    several = y.ndim == 2
    names = [f"{TARGET} {t}" for t in range(y.shape[1])] if several else [TARGET]
    targets = pd.DataFrame(y, columns=pd.Index(names, dtype=object), index=frame.index)
    frame = pd.concat([frame, targets], axis=1)
    if sample_weight is not None:
        frame[WEIGHT] = _check_sample_weight(sample_weight, frame, ensure_non_negative=True)
    if exposure is not None:
        frame[EXPOSURE] = exposures(exposure, frame)
    return frame, names


def exposures(exposure: Any, frame: pd.DataFrame) -> np.ndarray:
    """One exposure for each row of `frame` [N]; ValueError for another shape."""
    values = np.asarray(exposure)
    if values.shape != (len(frame),):
        raise ValueError(
            f"exposure: expected a number for each of {len(frame)} rows, found an array of shape "
            f"{values.shape}."
        )
    return values


def _columns(y: Any) -> int:
    """Columns of a target [N, T], 1 where it has another shape."""
    shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
    return int(shape[1]) if len(shape) == 2 else 1


def _dense(y: Any) -> np.ndarray:
    return np.asarray(y.toarray() if hasattr(y, "toarray") else y)


def twice_if_alone(codes: np.ndarray, classes: np.ndarray, where: str = "") -> np.ndarray | None:
    """The rows to use where a class has only one: all, and such rows once more; None if none is.

    scikit-learn expects such classes to be fitted, and a stratified split needs two rows of each.
    A warning says so; `where` names the label in it, of several.
    """
    alone = np.flatnonzero(np.bincount(codes) == 1)
    if not len(alone):
        return None
    warnings.warn(
        f"Class {classes[alone[0]]!r}{where} has one row only: it trains and it validates.",
        UserWarning,
        stacklevel=3,
    )
    return np.concatenate([np.arange(len(codes)), np.flatnonzero(np.isin(codes, alone))])


def by_code(class_weight: Mapping[Any, float], classes: np.ndarray) -> dict[int, float]:
    """Class weights by label as class weights by code, which the search sees instead of labels."""
    with value_errors():
        given = read_class_weight(class_weight)
        check_class_weight(given, "multiclass", classes.tolist())
        factors = class_weights(given, classes.tolist(), np.zeros(0, dtype=np.int64))
    return dict(enumerate(factors or ()))


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with names of columns as text, rows counted from 0."""
    frame = frame.reset_index(drop=True)
    return frame.set_axis(pd.Index([str(c) for c in frame.columns], dtype=object), axis=1)


def _from_array(array: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(array, columns=pd.Index([f"x{i}" for i in range(array.shape[1])]))
    return frame.infer_objects() if array.dtype == object else frame
