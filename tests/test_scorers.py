"""Every scorer name of scikit-learn is a metric, and its value is what the scorer computes."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as skm
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import UndefinedMetricWarning
from tables import table
from typer.testing import CliRunner

from adanet_py.calibration import two_sided
from adanet_py.cli import app
from adanet_py.errors import ConfigError
from adanet_py.intervals import bootstrap
from adanet_py.metrics import (
    ALIASES,
    METRICS,
    check_weighted,
    for_several,
    get_metric,
    per_row_loss,
    resolve_metric,
    score,
    to_error,
)
from adanet_py.training.scoring import Scorer

SCORERS = skm.get_scorer_names()
SEVERAL = ("multilabel", "multioutput")


class _Predicted(BaseEstimator):
    """An estimator that has been fitted and returns the predictions it was given."""

    def __init__(self, prediction, classes=None):
        self.prediction = prediction
        self.classes = classes

    def __sklearn_is_fitted__(self):
        return True

    @property
    def classes_(self):
        return np.arange(self.prediction.shape[1])


class _Classifier(ClassifierMixin, _Predicted):
    def predict(self, X):
        return self.prediction.argmax(axis=1)

    def predict_proba(self, X):
        return self.prediction


class _Labels(ClassifierMixin, _Predicted):
    def predict(self, X):
        return (self.prediction > 0.5).astype(int)

    def predict_proba(self, X):
        return self.prediction


class _Regressor(RegressorMixin, _Predicted):
    def predict(self, X):
        return self.prediction


ESTIMATORS = {
    "binary": _Classifier,
    "multiclass": _Classifier,
    "multilabel": _Labels,
    "regression": _Regressor,
    "multioutput": _Regressor,
}


def _data(task, rng, n=150):
    """Truth and a prediction somewhat better than chance."""
    if task == "regression":
        y = rng.gamma(2.0, 3.0, n)
        return y, np.abs(y + rng.normal(0, 2, n))
    if task == "multioutput":
        y = rng.gamma(2.0, 3.0, (n, 3))
        return y, np.abs(y + rng.normal(0, 2, (n, 3)))
    if task == "multilabel":
        y = rng.integers(0, 2, (n, 3))
        return y, np.clip(0.3 * y + rng.uniform(0, 0.7, (n, 3)), 0, 1)
    classes = 2 if task == "binary" else 4
    y = rng.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[y]
    p = np.exp(logits)
    return y, p / p.sum(1, keepdims=True)


# Means over targets here; scikit-learn takes an indicator for one class per row, or refuses.
OURS = {
    ("neg_log_loss", "multilabel"), ("neg_brier_score", "multilabel"),
    ("neg_mean_poisson_deviance", "multioutput"), ("neg_mean_gamma_deviance", "multioutput"),
}  # fmt: skip
CASES = [(name, task) for name in SCORERS for task in get_metric(name).tasks]


def test_every_scorer_name_is_a_metric_that_is_listed():
    for name in SCORERS:
        assert get_metric(name) is METRICS[get_metric(name).name], name


def test_names_that_are_no_scorers_are_spellings_of_metrics():
    assert {METRICS[name].name for name in ALIASES.values()} <= set(METRICS)
    assert not set(ALIASES) & set(METRICS)


@pytest.mark.parametrize("name", SCORERS)
def test_the_direction_is_the_scorers(name):
    assert (skm.get_scorer(name)._sign > 0) == get_metric(name).greater_is_better


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "task"), [c for c in CASES if c not in OURS])
def test_the_value_is_what_the_scorer_gives_for_our_predictions(name, task, weighted):
    if name == "roc_auc" and task == "multiclass":
        name = "roc_auc_ovr"  # what it means for several classes, where scikit-learn wants to know
    scorer, metric = skm.get_scorer(name), get_metric(name)
    y, p = _data(task, np.random.default_rng(sum(map(ord, name))))
    rng = np.random.default_rng(1)
    weights = {"sample_weight": rng.uniform(0.2, 3, len(y))} if weighted else {}
    estimator = ESTIMATORS[task](p)
    if weighted and task in metric.unweighted:
        with pytest.raises(ConfigError, match="without row weights"):
            check_weighted(metric, task)
        with pytest.raises((TypeError, ValueError)):  # as scikit-learn has it
            scorer(estimator, np.zeros((len(y), 1)), y, **weights)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # of rows without a label
        expected = scorer(estimator, np.zeros((len(y), 1)), y, **weights) * scorer._sign
    found = score(metric, y, p, weights.get("sample_weight"))
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-12)
    assert np.isfinite(found)


@pytest.mark.parametrize(("name", "task"), [c for c in CASES if c[1] not in SEVERAL])
def test_what_a_worker_scores_is_the_same_number(name, task):
    """From the raw outputs of a network and a standardised target, as in training/scoring.py."""
    y, p = _data(task, np.random.default_rng(5))
    if task == "regression":
        mean, scale = float(y.mean()), float(y.std())
        scorer = Scorer.make(name, task, (y - mean) / scale, None, (mean, scale))
        outputs = ((p - mean) / scale)[:, None]
    else:
        logits = np.log(p)
        outputs = logits[:, 1:] - logits[:, :1] if task == "binary" else logits
        scorer = Scorer.make(name, task, y, None, (0.0, 1.0))
    assert scorer(outputs) == pytest.approx(score(name, y, p), rel=1e-8)
    assert scorer.error(scorer(outputs)) == pytest.approx(to_error(name, score(name, y, p)))


@pytest.mark.parametrize("name", sorted({get_metric(n).name for n, t in CASES if t == "binary"}))
def test_only_a_calibrated_metric_depends_on_the_temperature(name):
    y, p = _data("binary", np.random.default_rng(6))
    logits = np.log(p[:, 1:]) - np.log(p[:, :1])
    scorer = Scorer.make(name, "binary", y, None, (0.0, 1.0))
    assert (scorer(logits, 1.0) != pytest.approx(scorer(logits, 2.0))) == METRICS[name].calibrated
    assert two_sided(logits).shape == p.shape


@pytest.mark.parametrize(("name", "task"), [c for c in CASES if c[0] in METRICS])
def test_an_error_is_at_least_zero_and_less_for_better_predictions(name, task):
    rng = np.random.default_rng(7)
    y, p = _data(task, rng)
    truth = np.eye(p.shape[1])[y] if task in ("binary", "multiclass") else y
    better = 0.7 * p + 0.3 * truth
    errors = [to_error(name, score(name, y, q)) for q in (rng.permutation(p), p, better)]
    assert min(errors) >= 0
    assert errors[2] <= errors[1] <= errors[0]
    assert errors[2] < errors[0]


def test_a_likelihood_ratio_without_an_upper_end_still_orders():
    assert to_error("positive_likelihood_ratio", 0.0) == np.inf
    assert to_error("positive_likelihood_ratio", 1.0) == 1
    assert 0 < to_error("positive_likelihood_ratio", 1e6) < 1e-5
    assert to_error("mutual_info_score", 0.0) == 1
    assert 0 < to_error("mutual_info_score", np.log(8)) < to_error("mutual_info_score", np.log(4))


def test_the_weights_of_a_class_that_is_absent_do_not_matter():
    y, p = _data("multiclass", np.random.default_rng(8))
    y[y == 3] = 0
    for name in ("top_k_accuracy", "d2_log_loss_score", "d2_brier_score", "roc_auc_ovr_weighted",
                 "roc_auc_ovo", "jaccard_macro"):  # fmt: skip
        assert np.isfinite(score(name, y, p)), name
    for name in ("positive_likelihood_ratio", "negative_likelihood_ratio"):
        assert np.isnan(score(name, np.zeros(5, int), np.tile([0.9, 0.1], (5, 1))))
    for name in ("roc_auc_ovo", "roc_auc_ovo_weighted", "roc_auc_ovr_weighted"):
        assert np.isnan(score(name, np.zeros_like(y), p)), name
        assert np.isnan(score(name, np.zeros_like(y), p[:, :2])), name


def test_nothing_is_warned_of_where_a_score_is_not_defined():
    y, p = np.zeros(6, int), np.tile([0.9, 0.1], (6, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("jaccard", "precision_macro", "positive_likelihood_ratio", "d2_log_loss_score",
                     "v_measure_score", "recall_weighted"):  # fmt: skip
            score(name, y, p)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "task"), [c for c in CASES if c[0] in METRICS])
def test_an_interval_holds_the_value(name, task, weighted):
    metric = METRICS[name]
    if metric.name in {"max_error", "pinball"} or (weighted and task in metric.unweighted):
        return  # the largest of a resample is never larger than that of the sample
    y, p = _data(task, np.random.default_rng(9), 60)
    w = np.random.default_rng(3).uniform(0.5, 2, len(y)) if weighted else None
    worse = np.random.default_rng(2).permutation(p)
    found = bootstrap(metric, y, {"a": p, "b": worse}, w)
    value = score(metric, y, p, w)
    slack = 0.1 if name.endswith("mutual_info_score") else 1e-9  # they grow with fewer rows
    assert found["a"].low - slack <= value <= found["a"].high + slack
    if metric.rows is None and metric.greater_is_better:
        assert found["b"].worse_high > 0
    metric = for_several(metric) if y.ndim == 2 else metric
    assert (per_row_loss(name, y, p) is None) == (metric.rows is None)


def test_metrics_that_are_for_several_labels_say_so():
    with pytest.raises(ConfigError, match="'f1_samples' is for multilabel tasks, but this task is"):
        resolve_metric("f1_samples", "binary")
    with pytest.raises(ConfigError, match=r"Did you mean 'jaccard_macro'\?"):
        resolve_metric("jacard_macro", "binary")


def test_a_scorer_that_this_scikit_learn_does_not_have_is_said(monkeypatch):
    from adanet_py.metrics import scorers

    scorers._scorer.cache_clear()
    monkeypatch.setattr(skm, "get_scorer", lambda name: (_ for _ in ()).throw(ValueError(name)))
    with pytest.raises(ConfigError, match="expected a scikit-learn that has this scorer"):
        score("rand_score", np.array([0, 1]), np.eye(2))
    scorers._scorer.cache_clear()


def test_scikit_learn_is_loaded_for_its_scorers_only():
    code = (
        "import sys, json, numpy as np\n"
        "from adanet_py.metrics import score\n"
        "y, p = np.array([0, 1, 1]), np.array([[.9, .1], [.2, .8], [.6, .4]])\n"
        "score('f1_macro', y, p); before = 'sklearn' in sys.modules\n"
        "score('rand_score', y, p); print(json.dumps([before, 'sklearn' in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, True]


def _command(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_search_by_a_scorer_from_the_command_line_to_evaluate(tmp_path):
    data, new, out = tmp_path / "data.csv", tmp_path / "new.csv", tmp_path / "run"
    table("multiclass").to_csv(data, index=False)
    importance = np.tile([0.0, 1.0, 2.0], 40)
    table("multiclass", seed=1).assign(importance=importance).to_csv(new, index=False)
    bounds = ("--space", "tiny", "--candidates", 2, "--workers", 0, "--folds", 1)
    done = _command(
        "search", data, *bounds, "--metric", "Roc-AUC-ovo-weighted", "--out", out, "--json"
    )
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["metric"], said["direction"]) == ("roc_auc_ovo_weighted", "maximize")
    board = pd.read_csv(out / "leaderboard.csv")
    assert set(board["metric"]) == {"roc_auc_ovo_weighted"}
    constant = board[board["architecture"] == "constant"].iloc[0]
    assert constant["validation"] == 0.5
    assert constant["reward_error"] == -1  # the unit of errors
    best = board.iloc[0]
    assert best["low"] <= best["validation"] <= best["high"] <= 1
    assert best["validation"] > 0.6

    shown = json.loads(_command("evaluate", out, new, "--metric", "rand_score", "--json").stdout)
    assert next(iter(shown)) == "rand_score"
    assert {"log_loss", "f1_macro"} <= set(shown)
    weighted = json.loads(_command("evaluate", out, new, "--weight", "importance", "--json").stdout)
    assert "roc_auc_ovo_weighted" not in weighted  # it takes no weights
    assert weighted["accuracy"] != shown["accuracy"]
    refused = _command("evaluate", out, new, "--weight", "importance", "--metric", "rand_score")
    assert refused.exit_code == 2
    assert "'rand_score': it is defined without row weights" in refused.stderr
    refused = _command("search", new, *bounds, "--metric", "rand_score", "--weight", "importance")
    assert refused.exit_code == 2
    assert "Leave --weight out, or use another metric" in refused.stderr
