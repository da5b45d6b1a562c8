"""Metrics of several targets against scikit-learn's of a multilabel indicator or [N, T] numbers."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as skm

from adanet_py.errors import ConfigError
from adanet_py.metrics import METRICS, common, per_row_loss, resolve_metric, score, to_error
from adanet_py.metrics.several import MULTILABEL, for_several


def _each(one):
    """The mean over columns of a function of scikit-learn for one."""

    def mean(y, p, w):
        return np.mean([one(y[:, t], p[:, t], sample_weight=w) for t in range(y.shape[1])])

    return mean


def _labels(function, **options):
    return lambda y, p, w: function(y, (p > 0.5).astype(int), sample_weight=w, **options)


def _numbers(function):
    return lambda y, v, w: function(y, v, sample_weight=w)


ORACLES = {
    "log_loss": _each(skm.log_loss),
    "brier": _each(skm.brier_score_loss),
    "accuracy": _labels(skm.accuracy_score),
    "hamming_loss": _labels(skm.hamming_loss),
    "roc_auc": lambda y, p, w: skm.roc_auc_score(y, p, average="macro", sample_weight=w),
    "average_precision": lambda y, p, w: skm.average_precision_score(
        y, p, average="macro", sample_weight=w
    ),
    **{
        f"{kind}_{average}": _labels(function, average=average, zero_division=0)
        for average in ("micro", "macro", "weighted", "samples")
        for kind, function in (
            ("f1", skm.f1_score), ("precision", skm.precision_score),
            ("recall", skm.recall_score), ("jaccard", skm.jaccard_score),
        )
    },
}  # fmt: skip
NUMBERS = {
    "rmse": _numbers(skm.root_mean_squared_error),
    "mse": _numbers(skm.mean_squared_error),
    "mae": _numbers(skm.mean_absolute_error),
    "median_ae": _numbers(skm.median_absolute_error),
    "r2": _numbers(skm.r2_score),
    "mape": _numbers(skm.mean_absolute_percentage_error),
    "rmsle": _numbers(skm.root_mean_squared_log_error),
    "msle": _numbers(skm.mean_squared_log_error),
    "pinball": _numbers(skm.mean_pinball_loss),
    "poisson_deviance": _each(skm.mean_poisson_deviance),  # refuses several outputs itself
    "gamma_deviance": _each(skm.mean_gamma_deviance),
    "explained_variance": _numbers(skm.explained_variance_score),
    "d2_absolute_error_score": _numbers(skm.d2_absolute_error_score),
}
CASES = [("multilabel", name) for name in ORACLES] + [("multioutput", name) for name in NUMBERS]


def _data(task, rng, n=300, ties=False):
    if task == "multioutput":
        y = rng.gamma(2.0, 3.0, (n, 3)) * [1.0, 10.0, 0.1]
        return y, np.abs(y + rng.normal(size=y.shape) * [2.0, 5.0, 0.1])
    y = (rng.random((n, 4)) < [0.1, 0.4, 0.7, 0.5]).astype(int)
    y[:2] = [[1, 1, 1, 1], [0, 0, 0, 0]]  # both values in every label
    p = 1 / (1 + np.exp(rng.normal(size=y.shape) - 1.5 * (2 * y - 1)))
    return y, np.round(p * 4) / 4 if ties else p


def test_every_metric_of_several_targets_has_an_oracle():
    assert set(ORACLES) == set(MULTILABEL)
    for task, oracles in (("multilabel", ORACLES), ("multioutput", NUMBERS)):
        assert set(oracles) == {m.name for m in METRICS.values() if task in m.tasks}
        assert {m.name for m in common(task)} <= set(oracles)
    assert resolve_metric("pinball:0.9", "multioutput").quantile == 0.9


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("task", "name"), CASES)
def test_equals_scikit_learn(task, name, weighted, ties):
    rng = np.random.default_rng(len(name) + 7 * weighted)
    oracle = (ORACLES | NUMBERS if task == "multilabel" else NUMBERS)[name]
    for n in (300, 31):
        y, p = _data(task, rng, n, ties)
        w = rng.integers(0, 4, n).astype(float) if weighted else None
        if w is not None:
            w[:2] = 1
        np.testing.assert_allclose(score(name, y, p, w), oracle(y, p, w), rtol=1e-11, atol=1e-12)
    assert resolve_metric(name, task).name == name


@pytest.mark.parametrize(("task", "name"), CASES)
def test_errors_are_smaller_for_better_predictions_and_not_finite_ones_score_nan(task, name):
    y, p = _data(task, np.random.default_rng(2))
    if name.endswith("_samples"):  # a row without labels scores 0, as scikit-learn has it
        y[~y.any(axis=1), 0] = 1
    better = 0.5 * p + 0.5 * y
    assert to_error(name, score(name, y, better)) < to_error(name, score(name, y, p))
    assert to_error(name, score(name, y, y.astype(float))) == pytest.approx(0, abs=1e-9)
    p[3, 1] = np.nan
    assert np.isnan(score(name, y, p))


@pytest.mark.parametrize(("task", "name"), CASES)
def test_the_metric_comes_from_the_weighted_mean_of_its_rows(task, name):
    rng = np.random.default_rng(4)
    y, p = _data(task, rng)
    w = rng.uniform(0, 3, len(y))
    rows = per_row_loss(name, y, p)
    if rows is None:
        assert name not in {"log_loss", "accuracy", "hamming_loss", "f1_samples", "rmse", "mae"}
        return
    assert rows.shape in (y.shape, (len(y), 1))
    value = for_several(METRICS[name]).of_mean(np.average(rows, axis=0, weights=w))
    assert score(name, y, p, w) == pytest.approx(float(value), rel=1e-10)


def test_labels_without_both_values_are_left_out_of_areas():
    y, p = _data("multilabel", np.random.default_rng(3))
    y[:, 2] = 0
    rest = [0, 1, 3]
    for name in ("roc_auc", "average_precision"):
        assert score(name, y, p) == pytest.approx(score(name, y[:, rest], p[:, rest]), rel=1e-12)
    assert np.isnan(score("roc_auc", np.zeros_like(y), p))


def test_a_metric_of_one_target_is_refused():
    with pytest.raises(ConfigError, match="'matthews' is for binary and multiclass tasks"):
        resolve_metric("matthews", "multilabel")
    with pytest.raises(ConfigError, match="'hamming_loss' is for multilabel tasks"):
        resolve_metric("hamming_loss", "binary")
    y, p = _data("multilabel", np.random.default_rng(0))
    with pytest.raises(ConfigError, match="expected one target column, found several"):
        score("matthews", y, p)
