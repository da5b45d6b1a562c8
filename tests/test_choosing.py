"""The simplest network about as good as the best is found; the winner's optimism is told."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tables import check_here, table

import adanet_py
from adanet_py import saving
from adanet_py.choosing import CHOICES, Simplest, make_choice
from adanet_py.commands.showing import honest
from adanet_py.config import SearchConfig
from adanet_py.folder import candidate_file, evict
from adanet_py.metrics import METRICS, score
from adanet_py.optimism import Scored, corrected, optimism, optimism_interval, wilcoxon
from adanet_py.plan import best_of
from adanet_py.records import Candidate, Result, Status
from adanet_py.reward import RewardRule, with_reward

LOSS, ACCURACY = METRICS["log_loss"], METRICS["accuracy"]


def network(validation, parameters, metric=LOSS, status=Status.COMPLETE, seed=0):
    plain = Result(
        Candidate("mlp", seed=seed), status, metrics={"validation": validation},
        parameters=parameters,
    )  # fmt: skip
    return with_reward(plain, metric, 0.7)


# ---------------------------------------------------------------- the one-standard-error rule


def test_the_least_complex_within_one_standard_error_is_chosen():
    results = [
        network(0.300, 10_000, seed=1),
        network(0.309, 1000, seed=2),
        network(0.310, 100, seed=3),
        network(0.311, 10, seed=4),  # worse by more than the standard error
        network(0.1, 1, status=Status.DIVERGED, seed=5),
    ]
    asked = []

    def doubt(result):
        asked.append(result)
        return 0.0101

    choose = Simplest(LOSS, RewardRule(), doubt)
    assert choose(results) == results[2]
    assert choose(results, {results[2].candidate.id}) == results[1]
    assert choose(results[:1]) == results[0]
    assert asked == results[:1]  # once for each that is the best
    assert choose([]) is None
    assert choose(results[4:]) is None


def test_where_greater_is_better_and_nothing_is_known_of_the_error():
    results = [network(0.90, 1000, ACCURACY, seed=1), network(0.88, 10, ACCURACY, seed=2)]
    assert Simplest(ACCURACY, RewardRule(), lambda r: 0.021)(results) == results[1]
    assert Simplest(ACCURACY, RewardRule(), lambda r: 0.019)(results) == results[0]
    assert Simplest(ACCURACY, RewardRule(), lambda r: math.nan)(results) == results[0]


def test_the_complexity_is_the_one_of_the_reward():
    slow = network(0.3, 10, seed=1).replace(latency_ms=9.0)
    fast = network(0.3, 99, seed=2).replace(latency_ms=1.0)
    assert Simplest(LOSS, RewardRule("latency"), lambda r: 0.1)([slow, fast]) == fast
    assert Simplest(LOSS, RewardRule(), lambda r: 0.1)([slow, fast]) == slow


def test_every_choice_can_be_made():
    assert set(CHOICES) == set(SearchConfig.model_fields["choose"].annotation.__args__)
    assert make_choice("best", LOSS, RewardRule(), lambda r: 0.0) is best_of
    assert isinstance(make_choice("simplest", LOSS, RewardRule(), lambda r: 0.0), Simplest)


def test_the_weights_of_what_may_be_chosen_are_kept(tmp_path):
    results = [network(0.3 + 0.01 * i, 1000 - 90 * i, seed=i) for i in range(10)]
    results += [network(0.9, 2000 + i, seed=20 + i) for i in range(5)]  # nobody's choice
    (tmp_path / "candidates").mkdir()

    def left(rule):
        for r in results:
            candidate_file(tmp_path, r.candidate.id).touch()
        evict(tmp_path, {r.candidate.id: r for r in results}, 3, rule)
        return {r.parameters for r in results if candidate_file(tmp_path, r.candidate.id).exists()}

    assert left(None) == {1000, 910, 820}
    assert left(RewardRule()) == {1000 - 90 * i for i in range(10)}


def test_a_search_saves_the_simplest_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    options = {
        "space": "tiny", "workers": 0, "folds": 1, "candidates": 24, "controller": "random",
        "on_note": lambda note: None,
    }  # fmt: skip
    best = adanet_py.search(table(), out=tmp_path / "best", **options)
    simple = adanet_py.search(table(), out=tmp_path / "simple", choose="simplest", **options)
    assert best.model.about["candidate"] == best.best.candidate.id
    assert simple.model.about["candidate"] == simple.best.candidate.id
    assert simple.summary["best"]["id"] == simple.best.candidate.id
    assert simple.best.parameters < best.best.parameters
    for found in (best, simple):
        rows = found.leaderboard
        assert rows[rows["chosen"]]["id"].tolist() == [found.best.candidate.id]
        assert adanet_py.run.check(found.run) == []
    assert "corrected for the choice" in honest(best.leaderboard)


def test_audit_rows_tell_the_optimism_of_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    frame = table(rows=160).assign(part=["train", "train", "valid", "audit"] * 40)
    found = adanet_py.search(
        frame, out=tmp_path / "run", split="part", space="tiny", workers=0, candidates=4,
        on_note=lambda note: None,
    )  # fmt: skip
    rows = found.leaderboard
    np.testing.assert_allclose(rows["optimism"], rows["audit"] - rows["validation"])
    [model] = rows[rows["chosen"]].to_dict("records")
    assert model["optimism_low"] < model["optimism"] < model["optimism_high"]
    assert rows[~rows["chosen"]]["optimism_low"].isna().all()
    assert "on audit rows (optimism" in honest(rows)


# ---------------------------------------------------------------- optimism


def rows_of(rng, n, skill, classes=2):
    y = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), y] += skill
    shares = np.exp(logits)
    return Scored(y, shares / shares.sum(axis=1, keepdims=True))


def test_optimism_is_in_errors_whatever_the_direction_of_the_metric():
    assert optimism(LOSS, {"validation": 0.3, "audit": 0.4}) == pytest.approx(0.1)
    assert optimism(ACCURACY, {"validation": 0.9, "audit": 0.8}) == pytest.approx(0.1)
    assert math.isnan(optimism(LOSS, {"validation": 0.3}))


@pytest.mark.parametrize("name", ["log_loss", "accuracy", "roc_auc"])
def test_the_interval_of_optimism_holds_the_difference_and_covers_nothing_where_there_is_none(name):
    rng = np.random.default_rng(0)
    metric, covered = METRICS[name], 0
    for _ in range(40):
        low, high = optimism_interval(metric, rows_of(rng, 400, 1.0), rows_of(rng, 300, 1.0))
        covered += low <= 0 <= high
    assert covered >= 34  # 95 % of 40 less three standard deviations
    low, high = optimism_interval(metric, rows_of(rng, 400, 3.0), rows_of(rng, 300, 0.5))
    assert 0 < low < high  # audit rows are worse: positive


def test_the_correction_removes_what_choosing_among_equals_adds():
    """Twenty models of equal skill on few rows: the best looks better than any is."""
    rng = np.random.default_rng(1)
    seen, mended, truth = [], [], []
    for seed in range(30):
        y = rng.integers(0, 2, 150)
        models = {}
        for k in range(20):
            logits = rng.normal(size=(150, 2))
            logits[np.arange(150), y] += 1.0
            shares = np.exp(logits)
            models[str(k)] = shares / shares.sum(axis=1, keepdims=True)
        scores = [score(LOSS, y, p) for p in models.values()]
        seen.append(min(scores))
        mended.append(corrected(LOSS, y, models, {}, seed=seed))
        truth.append(np.mean(scores))  # all are the same apart from chance
    assert np.mean(seen) < np.mean(truth) - 0.05
    assert abs(np.mean(mended) - np.mean(truth)) < 0.35 * (np.mean(truth) - np.mean(seen))


def test_the_correction_chooses_by_the_reward():
    rng = np.random.default_rng(2)
    good, bad = rows_of(rng, 300, 3.0), rows_of(rng, 300, 0.3)
    models = {"good": good.prediction, "bad": rows_of(rng, 300, 0.3).prediction}
    models["bad"] = np.full_like(good.prediction, 0.5)
    low = corrected(LOSS, good.y, models, {})
    high = corrected(LOSS, good.y, models, {"good": 10.0})
    assert low == pytest.approx(score(LOSS, good.y, models["good"]), rel=0.1)
    assert high == pytest.approx(math.log(2), rel=1e-6)
    assert math.isnan(corrected(LOSS, bad.y, {"one": bad.prediction}, {}))


def test_the_signed_rank_test_is_that_of_scipy():
    rng = np.random.default_rng(3)
    y = rng.normal(size=80)
    a, b = y + rng.normal(size=80), y + 1.5 * rng.normal(size=80)
    p = wilcoxon(METRICS["mae"], y, a, b)
    assert p == pytest.approx(stats.wilcoxon(np.abs(b - y) - np.abs(a - y), method="approx").pvalue)
    assert p < 0.05
    assert wilcoxon(METRICS["mae"], y, a, a) == 1.0
    labels = rows_of(rng, 80, 1.0)
    assert math.isnan(wilcoxon(METRICS["roc_auc"], labels.y, labels.prediction, labels.prediction))


def test_what_is_known_of_the_model_is_said_in_one_line():
    names = ("audit", "optimism", "optimism_low", "optimism_high", "corrected")
    nothing = {"chosen": [True], **{name: [math.nan] for name in names}}
    assert honest(pd.DataFrame(nothing)) == ""
    assert honest(pd.DataFrame({"id": ["a"]})) == ""
    known = {**nothing, "audit": [0.4], "optimism": [0.1], "optimism_low": [-0.05],
             "optimism_high": [0.25], "corrected": [0.35]}  # fmt: skip
    assert honest(pd.DataFrame(known)) == (
        ", 0.4 on audit rows (optimism 0.1, 95 %: -0.05 to 0.25), 0.35 corrected for the choice"
    )
