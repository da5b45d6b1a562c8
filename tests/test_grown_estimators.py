"""AdaNets of their own subnetworks as scikit-learn estimators."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks
from tables import table
from test_estimators import EXPECTED_FAILURES, SKIPPED

from adanet_py import GrownClassifier, GrownRegressor, load

SMALL = {
    "rounds": 1, "widths": (8,), "learning_rates": (3e-2,), "epochs": 40, "adanet_lambda": 0.0,
    "adanet_beta": 0.0, "random_state": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)


@pytest.mark.filterwarnings("ignore:Class .* has one row only:UserWarning")
@parametrize_with_checks(
    [GrownClassifier(**SMALL), GrownRegressor(**SMALL)],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_the_estimators_obey_scikit_learns_contract(estimator, check):
    name = check.func.__name__
    if name in SKIPPED:
        pytest.skip(SKIPPED[name])
    check(estimator)


def _data(task="binary"):
    frame = table(task, rows=200)
    return frame.drop(columns="target"), frame["target"]


def test_labels_of_any_type_are_predicted_from_a_frame(tmp_path):
    X, y = _data()
    model = GrownClassifier(**{**SMALL, "rounds": 2}, out=tmp_path).fit(X, y)
    assert list(model.classes_) == ["no", "yes"]
    assert model.score(X, y) > 0.8
    assert len(model.summary_["members"]) == model.rounds_["accepted"].sum() == 2
    saved = load(tmp_path).predict_proba(X)
    np.testing.assert_allclose(model.predict_proba(X), saved, atol=1e-6)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_class_weights_by_label_move_the_probabilities():
    X, y = _data()
    plain, heavy = (
        GrownClassifier(**SMALL, class_weight=w).fit(X, y).predict_proba(X)[:, 1].mean()
        for w in (None, {"yes": 20.0})
    )
    assert heavy > plain + 0.1


def test_a_quantile_and_an_exposure_are_words_of_the_regressor():
    X, y = _data("regression")
    low, high = (
        GrownRegressor(**SMALL, loss="quantile", quantile=q).fit(X, y).predict(X).mean()
        for q in (0.1, 0.9)
    )
    assert low < high
    counts = np.random.default_rng(0).poisson(3.0, len(X)).astype(float)
    model = GrownRegressor(**SMALL, loss="poisson").fit(X, counts, exposure=np.ones(len(X)))
    once, twice = (model.predict(X, exposure=np.full(len(X), e)) for e in (1.0, 2.0))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-4)


def test_settings_can_be_searched_by_scikit_learn():
    X, y = _data()
    found = GridSearchCV(clone(GrownClassifier(**SMALL)), {"widths": [(4,), (8,)]}, cv=2).fit(X, y)
    assert found.best_params_["widths"] in ((4,), (8,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "scaler"}, "Unknown kind of mixture weights 'scaler'"),
        ({"variants": ("Q",)}, "Unknown variant 'Q'"),
        ({"adanet_lambda": 100.0}, "No AdaNet was grown"),
        ({"metric": "rmse"}, "regression"),
    ],
)
def test_what_cannot_be_is_a_value_error(options, message):
    X, y = _data()
    with pytest.raises(ValueError, match=message):
        GrownClassifier(**{**SMALL, **options}).fit(X, y)
