"""The search as scikit-learn estimators, for pipelines, cross-validation and its other tools.

Features: an array, or a DataFrame whose text, categories, dates and missing values are used as they
are. The options are those of the command line; `random_state` is its `--seed`.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight

from adanet_py.config import REWARD_OPTIONS, SearchConfig
from adanet_py.estimator_input import (
    EXPOSURE,
    WEIGHT,
    by_code,
    exposures,
    fit_input,
    predict_input,
    twice_if_alone,
    value_errors,
    with_columns,
)

if TYPE_CHECKING:
    from adanet_py.space import SearchSpace


class _AdaNet(BaseEstimator):
    """What both estimators share: options, checks of the input, and the call of the search."""

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
        frame, names = with_columns(frame, y, sample_weight, exposure)
        named = self.space if isinstance(self.space, str | os.PathLike) else None
        with tempfile.TemporaryDirectory(prefix="adanet_py-") as temporary, value_errors():
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
                weight=None if sample_weight is None else WEIGHT,
                exposure=None if exposure is None else EXPOSURE,
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


def keep_arguments(estimator: BaseEstimator, given: Mapping[str, Any]) -> None:
    """Keep the arguments of a constructor, its `locals()`, as they came: scikit-learn's rule."""
    for name, value in given.items():
        if name != "self":
            setattr(estimator, name, value)


class AdaNetClassifier(ClassifierMixin, _AdaNet):
    """Search networks for a classification and predict with the best of them.

    The options are those of the command line. `out` is where the run folder is kept, which is
    temporary otherwise. `members` says who may join the ensemble: "networks", "any", an unfitted
    model of scikit-learn, or a list of such models and "any". Such models are fitted to the places
    of labels in `classes_` instead of labels. `class_weight` acts in the training loss: None,
    "balanced", or a dict from label to a factor above 0; classes it does not name have factor 1.

    After `fit` there are `classes_`, `model_` (a Model), `leaderboard_` (a DataFrame), `best_` (a
    Result) and `n_features_in_`. Data that cannot be used are a ValueError.

    With several labels y is a multilabel indicator [N, T] of 0 and 1. `predict` then gives an
    indicator too, `predict_proba` the probabilities of 1 [N, T], and `classes_` is a list of T
    arrays. `class_weight` is None or "balanced", each label by itself.
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
        keep_arguments(self, locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> AdaNetClassifier:
        """Search for features `X` [N, D] and labels `y` [N] of any type, or an indicator [N, T]."""
        frame, y = fit_input(self, X, y, numeric=False)
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
            class_weight = by_code(class_weight, self.classes_)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, codes, ensure_non_negative=True)
        rows = twice_if_alone(codes, self.classes_)
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
            twice_if_alone(codes, self.classes_[0], f" of label {t}")
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
        frame = predict_input(self, X)
        with value_errors():
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
    """Search networks for a regression and predict with the best of them.

    The options are those of the command line; `quantile` is the level to predict instead of the
    mean. `out` is where the run folder is kept, which is temporary otherwise. `members` says who
    may join the ensemble: "networks", "any", an unfitted model of scikit-learn, or a list of such
    models and "any".

    After `fit` there are `model_` (a Model), `leaderboard_` (a DataFrame), `best_` (a Result) and
    `n_features_in_`. Data that cannot be used are a ValueError.
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
        keep_arguments(self, locals())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, exposure: Any = None
    ) -> AdaNetRegressor:
        """Search for features `X` [N, D] and numbers `y` [N] or [N, T].

        `exposure` [N] is for the losses poisson and gamma: over how long, or of how many, each
        count or amount was counted, above 0. It must then be given to `predict` and `score` too.
        """
        frame, y = fit_input(self, X, y, numeric=True)
        task = "regression" if y.ndim == 1 else "multioutput"
        self._search(frame, y, task, sample_weight, exposure=exposure)
        return self

    def predict(self, X: Any, exposure: Any = None) -> np.ndarray:
        """A number per row [N], or T of them [N, T]; with `exposure` [N] what is expected at it."""
        frame = predict_input(self, X)
        if (exposure is None) != (self.model_.exposure is None):
            found = "none" if exposure is None else "one"
            raise ValueError(
                f"exposure: expected what was given to fit, {'one' if exposure is None else 'none'}"
                f", found {found}. Give it to both or to neither; 1 for every row predicts rates."
            )
        if exposure is not None:
            frame[EXPOSURE] = exposures(exposure, frame)
        with value_errors():
            return np.asarray(self.model_.predict(frame), dtype=np.float64)

    def score(self, X: Any, y: Any, sample_weight: Any = None, exposure: Any = None) -> float:
        """The share of variance explained, R^2."""
        predicted = self.predict(X, exposure)
        return float(r2_score(y, predicted, sample_weight=sample_weight))
