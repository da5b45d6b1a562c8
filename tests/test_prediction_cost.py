"""What it costs to predict with what a search saved: measured by the check, told at the end."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from tables import check_here, table

import adanet_py
from adanet_py import export, prediction_cost, saving
from adanet_py.data.splits import Split
from adanet_py.ensembling import Options, grow_ensemble
from adanet_py.folder import PROBE
from adanet_py.held_out import HeldOut
from adanet_py.leaderboard import ranked
from adanet_py.outcome import outcome_of
from adanet_py.prediction_cost import costs
from adanet_py.regrow import model_of
from adanet_py.state import State, read_state


class Slow:
    """A model that says how often it was asked, and takes time by a clock of its own."""

    def __init__(self, clock, seconds, size):
        self.clock, self.seconds, self.size, self.asked = clock, iter(seconds), size, []

    def predict(self, rows):
        self.asked.append(len(rows))
        self.clock.now += next(self.seconds)

    def to_bytes(self):
        return b"x" * self.size


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=5.0)
    time = SimpleNamespace(monotonic=lambda: clock.now, perf_counter=lambda: clock.now)
    monkeypatch.setattr(prediction_cost, "time", time)
    return clock


def test_the_median_of_three_turns_after_one_to_warm_up(clock):
    one = Slow(clock, [0.1, 0.01, 0.03, 0.02], 7)
    other = Slow(clock, [0.05, 0.002, 0.002, 0.005], 900)
    found = costs({"a": one, "b": other}, pd.DataFrame({"x": range(64)}))
    assert one.asked == other.asked == [1000] * 4
    assert found == {"a": {"predict_ms": 20.0, "bytes": 7}, "b": {"predict_ms": 2.0, "bytes": 900}}


def test_what_takes_long_is_not_repeated(clock):
    slow, fast = Slow(clock, [2.5], 1), Slow(clock, [0.01], 1)
    found = costs({"a": slow, "b": fast}, pd.DataFrame({"x": range(64)}))
    assert (found["a"]["predict_ms"], found["b"]["predict_ms"]) == (2500.0, 10.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cost") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        adanet_py.search(
            table(rows=120), target="target", candidates=4, space="tiny", workers=0, seed=1,
            folds=1, out=folder, on_note=lambda note: None,
        )  # fmt: skip
    return folder


def test_the_check_measures_the_ensemble_and_the_best_network_in_turns(run, tmp_path, capsys):
    state = read_state(run)
    best = state.best
    grown = grow_ensemble(run, ranked(state.finished()), HeldOut.load(run), Options("mean", most=3))
    ensemble, single = model_of(run, None, grown), model_of(run, best, grown)
    ensemble.save(tmp_path / "model.new")
    single.save(tmp_path / "single")
    expected, fold = export.expect(run, Split.load(run / "split.npz"), ensemble)
    export.write_expected(tmp_path, expected, fold)
    (tmp_path / PROBE).write_bytes((run / PROBE).read_bytes())
    arguments = [str(tmp_path / "model.new"), str(tmp_path)]
    export.main([*arguments, "--beside", str(tmp_path / "single")])
    told = json.loads(capsys.readouterr().out)
    assert told["difference"] <= export.TOLERANCE
    assert set(told["costs"]) == {export.ENSEMBLE, best.candidate.id}
    assert told["costs"][best.candidate.id]["bytes"] == (tmp_path / "single").stat().st_size
    assert told["costs"][export.ENSEMBLE]["bytes"] == (tmp_path / "model.new").stat().st_size
    assert all(c["predict_ms"] > 0 for c in told["costs"].values())

    expected[0] = expected[0] + 1.0  # a model that is refused is not measured
    export.write_expected(tmp_path, expected, fold)
    export.main(arguments)
    assert json.loads(capsys.readouterr().out)["costs"] == {}

    check = export.Check(best, tmp_path / "model.new", None, 0.0, costs=told["costs"], grown=grown)
    recorded = export.accept(check)
    state.apply("model", recorded)
    assert state.costs == told["costs"]


def test_the_summary_tells_the_costs_of_what_was_measured(run, monkeypatch):
    best = read_state(run).best.candidate.id
    one = {"predict_ms": 2.0, "bytes": 9.0}

    def with_costs(saved, measured):
        def read(folder):
            state = read_state(folder)
            return replace(state, model={"candidate": saved}, costs=measured)

        monkeypatch.setattr("adanet_py.outcome.read_state", read)
        return outcome_of(run, adanet_py.run.Own()).summary["costs"]

    assert with_costs(best, {best: one, "other": one}) == {"single": one}
    both = {best: one, "ensemble": one}
    assert with_costs("ensemble", both) == {"single": one, "ensemble": one}
    assert with_costs("tree", {best: one, "tree": one}) == {"single": one, "baseline": one}
    assert with_costs(best, {}) == {}
    assert State().costs == {}
