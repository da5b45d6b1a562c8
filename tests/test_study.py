"""A run opens in Optuna: every candidate a trial, with what is known of it."""

from __future__ import annotations

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from tables import check_here, table

import adanet_py
from adanet_py import saving
from adanet_py.errors import RunError
from adanet_py.records import Status
from adanet_py.run import study
from adanet_py.state import read_state

STATES = {Status.PRUNED: TrialState.PRUNED, Status.INFEASIBLE: TrialState.FAIL}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with results of several kinds: trained to the end, stopped at a rung, infeasible."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        adanet_py.search(
            table(), out=folder, space="tiny", workers=0, folds=1, candidates=20,
            controller="random", max_params=150, on_note=lambda note: None,
        )  # fmt: skip
    return folder


def load(path):
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name=None, storage=storage)


def test_every_candidate_is_a_trial_with_params_value_curve_and_attributes(run, tmp_path):
    path, count = study(run, tmp_path / "study.log")
    found = load(path)
    results = read_state(run).finished()
    trials = found.get_trials()
    assert count == len(trials) == len(results)
    assert (found.direction.name, found.metric_names) == ("MINIMIZE", ["log_loss"])
    assert {r.status for r in results} >= {Status.PRUNED, Status.INFEASIBLE}
    for trial, result in zip(trials, results, strict=True):
        assert trial.state == STATES.get(result.status, TrialState.COMPLETE)
        assert trial.value == result.metrics.get("validation")
        assert trial.intermediate_values == {e.step: e.validation for e in result.curve}
        known = trial.user_attrs
        assert known["id"] == result.candidate.id
        assert known["parameters"] == result.parameters
        assert known["numeric"] == dict(result.candidate.numeric)
        assert trial.params["optimizer"] == result.candidate.optimizer
        assert trial.params["mlp.depth"] == result.candidate.static["depth"]
        rate = trial.params[f"{result.candidate.optimizer}.lr"]
        assert rate == result.candidate.numeric["lr"]
        assert trial.datetime_start <= trial.datetime_complete
    best = max((r for r in results if r.status.usable), key=lambda r: -r.metrics["validation"])
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    if best.candidate.id in {t.user_attrs["id"] for t in done}:
        assert found.best_trial.user_attrs["id"] == best.candidate.id


def test_it_is_written_into_the_run_and_again_in_its_place(run):
    first, count = study(run)
    assert first == run / "study.log"
    assert study(run) == (first, count)
    assert len(load(first).trials) == count
    assert not list(run.glob("study.log.*"))
    first.unlink()


def test_what_is_outside_its_range_is_no_parameter(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    space = {
        "name": "one",
        "architectures": {"mlp": {"width": {"choice": [8, 16]}, "batch_size": 64}},
        "optimizers": {"adamw": {"lr": {"float": [1e-3, 1e-2], "log": True}}},
        "start": [{"architecture": "mlp", "static": {"width": 12, "batch_size": 64},
                   "optimizer": "adamw", "numeric": {"lr": 5e-3}}],
    }  # fmt: skip
    adanet_py.search(
        table(), out=tmp_path / "run", space=space, workers=0, folds=1, candidates=1,
        on_note=lambda note: None,
    )  # fmt: skip
    path, _ = study(tmp_path / "run")
    [trial] = load(path).trials
    assert (trial.params["adamw.lr"], "mlp.width" in trial.params) == (5e-3, False)
    assert trial.user_attrs["static"]["width"] == 12
    assert trial.value is not None


def test_what_is_no_run_or_cannot_be_written_is_refused(run, tmp_path):
    with pytest.raises(RunError, match="Expected a run folder"):
        study(tmp_path)
    with pytest.raises(RunError):
        study(run, tmp_path / "no" / "folder" / "study.log")
