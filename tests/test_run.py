"""A search from data to a saved model: what it needs, refuses, leaves behind and reports."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tables import check_here, table, timeless

import adanet_py
from adanet_py import grouping, loop, saving
from adanet_py.architectures import ARCHITECTURES
from adanet_py.config import SearchConfig
from adanet_py.controllers import random as random_controller
from adanet_py.errors import AdanetError, ConfigError, DataError, RunError, SpaceError
from adanet_py.journal import Lock
from adanet_py.records import Status
from adanet_py.run import check, leaderboard, resume

QUICK = {"space": "tiny", "workers": 0, "folds": 1, "candidates": 2, "on_note": lambda m: None}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "table.csv"
    table().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run; copy it before changing it."""
    run = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        adanet_py.search(data, out=run, **QUICK)
    return run


@pytest.fixture
def begun(data, tmp_path, monkeypatch):
    """A run whose controller broke it off after its first group."""
    run = tmp_path / "begun"

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(loop.Search, "_finish", fail)
    with pytest.raises(ZeroDivisionError):
        adanet_py.search(data, out=run, **QUICK)
    monkeypatch.undo()
    monkeypatch.setattr(saving, "start_check", check_here)
    return run


def _snapshot(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("binary", {"folds": 3, "class_weight": "balanced", "weight": "importance"}),
        ("multiclass", {"group": "house", "class_weight": "balanced"}),
        ("multiclass", {"folds": 3, "metric": "accuracy"}),
        ("regression", {"time_column": "day", "metric": "mae"}),
        ("regression", {"folds": 3, "weight": "importance"}),
        ("regression", {"split": "part", "folds": None}),
    ],
    ids=str,
)
def test_every_task_and_split_ends_with_a_model(task, options, tmp_path):
    frame = table(task)
    frame["importance"] = np.linspace(0.5, 2.0, len(frame))
    frame["house"] = np.arange(len(frame)) % 12
    frame["day"] = np.arange(len(frame))
    frame["part"] = np.where(np.arange(len(frame)) % 4 == 0, "valid", "train")
    used = set(options.values()) | {"target"}
    frame = frame.drop(columns={"importance", "house", "day", "part"} - used)
    found = adanet_py.search(frame, out=tmp_path / "run", **{**QUICK, **options})
    assert found.summary["task"] == task
    assert found.summary["candidates"] == 2
    assert found.best.status.usable
    rows = found.leaderboard
    assert len(rows) == 5
    assert rows["validation"].notna().all()
    assert check(found.run) == []
    features = frame.drop(columns=["target"])
    assert found.predict(features).shape == (len(frame),)
    if task != "regression":
        probability = found.predict_proba(features)
        np.testing.assert_allclose(probability.sum(1), 1.0, atol=1e-6)
        assert list(found.model.classes) == sorted(set(frame["target"]))


@pytest.mark.parametrize("kept", [["colour"], ["size", "weight"]], ids=["categories", "numbers"])
def test_tables_of_one_kind_of_column(kept, tmp_path):
    frame = table()[[*kept, "target"]]
    found = adanet_py.search(frame, out=tmp_path / "run", **QUICK)
    assert len(found.predict(frame)) == len(frame)


def test_a_finished_run_holds_what_it_needs_and_no_more(finished):
    names = {p.name for p in finished.iterdir()}
    assert names == {
        "candidates", "config.yaml", "curves.csv", "ensemble.csv", "environment.json",
        "held_out.npz", "hypervolume.csv", "importance.csv", "journal.jsonl", "leaderboard.csv",
        "lock", "model.adanet", "pareto.csv", "prepared.json", "prior.json", "probe.feather",
        "space.yaml", "split.npz",
    }  # fmt: skip
    assert check(finished) == []


def test_files_of_the_worse_candidates_are_removed(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "KEPT", 2)
    found = adanet_py.search(data, out=tmp_path / "run", **{**QUICK, "candidates": 9})
    order = found.leaderboard["id"].tolist()
    baselines = {r.candidate.id for r in found.state.baselines}
    left = {p.stem for p in (found.run / "candidates").iterdir()}
    assert left == set(order[:2]) | baselines


def test_events_tell_the_story(data, tmp_path):
    seen = []
    options = {k: v for k, v in QUICK.items() if k != "on_note"}
    config = SearchConfig(out=tmp_path / "run", target="target", **options)
    adanet_py.run.search(data, config=config, on_event=seen.append)
    kinds = [e["kind"] for e in seen]
    for kind in ("note", "start", "baseline", "progress", "rung", "result", "model", "done"):
        assert kind in kinds
    last = [e for e in seen if e["kind"] == "progress"][-1]
    assert last["done"] == last["candidates"] == 2
    assert last["metric"] == "log_loss"


def test_a_single_core_is_left_to_the_first_group(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "count_cores", lambda: 1)
    monkeypatch.setattr(loop, "HEAD_START", 1e4)  # nothing but the first group ends it
    seen = []
    options = {k: v for k, v in QUICK.items() if k != "on_note"}
    config = SearchConfig(out=tmp_path / "run", target="target", **options)
    found = adanet_py.run.search(data, config=config, on_event=seen.append)
    kinds = [e["kind"] for e in seen]
    first, second, third = (i for i, kind in enumerate(kinds) if kind == "baseline")
    assert first < kinds.index("rung") < kinds.index("result") < second < third
    assert kinds.index("rung") < kinds.index("model")
    assert len(found.state.baselines) == 3


# ---------------------------------------------------------------- bounds


def test_a_time_budget_ends_the_search_and_groups_are_cut_short(tmp_path, monkeypatch):
    monkeypatch.setattr(grouping, "size_group", lambda *_: (2, 100_000))
    options = {**QUICK, "candidates": None, "time": "3s"}
    found = adanet_py.search(table(), out=tmp_path / "run", **options)
    assert found.state.stopped == "the time budget is spent"
    assert {r.status for r in found.state.finished()} <= {Status.DEADLINE, Status.CONVERGED}
    assert (found.run / "model.adanet").exists()


def test_time_and_candidates_together_whichever_comes_first(tmp_path):
    found = adanet_py.search(table(), out=tmp_path / "run", **{**QUICK, "time": "600s"})
    assert found.state.stopped == "2 candidates were trained"


def test_a_small_space_is_exhausted(tmp_path):
    space = {
        "name": "two",
        "summary": "two candidates",
        "architectures": {"mlp": {"depth": 1, "width": {"choice": [4, 8]}}},
        "optimizers": {"adam": {}},
        "schedules": {"constant": {}},
    }
    options = {**QUICK, "candidates": 50, "controller": "random"}
    found = adanet_py.search(table(), out=tmp_path / "run", **{**options, "space": space})
    assert found.state.stopped == "the search space is exhausted"
    assert len(found.state.finished()) == 2


# ---------------------------------------------------------------- objects of the user


def test_a_controller_function(tmp_path):
    calls = []

    def mine(space, history, n, rng):
        calls.append((len(history.results), n))
        return random_controller.propose(space, history, n, rng)

    options = {**QUICK, "candidates": 12}
    found = adanet_py.search(table(), controller=mine, out=tmp_path / "run", **options)
    assert calls == [(0, 8), (0, 4)]  # the second group sees no result yet, whatever the clock says
    assert found.summary["candidates"] == 12
    with pytest.raises(RunError, match="controller 'mine'"):
        adanet_py.search(table(), out=tmp_path / "run", **options)


def test_an_optuna_sampler(tmp_path):
    import optuna

    sampler = optuna.samplers.TPESampler(seed=0)
    options = {**QUICK, "candidates": 12}
    found = adanet_py.search(table(), controller=sampler, out=tmp_path / "run", **options)
    assert found.summary["candidates"] == 12


def test_an_architecture_of_the_user(tmp_path):
    own = replace(ARCHITECTURES["mlp"], name="mine", summary="a copy")
    space = {
        "name": "mine",
        "summary": "only it",
        "architectures": {"mine": {"depth": 1, "width": {"choice": [4, 8]}}},
        "optimizers": {"adam": {"lr": {"float": [0.001, 0.01]}}},
        "schedules": {"constant": {}},
    }
    run = tmp_path / "run"
    options = {**QUICK, "space": space}
    found = adanet_py.search(table(), architectures=[own], out=run, **options)
    assert found.best.candidate.architecture == "mine"
    assert len(found.predict(table())) == 120
    again = adanet_py.load(run, architectures=[own])
    np.testing.assert_array_equal(again.predict_proba(table()), found.predict_proba(table()))
    with pytest.raises(RunError, match="architecture 'mine'"):
        adanet_py.load(run)
    with pytest.raises(RunError, match="architecture 'mine'"):
        adanet_py.run.replay(run, data=table())


def test_an_architecture_without_the_shared_knobs_is_refused(tmp_path):
    own = replace(ARCHITECTURES["mlp"], name="mine", static={})
    with pytest.raises(ConfigError, match="batch_size"):
        adanet_py.search(table(), architectures=[own], out=tmp_path / "run", **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_an_architecture_that_raises_fails_alone(tmp_path):
    def build(static, spec):
        raise RuntimeError("no such layer")

    own = replace(ARCHITECTURES["mlp"], name="broken", build=build)
    notes = []
    options = {**QUICK, "on_note": notes.append}
    space = {
        "name": "broken",
        "summary": "it fails first",
        "architectures": {"broken": {"width": 8}, "mlp": {"width": 8}},
        "optimizers": {"adam": {"lr": {"float": [0.001, 0.01]}}},
        "schedules": {"constant": {}},
        "start": [
            {"architecture": n, "optimizer": "adam", "schedule": "constant"}
            for n in ("broken", "mlp")
        ],
    }
    options |= {"space": space, "candidates": 16}
    found = adanet_py.search(table(), architectures=[own], out=tmp_path / "run", **options)
    failed = [r for r in found.state.finished() if r.status is Status.FAILED]
    assert {r.candidate.architecture for r in failed} == {"broken"}
    assert all("no such layer" in r.message for r in failed)
    assert found.best.candidate.architecture == "mlp"
    assert any("no such layer" in n for n in notes)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (lambda first: ["mlp"], ConfigError, "found in it str"),
        (lambda first: [replace(first, numeric={"speed": 1.0})], SpaceError, "speed"),
        (lambda first: [replace(first, optimizer="adamm")], SpaceError, "Did you mean 'adam'"),
    ],
)
def test_what_a_controller_may_not_answer(answer, error, words, tmp_path):
    def mine(space, history, n, rng):
        return answer(random_controller.propose(space, history, 1, rng)[0])

    options = {**QUICK, "candidates": 12}
    with pytest.raises(error, match=words):
        adanet_py.search(table(), controller=mine, out=tmp_path / "run", **options)


def test_a_controller_that_mixes_programs_is_told_so(tmp_path):
    def mine(space, history, n, rng):
        found = random_controller.propose(space, history, n, rng)
        rates = rng.uniform(0.001, 0.01, n)
        return [
            replace(
                c, static={**c.static, "width": 8 + i % 2}, numeric={**c.numeric, "lr": rates[i]}
            )
            for i, c in enumerate(found)
        ]

    notes = []
    options = {**QUICK, "on_note": notes.append, "candidates": 12}
    found = adanet_py.search(table(), controller=mine, out=tmp_path / "run", **options)
    assert found.summary["candidates"] == 12
    assert sum("several programs" in n for n in notes) == 1


# ---------------------------------------------------------------- bad input leaves nothing


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"target": "targte"}, DataError, "target"),
        ({"group": "hose"}, DataError, "hose"),
        ({"task": "binary", "target": "size"}, AdanetError, "binary"),
        ({"metric": "rmse"}, ConfigError, "rmse"),
        ({"space": "tinny"}, SpaceError, "tiny"),
        ({"controller": "evolutoin"}, ConfigError, "evolution"),
        ({"device": "cuda:7"}, ConfigError, "CUDA"),
    ],
    ids=str,
)
@pytest.mark.parametrize("there", [False, True])
def test_unusable_input_leaves_nothing_behind(change, error, words, there, data, tmp_path):
    out = tmp_path / "a" / "run"
    if there:
        out.mkdir(parents=True)
    before = _snapshot(tmp_path)
    with pytest.raises(error, match=words) as caught:
        adanet_py.search(data, **{**QUICK, "out": out, **change})
    assert caught.value.exit_code == 2
    assert _snapshot(tmp_path) == before


def test_a_missing_file_leaves_nothing_behind(tmp_path):
    with pytest.raises(DataError, match=r"absent\.csv"):
        adanet_py.search(tmp_path / "absent.csv", out=tmp_path / "run", **QUICK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["notes.txt", "cache", "leaderboard.csv", "model.adanet"])
def test_a_folder_that_is_not_a_run_is_left_alone(name, data, tmp_path):
    (tmp_path / name).mkdir() if name == "cache" else (tmp_path / name).write_text("mine")
    before = _snapshot(tmp_path)
    with pytest.raises(RunError, match="not empty and not a run"):
        adanet_py.search(data, out=tmp_path, **QUICK)
    assert _snapshot(tmp_path) == before


def test_a_file_in_the_place_of_the_folder(data, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match="found a file"):
            adanet_py.search(data, out=out, **QUICK)


def test_a_folder_that_cannot_be_written_to(data):
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, where nobody may write")
    with pytest.raises(RunError, match="Cannot write"):
        adanet_py.search(data, out="/proc/adanet_py-run", **QUICK)


def test_a_locked_run_is_left_alone(begun, data):
    with Lock(begun):
        before = _snapshot(begun)
        with pytest.raises(RunError, match="in use by process"):
            adanet_py.search(data, out=begun, **QUICK)
        with pytest.raises(RunError, match="in use by process"):
            resume(begun)
        assert _snapshot(begun) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 99}, "newer version"),
        ({"version": "one"}, "not the configuration"),
        ({"options": {"speed": 3}}, "not the configuration"),
        ({"data": None}, "not the configuration"),
    ],
    ids=str,
)
def test_a_run_of_a_newer_or_damaged_version(change, words, begun, data):
    path = begun / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    before = _snapshot(begun)
    for call in (
        lambda: adanet_py.search(data, out=begun, **QUICK),
        lambda: resume(begun),
        lambda: leaderboard(begun),
        lambda: check(begun),
        lambda: adanet_py.run.replay(begun),
    ):
        with pytest.raises(RunError, match=words) as caught:
            call()
        assert caught.value.exit_code == 2
    assert _snapshot(begun) == before


def test_a_run_only_takes_its_own_data_and_options(begun, data, tmp_path):
    before = _snapshot(begun)
    with pytest.raises(RunError, match="--seed: 0 then, 1 now"):
        adanet_py.search(data, out=begun, **QUICK, seed=1)
    other = tmp_path / "other.csv"
    table(seed=1).to_csv(other, index=False)
    with pytest.raises(RunError, match="has changed or is not the data"):
        adanet_py.search(other, out=begun, **QUICK)
    with pytest.raises(RunError, match="has changed or is not the data"):
        adanet_py.search(table(), out=begun, **QUICK)
    with pytest.raises(RunError, match="--space"):
        adanet_py.search(data, out=begun, **{**QUICK, "space": "table"})
    assert _snapshot(begun) == before
    moved = tmp_path / "moved.csv"
    shutil.copy(data, moved)
    found = adanet_py.search(moved, out=begun, **{**QUICK, "workers": 0})
    assert found.state.stopped


def test_a_run_on_a_frame_knows_its_frame(tmp_path):
    run = tmp_path / "run"
    adanet_py.search(table(), out=run, **QUICK)
    assert adanet_py.search(table(), out=run, **QUICK).summary["candidates"] == 2
    with pytest.raises(RunError, match="not the data given"):
        adanet_py.search(table(seed=1), out=run, **QUICK)


# ---------------------------------------------------------------- going on, looking on


def test_resume_needs_neither_data_nor_options(begun, finished):
    assert leaderboard(begun)["validation"].notna().all()
    assert any("has not ended" in p for p in check(begun))
    found = resume(begun)
    assert found.state.stopped == "2 candidates were trained"
    assert timeless(begun) == timeless(finished)
    assert check(begun) == []


def test_a_finished_run_is_only_loaded_and_its_rest_removed(finished, data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "cache").mkdir()
    journal = (run / "journal.jsonl").read_bytes()
    assert resume(run).best is not None
    found = adanet_py.search(data, out=run, **QUICK)
    assert found.best is not None
    assert (run / "journal.jsonl").read_bytes() == journal
    assert not (run / "cache").exists()


def test_a_best_candidate_whose_file_is_gone_gives_way_to_the_next(begun):
    best = adanet_py.run.read_state(begun)
    best = max(best.finished(), key=lambda r: r.reward)
    (begun / "candidates" / f"{best.candidate.id}.safetensors").unlink()
    notes = []
    found = resume(begun, on_event=lambda e: notes.append(e.get("message", "")))
    assert found.state.model["candidate"] != best.candidate.id
    assert any("was not saved" in n for n in notes)


def test_a_model_that_predicts_otherwise_is_not_called_saved(data, tmp_path, monkeypatch):
    def lying(*arguments):
        found = check_here(*arguments)
        found.difference = 0.5
        return found

    monkeypatch.setattr(saving, "start_check", lying)
    notes = []
    options = {**QUICK, "on_note": notes.append}
    found = adanet_py.search(data, out=tmp_path / "run", **options)
    assert found.summary["model"] is None
    assert any("differ by 0.5" in n for n in notes)
    assert check(found.run) == ["model.adanet is missing although the run has ended"]


def test_a_failing_baseline_is_said_and_the_search_goes_on(data, tmp_path, monkeypatch):
    from adanet_py import baselines

    def fail(*_):
        raise FloatingPointError("the baseline broke")

    monkeypatch.setattr(baselines, "boosting_baseline", fail)
    notes = []
    options = {**QUICK, "on_note": notes.append}
    found = adanet_py.search(data, out=tmp_path / "run", **options)
    assert any("the baseline broke" in n for n in notes)
    assert found.summary["candidates"] == 2


def test_check_names_what_is_wrong(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "split.npz").unlink()
    (run / "model.adanet").write_bytes((run / "model.adanet").read_bytes()[:200])
    lines = (run / "journal.jsonl").read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("constant", "constent")
    (run / "journal.jsonl").write_text("".join(lines))
    (run / "candidates" / "x.tmp").write_text("")
    problems = check(run)
    for words in ("split.npz is missing", "not a model file", "line 2", "x.tmp is a leftover"):
        assert sum(words in p for p in problems) == 1, problems
    with pytest.raises(RunError, match="line 2"):
        resume(run)


def test_the_journal_is_strict_json(finished):
    for line in (finished / "journal.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(word))


def test_curves_and_pareto_are_written(finished):
    curves = pd.read_csv(finished / "curves.csv")
    assert set(curves["candidate"]) == set(
        pd.read_csv(finished / "leaderboard.csv").query("status != 'BASELINE'")["id"]
    )
    assert len(pd.read_csv(finished / "pareto.csv")) >= 1
