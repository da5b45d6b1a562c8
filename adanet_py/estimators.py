"""The search as scikit-learn estimators, for pipelines, cross-validation and its other tools.

Features: an array, or a DataFrame whose text, categories, dates and missing values are used as they
are. The options are those of the command line; `random_state` is its `--seed`.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    check_X_y,
    validate_data,
)

from adanet_py.class_weight import check_class_weight, class_weights, read_class_weight
from adanet_py.config import REWARD_OPTIONS, SearchConfig
from adanet_py.errors import AdanetError

if TYPE_CHECKING:
    from adanet_py.space import SearchSpace

_TARGET, _WEIGHT = "target of the estimator", "weight of the estimator"
_EXPOSURE = "exposure of the estimator"


class _AdaNet(BaseEstimator):
    """What both estimators share: options, checks of the input, and the call of the search."""

    def __init__(
        self,
        *,
        time: str | float | None = None,
        candidates: int | None = None,
        metric: str | None = None,
        loss: str = "auto",
        space: str | Path | Mapping[str, Any] | SearchSpace = "table",
        controller: Any = "auto",
        prior: str | os.PathLike[str] | None = None,
        members: Any = "networks",
        folds: int | None = None,
        device: str = "auto",
        workers: int | None = None,
        choose: str = "best",
        complexity: str = "parameters",
        complexity_weight: float | None = None,
        complexity_target: str | float | None = None,
        max_params: str | int | None = None,
        max_latency: str | float | None = None,
        max_size: str | int | None = None,
        out: str | os.PathLike[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.time = time
        self.candidates = candidates
        self.metric = metric
        self.loss = loss
        self.space = space
        self.controller = controller
        self.prior = prior
        self.members = members
        self.folds = folds
        self.device = device
        self.workers = workers
        self.choose = choose
        self.complexity = complexity
        self.complexity_weight = complexity_weight
        self.complexity_target = complexity_target
        self.max_params = max_params
        self.max_latency = max_latency
        self.max_size = max_size
        self.out = out
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.non_deterministic = self._ends_by_the_clock()
        return tags

    def _ends_by_the_clock(self) -> bool:
        return self.time is not None or self.candidates is None

    def _search(
        self,
        frame: pd.DataFrame,
        y: np.ndarray,
        task: str,
        sample_weight: Any,
        class_weight: Any = None,
        exposure: Any = None,
    ) -> None:
        """Run the search and keep `model_`, `leaderboard_` and `best_`."""
        from adanet_py.baselines.model_text import write_members
        from adanet_py.run import search

        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        frame, names = _with_columns(frame, y, sample_weight, exposure)
        named = self.space if isinstance(self.space, str | os.PathLike) else None
        with tempfile.TemporaryDirectory(prefix="adanet_py-") as temporary, _value_errors():
            config = SearchConfig(
                target=names,
                task=task,
                metric=self.metric,
                loss=self.loss,
                quantile=getattr(self, "quantile", None),
                time=self.time,
                candidates=self.candidates,
                space="table" if named is None else named,
                controller=self.controller if isinstance(self.controller, str) else "auto",
                prior=self.prior,
                members=write_members(self.members),
                folds=self.folds,
                weight=None if sample_weight is None else _WEIGHT,
                exposure=None if exposure is None else _EXPOSURE,
                class_weight=class_weight,
                device=self.device,
                workers=self.workers,
                **{name: getattr(self, name) for name in REWARD_OPTIONS},
                out=Path(temporary) / "run" if self.out is None else self.out,
                seed=seed,
            )
            found = search(
                frame,
                config=config,
                space=None if isinstance(self.space, str | os.PathLike) else self.space,
                controller=None if isinstance(self.controller, str) else self.controller,
            )
            self.model_ = found.model
            self.leaderboard_ = found.leaderboard
            self.best_ = found.best

    def _fit_input(self, X: Any, y: Any, *, numeric: bool) -> tuple[pd.DataFrame, np.ndarray]:
        """Features and target [N] or [N, T] after scikit-learn's checks of shapes and names."""
        several = _columns(y) > 1
        if isinstance(X, pd.DataFrame):
            validate_data(self, X, y, skip_check_array=True)
            shape = np.zeros((len(X), 1))  # the frame's values are checked where they are read
            _, y = check_X_y(
                shape,
                y,
                ensure_min_samples=2,
                y_numeric=numeric,
                multi_output=several,
                estimator=self,
            )
            return _named(X), _dense(y)
        X, y = validate_data(
            self,
            X,
            y,
            dtype=None,
            ensure_all_finite="allow-nan",
            ensure_min_samples=2,
            y_numeric=numeric,
            multi_output=several,
        )
        return _from_array(X), _dense(y)

    def _predict_input(self, X: Any) -> pd.DataFrame:
        check_is_fitted(self)
        if isinstance(X, pd.DataFrame):
            return _named(validate_data(self, X, reset=False, skip_check_array=True))
        return _from_array(
            validate_data(self, X, reset=False, dtype=None, ensure_all_finite="allow-nan")
        )


class AdaNetClassifier(ClassifierMixin, _AdaNet):
    """Search networks for a classification and predict with the best.

    Options as on the command line; `out` keeps the run folder, which is temporary otherwise.
    `members`, who may join the ensemble, is "networks", "any", an unfitted model of scikit-learn,
    or a list of such models and "any"; they are fitted to the places of labels in `classes_`.
    `class_weight`, of the training loss, is None, "balanced" or a dict from label to a factor above
    0; classes it does not name have the factor 1. After `fit`: `classes_`,
    `model_`, `leaderboard_` (a DataFrame), `best_` (a Result), `n_features_in_`. Raises ValueError
    for data that cannot be used.

    With a multilabel indicator y [N, T] predictions are one, `predict_proba` gives the
    probabilities of 1 [N, T] and `classes_` is a list of T arrays; `class_weight` is None or
    "balanced", which is done for each label.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def __init__(
        self,
        *,
        time: str | float | None = None,
        candidates: int | None = None,
        metric: str | None = None,
        loss: str = "auto",
        space: str | Path | Mapping[str, Any] | SearchSpace = "table",
        controller: Any = "auto",
        prior: str | os.PathLike[str] | None = None,
        members: Any = "networks",
        folds: int | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        device: str = "auto",
        workers: int | None = None,
        choose: str = "best",
        complexity: str = "parameters",
        complexity_weight: float | None = None,
        complexity_target: str | float | None = None,
        max_params: str | int | None = None,
        max_latency: str | float | None = None,
        max_size: str | int | None = None,
        out: str | os.PathLike[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(
            time=time,
            candidates=candidates,
            metric=metric,
            loss=loss,
            space=space,
            controller=controller,
            prior=prior,
            members=members,
            folds=folds,
            device=device,
            workers=workers,
            choose=choose,
            complexity=complexity,
            complexity_weight=complexity_weight,
            complexity_target=complexity_target,
            max_params=max_params,
            max_latency=max_latency,
            max_size=max_size,
            out=out,
            random_state=random_state,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> AdaNetClassifier:
        """Search for features `X` [N, D] and labels `y` [N] of any type, or an indicator [N, T]."""
        frame, y = self._fit_input(X, y, numeric=False)
        if y.ndim == 2:
            return self._fit_labels(frame, y, sample_weight)
        check_classification_targets(y)
        self.classes_: Any
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Expected at least 2 classes, found 1 class: {self.classes_[0]!r} only."
            )
        task = "binary" if len(self.classes_) == 2 else "multiclass"
        class_weight = self.class_weight
        if isinstance(class_weight, Mapping):
            class_weight = _by_code(class_weight, self.classes_)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, codes, ensure_non_negative=True)
        rows = _twice_if_alone(codes, self.classes_)
        if rows is not None:
            frame, codes = frame.iloc[rows].reset_index(drop=True), codes[rows]
            sample_weight = None if sample_weight is None else sample_weight[rows]
        self._search(frame, codes, task, sample_weight, class_weight)
        return self

    def _fit_labels(
        self, frame: pd.DataFrame, y: np.ndarray, sample_weight: Any
    ) -> AdaNetClassifier:
        """Search for several labels; one that never varies is predicted as it is."""
        found = type_of_target(y)
        if found != "multilabel-indicator":
            raise ValueError(
                f"Expected y of shape [N, T] as a multilabel indicator of 0 and 1, found {found}. "
                "Fit a classifier for each column."
            )
        if self.class_weight not in (None, "balanced"):
            raise ValueError(
                "class_weight: expected None or 'balanced' for several labels, found "
                f"{self.class_weight!r}. Use sample_weight."
            )
        y = y.astype(int)
        self.classes_ = [np.arange(2)] * y.shape[1]
        self._constant = np.where(np.ptp(y, axis=0) == 0, y[0], -1)
        varying = np.flatnonzero(self._constant < 0)
        if not len(varying):
            raise ValueError(
                "Expected labels of which one varies at least, found only 1 class each."
            )
        if len(varying) < y.shape[1]:
            fixed = int(np.flatnonzero(self._constant >= 0)[0])
            warnings.warn(
                f"Label {fixed} is {self._constant[fixed]} in every row, and so it is predicted.",
                UserWarning,
                stacklevel=3,
            )
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, y, ensure_non_negative=True)
        labels = y[:, varying]
        alone = [
            _twice_if_alone(codes, self.classes_[0], f" of label {t}")
            for t, codes in zip(varying, labels.T, strict=True)
        ]
        again = [rows[len(y) :] for rows in alone if rows is not None]
        if again:
            rows = np.concatenate([np.arange(len(y)), np.unique(np.concatenate(again))])
            frame, labels = frame.iloc[rows].reset_index(drop=True), labels[rows]
            sample_weight = None if sample_weight is None else sample_weight[rows]
        one = len(varying) == 1
        self._search(
            frame,
            labels[:, 0] if one else labels,
            "binary" if one else "multilabel",
            sample_weight,
            self.class_weight,
        )
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities [N, C], columns in the order of `classes_`; of several labels [N, T]."""
        frame = self._predict_input(X)
        with _value_errors():
            proba = self.model_.predict_proba(frame)
        if isinstance(self.classes_, list):
            varying = self._constant < 0
            out = np.tile(self._constant.astype(np.float64), (len(proba), 1))
            out[:, varying] = proba[:, 1:] if varying.sum() == 1 else proba
            return out
        out = np.zeros_like(proba)
        out[:, np.asarray(self.model_.classes, dtype=int)] = proba
        return out

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label of each row [N]; of several labels an indicator [N, T]."""
        if isinstance(getattr(self, "classes_", None), list):
            return (self.predict_proba(X) > 0.5).astype(int)
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])


class AdaNetRegressor(RegressorMixin, _AdaNet):
    """Search networks for a regression and predict with the best.

    Options as on the command line (`quantile`: the level to predict instead of the mean); `out`
    keeps the run folder, which is temporary otherwise. `members`, who may join the ensemble, is
    "networks", "any", an unfitted model of scikit-learn, or a list of such models and "any".
    After `fit`: `model_`, `leaderboard_` (a DataFrame), `best_` (a Result), `n_features_in_`.
    Raises ValueError for data that cannot be used.
    """

    def __init__(
        self,
        *,
        time: str | float | None = None,
        candidates: int | None = None,
        metric: str | None = None,
        loss: str = "auto",
        quantile: float | None = None,
        space: str | Path | Mapping[str, Any] | SearchSpace = "table",
        controller: Any = "auto",
        prior: str | os.PathLike[str] | None = None,
        members: Any = "networks",
        folds: int | None = None,
        device: str = "auto",
        workers: int | None = None,
        choose: str = "best",
        complexity: str = "parameters",
        complexity_weight: float | None = None,
        complexity_target: str | float | None = None,
        max_params: str | int | None = None,
        max_latency: str | float | None = None,
        max_size: str | int | None = None,
        out: str | os.PathLike[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(
            time=time,
            candidates=candidates,
            metric=metric,
            loss=loss,
            space=space,
            controller=controller,
            prior=prior,
            members=members,
            folds=folds,
            device=device,
            workers=workers,
            choose=choose,
            complexity=complexity,
            complexity_weight=complexity_weight,
            complexity_target=complexity_target,
            max_params=max_params,
            max_latency=max_latency,
            max_size=max_size,
            out=out,
            random_state=random_state,
        )
        self.quantile = quantile

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, exposure: Any = None
    ) -> AdaNetRegressor:
        """Search for features `X` [N, D] and numbers `y` [N] or [N, T].

        `exposure` [N], above 0: for how long or how many each count or amount was counted, with
        the losses poisson and gamma; it must be given to `predict` and `score` too.
        """
        frame, y = self._fit_input(X, y, numeric=True)
        task = "regression" if y.ndim == 1 else "multioutput"
        self._search(frame, y, task, sample_weight, exposure=exposure)
        return self

    def predict(self, X: Any, exposure: Any = None) -> np.ndarray:
        """A number per row [N], or T of them [N, T]; with `exposure` those expected at it."""
        frame = self._predict_input(X)
        if (exposure is None) != (self.model_.exposure is None):
            found = "none" if exposure is None else "one"
            raise ValueError(
                f"exposure: expected what was given to fit, {'one' if exposure is None else 'none'}"
                f", found {found}. Give it to both or to neither; 1 for every row predicts rates."
            )
        if exposure is not None:
            frame[_EXPOSURE] = _exposures(exposure, frame)
        with _value_errors():
            return np.asarray(self.model_.predict(frame), dtype=np.float64)

    def score(self, X: Any, y: Any, sample_weight: Any = None, exposure: Any = None) -> float:
        """The share of variance explained, R^2."""
        predicted = self.predict(X, exposure)
        return float(r2_score(y, predicted, sample_weight=sample_weight))


@contextmanager
def _value_errors() -> Iterator[None]:
    """Errors of the input as ValueError, the type scikit-learn's tools expect."""
    try:
        yield
    except AdanetError as error:
        raise ValueError(str(error)) from error


def _with_columns(
    frame: pd.DataFrame, y: np.ndarray, sample_weight: Any, exposure: Any
) -> tuple[pd.DataFrame, list[str]]:
    """The features with target, weights and exposures beside them; the names of the targets."""
    several = y.ndim == 2
    names = [f"{_TARGET} {t}" for t in range(y.shape[1])] if several else [_TARGET]
    targets = pd.DataFrame(y, columns=pd.Index(names, dtype=object), index=frame.index)
    frame = pd.concat([frame, targets], axis=1)
    if sample_weight is not None:
        frame[_WEIGHT] = _check_sample_weight(sample_weight, frame, ensure_non_negative=True)
    if exposure is not None:
        frame[_EXPOSURE] = _exposures(exposure, frame)
    return frame, names


def _exposures(exposure: Any, frame: pd.DataFrame) -> np.ndarray:
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


def _twice_if_alone(codes: np.ndarray, classes: np.ndarray, where: str = "") -> np.ndarray | None:
    """All rows and once more each that is alone in its class; None where there is none.

    scikit-learn's contract has such classes, but a stratified split needs two rows of each.
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


def _by_code(class_weight: Mapping[Any, float], classes: np.ndarray) -> dict[int, float]:
    """Class weights by the codes that the search sees instead of the labels."""
    with _value_errors():
        given = read_class_weight(class_weight)
        check_class_weight(given, "multiclass", classes.tolist())
        factors = class_weights(given, classes.tolist(), np.zeros(0, dtype=np.int64))
    return dict(enumerate(factors or ()))


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.reset_index(drop=True)
    return frame.set_axis(pd.Index([str(c) for c in frame.columns], dtype=object), axis=1)


def _from_array(array: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(array, columns=pd.Index([f"x{i}" for i in range(array.shape[1])]))
    return frame.infer_objects() if array.dtype == object else frame
