"""The baselines against scikit-learn's own models on the same rows."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import OneHotEncoder
from tables import few_trees

from adanet_py import baselines
from adanet_py.baselines import names, predict_member, run_baselines
from adanet_py.metrics import default_metric, score

TASKS = ("binary", "multiclass", "regression")
NAMES = ["constant", "linear", "hist_gradient_boosting"]


def _problem(task, n=600, folds=1, categories=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    codes = rng.integers(0, 5, (n, categories)).astype(np.int32)
    signal = x[:, 0] - 2 * x[:, 1] + (codes[:, 0] - 2 if categories else 0) + rng.normal(0, 0.5, n)
    if task == "regression":
        y, target = (
            (signal / 3).astype(np.float32),
            SimpleNamespace(classes=(), mean=7.0, scale=3.0),
        )
    else:
        cuts = [0] if task == "binary" else [-2, 0, 2]
        y = np.digitize(signal, cuts).astype(np.int64)
        target = SimpleNamespace(classes=tuple(range(len(cuts) + 1)), mean=0.0, scale=1.0)
    rows = rng.permutation(n)
    audit, rest = rows[:50], rows[50:]
    parts = np.array_split(rest, max(folds, 4))
    valid = parts[:folds]
    train = [np.setdiff1d(rest, v) for v in valid]
    split = SimpleNamespace(train=tuple(train), valid=tuple(valid), audit=audit)
    features = {"quantile": x, "robust": x, "category": codes}
    return features, y, split, target


def _run(task, problem, *, first=3, weight=None, seconds=60.0, metric=None, **options):
    features, y, split, target = problem
    metric = metric or default_metric(task)
    found = run_baselines(
        features, y, weight, split, task, metric, target, seconds=seconds, **options
    )
    return {b.name: b for b in islice(found, first)}


def _truth(problem, rows):
    _, y, _, target = problem
    return y[rows] if target.classes else target.mean + target.scale * y[rows]


@pytest.mark.parametrize("categories", [0, 2])
@pytest.mark.parametrize("folds", [1, 5])
@pytest.mark.parametrize("task", TASKS)
def test_every_baseline_is_there_in_order_and_better_than_the_one_before(task, folds, categories):
    problem = _problem(task, folds=folds, categories=categories)
    found = _run(task, problem)
    assert list(found) == NAMES
    split, classes = problem[2], problem[3].classes
    rows = np.concatenate(split.valid)
    for b in found.values():
        shape = (len(classes),) if classes else ()
        assert b.predictions_valid.shape == (len(rows), *shape)
        assert b.predictions_audit.shape == (len(split.audit), *shape)
        assert b.seconds >= 0
        if classes:
            np.testing.assert_allclose(b.predictions_valid.sum(1), 1, rtol=1e-6)
    errors = [
        score(default_metric(task), _truth(problem, rows), b.predictions_valid)
        for b in found.values()
    ]
    assert errors[1] < 0.75 * errors[0]
    assert errors[2] < errors[0]
    assert found["constant"].parameters < found["linear"].parameters


@pytest.mark.parametrize("task", TASKS)
def test_constant_is_what_no_feature_can_tell(task):
    problem = _problem(task)
    features, y, split, _ = problem
    weight = np.random.default_rng(1).uniform(0, 2, len(y))
    b = _run(task, problem, first=1, weight=weight)["constant"]
    train = split.train[0]
    if task == "regression":
        expected = 7 + 3 * np.average(y[train], weights=weight[train])
    else:
        dummy = DummyClassifier().fit(features["quantile"][train], y[train], weight[train])
        expected = np.tile(dummy.class_prior_, (len(b.predictions_audit), 1))
    np.testing.assert_allclose(b.predictions_audit, expected, rtol=1e-6)


def test_constant_is_the_median_where_the_metric_is_an_absolute_error():
    problem = _problem("regression")
    b = _run("regression", problem, first=1, metric="mae")["constant"]
    median = np.median(problem[1][problem[2].train[0]])
    np.testing.assert_allclose(b.predictions_audit, 7 + 3 * median, rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_linear_is_scikit_learns_model_on_one_hot_categories(task, weighted):
    problem = _problem(task)
    features, y, split, _ = problem
    weight = np.random.default_rng(1).uniform(0.1, 2, len(y)) if weighted else None
    b = _run(task, problem, first=2, weight=weight)["linear"]
    one_hot = OneHotEncoder(sparse_output=False).fit_transform(features["category"])
    x = np.hstack([features["quantile"], one_hot])
    train, valid = split.train[0], split.valid[0]
    w = None if weight is None else weight[train]
    if task == "regression":
        expected = 7 + 3 * Ridge().fit(x[train], y[train], w).predict(x[valid])
        np.testing.assert_allclose(b.predictions_valid, expected, atol=2e-2)
    else:
        model = LogisticRegression(max_iter=1000).fit(x[train], y[train], w)
        np.testing.assert_allclose(b.predictions_valid, model.predict_proba(x[valid]), atol=5e-3)
    assert b.message == ""


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("folds", [1, 3])
def test_the_saved_member_predicts_what_was_scored(task, folds, monkeypatch):
    few_trees(monkeypatch)
    problem = _problem(task, folds=folds)
    features, _, split, _ = problem
    found = _run(task, problem, first=len(names(True)), more_seconds=60.0)
    assert tuple(found) == names(True)
    for b in found.values():
        here = {k: v[split.audit] for k, v in features.items()}
        np.testing.assert_allclose(
            predict_member(b.member, here, task), b.predictions_audit, rtol=1e-12
        )
        assert all(isinstance(v, np.ndarray) and v.dtype != object for v in b.member.values())


def test_a_category_code_never_seen_counts_as_missing():
    problem = _problem("binary")
    member = _run("binary", problem, first=2)["linear"].member
    row = {"quantile": np.zeros((1, 4), np.float32), "category": np.array([[0, 0]])}
    unseen = row | {"category": np.array([[99, 0]])}
    np.testing.assert_array_equal(
        predict_member(member, row, "binary"), predict_member(member, unseen, "binary")
    )


@pytest.mark.parametrize("task", TASKS)
def test_boosting_is_scikit_learns(task):
    problem = _problem(task)
    features, y, split, _ = problem
    b = _run(task, problem)["hist_gradient_boosting"]
    x = np.hstack([features["quantile"], features["category"]])
    train, valid = split.train[0], split.valid[0]
    options = {"categorical_features": [4, 5], "early_stopping": False, "random_state": 0}
    if task == "regression":
        model = HistGradientBoostingRegressor(**options).fit(x[train], y[train])
        expected = 7 + 3 * model.predict(x[valid])
    else:
        model = HistGradientBoostingClassifier(**options).fit(x[train], y[train])
        expected = model.predict_proba(x[valid])
    np.testing.assert_allclose(b.predictions_valid, expected, rtol=1e-5, atol=1e-6)
    assert b.message == ""


@pytest.mark.parametrize("task", TASKS)
def test_without_time_boosting_is_shorter_and_says_so(task):
    b = _run(task, _problem(task), seconds=0)["hist_gradient_boosting"]
    assert "stopped by the time budget after 2 iterations" in b.message
    assert np.isfinite(b.predictions_valid).all()


def test_many_rows_are_sampled_and_that_is_said(monkeypatch):
    monkeypatch.setattr(baselines.linear, "LINEAR_ROWS", 100)
    monkeypatch.setattr(baselines.boosting, "BOOSTING_CELLS", 0)
    problem = _problem("multiclass", n=2000)
    found = _run("multiclass", problem)
    # 100 rows and at most one more for each of four classes
    assert "fitted on 10" in found["linear"].message
    assert "of 1,462 training rows" in found["linear"].message
    assert "fitted on 50" in found["hist_gradient_boosting"].message


@pytest.mark.parametrize("rows_of_the_rare_class", [0, 1])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_class_missing_from_the_training_rows_gets_no_probability(task, rows_of_the_rare_class):
    problem = _problem(task)
    _, y, split, target = problem
    rare = len(target.classes) - 1
    train = split.train[0]
    y[train] = np.minimum(y[train], rare - 1)
    y[train[:rows_of_the_rare_class]] = rare
    for b in _run(task, problem).values():
        assert b.predictions_valid.shape[1] == len(target.classes)
        np.testing.assert_allclose(b.predictions_valid.sum(1), 1, rtol=1e-6)
        assert np.median(b.predictions_valid[:, rare]) < 0.05


def test_two_of_three_classes_in_the_training_rows():
    problem = _problem("multiclass")
    _, y, split, _ = problem
    y[split.train[0]] = np.where(y[split.train[0]] < 2, 1, 3)
    b = _run("multiclass", problem, first=2)["linear"]
    assert b.predictions_valid[:, [0, 2]].max() < 1e-6
    assert b.predictions_valid[:, [1, 3]].max(0).min() > 0.5


@pytest.mark.parametrize("task", TASKS)
def test_no_rows_to_audit_is_fine(task):
    problem = _problem(task)
    problem[2].audit = problem[2].audit[:0]
    for b in _run(task, problem).values():
        assert len(b.predictions_audit) == 0


def test_the_same_seed_gives_the_same_baselines():
    problem = _problem("multiclass")
    one, two = _run("multiclass", problem, seed=3), _run("multiclass", problem, seed=3)
    for name in NAMES:
        np.testing.assert_array_equal(one[name].predictions_valid, two[name].predictions_valid)
