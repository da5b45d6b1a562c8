"""The ensemble of a run: at its end and grown anew, scored honestly, saved as it was scored."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from sklearn.metrics import log_loss
from tables import check_here, few_trees, table
from typer.testing import CliRunner

import adanet_py
from adanet_py import baseline_thread, ending, ensembling, saving
from adanet_py import regrow as regrowing
from adanet_py.baselines import names
from adanet_py.calibration import fold_of
from adanet_py.cli import app
from adanet_py.ensemble.complexity import COMPLEXITIES, complexities
from adanet_py.ensemble.ensemblers import ENSEMBLERS
from adanet_py.ensemble.growth import grow
from adanet_py.ensemble.losses import LOSSES
from adanet_py.ensembling import COLUMNS, Options, grow_ensemble, is_better
from adanet_py.errors import ConfigError, RunError
from adanet_py.folder import candidate_file
from adanet_py.held_out import HeldOut
from adanet_py.leaderboard import ranked
from adanet_py.model import load
from adanet_py.outputs import as_outputs, predictions
from adanet_py.records import Candidate, Result, Status
from adanet_py.regrow import regrow, reload_apart
from adanet_py.state import read_state

pytestmark = pytest.mark.usefixtures("reloaded_here")

SEARCH = {"target": "target", "candidates": 16, "space": "tiny", "workers": 0, "seed": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        adanet_py.search(table(rows=400), folds=1, out=folder, **SEARCH)
    return folder


def test_the_ensemble_is_grown_scored_and_saved(run):
    state = read_state(run)
    found = state.ensemble
    assert len(found["members"]) >= 2
    frame = pd.read_csv(run / "ensemble.csv")
    assert list(frame.columns) == list(COLUMNS)
    assert set(found["members"]) == set(frame[frame.final_weight > 0].id)
    scores = {k: v["validation"] for k, v in found["scores"].items()}
    best = max(state.finished(), key=lambda r: r.reward)
    assert scores["single"] == best.metrics["validation"]
    assert found["doubt"] > 0.0
    saved = scores["ensemble"] < scores["alone"]
    assert state.model["candidate"] == ("ensemble" if saved else best.candidate.id)
    assert len(load(run).members) == (len(found["members"]) if saved else 1)


def test_f_in_the_table_is_that_of_its_parts(run):
    frame = pd.read_csv(run / "ensemble.csv")
    first = frame[frame["round"] == 1]
    nothing = first.loss + first.penalty - first.change
    np.testing.assert_allclose(nothing, nothing.iloc[0], rtol=1e-12)
    for _, rows in frame.groupby("round"):
        assert rows.accepted.sum() <= 1
        if rows.accepted.any():
            assert rows[rows.accepted].change.iloc[0] == rows.change.min() < 0


def test_the_model_predicts_what_its_members_and_weights_say(run):
    grown, path = regrow(run, Options(lambda_=0.0, beta=0.0), run.parent / "again.adanet")
    model, rows = load(path), table(rows=400)
    raw = [
        model.fold_outputs(m, model.features(rows)).mean(0) / m.temperature for m in model.members
    ]
    z = grown.weights.combine(np.stack(raw).astype(float))[:, 0]
    np.testing.assert_allclose(model.predict_proba(rows)[:, 1], 1 / (1 + np.exp(-z)), atol=1e-4)


def test_the_cross_fitted_score_is_not_that_of_the_fitted_rows(run):
    held, state = HeldOut.load(run), read_state(run)
    networks = [r for r in ranked(state.finished()) if r.status.usable]
    free = grow_ensemble(run, networks, held, Options("stacking"))
    fitted = free.ensemble.value  # mean loss on the rows that it was fitted to
    assert held.metric == "log_loss"
    assert free.scores["ensemble"].validation > fitted


@pytest.mark.parametrize("name", ENSEMBLERS)
def test_every_ensembler_gives_a_model_that_passes_its_check(run, name, tmp_path):
    grown, path = regrow(run, Options(name), tmp_path / "m.adanet")
    assert len(load(path).members) == len(grown.members)
    assert not list(tmp_path.glob("*.new"))


def test_a_model_is_saved_only_if_another_process_predicts_the_same(run, tmp_path, monkeypatch):
    regrow(run, Options(), tmp_path / "m.adanet")
    (tmp_path / "m.adanet").rename(tmp_path / "good")
    monkeypatch.setattr(regrowing, "reload_apart", reload_apart)
    expect = regrowing.expect

    def other(*arguments):
        found, fold = expect(*arguments)
        return [f + 1.0 for f in found], fold

    monkeypatch.setattr(regrowing, "expect", other)
    with pytest.raises(RunError, match="its predictions differ by"):
        regrow(run, Options(), tmp_path / "m.adanet")
    monkeypatch.setattr(regrowing, "expect", lambda *a: ([], expect(*a)[1]))
    with pytest.raises(RunError, match="not saved: reloaded, KeyError"):
        regrow(run, Options(), tmp_path / "m.adanet")
    monkeypatch.setattr(regrowing, "reload_apart", lambda *a: ("ended early", ""))
    with pytest.raises(RunError, match="it says nothing"):
        regrow(run, Options(), tmp_path / "m.adanet")
    assert [p.name for p in tmp_path.iterdir()] == ["good"]


def test_one_network_alone(run, tmp_path):
    _, path = regrow(run, Options(), tmp_path / "single.adanet", single=True)
    best = max(read_state(run).finished(), key=lambda r: r.reward)
    [member] = load(path).members
    assert member.candidate.id == best.candidate.id
    assert load(path).weights is None


@pytest.mark.parametrize("answers", [True, False])
def test_with_an_ensemble_no_other_model_is_checked_at_the_end(
    answers, tmp_path, monkeypatch, capsys
):
    """A check that does not answer before the deadline is given up, and the best alone is saved."""
    checked = []

    def check(folder, prepared, result, own, nursery, grown=None, beside=None):
        checked.append("ensemble" if grown else result.candidate.id)
        found = check_here(folder, prepared, result, own, nursery, grown, beside)
        if grown and not answers:
            monkeypatch.setattr(found, "done", lambda wait: False)
            found.difference = None
        return found

    def step(saver, *arguments, late):  # as if a model were saved, and no other before the end
        saver.saved = saver.saved or Result(Candidate("mlp"), Status.COMPLETE)

    monkeypatch.setattr(saving, "start_check", check)
    monkeypatch.setattr(saving.Saver, "step", step)
    monkeypatch.setattr(ending, "is_better", lambda grown, metric: True)
    options = SEARCH | {"candidates": 4}
    found = adanet_py.search(table(rows=200), folds=1, out=tmp_path / "run", **options)
    best = max(read_state(found.run).finished(), key=lambda r: r.reward).candidate.id
    assert checked == (["ensemble"] if answers else ["ensemble", best])
    assert read_state(found.run).model["candidate"] == ("ensemble" if answers else best)
    assert ("ensemble was not saved" in capsys.readouterr().err) != answers
    assert (tmp_path / "run" / "leaderboard.csv").is_file()


def test_no_time_no_ensemble(run):
    held, state = HeldOut.load(run), read_state(run)
    assert grow_ensemble(run, state.finished(), held, Options(), left=lambda: 0.0) is None


def test_what_there_was_time_to_judge_is_judged_alike(run):
    """Time for two of the parts of the cross-fit: both scores are those of the same rows."""
    held, state = HeldOut.load(run), read_state(run)
    pool = ensembling.read_pool(
        run, ranked(state.finished()), COMPLEXITIES["depth"].measure, lambda found: found
    )
    setting = ensembling.make_setting(held.task, held.fitted(), Options())
    build = ENSEMBLERS["adanet"].build
    judge, ensemble = ensembling._Judge(held, pool), build(setting, pool.members)
    times = iter([9.0, 9.0])
    scores, z, rows = judge.scores(ensemble, build, setting, 5, lambda: next(times, 0.0))
    assert (rows == (fold_of(len(rows), 5) < 2)).all()
    assert len(z) == rows.sum()
    whole, _, every = judge.scores(ensemble, build, setting, 5, lambda: math.inf)
    assert every.all()
    assert scores.validation != whole.validation
    assert judge.scores(ensemble, build, setting, 5, lambda: 0.0) is None


def test_no_round_begins_that_the_longest_so_far_would_not_let_end(run):
    held, state = HeldOut.load(run), read_state(run)
    pool = ensembling.read_pool(
        run, ranked(state.finished()), COMPLEXITIES["depth"].measure, lambda found: found
    )
    setting = ensembling.make_setting(held.task, held.fitted(), Options())
    whole = grow(setting, pool.members)
    clock = iter([9.0, 9.0, 5.0])  # the first round takes 4 seconds, the second 4, 1 is left
    cut = grow(replace(setting, left=lambda: next(clock, 1.0)), pool.members)
    assert max(o.round for o in whole.offers) > 2
    assert max(o.round for o in cut.offers) == 2


def test_what_is_better_depends_on_the_metric(run):
    held, state = HeldOut.load(run), read_state(run)
    networks = [r for r in ranked(state.finished()) if r.status.usable]
    grown = grow_ensemble(run, networks, held, Options())
    lower = grown.scores["ensemble"].validation < grown.scores["alone"].validation
    assert is_better(grown, "log_loss") is lower
    assert is_better(grown, "accuracy") is not lower


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ensembler": "adnet"}, "Did you mean 'adanet'"),
        ({"strategy": "shrink"}, "Known: all, grow, solo"),
        ({"complexity": "deep"}, "Did you mean 'depth'"),
        ({"kind": "tensor"}, "Known: matrix, scalar, vector"),
        ({"lambda_": -1.0}, "--lambda: expected a number of 0 or more"),
        ({"beta": float("nan")}, "--beta: expected a number of 0 or more"),
        ({"most": 0}, "at least 1 member"),
        ({"members": "all"}, "Known: any, given, networks"),
    ],
)
def test_bad_options_are_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        Options(**given)


def test_a_run_that_has_no_rows_or_no_end_is_refused(run, tmp_path):
    with pytest.raises(RunError, match="Expected a run folder"):
        regrow(tmp_path / "absent", Options())
    with pytest.raises(RunError, match="does not hold the rows"):
        HeldOut.load(tmp_path)
    with pytest.raises(RunError, match="worth its penalty"):
        regrow(run, Options(lambda_=1e6), tmp_path / "none.adanet")


def test_other_losses_get_no_ensemble(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(saving, "start_check", check_here)
    frame = table(rows=200).assign(target=np.arange(200) % 7 / 2.0)
    options = SEARCH | {"candidates": 2, "loss": "huber"}
    found = adanet_py.search(frame, folds=1, out=tmp_path / "run", **options)
    assert found.summary["ensemble"] is None
    said = capsys.readouterr().err
    assert "No ensemble: the run is trained with the loss huber" in said


@pytest.mark.parametrize("given", [{"ensemble": "none"}, {"choose": "simplest"}])
def test_none_where_it_is_not_wanted(given, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    options = SEARCH | {"candidates": 4} | given
    found = adanet_py.search(table(rows=200), folds=1, out=tmp_path / "run", **options)
    assert found.summary["ensemble"] is None
    assert not (tmp_path / "run" / "ensemble.csv").exists()
    assert len(found.model.members) == 1


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_baselines_may_be_members_of_a_model(task, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    few_trees(monkeypatch)
    options = SEARCH | {"candidates": 3, "members": "any"}
    rows = table(task, rows=300)
    found = adanet_py.search(rows, folds=2, out=tmp_path / "run", **options)
    baselines = {r.candidate.architecture for r in read_state(found.run).baselines}
    assert baselines == set(names(True))
    grown, path = regrow(found.run, Options("mean", members="any", most=9), tmp_path / "m.adanet")
    assert {"linear", "trees", "network"} == {m.kind for m in load(path).members}
    model = load(path)
    raw = [model.member_outputs(m, model.features(rows)) for m in model.members]
    expected = model.finish(np.mean(raw, axis=0), 1.0)
    predict = model.predict if task == "regression" else model.predict_proba
    np.testing.assert_allclose(predict(rows), expected, rtol=1e-6)
    assert "constant" not in {r.candidate.architecture for r in grown.members}
    listed = pd.read_csv(found.run / "ensemble.csv").member
    assert set(listed) == {r.candidate.architecture for r in grown.members}
    alone, _ = regrow(found.run, Options("mean"), tmp_path / "alone.adanet")
    assert all(r.status is not Status.BASELINE for r in alone.members)


def test_with_a_time_the_trees_end_in_theirs(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    given = []

    def run_baselines(*arguments, **options):
        given.append(options["more_seconds"])
        return full(*arguments, **options)

    few_trees(monkeypatch)
    full = baseline_thread.run_baselines
    monkeypatch.setattr(baseline_thread, "run_baselines", run_baselines)
    options = SEARCH | {"candidates": 2, "time": "20s", "members": "any"}
    adanet_py.search(table(rows=100), folds=1, out=tmp_path / "run", **options)
    assert given == [pytest.approx(7.0)]


@pytest.mark.parametrize("task", LOSSES)
def test_outputs_of_predictions_are_what_predictions_are_made_of(task):
    rng = np.random.default_rng(0)
    width = {"binary": 1, "regression": 1}.get(task, 3)
    outputs = rng.normal(size=(20, width))
    if task == "multiclass":
        outputs -= outputs.mean(axis=1, keepdims=True)
    there = predictions(task, outputs, 1.0, 5.0, 2.0)
    np.testing.assert_allclose(as_outputs(task, there, 5.0, 2.0), outputs, atol=1e-12)
    if task != "regression" and task != "multioutput":
        assert np.isfinite(as_outputs(task, np.round(there))).all()


def test_the_command_shows_members_and_scores(run, tmp_path):
    out = tmp_path / "m.adanet"
    done = CliRunner().invoke(app, ["ensemble", str(run), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["model"] == str(out)
    done = CliRunner().invoke(app, ["ensemble", str(run), "--out", str(out), "--lambda", "0"])
    assert all(f"{name}  " in done.stdout for name in ("ensemble", "mean", "single"))


@pytest.mark.parametrize("name", COMPLEXITIES)
def test_complexities_are_in_units_of_their_mean(name):
    rng = np.random.default_rng(0)
    results = [
        Result(Candidate("mlp", seed=i), Status.COMPLETE, layers=i + 1, capacity=float(i))
        for i in range(4)
    ]
    outputs = [rng.normal(size=(10, 2)) * (i + 1) for i in range(4)]
    values = complexities(COMPLEXITIES[name].measure, results, outputs)
    assert np.mean(values) == pytest.approx(1.0)
    assert values == sorted(values)
    assert (max(values) > min(values)) is (name != "constant")


def test_what_is_not_known_counts_as_the_mean_and_less_than_nothing_is_refused():
    results = [Result(Candidate("mlp", seed=i), Status.COMPLETE, layers=1) for i in range(2)]
    outputs = [np.zeros((3, 1))] * 2
    assert complexities(COMPLEXITIES["capacity"].measure, results, outputs) == [1.0, 1.0]
    with pytest.raises(ConfigError, match="complexity of 0 or more"):
        complexities(lambda r, o: -1.0, results, outputs)


def test_one_alone_is_judged_on_rows_it_was_not_chosen_by(run):
    held, state = HeldOut.load(run), read_state(run)
    grown = grow_ensemble(run, ranked(state.finished()), held, Options())
    outputs = {}
    for result in state.finished():
        with safe_open(candidate_file(run, result.candidate.id), framework="np") as file:
            temperature = json.loads(file.metadata()["about"])["temperature"]
            found = file.get_tensor("predictions/validation")[:, 0].astype(float) / temperature
        outputs[result.candidate.id] = 1.0 / (1.0 + np.exp(-found))
    y, fold = held.validation.y, fold_of(len(held.validation.y), 5)
    chosen = np.empty(len(y))
    for k in range(5):
        fit, out = fold != k, fold == k
        best = min(outputs, key=lambda name: log_loss(y[fit], outputs[name][fit]))
        chosen[out] = outputs[best][out]
    assert grown.scores["alone"].validation == pytest.approx(log_loss(y, chosen), rel=1e-9)


def test_the_doubt_is_the_standard_error_of_paired_differences(run):
    """The mean of members needs no fit, so its losses on all rows are those that are compared."""
    held, state = HeldOut.load(run), read_state(run)
    networks = [r for r in ranked(state.finished()) if r.stands][:2]
    grown = grow_ensemble(run, networks, held, Options("mean"))
    z, y, fold = [], held.validation.y, fold_of(len(held.validation.y), 5)
    for result in networks:
        with safe_open(candidate_file(run, result.candidate.id), framework="np") as file:
            temperature = json.loads(file.metadata()["about"])["temperature"]
            z.append(file.get_tensor("predictions/validation")[:, 0].astype(float) / temperature)
    loss = [np.log1p(np.exp(np.where(y == 1, -v, v))) for v in (*z, (z[0] + z[1]) / 2)]
    alone = loss[0].copy()
    for k in range(5):
        best = min(loss[:2], key=lambda v: v[fold != k].mean())
        alone[fold == k] = best[fold == k]
    apart = loss[2] - alone
    assert grown.doubt == pytest.approx(apart.std() / np.sqrt(len(y)), rel=1e-3)
