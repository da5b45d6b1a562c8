"""A run is repeated by counts: the same scores to the last bit, whatever the clock did."""

from __future__ import annotations

import json
import shutil

import pytest
from tables import check_here, table

import adanet_py
from adanet_py import grouping, saving
from adanet_py.errors import RunError
from adanet_py.journal import Journal, read
from adanet_py.records import Status
from adanet_py.run import replay

QUICK = {"space": "tiny", "workers": 0, "on_note": lambda m: None}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "table.csv"
    table("multiclass").to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def timed(data, tmp_path_factory):
    """A run the clock ended, in the middle of a group that would have gone on for long."""
    run = tmp_path_factory.mktemp("runs") / "timed"
    sizes = iter([(3, 20)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        # What is imported on the way is not on the clock.
        adanet_py.search(data, out=run.with_name("before"), candidates=1, folds=1, **QUICK)
        patch.setattr(grouping, "size_group", lambda *_: next(sizes, (3, 100_000)))
        patch.setattr("adanet_py.plan.PATIENCE", 0)
        adanet_py.search(data, out=run, time="5s", folds=3, **QUICK)
    return run


def _changed(run, copy, change):
    """A copy of a run whose journal went through `change(event kind, data)`."""
    shutil.copytree(run, copy)
    events = read(run / "journal.jsonl")
    (copy / "journal.jsonl").unlink()
    with Journal(copy / "journal.jsonl") as journal:
        for event in events:
            journal.append(event.kind, change(event.kind, json.loads(json.dumps(event.data))))
    return copy


def test_a_run_cut_by_the_clock_is_repeated_bit_by_bit(timed):
    state = adanet_py.run.read_state(timed)
    statuses = {r.status for r in state.finished()}
    assert Status.DEADLINE in statuses
    assert len(state.results) >= 2
    found = replay(timed)
    assert found["differences"] == []
    assert found["identical"]
    assert found["candidates"] == len(state.finished())


def test_replay_sees_one_changed_bit(timed, tmp_path):
    def change(kind, data):
        if kind == "results" and data["group"] == 0:
            value = data["results"][1]["metrics"]["validation"]
            data["results"][1]["metrics"]["validation"] = value * (1 + 2**-50)
        return data

    found = replay(_changed(timed, tmp_path / "run", change))
    assert not found["identical"]
    assert len(found["differences"]) == 1
    assert "metrics differs" in found["differences"][0]


def test_what_the_machine_ended_is_left_out(timed, tmp_path):
    def change(kind, data):
        if kind == "results" and data["group"] == 1:
            for result in data["results"]:
                result["status"] = "CRASHED"
        return data

    notes = []
    run = _changed(timed, tmp_path / "run", change)
    found = replay(run, on_event=lambda e: notes.append(e.get("message", "")))
    assert found["identical"]
    assert found["candidates"] < len(adanet_py.run.read_state(timed).finished())
    assert any("Not replayed" in n for n in notes)


def test_replay_needs_the_same_data(timed, data, tmp_path):
    with pytest.raises(RunError, match="has changed or is not the data"):
        replay(timed, data=table("multiclass", seed=1))
    moved = tmp_path / "moved.csv"
    shutil.copy(data, moved)
    kept = data.read_bytes()
    try:
        data.write_bytes(kept + b"0,0,red,low\n")
        with pytest.raises(RunError, match="has changed or is not the data"):
            replay(timed)
    finally:
        data.write_bytes(kept)
    assert replay(timed, data=moved)["identical"]


def test_a_run_on_a_frame_is_given_the_frame_again(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    types = {"weight": "category"}
    run = tmp_path / "run"
    adanet_py.search(table(), out=run, folds=1, candidates=3, types=types, **QUICK)
    with pytest.raises(RunError, match="in memory"):
        replay(run)
    assert replay(run, data=table())["identical"]


def test_there_is_nothing_to_replay(tmp_path, timed):
    with pytest.raises(RunError, match="Expected a run folder"):
        replay(tmp_path)
    shutil.copytree(timed, tmp_path / "run")
    (tmp_path / "run" / "journal.jsonl").unlink()
    with pytest.raises(RunError, match="no results"):
        replay(tmp_path / "run")
