"""Several targets at once: read, encoded, split, searched, saved, loaded and scored."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as skm
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_score
from tables import check_here
from typer.testing import CliRunner

import adanet_py
from adanet_py import AdaNetClassifier, AdaNetRegressor, cli, saving
from adanet_py.baselines import predict_member, run_baselines
from adanet_py.calibration import cross_fitted, fit_temperature, label_probabilities
from adanet_py.data.splits import make_split
from adanet_py.data.table import read_table
from adanet_py.data.targets import Targets, fit, from_json, infer
from adanet_py.errors import ConfigError, DataError

QUICK = {"space": "tiny", "workers": 0, "candidates": 2, "on_note": lambda note: None}
LABELS, NUMBERS = ["rain", "wind", "snow"], ["heat", "u, v"]


def weather(n=150, seed=0):
    """Two numbers and a category that decide three labels and two numbers."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({
        "a": rng.normal(size=n), "b": rng.normal(size=n), "c": rng.choice(["x", "y", "z"], n),
    })  # fmt: skip
    both = frame["a"] + frame["b"]
    frame["rain"] = np.where(both + 0.3 * rng.normal(size=n) > 0, "yes", "no")
    frame["wind"] = (frame["a"] - frame["b"] + 0.3 * rng.normal(size=n) > 0.8).astype(int)
    frame["snow"] = np.where((frame["c"] == "x") & (both > 0), True, False)
    frame["heat"] = 100 + 10 * both + rng.normal(size=n)
    frame["u, v"] = 0.1 * frame["a"] + 0.01 * rng.normal(size=n)
    return frame


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(saving, "start_check", check_here)
    return tmp_path


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (["rain", "wind"], ["rain", "wind"]),
        ("rain,wind", ["rain", "wind"]),
        ("rain, wind", ["rain", "wind"]),
        (["u, v", "heat"], ["u, v", "heat"]),
        (["rain,wind", "snow"], ["rain", "wind", "snow"]),
    ],
)
def test_targets_are_named_one_by_one_or_with_commas(target, found):
    table = read_table(weather(), target=target)
    assert list(table.target) == found
    assert not set(found) & set(table.frame)


def test_one_target_is_a_column_as_before():
    frame = weather()
    for target in ("u, v", ["u, v"]):
        assert read_table(frame, target=target).target.name == "u, v"


def test_targets_beside_the_features_keep_their_names():
    frame = weather()
    x, y = frame[["a", "b"]], frame[NUMBERS]
    assert list(read_table((x, y)).target) == NUMBERS
    assert list(read_table((x, y.to_numpy())).target) == ["target0", "target1"]
    assert list(read_table((x, y.to_numpy()), target=["p", "q"]).target) == ["p", "q"]
    taken = read_table((x.rename(columns={"a": "target1"}), y.to_numpy()))
    assert list(taken.target) == ["y0", "y1"]
    np.testing.assert_array_equal(read_table((x, y.iloc[::-1])).target, y.iloc[::-1])


def test_rows_that_lack_any_target_are_dropped_and_that_is_said():
    frame = weather()
    frame.loc[3, "heat"] = np.nan
    frame.loc[[3, 5], "u, v"] = np.nan
    table = read_table(frame, target=NUMBERS)
    assert len(table.target) == len(table.frame) == len(frame) - 2
    assert table.notes == (
        "Dropped 2 of 150 rows: a target is missing there ('heat' in 1, 'u, v' in 2; first: row 4"
        ").",
    )


@pytest.mark.parametrize("names", [LABELS, NUMBERS])
def test_what_is_encoded_is_decoded_column_by_column(names):
    frame = weather()[names]
    task = infer(frame)
    target = from_json(json.loads(json.dumps(fit(frame, task).to_json())))
    assert isinstance(target, Targets)
    assert (task, target.n_outputs) == (
        ("multilabel", 3) if names == LABELS else ("multioutput", 2)
    )
    encoded = target.encode(frame)
    assert encoded.shape == frame.shape
    if task == "multilabel":
        assert target.classes == (("no", "yes"), (0, 1), (False, True))
        assert (target.decode(encoded) == frame.to_numpy(dtype=object)).all()
        assert [type(v) for v in target.decode(encoded)[0]] == [str, int, bool]
    else:
        np.testing.assert_allclose(encoded.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(encoded.std(0), 1, rtol=1e-5)
        np.testing.assert_allclose(target.decode(encoded), frame, rtol=1e-4, atol=1e-6)


def test_targets_of_different_kinds_are_refused():
    frame = weather().assign(kind=list("pqr") * 50, count=np.arange(150) % 4)
    for names, words in (
        (["rain", "heat"], "labels of two values: 'rain'; numbers: 'heat'"),
        (["heat", "kind"], "classes: 'kind'; numbers: 'heat'"),
        (["wind", "heat"], "use the task multioutput"),
        (["count", "count"], "classes"),
    ):
        with pytest.raises(DataError, match=words):
            infer(frame[names].set_axis(["first", "last"], axis=1) if "count" in names
                  else frame[names])  # fmt: skip
    assert infer(frame[["wind", "heat"]], "multioutput") == "multioutput"
    assert infer(frame[["count", "heat"]]) == "multioutput"
    with pytest.raises(DataError, match="'heat': expected two different values"):
        infer(frame[["rain", "heat"]], "multilabel")
    with pytest.raises(ConfigError, match="--task binary: expected one target column"):
        infer(frame[LABELS], "binary")
    with pytest.raises(ConfigError, match="--task multilabel: expected several target columns"):
        infer(frame["rain"], "multilabel")


# ---------------------------------------------------------------- splits, baselines, calibration


def test_folds_have_every_label_in_its_share():
    rng = np.random.default_rng(0)
    y = (rng.random((900, 4)) < [0.5, 0.2, 0.05, 0.01]).astype(int)
    split = make_split(y, "multilabel", folds=5)
    assert "rare combinations by their rarest label" in split.how
    shares = np.array([y[rows].mean(0) for rows in split.valid])
    assert (abs(shares - y.mean(0)) < 0.02).all()
    assert (np.array([y[rows][:, 3].sum() for rows in split.valid]) > 0).all()
    split = make_split(y[:, :2], "multilabel", folds=5)
    assert split.how.startswith("5 folds stratified by the combination of labels over")
    lone = np.zeros((60, 2), int)
    lone[::2, 0] = 1
    lone[:1, 1] = 1
    with pytest.raises(DataError, match="one class of a target only"):
        make_split(lone, "multilabel", folds=3)


@pytest.mark.parametrize("task", ["multilabel", "multioutput"])
def test_baselines_are_those_of_each_target(task):
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(120, 3)), rng.uniform(0.5, 2, 120)
    raw = x @ rng.normal(size=(3, 2)) + rng.normal(size=(120, 2))
    frame = pd.DataFrame((raw > 0.3).astype(int) if task == "multilabel" else raw * [1, 50] + 3)
    target = fit(frame, task)
    split = make_split(frame, task, folds=3)
    features = {"quantile": x.astype(np.float32), "category": np.zeros((120, 0), np.int32)}
    metric = "log_loss" if task == "multilabel" else "rmse"
    y = target.encode(frame)
    found = {
        b.name: b for b in run_baselines(features, y, w, split, task, metric, target, seconds=60)
    }
    for t in range(2):
        parts = []
        for train, valid in zip(split.train, split.valid, strict=True):
            if task == "multilabel":
                # Half the tolerance of ours: the minimum is flat.
                model = LogisticRegression(tol=1e-8).fit(x[train], y[train, t], w[train])
                parts.append(model.predict_proba(x[valid])[:, 1])
            else:
                model = Ridge(alpha=1.0).fit(x[train], y[train, t], w[train])
                parts.append(target.columns[t].decode(model.predict(x[valid])))
        given = found["linear"].predictions_valid[:, t]
        np.testing.assert_allclose(given, np.concatenate(parts), rtol=2e-3, atol=1e-3)
        own = frame[t].to_numpy(dtype=float)
        shares = [np.full(len(v), np.average(own[tr], weights=w[tr]))
                  for tr, v in zip(split.train, split.valid, strict=True)]  # fmt: skip
        given = found["constant"].predictions_valid[:, t]
        np.testing.assert_allclose(given, np.concatenate(shares), rtol=1e-5)
    assert found["hist_gradient_boosting"].predictions_valid.shape == (120, 2)
    whole = predict_member(found["linear"].member, features, task)
    assert whole.shape == (120, 2)


def test_labels_share_one_temperature():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 3)) * 2
    y = (rng.random((200, 3)) < label_probabilities(logits, 3.0)).astype(int)
    w = rng.uniform(0.5, 2, 200)
    t = fit_temperature(logits, y, w)
    assert t == pytest.approx(fit_temperature(logits.reshape(-1, 1), y.ravel(), np.repeat(w, 3)))
    assert 2 < t < 5
    each = cross_fitted(logits, y)
    assert each.shape == (200,)
    np.testing.assert_allclose(
        label_probabilities(logits, each), 1 / (1 + np.exp(-logits / each[:, None]))
    )


# ---------------------------------------------------------------- searches


@pytest.mark.parametrize(("names", "folds"), [(LABELS, 1), (NUMBERS, 3)])
def test_a_search_saves_a_model_that_predicts_every_target(here, names, folds):
    frame, new = weather(), weather(60, seed=1)
    rest = [n for n in LABELS + NUMBERS if n not in names]
    found = adanet_py.search(
        frame, target=names, drop=rest, folds=folds, weight=None, out="run", **QUICK
    )
    model = adanet_py.load("run")
    assert model.target_name == tuple(names)
    predicted = model.predict(new)
    np.testing.assert_array_equal(predicted, found.predict(new))
    assert predicted.shape == (60, len(names))
    whole, each = model.evaluate_targets(new)
    assert list(each) == names
    truth = new[names].to_numpy()
    if names == LABELS:
        assert found.summary["task"] == "multilabel"
        proba = model.predict_proba(new)
        y = np.stack([truth[:, 0] == "yes", truth[:, 1] == 1, truth[:, 2] == True], 1)  # noqa: E712
        hard = np.stack([predicted[:, 0] == "yes", predicted[:, 1], predicted[:, 2]], 1)
        hard = hard.astype(int)
        np.testing.assert_array_equal(hard, proba > 0.5)
        assert whole["roc_auc"] == pytest.approx(skm.roc_auc_score(y, proba))
        assert whole["accuracy"] == pytest.approx(skm.accuracy_score(y.astype(int), hard))
        assert each["wind"]["roc_auc"] == pytest.approx(skm.roc_auc_score(y[:, 1], proba[:, 1]))
        assert whole["roc_auc"] > 0.75
    else:
        assert found.summary["task"] == "multioutput"
        assert predicted.dtype == np.float64
        rmse = skm.root_mean_squared_error(truth, predicted)
        assert whole["rmse"] == pytest.approx(rmse)
        assert each["u, v"]["r2"] == pytest.approx(skm.r2_score(truth[:, 1], predicted[:, 1]))
        assert whole["r2"] == pytest.approx(skm.r2_score(truth, predicted))
        assert whole["r2"] > 0.3
        with pytest.raises(ConfigError, match="for regression"):
            model.predict_proba(new)
    board = found.leaderboard
    networks = board["status"] != "BASELINE"
    assert board.loc[networks, "low"].notna().all()
    assert set(board.loc[~networks, "architecture"]) == {
        "constant", "linear", "hist_gradient_boosting"
    }  # fmt: skip
    assert adanet_py.search(
        frame, target=names, drop=rest, folds=folds, weight=None, out="run", **QUICK
    ).summary == found.summary  # fmt: skip


def test_the_command_line_from_search_to_evaluation(here):
    weather().to_csv("t.csv", index=False)
    weather(40, seed=2).to_csv("new.csv", index=False)
    rest = [a for n in NUMBERS for a in ("--drop", n)]

    def run(*arguments):
        done = CliRunner().invoke(cli.app, [str(a) for a in arguments])
        assert done.exit_code == 0, done.stderr
        return done

    done = run(
        "search", "t.csv", "--target", "rain,wind", "--target", "snow", *rest, "--space", "tiny",
        "--candidates", 1, "--workers", 0, "--folds", 1, "--class-weight", "balanced", "--metric",
        "f1_micro", "--out", "run",
    )  # fmt: skip
    assert "Task: multilabel, targets 'rain', 'wind', 'snow', metric f1_micro" in done.stderr
    run("predict", "run", "new.csv", "--proba", "--out", "p.csv")
    found = pd.read_csv("p.csv")
    assert list(found) == [f"prediction_{n}" for n in LABELS] + [f"probability_{n}" for n in LABELS]
    assert set(found["prediction_rain"]) <= {"yes", "no"}
    shown = run("evaluate", "run", "new.csv").stdout
    assert shown.splitlines()[0].split() == ["metric", "all", *LABELS]
    scores = json.loads(run("evaluate", "run", "new.csv", "--json").stdout)
    assert list(scores["targets"]) == LABELS
    assert {"f1_micro", "hamming_loss"} <= set(scores)
    assert json.loads(run("replay", "run", "--json").stdout.splitlines()[-1])["identical"]


def test_balanced_classes_raise_the_probabilities_of_rare_labels(here):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = (rng.random((200, 2)) < [0.12, 0.5]).astype(int)
    options = QUICK | {"folds": 1, "candidates": 1}
    plain = adanet_py.search(x, y=y, **options).predict_proba(x).mean(0)
    heavy = adanet_py.search(x, y=y, class_weight="balanced", **options).predict_proba(x).mean(0)
    assert heavy[0] > plain[0] + 0.1
    assert abs(heavy[1] - plain[1]) < 0.1
    with pytest.raises(ConfigError, match="expected balanced or none with several targets"):
        adanet_py.search(x, y=y, class_weight={0: 2.0}, **options)


# ---------------------------------------------------------------- estimators

SMALL = {"candidates": 1, "space": "tiny", "workers": 0, "folds": 1, "random_state": 0}


def test_the_classifier_takes_an_indicator(here):
    frame = weather()
    x = frame[["a", "b", "c"]]
    y = np.stack([frame["rain"] == "yes", frame["wind"], frame["snow"]], 1).astype(int)
    model = AdaNetClassifier(**SMALL).fit(x, y, sample_weight=np.linspace(0.5, 2, len(x)))
    found, proba = model.predict(x), model.predict_proba(x)
    assert (found.dtype.kind, found.shape, proba.shape) == ("i", y.shape, y.shape)
    assert [list(c) for c in model.classes_] == [[0, 1]] * 3
    assert model.score(x, y) == skm.accuracy_score(y, found)
    assert skm.get_scorer("roc_auc")(model, x, y) == skm.roc_auc_score(y, proba)
    two = AdaNetClassifier(**SMALL).fit(x, csr_matrix(y[:, :2]))
    assert skm.get_scorer("average_precision")(two, x, y[:, :2]) > 0.5


def test_a_label_that_never_varies_is_predicted_as_it_is(here):
    frame = weather(60)
    y = np.stack([frame["rain"] == "yes", np.ones(60), frame["wind"]], 1).astype(int)
    with pytest.warns(UserWarning, match="Label 1 is 1 in every row"):
        model = AdaNetClassifier(**SMALL).fit(frame[["a", "b"]], y)
    assert (model.predict(frame[["a", "b"]])[:, 1] == 1).all()
    with pytest.warns(UserWarning, match="Label 1"):
        model = AdaNetClassifier(**SMALL).fit(frame[["a", "b"]], y[:, :2])
    assert model.predict_proba(frame[["a", "b"]]).shape == (60, 2)
    with pytest.raises(ValueError, match="one varies at least"):
        AdaNetClassifier(**SMALL).fit(frame[["a", "b"]], np.ones((60, 2), int))


def test_targets_a_classifier_cannot_learn_are_refused(here):
    frame = weather(60)
    x, y = frame[["a", "b"]], np.tile([[0, 1], [1, 2], [2, 0]], (20, 1))
    with pytest.raises(ValueError, match="indicator of 0 and 1, found multiclass-multioutput"):
        AdaNetClassifier(**SMALL).fit(x, y)
    with pytest.raises(ValueError, match="class_weight: expected None or 'balanced'"):
        AdaNetClassifier(**SMALL, class_weight={0: 2.0}).fit(x, y % 2)


def test_the_regressor_takes_several_numbers(here):
    frame = weather()
    x, y = frame[["a", "b"]], frame[NUMBERS]
    model = AdaNetRegressor(**SMALL).fit(x, y)
    assert model.predict(x).shape == y.shape
    assert model.score(x, y) == pytest.approx(skm.r2_score(y, model.predict(x)))
    assert cross_val_score(AdaNetRegressor(**SMALL), x, y, cv=2).shape == (2,)
