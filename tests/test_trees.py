"""Trees as plain arrays against scikit-learn's own predictions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)

from adanet_py.baselines.trees import Forest, add_averaged, add_boosting, raw_outputs

CATEGORIES = 12


def rows(seed=0, n=500, holes=True, unseen=False):
    """Three numbers, two columns of codes (one of them of few), a value that they decide."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    codes = np.stack([rng.integers(1, CATEGORIES, n), rng.integers(0, 3, n)], axis=1)
    value = x[:, 0] + np.sin(3 * x[:, 1]) + (codes[:, 0] % 3) - codes[:, 1] * x[:, 2]
    if unseen:
        codes[::5, 0] = rng.choice([0, 77, 255], len(codes[::5]))
    if holes:
        x[rng.random(x.shape) < 0.15] = np.nan
    return x, codes, value


def whole(x, codes):
    return np.hstack([x, codes.astype(np.float32)])


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize(
    "loss", ["squared_error", "absolute_error", "poisson", "gamma", "quantile"]
)
def test_boosting_of_numbers_is_scikit_learns(loss, holes):
    x, codes, value = rows(holes=holes)
    positive = np.exp(value / 3)
    options = {"quantile": 0.8} if loss == "quantile" else {}
    model = HistGradientBoostingRegressor(
        loss=loss, max_iter=40, categorical_features=[3, 4], early_stopping=False, **options
    ).fit(whole(x, codes), positive)
    forest = Forest(1, 1)
    add_boosting(forest, model, 0, [0])
    new, other, _ = rows(1, holes=holes, unseen=True)
    found = raw_outputs(forest.arrays(), new, other, 0)[:, 0]
    expected = model._raw_predict(whole(new, other))[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    if loss in ("poisson", "gamma"):
        found = np.exp(found)
    np.testing.assert_allclose(found, model.predict(whole(new, other)), rtol=1e-9)
    assert np.ptp(found) > 0.5 * np.ptp(positive[:100])


@pytest.mark.parametrize("categories", [None, [3, 4]])
@pytest.mark.parametrize("classes", [2, 4])
def test_boosting_of_classes_is_scikit_learns(classes, categories):
    x, codes, value = rows()
    y = np.digitize(value, np.quantile(value, np.linspace(0, 1, classes + 1)[1:-1]))
    model = HistGradientBoostingClassifier(
        max_iter=30, categorical_features=categories, early_stopping=False
    ).fit(whole(x, codes), y)
    outputs = [0] if classes == 2 else list(range(classes))
    forest = Forest(1, len(outputs))
    add_boosting(forest, model, 0, outputs)
    new, other, _ = rows(2, unseen=categories is not None)
    found = raw_outputs(forest.arrays(), new, other, 0)
    expected = model.decision_function(whole(new, other)).reshape(found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_fewer_iterations_are_the_first_ones():
    x, codes, value = rows()
    options = {"categorical_features": [3, 4], "early_stopping": False}
    model = HistGradientBoostingRegressor(max_iter=20, **options).fit(whole(x, codes), value)
    short = HistGradientBoostingRegressor(max_iter=7, **options).fit(whole(x, codes), value)
    forest = Forest(1, 1)
    add_boosting(forest, model, 0, [0], iterations=7)
    found = raw_outputs(forest.arrays(), x, codes, 0)[:, 0]
    np.testing.assert_allclose(found, short.predict(whole(x, codes)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("kind", [ExtraTreesClassifier, RandomForestClassifier])
@pytest.mark.parametrize("classes", [2, 5])
def test_forests_of_classes_are_scikit_learns(kind, classes, holes):
    x, codes, value = rows(holes=holes)
    y = np.digitize(value, np.quantile(value, np.linspace(0, 1, classes + 1)[1:-1]))
    model = kind(12, random_state=0, min_samples_leaf=2).fit(whole(x, codes), y)
    forest = Forest(1, 1 if classes == 2 else classes)
    add_averaged(forest, model, 0)
    forest.shrink[:] = 1 / 12
    new, other, _ = rows(3, holes=holes)
    found = raw_outputs(forest.arrays(), new, other, 0)
    expected = model.predict_proba(whole(new, other))
    np.testing.assert_allclose(found, expected[:, 1:] if classes == 2 else expected, atol=1e-6)


def test_forests_of_numbers_are_scikit_learns():
    x, codes, value = rows()
    model = ExtraTreesRegressor(10, random_state=0).fit(whole(x, codes), value)
    forest = Forest(1, 1)
    add_averaged(forest, model, 0)
    forest.shrink[:] = 0.1
    new, other, _ = rows(4)
    found = raw_outputs(forest.arrays(), new, other, 0)[:, 0]
    np.testing.assert_allclose(found, model.predict(whole(new, other)), rtol=1e-9)


def test_every_fold_has_its_own_trees_and_many_rows_are_walked_in_parts(monkeypatch):
    from adanet_py.baselines import trees

    x, codes, value = rows(holes=False)
    forest, models = Forest(2, 1), []
    for fold, part in enumerate((slice(0, 250), slice(250, 500))):
        model = HistGradientBoostingRegressor(max_iter=9, early_stopping=False)
        models.append(model.fit(whole(x, codes)[part], value[part]))
        add_boosting(forest, models[-1], fold, [0])
    monkeypatch.setattr(trees, "_BLOCK", 1100)
    for fold, model in enumerate(models):
        found = raw_outputs(forest.arrays(), x, codes, fold)[:, 0]
        np.testing.assert_allclose(found, model.predict(whole(x, codes)), rtol=1e-10, atol=1e-10)


def test_categories_beyond_a_bitset_and_trees_in_another_order_are_refused():
    x, codes, value = rows()
    codes[0, 0] = 300
    model = HistGradientBoostingRegressor(max_iter=2, categorical_features=[3])
    with pytest.raises(ValueError, match="codes from 0 to 255, found 300"):
        add_boosting(Forest(1, 1), model.fit(whole(x, codes), value), 0, [0])
    model = RandomForestClassifier(2, max_leaf_nodes=9).fit(x[:, :1], value > 0)
    with pytest.raises(ValueError, match="built depth first"):
        add_averaged(Forest(1, 1), model, 0)
