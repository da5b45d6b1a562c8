"""The forest of regression trees: a step function, a plain tree as oracle, leaves and variances."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.tree import DecisionTreeRegressor

from adanet_py.controllers import forest
from adanet_py.controllers.forest import Forest


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_step_is_found_among_features_that_do_not_matter():
    x = rng().random((100, 6))
    y = np.where(x[:, 3] > 0.5, 1.0, -1.0)
    new = rng(1).random((200, 6))
    new = new[abs(new[:, 3] - 0.5) > 0.1]
    mean, variance = (grown := Forest(x, y, rng(2))).at(grown.leaves(new))
    assert np.array_equal(mean > 0.0, new[:, 3] > 0.5)
    assert abs(mean).min() > 0.6
    assert variance.max() < 0.4


def test_a_tree_on_all_points_and_bits_is_that_of_scikit_learn(monkeypatch):
    bits = (rng().random((80, 9)) > 0.5).astype(np.float64)
    y = rng(1).normal(size=80)
    new = (rng(2).random((50, 9)) > 0.5).astype(np.float64)
    for name, value in {"TREES": 1, "DEPTH": 4, "BITS": 18, "LEAST": 1.0, "UPWARD": 0.0}.items():
        monkeypatch.setattr(forest, name, value)

    class Once:
        """Draws no bootstrap: every point once."""

        def multinomial(self, n, shares, size):
            return np.ones((size, n), dtype=int)

        def random(self, shape):
            return rng().random(shape)

    grown = Forest(bits, y, Once())
    tree = DecisionTreeRegressor(max_depth=4, random_state=0).fit(bits, y)
    mean, variance = grown.at(grown.leaves(new))
    assert np.allclose(mean, tree.predict(new))
    leaf_errors = tree.tree_.impurity[tree.apply(new)]
    assert np.allclose(variance, leaf_errors)


def test_leaves_hold_at_least_so_many_points():
    x, y = rng().random((60, 4)), rng(1).normal(size=60)
    grown = Forest(x, y, rng(2))
    assert np.isfinite(grown.at(grown.leaves(x))[0]).all()
    assert len(np.unique(grown.leaves(x)[0])) > 4
    # the mean of a leaf of few points is drawn towards its parent's, never beyond what was seen
    assert abs(grown.at(grown.leaves(x))[0]).max() < abs(y).max()


@pytest.mark.parametrize("n", [2, 3, 9])
def test_few_points_give_few_splits_and_no_error(n):
    x, y = rng().random((n, 3)), rng(1).normal(size=n)
    grown = Forest(x, y, rng(2))
    mean, variance = grown.at(grown.leaves(rng(3).random((20, 3))))
    assert np.isfinite(mean).all()
    assert (variance >= 0.0).all()


def test_features_that_never_change_are_not_split_on():
    x = np.column_stack([np.ones(50), rng().random(50)])
    grown = Forest(x, x[:, 1], rng(1))
    assert set(grown._feature) == {1}
