"""A search with every kind of loss: what is scored, stored, saved and predicted is the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from programs import make_candidates, make_program, make_spec, make_split
from safetensors.numpy import load_file
from tables import check_here

import adanet_py
from adanet_py import saving
from adanet_py.errors import AdanetError, ConfigError, DataError, RunError, SpaceError
from adanet_py.prepare import read
from adanet_py.records import Candidate, Status
from adanet_py.training.engines import make_engine
from adanet_py.training.losses import LOSSES, Loss

QUICK = {"space": "tiny", "workers": 0, "folds": 2, "candidates": 2, "target": "y"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)


def counts(rows=240, seed=0):
    """Counts whose log mean is a line, and amounts with the same."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, rows))
    mean = np.exp(0.7 + 0.9 * a - 0.5 * b)
    frame = pd.DataFrame({"a": a, "b": b})
    return frame, rng.poisson(mean), mean * rng.gamma(4.0, 0.25, rows)


def searched(frame, out, **options):
    notes = []
    found = adanet_py.search(frame, out=out, on_note=notes.append, **{**QUICK, **options})
    return found, notes


@pytest.mark.parametrize(
    ("options", "loss", "metric"),
    [
        ({"loss": "poisson"}, "poisson", "poisson_deviance"),
        ({"metric": "gamma_deviance"}, "gamma", "gamma_deviance"),
        ({"quantile": 0.9}, "quantile", "pinball:0.9"),
        ({"loss": "huber", "metric": "mae"}, "huber", "mae"),
    ],
)
def test_a_search_is_trained_judged_and_saved_with_its_loss(options, loss, metric, tmp_path):
    frame, count, amount = counts()
    frame["y"] = amount if loss == "gamma" else count
    found, notes = searched(frame, tmp_path / "run", ensemble="none", **options)
    assert notes[0].endswith(f"metric {metric}, loss {loss}.")
    assert found.summary["metric"] == metric
    table = found.leaderboard.set_index("id")
    networks = table[table["loss"].notna()]
    assert set(networks["loss"]) == {loss}
    # The model is the best network and repeats what was stored and scored for it, row by row.
    best = found.best.candidate.id
    assert found.model.about["candidate"] == best
    config = adanet_py.SearchConfig(**{**QUICK, **options})
    valid = read(config, frame).split.valid
    stored = load_file(tmp_path / "run" / "candidates" / f"{best}.safetensors")
    y = stored["predictions/validation"][:, 0].astype(np.float64)
    y = y * found.model.target.scale + found.model.target.mean
    if loss in ("poisson", "gamma"):
        assert (y > 0).all()
    features = found.model.preprocessor.transform(frame)
    folds = found.model.fold_outputs(found.model.members[0], features)
    each = [found.model.finish(folds[f], 1.0)[rows] for f, rows in enumerate(valid)]
    np.testing.assert_allclose(np.concatenate(each), y, rtol=1e-4, atol=1e-4)
    score = adanet_py.metrics.score(metric, frame["y"].to_numpy()[np.concatenate(valid)], y)
    assert score == pytest.approx(found.best.metrics["validation"], rel=1e-4)
    assert metric in found.model.evaluate(frame)


def test_a_loss_that_follows_the_metric_is_said(tmp_path):
    frame, count, _ = counts(90)
    _, notes = searched(frame.assign(y=count + 0.5), tmp_path / "run", metric="mae", candidates=1)
    assert "Loss mean_absolute, for the metric is mae; --loss chooses another." in notes


def test_quantiles_of_two_levels_lie_apart(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=400)})
    frame["y"] = frame["a"] + rng.normal(size=400)
    candidate = Candidate("mlp", {"width": 16, "batch_size": 64, "loss": "quantile"}, "adam")
    shares = []
    for level in (0.1, 0.9):
        out = tmp_path / str(level)
        [result] = adanet_py.train(
            [candidate], frame, target="y", epochs=15, folds=1, quantile=level, out=out
        )
        y = load_file(out / "candidates" / f"{result.candidate.id}.safetensors")
        y = y["predictions/validation"][:, 0] * frame["y"].std(ddof=0) + frame["y"].mean()
        valid = read(adanet_py.SearchConfig(target="y", folds=1), frame).split.valid[0]
        shares.append(float((frame["y"].to_numpy()[valid] < y).mean()))
    assert shares[0] < 0.3 < 0.7 < shares[1]


@pytest.mark.parametrize("engine", ["stacked", "separate"])
def test_both_engines_fit_a_poisson_regression(engine):
    """A network without hidden layers' worth of freedom: log means are learned, not means."""
    frame, count, _ = counts(400)
    static = {"width": 16, "depth": 1, "batch_size": 64, "loss": "poisson"}
    candidates = [Candidate("mlp", static, "adam", "cosine", {"lr": lr}) for lr in (3e-3, 1e-2)]
    results = adanet_py.train(
        candidates, frame.assign(y=count), target="y", epochs=20, folds=1, engine=engine,
        metric="poisson_deviance",
    )  # fmt: skip
    for result in results:
        assert result.status is Status.COMPLETE
        assert result.metrics["validation"] < 2.0  # 1 with the true means, 3.4 with one for all


@pytest.mark.parametrize("name", [n for n, loss in LOSSES.items() if "regression" in loss.tasks])
@pytest.mark.parametrize("architecture", ["mlp", "tabm"])
def test_the_engines_agree_on_every_loss(name, architecture):
    spec = replace(make_spec("regression"), quantile=0.8, target_ratio=(2.5,))
    numeric = [{"lr": 1e-2, "huber_delta": 0.3}, {"lr": 3e-3, "huber_delta": 3.0}]
    candidates = make_candidates(architecture, numeric, loss=name)
    outputs = []
    for engine in ("stacked", "separate"):
        made = make_engine(engine, make_program(candidates, spec, folds=2))
        _, loss, _ = made.advance(0, 12, lambda step: False)
        valid = make_split(60, 2).valid
        outputs.append((loss, made.predict(valid)))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-9, atol=1e-9)
    assert (outputs[0][1] > -2.5).all() or not LOSSES[name].log_link


# ---------------------------------------------------------------- what cannot be used


@pytest.mark.parametrize(
    ("y", "options", "words"),
    [
        ([3.0, -1.0, 2.5], {"loss": "poisson"}, r"row 2: expected a number of 0 or more .*poisson"),
        ([3.0, 0.0, 2.5], {"loss": "gamma"}, r"row 2: expected a number of more than 0 .*gamma"),
        ([3.0, 1.0, 2.5], {"loss": "poison"}, "Did you mean 'poisson'"),
        ([3.0, 1.0, 2.5], {"loss": "focal"}, "the loss focal is for binary"),
        ([3.0, 1.0, 2.5], {"loss": "huber", "quantile": 0.3}, "level of the loss quantile"),
    ],
)
def test_what_a_loss_cannot_be_used_for_is_said_before_training(y, options, words, tmp_path):
    frame = pd.DataFrame({"a": np.arange(60.0), "y": np.resize(y, 60) + np.arange(60) % 7 * 0.01})
    frame.loc[1, "y"] = y[1]
    with pytest.raises((ConfigError, DataError), match=words):
        searched(frame, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_candidate_with_a_loss_of_another_task_is_refused():
    frame, count, _ = counts(60)
    with pytest.raises(SpaceError, match=r"focal.*task is regression"):
        adanet_py.train(
            [Candidate("mlp", {"loss": "focal"})], frame.assign(y=count), target="y", epochs=1
        )


# ---------------------------------------------------------------- the user's own


def cubic(outputs, target, hp):
    """|z - y|^3, times the knob of the Huber loss to show that it is there."""
    error = outputs - target.unsqueeze(-1).unsqueeze(-1)
    return hp["huber_delta"] * error.abs().pow(3).mean((-2, -1))


CUBIC = Loss("cubic", "absolute difference to the third", ("regression",), cubic)


def test_a_loss_of_the_user_trains_saves_and_must_be_given_again(tmp_path):
    frame, count, _ = counts(120)
    frame["y"] = count
    found, _ = searched(frame, tmp_path / "run", losses=[CUBIC], loss="cubic")
    networks = found.leaderboard.dropna(subset="loss")
    assert set(networks["loss"]) == {"cubic"}
    assert np.isfinite(found.predict(frame)).all()
    loaded = adanet_py.load(tmp_path / "run", losses=[CUBIC])
    assert np.array_equal(loaded.predict(frame), found.predict(frame))
    with pytest.raises(RunError, match="loss 'cubic'"):
        adanet_py.load(tmp_path / "run")
    with pytest.raises(AdanetError, match=r"loss 'cubic'.*losses="):
        searched(frame, tmp_path / "run", loss="cubic")


def test_a_loss_of_the_user_trains_as_its_equal_does():
    frame, count, _ = counts(90)
    mine = replace(LOSSES["poisson"], name="mine")
    static = {"width": 4, "depth": 1, "batch_size": 32}
    one, other = adanet_py.train(
        [Candidate("mlp", {**static, "loss": name}, "adam") for name in ("poisson", "mine")],
        frame.assign(y=count), target="y", epochs=3, folds=1, losses=[mine],
    )  # fmt: skip
    assert one.metrics == other.metrics
