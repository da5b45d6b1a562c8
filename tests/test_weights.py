"""Row weights reach everything: loss, every score, baselines, temperatures and intervals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, safe_open
from tables import check_here, table

import adanet_py
from adanet_py import Candidate, saving, train
from adanet_py.baselines import run_baselines
from adanet_py.calibration import cross_fitted, fit_temperature, probabilities
from adanet_py.config import SearchConfig
from adanet_py.folder import candidate_file
from adanet_py.intervals import bootstrap
from adanet_py.metrics import COMMON, METRICS, score
from adanet_py.prepare import prepare, read


def _weighted(task, seed=0):
    """A table with weights that have nothing to do with the rest."""
    frame = table(task, seed=seed)
    frame["importance"] = np.random.default_rng(seed).uniform(0.1, 3.0, len(frame)).round(2)
    return frame


def _candidate(**numeric):
    static = {"depth": 0, "width": 8, "batch_size": 64, "norm": "none"}
    return Candidate("mlp", static, "adamw", "constant", {"lr": 0.05, **numeric}, seed=0)


@pytest.mark.parametrize("engine", ["stacked", "separate"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_what_is_said_in_rows_without_weight_changes_no_training(task, engine):
    """Targets of such rows change places, in training and in validation; nothing else does."""
    frame = _weighted(task)
    part = np.resize(["train", "train", "valid"], len(frame))
    silent = np.flatnonzero(np.arange(len(frame)) % 4 == 0)
    frame.loc[silent, "importance"] = 0.0
    other = frame.copy()
    for side in ("train", "valid"):
        rows = silent[part[silent] == side]
        other.loc[rows, "target"] = frame["target"].to_numpy()[np.roll(rows, 1)]
    assert (other["target"] != frame["target"]).any()
    options = {"target": "target", "split": "part", "epochs": 3, "engine": engine}
    results = [
        train([_candidate()], data.assign(part=part), **options, weight=weight)[0].metrics
        for data, weight in ((frame, "importance"), (other, "importance"))
    ]
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    plain = [
        train([_candidate()], data.drop(columns="importance").assign(part=part), **options)[0]
        for data in (frame, other)
    ]
    for name in ("train", "validation"):
        assert plain[0].metrics[name] != pytest.approx(plain[1].metrics[name], rel=1e-4)


@pytest.mark.parametrize(("task", "metric"), [("binary", "log_loss"), ("regression", "rmse")])
def test_every_number_of_a_run_is_weighted(task, metric, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    frame = _weighted(task)
    frame["part"] = np.resize(["train", "train", "valid", "audit"], len(frame))
    found = adanet_py.search(
        frame, target="target", weight="importance", split="part", space="tiny", candidates=2,
        workers=0, metric=metric, out=tmp_path / "run",
    )  # fmt: skip
    valid, audit = (np.flatnonzero(frame["part"] == p) for p in ("valid", "audit"))
    weight = frame["importance"].to_numpy(np.float32)
    y = found.model.target.encode(frame["target"])
    scale, mean = found.model.target.scale, found.model.target.mean
    own = y * np.float64(scale) + mean if task == "regression" else y
    for row in found.leaderboard.itertuples():
        path = candidate_file(found.run, row.id)
        stored = load_file(path)
        p_valid = stored["predictions/validation"]
        p_audit = stored.get("predictions/audit")
        if row.status != "BASELINE":
            if task == "regression":
                p_valid, p_audit = (
                    p[:, 0].astype(float) * scale + mean for p in (p_valid, p_audit)
                )
            else:
                with safe_open(path, "np") as file:
                    about = json.loads(file.metadata()["about"])
                t = fit_temperature(p_valid, y[valid], weight[valid])
                assert about["temperature"] == pytest.approx(t, rel=1e-6)
                p_audit = probabilities(p_audit, t)
                fitted = cross_fitted(p_valid, y[valid], weight[valid])
                p_valid = probabilities(p_valid, fitted)
            audited = score(metric, own[audit], p_audit, weight[audit])
            assert row.audit == pytest.approx(audited, rel=1e-6)
        value = score(metric, own[valid], p_valid, weight[valid])
        assert row.validation == pytest.approx(value, rel=1e-6)
        assert row.validation != pytest.approx(score(metric, own[valid], p_valid), rel=1e-6)
        assert row.low < row.validation < row.high
        interval = bootstrap(METRICS[metric], own[valid], {"a": p_valid}, weight[valid])["a"]
        assert (row.low, row.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
        unweighted = bootstrap(METRICS[metric], own[valid], {"a": p_valid})["a"]
        assert interval.low != unweighted.low


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_rows_without_weight_change_no_baseline(task, tmp_path):
    """Nonsense with weight 0 in training changes what no baseline predicts (but its rows' bins)."""
    frame = _weighted(task)
    frame["part"] = np.resize(["train", "train", "valid"], len(frame))
    nonsense = np.resize([True, False, False, False, False, False], len(frame))
    frame["importance"] = np.where(nonsense, 0.0, 1.0)
    config = SearchConfig(target="target", weight="importance", split="part", candidates=1)
    prepared = prepare(read(config, frame), tmp_path, "none")
    source, split = prepared.source, prepared.split
    y = np.array(source.y)
    rng = np.random.default_rng(0)
    changed = y.copy()
    changed[nonsense] = rng.permutation(y[nonsense])[::-1]
    assert (changed != y).any()

    def predicted(target, weight):
        found = run_baselines(
            source.arrays, target, weight, split, prepared.task, prepared.metric, prepared.target,
            seconds=60.0,
        )  # fmt: skip
        return {b.name: b.predictions_valid for b in found}

    weight = np.asarray(source.weight)
    one, two = predicted(y, weight), predicted(changed, weight)
    three = predicted(changed, None)
    assert set(one) == {"constant", "linear", "hist_gradient_boosting"}
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-6, atol=1e-9, err_msg=name)
        if task == "regression" or name != "constant":
            assert np.abs(three[name] - two[name]).max() > 1e-6, name


@pytest.mark.parametrize("metric", [m.name for m in COMMON])
def test_every_common_metric_takes_weights(metric):
    """A weight of two is a row that is there twice."""
    rng = np.random.default_rng(0)
    n, task = 60, METRICS[metric].tasks[0]
    twice = np.repeat(np.arange(n), np.where(np.arange(n) % 3 == 0, 2, 1))
    weight = np.where(np.arange(n) % 3 == 0, 2.0, 1.0)
    if task == "regression":
        y, p = rng.gamma(2.0, size=n), rng.gamma(2.0, size=n)
    else:
        y, p = rng.integers(0, 2, n), rng.dirichlet([1, 1], n)
    assert score(metric, y, p, weight) == pytest.approx(score(metric, y[twice], p[twice]))


def test_a_weight_that_cannot_be_used_is_an_error():
    frame = table().assign(importance=-1.0)
    with pytest.raises(adanet_py.AdanetError, match="at least 0"):
        train([_candidate()], frame, target="target", weight="importance")
