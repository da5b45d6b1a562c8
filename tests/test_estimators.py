"""scikit-learn's own contract for estimators, and what it does not ask for: tables of text."""

from __future__ import annotations

import os
import pickle
from itertools import islice

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks
from tables import check_here, few_trees

from adanet_py import (
    AdaNetClassifier,
    AdaNetRegressor,
    baseline_thread,
    export,
    plan,
    saving,
)
from adanet_py.architectures import ARCHITECTURES
from adanet_py.baselines import run_baselines
from adanet_py.config import REWARD_OPTIONS
from adanet_py.own import Own

SMALL = {"candidates": 1, "space": "tiny", "workers": 0, "random_state": 0}

WEIGHTS = (
    "a row of weight zero still counts as a row where folds are drawn and batches are formed, so "
    "weights are no repetition of rows in a model trained by mini-batches"
)
EXPECTED_FAILURES = {"check_sample_weight_equivalence_on_dense_data": WEIGHTS}
SKIPPED = {
    "check_methods_subset_invariance": "float32 matrix products may round the last digit "
    "differently for other numbers of rows; the check wants 1e-7",
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """One baseline, and the model is checked in this process: hundreds of searches follow."""
    full, check = baseline_thread.run_baselines, export.start_check

    def here(folder, prepared, result, own, nursery):
        name = result.candidate.architecture
        return check(folder, prepared, result, Own({name: ARCHITECTURES.get(name)}), nursery)

    # One thread: products this small only wait for each other on two.
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    monkeypatch.setattr(plan, "EPOCHS", (12, 30))
    monkeypatch.setattr(baseline_thread, "run_baselines", lambda *a, **o: islice(full(*a, **o), 1))
    monkeypatch.setattr(saving, "start_check", here)


@pytest.mark.filterwarnings("ignore:Class .* has one row only:UserWarning")
@parametrize_with_checks(
    [AdaNetClassifier(**SMALL), AdaNetRegressor(**SMALL)],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_the_estimators_obey_scikit_learns_contract(estimator, check):
    name = check.func.__name__
    if name in SKIPPED:
        pytest.skip(SKIPPED[name])
    check(estimator)


def _table(n=80, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "amount": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
            "colour": rng.choice(["red", "green", None], n),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, n), "D"),
        }
    )
    score = frame["amount"].fillna(0) + (frame["colour"] == "red") * 3 - 1
    return frame, score


def test_a_frame_of_words_dates_and_gaps_is_taken_as_it_is():
    frame, score = _table()
    y = np.where(score > 0, "yes", "no")
    model = AdaNetClassifier(**SMALL).fit(frame, y)
    assert list(model.classes_) == ["no", "yes"]
    assert set(model.predict(frame)) <= {"no", "yes"}
    assert model.score(frame, y) > 0.7
    assert model.best_.candidate.architecture == "mlp"
    assert "constant" in set(model.leaderboard_["architecture"])
    new = frame.assign(colour="never seen").iloc[:5]
    np.testing.assert_allclose(model.predict_proba(new).sum(1), 1)
    with pytest.raises(ValueError, match="colour"):
        model.predict(frame.drop(columns="colour"))


def test_a_fitted_estimator_needs_no_folder_and_survives_pickling(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    frame, score = _table()
    model = AdaNetRegressor(**SMALL).fit(frame, score)
    assert list(tmp_path.iterdir()) == []
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(frame), model.predict(frame))


def test_the_run_folder_is_kept_where_asked(tmp_path):
    frame, score = _table()
    AdaNetRegressor(**SMALL, out=tmp_path / "run").fit(frame, score)
    assert (tmp_path / "run" / "model.adanet").exists()


def test_the_same_random_state_gives_the_same_model():
    frame, score = _table()
    one, two = (AdaNetRegressor(**SMALL).fit(frame, score).predict(frame) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_works_inside_scikit_learns_tools():
    frame, score = _table()
    scores = cross_val_score(clone(AdaNetRegressor(**SMALL)), frame, score, cv=2)
    assert scores.shape == (2,)


@pytest.mark.parametrize("members", ["any", "linear", ["any", "linear"]])
def test_models_of_scikit_learn_may_be_members(members, monkeypatch):
    models = []
    if members != "any":
        pytest.importorskip("skl2onnx", reason="needs the extra onnx")
        pytest.importorskip("onnxruntime", reason="needs the extra onnx")
        models = [LogisticRegression(C=0.5)]
    given = {"any": "any", "linear": models[:1] and models[0]}.get(str(members), [*models, "any"])
    monkeypatch.setattr(saving, "start_check", check_here)
    monkeypatch.setattr(baseline_thread, "run_baselines", run_baselines)
    few_trees(monkeypatch)
    frame, score = _table(150)
    y = np.where(score > 0, "yes", "no")
    model = clone(AdaNetClassifier(**SMALL | {"candidates": 2}, members=given)).fit(frame, y)
    joined = set(model.leaderboard_["architecture"])
    assert ("extra_trees" in joined) == ("any" in members)
    assert ("LogisticRegression" in joined) == bool(models)
    assert model.score(frame, y) > 0.7
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))


def test_a_member_that_is_no_model_is_refused():
    frame, score = _table()
    with pytest.raises(ValueError, match="members"):
        AdaNetRegressor(**SMALL, members=[np.zeros(3)]).fit(frame, score)


def test_a_space_and_a_controller_may_be_objects():
    calls = []

    def controller(space, history, n, rng):
        from adanet_py.controllers import CONTROLLERS

        calls.append(n)
        return CONTROLLERS["random"](space, history, n, rng)

    space = {
        "name": "mine",
        "architectures": {"mlp": {"width": {"choice": [8, 16]}, "depth": 1}},
        "optimizers": {"adam": {"lr": {"float": [0.001, 0.01], "log": True}}},
        "schedules": {"constant": {}},
    }
    frame, score = _table()
    options = SMALL | {"space": space, "controller": controller}
    model = AdaNetRegressor(**options).fit(frame, score)
    assert calls
    assert model.best_.candidate.static["width"] in (8, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"space": "tabel"}, "table"), ({"metric": "rmse"}, "regression"), ({"time": "0s"}, "above")],
)
def test_options_that_cannot_be_used_are_value_errors(options, message):
    frame, score = _table()
    with pytest.raises(ValueError, match=message):
        AdaNetClassifier(**{**SMALL, **options}).fit(frame, score > 0)


def test_infinite_values_are_named_in_a_frame_too():
    frame, score = _table()
    model = AdaNetRegressor(**SMALL).fit(frame, score)
    frame.loc[3, "amount"] = np.inf
    with pytest.raises(ValueError, match="amount"):
        AdaNetRegressor(**SMALL).fit(frame, score)
    with pytest.raises(ValueError, match="amount"):
        model.predict(frame)


def test_a_lone_row_of_a_class_is_used_and_that_is_said():
    frame, score = _table()
    y = np.where(score > 0, "yes", "no").astype(object)
    y[5] = "perhaps"
    with pytest.warns(UserWarning, match="'perhaps' has one row only"):
        model = AdaNetClassifier(**SMALL).fit(frame, y)
    assert model.predict_proba(frame).shape == (len(frame), 3)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 1.0, 1: 50.0}])
def test_class_weights_move_the_probabilities(class_weight):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 2)), (rng.random(200) < 0.15).astype(int)
    plain = AdaNetClassifier(**SMALL).fit(X, y).predict_proba(X)[:, 1].mean()
    heavy = AdaNetClassifier(**SMALL, class_weight=class_weight).fit(X, y)
    assert heavy.predict_proba(X)[:, 1].mean() > plain + 0.1


@pytest.mark.parametrize("kind", [AdaNetClassifier, AdaNetRegressor])
def test_the_options_of_choice_reward_and_bounds_are_parameters(kind):
    assert set(REWARD_OPTIONS) <= set(kind().get_params())


def test_bounds_hold_for_an_estimator():
    X = np.random.default_rng(0).normal(size=(120, 2))
    found = AdaNetClassifier(
        candidates=4, space="tiny", folds=1, workers=0, random_state=0, max_params="60",
        choose="simplest",
    )  # fmt: skip
    found.fit(X, (X[:, 0] > 0).astype(int))
    assert found.best_.parameters <= 60
    with pytest.raises(ValueError, match="--max-size: expected"):
        AdaNetClassifier(max_size="big", candidates=1).fit(X, (X[:, 0] > 0).astype(int))
