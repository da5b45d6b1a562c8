"""Every metric against scikit-learn, with weights, ties, absent classes; names and directions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.metrics as skm

from adanet_py.errors import ConfigError, DataError
from adanet_py.metrics import (
    ALIASES,
    COMMON,
    METRICS,
    check_values,
    default_metric,
    get_metric,
    per_row_loss,
    resolve_metric,
    score,
    to_error,
    weighted_median,
    weighted_quantile,
)
from adanet_py.tasks import ONE_TARGET, TASKS


def _macro(one, y, p, w):
    return np.mean([one(y == c, p[:, c], sample_weight=w) for c in range(p.shape[1])])


def _average_precision(y, p, w):
    if p.shape[1] == 2:
        return skm.average_precision_score(y, p[:, 1], sample_weight=w)
    return _macro(skm.average_precision_score, y, p, w)


def _roc_auc(y, p, w):
    if p.shape[1] == 2:
        return skm.roc_auc_score(y, p[:, 1], sample_weight=w)
    return skm.roc_auc_score(y, p, sample_weight=w, multi_class="ovr", average="macro")


def _labels(p):
    return list(range(p.shape[1]))


ORACLES = {
    "log_loss": lambda y, p, w: skm.log_loss(y, p, sample_weight=w, labels=_labels(p)),
    "accuracy": lambda y, p, w: skm.accuracy_score(y, p.argmax(1), sample_weight=w),
    "balanced_accuracy": lambda y, p, w: skm.balanced_accuracy_score(
        y, p.argmax(1), sample_weight=w
    ),
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "f1": lambda y, p, w: skm.f1_score(y, p.argmax(1), sample_weight=w),
    "f1_macro": lambda y, p, w: skm.f1_score(y, p.argmax(1), average="macro", sample_weight=w),
    "f1_weighted": lambda y, p, w: skm.f1_score(
        y, p.argmax(1), average="weighted", sample_weight=w
    ),
    "precision": lambda y, p, w: skm.precision_score(y, p.argmax(1), sample_weight=w),
    "recall": lambda y, p, w: skm.recall_score(y, p.argmax(1), sample_weight=w),
    "matthews": lambda y, p, w: skm.matthews_corrcoef(y, p.argmax(1), sample_weight=w),
    "brier": lambda y, p, w: skm.brier_score_loss(y, p, sample_weight=w, labels=_labels(p)),
    "rmse": lambda y, v, w: skm.root_mean_squared_error(y, v, sample_weight=w),
    "mse": lambda y, v, w: skm.mean_squared_error(y, v, sample_weight=w),
    "mae": lambda y, v, w: skm.mean_absolute_error(y, v, sample_weight=w),
    "median_ae": lambda y, v, w: skm.median_absolute_error(y, v, sample_weight=w),
    "r2": lambda y, v, w: skm.r2_score(y, v, sample_weight=w),
    "mape": lambda y, v, w: skm.mean_absolute_percentage_error(y, v, sample_weight=w),
    "rmsle": lambda y, v, w: skm.root_mean_squared_log_error(y, v, sample_weight=w),
    "msle": lambda y, v, w: skm.mean_squared_log_error(y, v, sample_weight=w),
    "poisson_deviance": lambda y, v, w: skm.mean_poisson_deviance(y, v, sample_weight=w),
    "gamma_deviance": lambda y, v, w: skm.mean_gamma_deviance(y, v, sample_weight=w),
    "pinball": lambda y, v, w: skm.mean_pinball_loss(y, v, sample_weight=w),
}

# Metrics of several targets are those of test_metrics_of_several.py.
CASES = [(m.name, task) for m in COMMON for task in m.tasks if task in ONE_TARGET]


def _data(task, rng, n=400, ties=False):
    if task == "regression":
        y = rng.gamma(2.0, 3.0, n)
        return y, np.abs(y + rng.normal(0, 2, n))
    classes = 2 if task == "binary" else 5
    y = rng.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[y]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if ties:  # few distinct probabilities, some of them exactly 0 and 1
        p = np.round(p * 4) + 0.0
        p[p.sum(1) == 0] = 1
        p /= p.sum(1, keepdims=True)
    return y, p


def test_every_metric_has_an_oracle():
    assert set(ORACLES) == {m.name for m in COMMON}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "task"), CASES)
def test_equals_scikit_learn(name, task, weighted, ties):
    rng = np.random.default_rng(len(name) + 7 * weighted)
    for n in (400, 41):
        y, p = _data(task, rng, n, ties)
        w = rng.integers(0, 4, n).astype(float) if weighted else None
        np.testing.assert_allclose(
            score(name, y, p, w), ORACLES[name](y, p, w), rtol=1e-11, atol=1e-12
        )


@pytest.mark.parametrize(
    "name", ["log_loss", "accuracy", "brier", "f1_macro", "matthews", "balanced_accuracy"]
)
def test_a_class_that_occurs_in_no_row_changes_nothing(name):
    y, p = _data("multiclass", np.random.default_rng(3))
    y[y == 4] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn says that class 4 is predicted, never true
        expected = ORACLES[name](y, p, None)
    np.testing.assert_allclose(score(name, y, p), expected, rtol=1e-12)


def test_float32_probabilities_of_zero_are_clipped_as_scikit_learn_clips_them():
    y = np.array([0, 1])
    p = np.array([[1, 0], [1, 0]], dtype=np.float32)
    np.testing.assert_allclose(
        score("log_loss", y, p), skm.log_loss(y, p, labels=[0, 1]), rtol=1e-6
    )
    assert score("log_loss", y, p.astype(float)) > score("log_loss", y, p)


@pytest.mark.parametrize("name", ["f1", "precision", "recall", "matthews"])
def test_a_label_metric_without_any_positive_is_zero(name):
    y, p = np.zeros(4, int), np.tile([0.9, 0.1], (4, 1))
    assert score(name, y, p) == 0


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_ranking_metric_leaves_out_what_is_undefined(task):
    y, p = _data(task, np.random.default_rng(0))
    assert np.isnan(score("roc_auc", np.zeros_like(y), p))
    if task == "multiclass":
        y[y == 4] = 0
        expected = np.mean([skm.roc_auc_score(y == c, p[:, c]) for c in range(4)])
        np.testing.assert_allclose(score("roc_auc", y, p), expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_prediction_that_is_not_finite_scores_nan(name, task):
    y, p = _data(task, np.random.default_rng(1))
    p[3] = np.nan
    assert np.isnan(score(name, y, p))


@pytest.mark.parametrize("name", [m.name for m in COMMON])
def test_rows_without_any_weight_score_nan(name):
    task = METRICS[name].tasks[0]
    y = np.array([0, 1, 0, 1])
    p = np.ones(4) if task == "regression" else np.full((4, 2), 0.5)
    assert np.isnan(score(name, y, p, np.zeros(4)))


@pytest.mark.parametrize(("name", "task"), CASES)
def test_error_is_smaller_for_better_predictions(name, task):
    rng = np.random.default_rng(2)
    y, p = _data(task, rng)
    truth = y if task == "regression" else np.eye(p.shape[1])[y]
    better = 0.5 * p + 0.5 * truth
    assert to_error(name, score(name, y, better)) < to_error(name, score(name, y, p))
    assert to_error(name, score(name, y, truth)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "task"), CASES)
def test_mean_of_the_rows_is_the_metric(name, task, weighted):
    rng = np.random.default_rng(4)
    y, p = _data(task, rng)
    w = rng.uniform(0, 3, len(y)) if weighted else None
    rows = per_row_loss(name, y, p)
    if rows is None:
        assert name not in {"log_loss", "accuracy", "rmse", "mse", "mae", "brier"}
        return
    value = to_error(name, score(name, y, p, w))
    mean = np.average(rows, weights=w)
    assert mean == pytest.approx(value**2 if name in {"rmse", "rmsle"} else value, rel=1e-10)
    direct = METRICS[name].of_mean(mean)
    assert score(name, y, p, w) == pytest.approx(direct, rel=1e-10)


def test_weighted_median_with_whole_weights_is_the_median_of_repeated_values():
    rng = np.random.default_rng(5)
    for _ in range(50):
        values, repeat = rng.normal(size=9), rng.integers(0, 4, 9)
        if repeat.sum():
            expected = np.median(np.repeat(values, repeat))
            assert weighted_median(values, repeat.astype(float)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "least", "below"),
    [
        ("rmsle", "more than -1", -1.0),
        ("msle", "more than -1", -3.0),
        ("poisson_deviance", "0 or more", -0.5),
        ("gamma_deviance", "more than 0", 0.0),
    ],
)
def test_a_target_outside_the_domain_of_a_metric_is_an_error(name, least, below):
    y = np.array([below, 3.0])
    with pytest.raises(DataError, match=f"expected a target of {least}, found {below:g}"):
        check_values(METRICS[name], y)
    check_values(METRICS[name], np.array([1e-3, 3.0]))
    check_values(METRICS["rmse"], y)
    if below < 0:
        assert np.isnan(score(name, y, np.abs(y)))


@pytest.mark.parametrize("name", ["rmsle", "msle", "poisson_deviance", "gamma_deviance"])
def test_a_prediction_outside_the_domain_is_worse_than_any_inside(name):
    y = np.array([1.0, 3.0])
    inside = score(name, y, np.array([1e-9, 3.0]))
    outside = score(name, y, np.array([-2.0, 3.0]))
    assert inside < outside < np.inf


def test_log_and_deviance_metrics_equal_scikit_learns_wherever_those_are_defined():
    y, v = np.array([-0.9, 0.0, 3.0]), np.array([0.0, -0.99, 2.0])
    assert score("msle", y, v) == pytest.approx(skm.mean_squared_log_error(y, v), rel=1e-12)
    y, v = np.array([0.0, 0.0, 3.0, 7.0]), np.array([1e-12, 4.0, 1e-12, 9.0])
    assert score("poisson_deviance", y, v) == pytest.approx(
        skm.mean_poisson_deviance(y, v), rel=1e-12
    )
    y = y + 1e-9
    assert score("gamma_deviance", y, v) == pytest.approx(skm.mean_gamma_deviance(y, v), rel=1e-12)


def test_a_pinball_metric_has_its_level_in_its_name():
    rng = np.random.default_rng(6)
    y, v, w = rng.normal(size=50), rng.normal(size=50), rng.uniform(size=50)
    for level in (0.05, 0.5, 0.9):
        metric = resolve_metric(f"pinball:{level}", "regression")
        assert get_metric(metric.name).name == metric.name
        assert metric.quantile == level
        assert score(metric, y, v, w) == pytest.approx(
            skm.mean_pinball_loss(y, v, sample_weight=w, alpha=level), rel=1e-12
        )
    for name in ("pinball:1", "pinball:0", "pinball:nan", "pinball:high"):
        with pytest.raises(ConfigError, match=r"between 0 and 1, such as pinball:0\.9, found"):
            get_metric(name)
    with pytest.raises(ConfigError, match=r"Unknown metric 'rmse:0\.9'"):
        get_metric("rmse:0.9")


@pytest.mark.parametrize("level", [0.1, 0.5, 0.75])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_weighted_quantile_is_the_best_constant_for_pinball(level, weighted):
    rng = np.random.default_rng(8)
    y = rng.normal(size=40)
    w = rng.integers(0, 4, 40).astype(float) if weighted else None
    best = weighted_quantile(y, level, w)
    metric = f"pinball:{level}"
    least = min(score(metric, y, np.full(40, v), w) for v in y)
    assert score(metric, y, np.full(40, best), w) == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("name", ["rmsle", "poisson_deviance"])
def test_a_zero_that_went_through_float32_is_a_zero(name):
    y = np.array([0.0, 2.0, 1e6])
    mean, scale = y.mean(), y.std()
    back = ((y - mean) / scale).astype(np.float32).astype(float) * scale + mean
    assert score(name, back, np.maximum(y, 1e-3)) < 0.2


@pytest.mark.parametrize("task", TASKS)
def test_the_default_metric_fits_its_task(task):
    resolve_metric(default_metric(task), task)
    assert resolve_metric(None, task).name == default_metric(task)


def test_scikit_learn_scorer_names_are_understood():
    known = set(METRICS) | set(ALIASES)
    scorers = [s for s in skm.get_scorer_names() if s.removeprefix("neg_") in known or s in known]
    assert len(scorers) >= 15
    for name in scorers:
        metric = METRICS[ALIASES.get(name, name)]
        scorer = skm.get_scorer(name)
        # A scorer's sign is +1 where greater is better.
        assert (scorer._sign > 0) == metric.greater_is_better, name
    assert resolve_metric("Neg_Root_Mean_Squared_Error", "regression").name == "rmse"


def test_an_unknown_metric_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"Did you mean 'accuracy'\?.*log_loss"):
        resolve_metric("acuracy", "binary")


def test_a_metric_for_another_task_is_answered_with_those_that_fit():
    with pytest.raises(
        ConfigError, match=r"'rmse' is for regression and multioutput tasks.*roc_auc"
    ):
        resolve_metric("rmse", "multiclass")
    with pytest.raises(ConfigError, match="'f1' is for binary tasks"):
        resolve_metric("f1", "multiclass")
