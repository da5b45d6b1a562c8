"""The tables say what the results say; intervals cover, ties are paired, formulas are escaped."""

from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd
import pytest

from adanet_py.frames import escape_formula, write_csv
from adanet_py.fronts import HYPERVOLUME_COLUMNS, PARETO_COLUMNS, growth, pareto
from adanet_py.intervals import _resamples, _statistic, bootstrap
from adanet_py.leaderboard import COLUMNS, CURVE_COLUMNS, build, curves
from adanet_py.metrics import METRICS, score
from adanet_py.records import Candidate, Evaluation, Result, Status
from adanet_py.reward import with_reward
from adanet_py.tasks import ONE_TARGET, SEVERAL_TARGETS

LOSS = METRICS["log_loss"]
PROBLEMS = [
    (name, several)
    for several, tasks in ((False, ONE_TARGET), (True, SEVERAL_TARGETS))
    for name in sorted(n for n, m in METRICS.items() if set(m.tasks) & set(tasks))
]


def result(validation, *, status=Status.COMPLETE, parameters=100, baseline=1.0, **fields):
    candidate = fields.pop("candidate", None) or Candidate(
        "mlp", seed=hash((validation, parameters))
    )
    metrics = {} if validation is None else {"validation": validation, "train": 0.1}
    plain = Result(candidate, status, metrics=metrics, parameters=parameters, **fields)
    return with_reward(plain, LOSS, baseline)


def probabilities(rng, y, skill, classes=2):
    logits = rng.normal(size=(len(y), classes))
    logits[np.arange(len(y)), y] += skill
    shares = np.exp(logits)
    return shares / shares.sum(axis=1, keepdims=True)


def problem(metric, n=300, seed=0, classes=3, several=False):
    """Truth, and a maker of predictions with a given skill, for any metric; or of two targets."""
    rng = np.random.default_rng(seed)
    if several and "multilabel" in metric.tasks:
        y = (rng.random((n, 2)) < [0.3, 0.6]).astype(int)
        return y, lambda skill: 1 / (1 + np.exp(rng.normal(size=y.shape) - skill * (2 * y - 1)))
    if several:
        y = rng.gamma(2.0, size=(n, 2)) * [1.0, 5.0]
        return y, lambda skill: np.abs(y + rng.normal(size=y.shape) / (1 + skill))
    if "regression" in metric.tasks:
        y = rng.gamma(2.0, size=n)
        return y, lambda skill: np.abs(y + rng.normal(size=n) / (1 + skill))
    classes = classes if "multiclass" in metric.tasks else 2
    y = rng.integers(0, classes, n)
    return y, lambda skill: probabilities(rng, y, skill, classes)


# ---------------------------------------------------------------- the leaderboard


def test_the_best_reward_comes_first_and_what_has_none_last():
    table = build(
        [
            result(0.5),
            result(None, status=Status.FAILED, message="=oops"),
            result(0.3),
            result(math.nan, status=Status.DIVERGED),
            result(0.4, status=Status.PRUNED),
        ],
        LOSS,
    )
    assert table["rank"].tolist()[:3] == [1, 2, 3]
    assert table["rank"].isna().tolist() == [False] * 3 + [True] * 2
    assert table["validation"].tolist()[:3] == [0.3, 0.4, 0.5]
    assert table["status"].tolist() == ["COMPLETE", "PRUNED", "COMPLETE", "FAILED", "DIVERGED"]
    assert table["status_text"][4] == Status.DIVERGED.value
    assert table["reward"].isna().tolist() == [False] * 3 + [True] * 2
    assert table["why"][0] == "the best reward"
    assert table["why"][4] == f"no score: {Status.DIVERGED.value}"


def test_equal_rewards_are_ordered_by_size():
    big, small = (
        result(0.3, parameters=p).replace(reward=-0.5, error=0.5, complexity=0.0) for p in (500, 50)
    )
    assert build([big, small], LOSS)["parameters"].tolist() == [50, 500]


def test_the_two_parts_of_the_reward_add_up():
    table = build([result(0.5, parameters=1000), result(0.4, baseline=0.5)], LOSS)
    np.testing.assert_allclose(
        table["reward_error"] + table["reward_complexity"], table["reward"], rtol=0, atol=1e-12
    )
    assert table["reward_complexity"][0] == pytest.approx(-0.01 * math.log10(1001) / 6)


def test_every_hyperparameter_is_a_column_and_fixed_columns_keep_their_names():
    a = Candidate("mlp", {"depth": 2, "norm": "none", "rank": 7}, numeric={"lr": 0.01, "step": 3})
    b = Candidate("tabm", {"depth": 3, "k": 8, "amp": True}, numeric={"lr": 0.1})
    table = build([result(0.3, candidate=a), result(0.4, candidate=b)], LOSS)
    knobs = ["amp", "depth", "k", "knob_rank", "knob_step", "lr", "norm"]
    fixed = list(COLUMNS)
    cut = fixed.index("seed") + 1
    assert list(table.columns) == fixed[:cut] + knobs + fixed[cut:]
    assert table["depth"].tolist() == [2, 3]
    assert table["lr"].tolist() == [0.01, 0.1]
    assert table["knob_rank"][0] == 7
    assert table["rank"].tolist() == [1, 2]
    # Integers beside an empty cell stay integers, truth values stay truth values.
    text = table.to_csv(index=False).splitlines()
    first = dict(zip(text[0].split(","), text[1].split(","), strict=True))
    second = dict(zip(text[0].split(","), text[2].split(","), strict=True))
    assert (first["depth"], first["k"], first["knob_rank"], first["norm"]) == ("2", "", "7", "none")
    assert (second["k"], second["amp"]) == ("8", "True")


def test_a_baseline_is_a_row_like_any_other():
    baseline = result(0.35, status=Status.BASELINE, candidate=Candidate("hist_gradient_boosting"))
    table = build([result(0.3), baseline, result(0.4)], LOSS)
    assert table["architecture"].tolist() == ["mlp", "hist_gradient_boosting", "mlp"]
    assert table["status"][1] == "BASELINE"
    assert table["optimizer"].isna().tolist() == [False, True, False]


def test_an_empty_leaderboard_has_its_columns():
    assert list(build([], LOSS).columns) == list(COLUMNS)
    assert list(curves([], LOSS).columns) == list(CURVE_COLUMNS)
    assert list(pareto([]).columns) == list(PARETO_COLUMNS)
    assert list(growth([], {}).columns) == list(HYPERVOLUME_COLUMNS)


def test_every_column_has_a_description():
    for columns in (COLUMNS, CURVE_COLUMNS, PARETO_COLUMNS, HYPERVOLUME_COLUMNS):
        assert all(text and "\n" not in text for text in columns.values())


def test_intervals_are_for_the_top_and_ties_for_what_cannot_be_told_apart():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2000)
    good, bad = probabilities(rng, y, 3.0), probabilities(rng, y, 0.5)
    twin = np.clip(good + rng.normal(0, 1e-4, size=good.shape), 1e-6, 1)
    twin /= twin.sum(axis=1, keepdims=True)
    results, predictions = [], {}
    for prediction, parameters in ((good, 1000), (twin, 10), (bad, 5), (bad, 6)):
        one = result(score(LOSS, y, prediction), parameters=parameters)
        # Whatever size costs, the big twin is first here.
        one = one.replace(reward=one.reward + (0.01 if parameters == 1000 else 0))
        results.append(one)
        predictions[one.candidate.id] = prediction
    table = build(results, LOSS, predictions=predictions, y=y, top=3)
    assert table["parameters"].tolist() == [1000, 10, 5, 6]
    assert table["tie"].tolist()[:3] == [1, 1, 2]
    assert table["tie"].isna()[3]
    assert table["paired_rank"].tolist()[:3] == [2, 1, 3]
    assert table["paired_rank"].isna()[3]
    assert table["wilcoxon"][0] == 1.0
    assert table["wilcoxon"][2] < 0.01
    assert table["simplest"].tolist()[:3] == [False, True, True]
    assert table["why"][1].startswith("cannot be told from the best")
    assert table["why"][2].startswith("worse than the best by log_loss")
    assert table["why"][3].startswith("reward lower than the best by")
    inside = (table["low"] < table["validation"]) & (table["validation"] < table["high"])
    assert inside.tolist()[:3] == [True] * 3
    again = build(results, LOSS, predictions=predictions, y=y, top=3)
    pd.testing.assert_frame_equal(table, again)


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "several"), PROBLEMS)
def test_the_statistic_is_the_metric_on_the_sample(name, several, weighted):
    metric = METRICS[name]
    y, predict = problem(metric, several=several)
    weighted = weighted and not metric.unweighted
    weight = np.random.default_rng(1).uniform(0.5, 2, len(y)) if weighted else None
    prediction = predict(1.0)
    _, statistic = _statistic(metric, y, prediction, weight)
    rows = np.ones((1, len(y))) if weight is None else weight[None]
    assert statistic(rows)[0] == pytest.approx(score(metric, y, prediction, weight), abs=1e-9)


@pytest.mark.parametrize(("name", "several"), PROBLEMS)
def test_the_statistic_is_the_metric_on_resamples(name, several):
    metric = METRICS[name]
    y, predict = problem(metric, n=500, several=several)
    prediction = predict(1.0)
    _, statistic = _statistic(metric, y, prediction, None)
    counts = next(_resamples(len(y), 50, None, seed=3))
    counts = counts[:10] if metric.slow else counts
    if metric.unweighted:
        drawn = [np.repeat(np.arange(len(y)), w.astype(int)) for w in counts]
        exact = np.array([score(metric, y[rows], prediction[rows]) for rows in drawn])
    else:
        exact = np.array([score(metric, y, prediction, w) for w in counts])
    # The area under the ROC curve is linearised, the others are exact.
    tolerance = (0.5 if several else 0.25) * exact.std() if name == "roc_auc" else 1e-9
    np.testing.assert_allclose(statistic(counts), exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "several"), PROBLEMS)
def test_a_clearly_worse_model_is_no_tie_and_equal_ones_are(name, several):
    metric = METRICS[name]
    y, predict = problem(metric, n=400, several=several)
    # The ratio of a prediction without a false positive is 1 by definition.
    good, bad = predict(2.0 if name == "positive_likelihood_ratio" else 6.0), predict(0.0)
    table = bootstrap(metric, y, {"good": good, "bad": bad, "same": good})
    assert [table[k].tie for k in ("good", "bad", "same")] == [1, 2, 1]
    assert table["bad"].worse_low > 0
    assert (table["same"].worse_low, table["same"].worse_high) == (0, 0)
    for interval in table.values():
        assert interval.low <= interval.high
    # Predictions that are not finite get no interval, and do not harm the others.
    broken = good.copy()
    broken[0] = np.nan
    alone = bootstrap(metric, y, {"broken": broken, "good": good})
    assert list(alone) == ["good"]


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        y = rng.normal(size=200)
        noise = rng.normal(size=200)
        interval = bootstrap(METRICS["mse"], y, {"a": y + noise}, seed=seed)["a"]
        covered += interval.low <= 1.0 <= interval.high
    assert 178 <= covered <= 199  # 95 % of 200, within about four standard deviations


def test_pairing_tells_apart_what_overlapping_intervals_cannot():
    rng = np.random.default_rng(0)
    y = rng.normal(size=300)
    noise = rng.normal(size=300) * 3
    table = bootstrap(METRICS["mae"], y, {"a": y + noise, "b": y + noise * 1.02})
    assert table["b"].low < table["a"].high
    assert table["b"].tie == 2


def test_row_weights_count_like_repeated_rows():
    y = np.array([0, 1, 0, 1] * 50)
    proba = probabilities(np.random.default_rng(0), y, 1.0)
    wrong = 1 - proba
    half = np.r_[np.ones(100), np.zeros(100)]
    both = np.r_[proba[:100], wrong[100:]]
    table = bootstrap(LOSS, y, {"a": both}, half)
    only = score(LOSS, y[:100], proba[:100])
    assert table["a"].low < only < table["a"].high


def test_a_resample_with_one_class_only_does_no_harm():
    y = np.array([0] * 30 + [1])
    proba = probabilities(np.random.default_rng(0), y, 1.0)
    for name in ("roc_auc", "average_precision", "f1", "balanced_accuracy"):
        interval = bootstrap(METRICS[name], y, {"a": proba})["a"]
        assert 0 <= interval.low <= interval.high or math.isnan(interval.low)


def test_nothing_to_compare_gives_nothing():
    assert bootstrap(LOSS, np.array([]), {}) == {}


# ---------------------------------------------------------------- the other tables


def test_curves_have_one_row_per_evaluation():
    points = (Evaluation(10, 0.5, 0.01, 0.7, 0.6, 1.5), Evaluation(20, 1.0, 0.005, 0.5, 0.4, 0.7))
    one = result(0.4, curve=points)
    table = curves([result(0.5), one], LOSS)
    assert table["candidate"].tolist() == [one.candidate.id] * 2
    assert table["step"].tolist() == [10, 20]
    assert table["validation"].tolist() == [0.6, 0.4]
    assert table["grad_norm"].tolist() == [1.5, 0.7]


def test_pareto_keeps_what_nothing_beats():
    results = [
        result(0.3, parameters=1000, latency_ms=3.0),
        result(0.4, parameters=100, latency_ms=9.0),
        result(0.5, parameters=500, latency_ms=1.0),
        result(0.6, parameters=600, latency_ms=2.0),
        result(0.2, parameters=9000),  # never measured
        result(math.nan, parameters=1, latency_ms=0.1, status=Status.DIVERGED),
    ]
    table = pareto(results)
    assert table["parameters"].tolist() == [9000, 1000, 100, 500]
    assert table["front_parameters"].tolist() == [True, True, True, False]
    assert table["front_latency"].tolist() == [False, True, False, True]


def test_the_hypervolume_grows_with_what_is_found_and_only_then():
    results = [
        result(0.5, parameters=999, latency_ms=0.999),
        result(0.6, parameters=9999, latency_ms=9.999),  # worse in everything
        result(0.4, parameters=99_999, latency_ms=0.099),  # better in error and latency
        result(0.3, status=Status.BASELINE, parameters=1),
        result(None, status=Status.FAILED),
        result(0.1, parameters=9, latency_ms=0.009),  # when is not known
        result(0.2, parameters=99, latency_ms=math.nan),
    ]
    when = {r.candidate.id: 2.0 * i for i, r in enumerate(results, start=1)}
    del when[results[5].candidate.id]
    table = growth(results[::-1], when)
    assert table["seconds"].tolist() == [2, 6, 14]
    assert table["candidates"].tolist() == [1, 3, 4]
    assert table["error"].tolist() == [0.5, 0.4, 0.2]
    first = 0.5 * 6 / 9
    second = first + (0.5 - 0.4) * 4 / 9
    np.testing.assert_allclose(table["hypervolume_parameters"], [first, second, 0.8 * 7 / 9])
    np.testing.assert_allclose(table["hypervolume_latency"], [first, 0.6 * 7 / 9, 0.6 * 7 / 9])
    front = pareto([results[0], results[6]], when)
    assert front["found_after"].tolist() == [14, 2]


# ---------------------------------------------------------------- CSV


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\tx",
        "\rx",
        "\nx",
        "  =1",
        "\u00a0=1",
        "\ufeff=1",
        "\u200b-1",
        "\uff1d1",
        "\uff0b1",
        "\uff0d1",
        "\uff201",
        "=cmd|' /C calc'!A0",
    ],
)
def test_text_that_reads_as_a_formula_is_escaped(text):
    assert escape_formula(text) == "'" + text


@pytest.mark.parametrize("value", ["a=b", "x-1", "", " ", "1", "3e4", -1.5, -2, None, True, "'=1"])
def test_what_does_not_is_left_alone(value):
    assert escape_formula(value) is value


def test_a_written_table_is_escaped_in_cells_and_headers(tmp_path):
    candidate = Candidate("=evil()", {"@knob": "-1", "number": -1})
    one = result(0.3, candidate=candidate, message="+SUM(A1:A9)\nsecond, line")
    frame = build([one], LOSS)
    write_csv(frame, tmp_path / "leaderboard.csv")
    text = (tmp_path / "leaderboard.csv").read_text()
    back = pd.read_csv(io.StringIO(text), dtype=str)
    assert back["'@knob"][0] == "'-1"
    assert back["architecture"][0] == "'=evil()"
    assert back["message"][0] == "'+SUM(A1:A9)\nsecond, line"
    assert back["number"][0] == "-1"
    assert float(back["reward"][0]) == one.reward  # numbers keep all digits, and their sign
    assert "@knob" in frame.columns  # the table itself is not changed
    assert frame["architecture"][0] == "=evil()"


def test_infinities_never_reach_the_file(tmp_path):
    write_csv(build([result(None, status=Status.FAILED)], LOSS), tmp_path / "l.csv")
    assert "inf" not in (tmp_path / "l.csv").read_text()
