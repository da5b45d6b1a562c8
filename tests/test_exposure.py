"""Exposure of counts and amounts: the same from training to the saved model, and in baselines."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from programs import make_candidates, make_program, make_spec, make_split
from safetensors.numpy import load_file
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import GammaRegressor, PoissonRegressor
from tables import check_here

import adanet_py
from adanet_py import saving
from adanet_py.baselines import predict_member, run_baselines
from adanet_py.config import SearchConfig
from adanet_py.data.exposure import Exposure
from adanet_py.data.source import ArraySource, write_arrays
from adanet_py.data.target import Target
from adanet_py.errors import ConfigError, DataError
from adanet_py.estimators import AdaNetRegressor
from adanet_py.metrics import score
from adanet_py.prepare import read
from adanet_py.records import Candidate
from adanet_py.run import replay
from adanet_py.training.engines import make_engine

QUICK = {
    "space": "tiny", "workers": 0, "folds": 2, "candidates": 2, "target": "claims",
    "exposure": "years", "ensemble": "none", "on_note": lambda note: None,
}  # fmt: skip


def claims(rows=240, seed=0):
    """Claims of policies that ran for different times; the rate depends on one column."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"age": rng.normal(size=rows), "years": rng.uniform(0.05, 4.0, rows)})
    rate = np.exp(0.8 * frame["age"])
    return frame.assign(claims=rng.poisson(rate * frame["years"]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("exposure") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        return adanet_py.search(claims(), out=out, loss="poisson", **QUICK)


# ---------------------------------------------------------------- from end to end


def test_what_was_scored_is_what_the_model_predicts_at_the_exposure(finished):
    frame, model = claims(), finished.model
    options = {k: v for k, v in QUICK.items() if k != "on_note"}
    rows = np.concatenate(read(SearchConfig(loss="poisson", **options), frame).split.valid)
    best = finished.best
    assert model.about["candidate"] == best.candidate.id
    stored = load_file(finished.run / "candidates" / f"{best.candidate.id}.safetensors")
    values = stored["predictions/validation"][:, 0] * model.target.scale + model.target.mean
    found = score("poisson_deviance", frame["claims"].to_numpy()[rows], values)
    assert found == pytest.approx(best.metrics["validation"], rel=1e-4)
    # The model averages its folds, whose members saw these rows: close, not the same.
    assert np.corrcoef(model.predict(frame)[rows], values)[0, 1] > 0.9


def test_a_prediction_is_a_rate_times_the_exposure(finished):
    frame, model = claims(rows=30, seed=1), finished.model
    counts, rates = model.predict(frame), model.predict(frame.assign(years=1.0))
    # Sums in float32 of standardised values: a small mean has few digits.
    np.testing.assert_allclose(counts, rates * frame["years"], rtol=1e-3, atol=1e-4)
    assert (counts > 0).all()
    assert "years" in model.columns
    assert "years" not in model.preprocessor.columns
    assert np.array_equal(adanet_py.load(finished.run).predict(frame), counts)
    expected = score("poisson_deviance", frame["claims"].to_numpy(), counts)
    assert model.evaluate(frame)["poisson_deviance"] == expected


def test_it_is_better_to_know_the_exposure(finished):
    frame = claims(rows=400, seed=2)
    known = finished.model.evaluate(frame)["poisson_deviance"]
    assert known < 0.8 * finished.model.evaluate(frame.assign(years=2.0))["poisson_deviance"]


@pytest.mark.slow
def test_the_fresh_process_checks_a_model_with_exposure(tmp_path):
    frame = claims(rows=90)
    found = adanet_py.search(
        frame, out=tmp_path / "run", loss="poisson", **{**QUICK, "candidates": 1}
    )
    assert found.state.model["difference"] <= 2e-4
    new = tmp_path / "new.csv"
    frame.drop(columns="claims").head(5).to_csv(new, index=False)
    command = [sys.executable, "-m", "adanet_py", "predict", str(tmp_path / "run"), str(new)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    lines = [float(v) for v in said.stdout.split()[1:]]
    np.testing.assert_allclose(lines, found.predict(frame.head(5)), rtol=1e-6)


def test_a_run_goes_on_and_is_replayed_with_its_exposure(finished):
    frame = claims()
    again = adanet_py.search(frame, out=finished.run, loss="poisson", **QUICK)
    assert again.summary == finished.summary
    assert replay(finished.run, data=frame)["identical"]


def test_several_counts_share_an_exposure(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    frame = claims()
    frame["others"] = np.random.default_rng(1).poisson(30.0 * frame["years"])
    options = {**QUICK, "target": ["claims", "others"], "task": "multioutput", "candidates": 1}
    found = adanet_py.search(frame, out=tmp_path / "run", loss="poisson", **options)
    assert found.state.model["difference"] <= 2e-4
    board = found.leaderboard.set_index("architecture")["validation"]
    assert board["linear"] < board["constant"]
    counts, rates = found.predict(frame), found.predict(frame.assign(years=1.0))
    assert counts.shape == (240, 2)
    years = frame["years"].to_numpy()
    np.testing.assert_allclose(counts, rates * years[:, None], rtol=1e-2, atol=1e-3)


# ---------------------------------------------------------------- engines


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("architecture", ["mlp", "tabm"])
def test_the_engines_agree_and_differ_from_none(architecture, folds):
    spec = replace(make_spec("regression"), target_ratio=(2.5,), exposure=True)
    candidates = make_candidates(
        architecture, [{"lr": 1e-2, "mixup": 0.5}, {"lr": 3e-3}], loss="poisson"
    )
    valid = make_split(60, folds).valid
    offset = torch.linspace(-2, 1, 60, dtype=torch.float64)
    found = {}
    for name, log in (("stacked", offset), ("separate", offset), ("none", None)):
        program = make_program(candidates, spec, folds=folds)
        program = replace(program, data=replace(program.data, offset=log))
        engine = make_engine("stacked" if log is None else name, program)
        found[name] = (engine.advance(0, 8, lambda step: False)[1], engine.predict(valid))
    torch.testing.assert_close(found["stacked"], found["separate"], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found["stacked"][0], found["none"][0])


def test_an_exposure_is_an_input_with_the_weight_one():
    """A gradient step with offset o is that of a network whose outputs are o larger."""
    spec = replace(make_spec("regression"), target_ratio=(2.5,), exposure=True)
    program = make_program(make_candidates("mlp", [{}], loss="gamma"), spec)
    outputs = torch.randn(1, 5, 1, 1, dtype=torch.float64)
    target, offset = torch.rand(1, 5).double(), torch.randn(1, 5).double()
    hp = program.hyperparameters()
    shifted = program.row_losses(outputs, target, None, hp, None, offset)
    expected = program.loss.rows(outputs + offset[..., None, None], target, hp)
    assert torch.equal(shifted, expected)


# ---------------------------------------------------------------- baselines


def problem(loss, seed=0):
    frame = claims(300, seed)
    x = frame[["age"]].to_numpy(np.float32)
    e = Exposure.fit(frame["years"]).relative(frame["years"])
    y = frame["claims"].to_numpy(np.float64)
    if loss == "gamma":
        y = (y + 1.0) * frame["years"].to_numpy()
    target = Target("regression", (), float(y.mean()), float(y.std()))
    features = {"quantile": x, "category": np.zeros((300, 0), np.int32)}
    encoded = ((y - target.mean) / target.scale).astype(np.float32)
    return features, encoded, y, target, e.astype(np.float64)


@pytest.mark.parametrize("exposed", [False, True])
@pytest.mark.parametrize("loss", ["poisson", "gamma"])
def test_baselines_model_rates_with_the_deviance_of_the_run(loss, exposed):
    features, encoded, y, target, e = problem(loss)
    split = make_split(300, 2)
    constant, linear, boosting = run_baselines(
        features, encoded, None, split, "regression", f"{loss}_deviance", target, seconds=1e9,
        loss=loss, exposure=e if exposed else None,
    )  # fmt: skip
    e = e if exposed else np.ones(300)
    train, valid = split.train[0], split.valid[0]
    here = slice(0, len(valid))
    x = features["quantile"]
    rate = y[train].sum() / e[train].sum()
    np.testing.assert_allclose(constant.predictions_valid[here], rate * e[valid], rtol=1e-5)
    kind = {"poisson": PoissonRegressor, "gamma": GammaRegressor}[loss]
    u = y[train] / e[train]
    # alpha / 2 |b|^2 beside half the mean deviance; here that is in units of the mean.
    unit = rate if loss == "poisson" else 1.0
    glm = kind(alpha=unit / e[train].sum(), tol=1e-8, max_iter=1000)
    glm.fit(x[train], u, sample_weight=e[train])
    np.testing.assert_allclose(
        linear.predictions_valid[here], glm.predict(x[valid]) * e[valid], rtol=1e-3
    )
    trees = HistGradientBoostingRegressor(loss=loss, early_stopping=False, random_state=0)
    trees.fit(x[train], u, e[train] if exposed else None)
    np.testing.assert_allclose(
        boosting.predictions_valid[here], trees.predict(x[valid]) * e[valid], rtol=1e-3
    )
    rows = {name: array[valid] for name, array in features.items()}
    if exposed:
        rows["exposure"] = e[valid]
    one = {k: v if k == "offsets" else v[:1] for k, v in linear.member.items()}
    found = predict_member(one, rows, "regression")
    np.testing.assert_array_equal(found, linear.predictions_valid[here])


# ---------------------------------------------------------------- what cannot be


def test_what_cannot_be_used_is_said_before_training(tmp_path):
    frame = claims(60)
    with pytest.raises(ConfigError, match=r"log link \(poisson, gamma\), found mean_squared_error"):
        adanet_py.search(frame, out=tmp_path / "run", **QUICK)
    for cell, shown in ((0.0, "0"), (-1.0, "-1"), (np.nan, "no value")):
        bad = frame.copy()
        bad.loc[3, "years"] = cell
        with pytest.raises(
            DataError, match=rf"'years' \(exposure\), row 4: .*above 0, found .*{shown}"
        ):
            adanet_py.search(bad, out=tmp_path / "run", loss="poisson", **QUICK)
    with pytest.raises(DataError, match=r"no column 'year' \(exposure\).*Did you mean 'years'"):
        adanet_py.search(
            frame, out=tmp_path / "run", loss="poisson", **{**QUICK, "exposure": "year"}
        )
    assert not (tmp_path / "run").exists()


def test_prediction_needs_the_exposure(finished):
    frame = claims(20)
    with pytest.raises(DataError, match=r"column 'years' with the exposure.*found 0"):
        finished.predict(frame.drop(columns="years"))
    with pytest.raises(DataError, match=r"'years' \(exposure\), row 1: .*above 0"):
        finished.predict(frame.assign(years=0.0))


# ---------------------------------------------------------------- plumbing


def test_exposure_and_arrays_survive_their_files(tmp_path):
    exposure = Exposure("years", 2.0)
    assert Exposure.from_json(exposure.to_json()) == exposure
    assert Exposure.from_json(None) is None
    spec = replace(
        make_spec("regression", 2, ()), exposure=True, target_ratio=(1.5,), target_low=0.0
    )
    features = {
        "quantile": np.zeros((3, 2), np.float32), "robust": np.zeros((3, 2), np.float32),
        "category": np.zeros((3, 0), np.int32),
    }  # fmt: skip
    write_arrays(tmp_path, features, np.zeros(3), None, spec, exposure=np.array([1.0, 2.0, 0.5]))
    source = ArraySource.open(tmp_path)
    assert source.spec == spec
    assert source.take(slice(1, 3))["exposure"].tolist() == [2.0, 0.5]
    assert spec.from_json(spec.to_json()) == spec
    old = {k: v for k, v in spec.to_json().items() if k not in ("exposure", "target_ratio", "loss")}
    assert spec.from_json(old).exposure is False


def test_the_estimator_takes_exposure_beside_the_features(monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    frame = claims(120)
    x, years = frame[["age"]].to_numpy(), frame["years"].to_numpy()
    model = AdaNetRegressor(
        candidates=1, space="tiny", workers=0, folds=1, loss="poisson", random_state=0
    )
    model.fit(x, frame["claims"], exposure=years)
    rates = model.predict(x, exposure=np.ones(120))
    np.testing.assert_allclose(
        model.predict(x, exposure=years), rates * years, rtol=1e-2, atol=1e-3
    )
    assert np.isfinite(model.score(x, frame["claims"], exposure=years))
    with pytest.raises(ValueError, match="given to fit, one, found none"):
        model.predict(x)
    with pytest.raises(ValueError, match="each of 120 rows"):
        model.predict(x, exposure=years[:5])


def test_train_takes_exposure(tmp_path):
    static = {"loss": "poisson", "width": 16, "depth": 1, "batch_size": 64}
    [result] = adanet_py.train(
        [Candidate("mlp", static, "adam", numeric={"lr": 0.01})], claims(300), target="claims",
        exposure="years", loss="poisson", epochs=10, folds=1,
    )  # fmt: skip
    assert result.metrics["validation"] < 2.0  # 1 with the true rates
