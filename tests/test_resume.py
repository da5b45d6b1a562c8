"""A run can be killed or interrupted at any moment and goes on to the same leaderboard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adanet_py.journal import read
from adanet_py.run import check

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import kill_test  # type: ignore[import-not-found]
from forks import Forks
from tables import table, timeless

OPTIONS = {"candidates": 10, "space": "tiny", "folds": 1}
# Every fault point takes two searches: by default one in so many is tried.
EVERY = int(os.environ.get("ADANET_TEST_FAULTS_EVERY", "17"))
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def forks():
    with Forks() as running:
        yield running


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "table.csv"
    table().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def whole(forks, data, tmp_path_factory):
    """A run nothing happened to."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert forks.search(data, out=out, **OPTIONS)[0] == 0
    return out


def _kinds(run):
    return [e.kind for e in read(run / "journal.jsonl")]


def test_the_uninterrupted_run_is_whole(whole):
    assert check(whole) == []
    assert _kinds(whole).count("results") >= 2
    assert len(timeless(whole).splitlines()) == 1 + 3 + OPTIONS["candidates"]
    assert not (whole / "cache").exists()
    assert not (whole / "checkpoints").exists()


def test_killed_at_any_durable_step_it_goes_on_to_the_same_leaderboard(
    forks, data, whole, tmp_path
):
    point, tried = 1, 0
    while True:
        run = tmp_path / str(point)
        status, _ = forks.search(data, out=run, fault=f"kill9@{point}", **OPTIONS)
        if status == 0:
            break
        assert status == KILLED
        before = len(_kinds(run)) if (run / "journal.jsonl").exists() else 0
        assert forks.search(data, out=run, **OPTIONS)[0] == 0, f"not resumed after step {point}"
        assert timeless(run) == timeless(whole), f"killed at step {point}"
        assert check(run) == []
        kinds = _kinds(run)
        for once in ("start", "group", "results", "baseline", "stop"):
            assert kinds.count(once) == _kinds(whole).count(once), f"{once}, step {point}"
        assert len(kinds) >= before
        point, tried = point + EVERY, tried + 1
    assert tried > 40 // EVERY


def test_killed_again_and_again_in_one_run(forks, data, whole, tmp_path):
    run = tmp_path / "run"
    for point in range(9, 60, 10):
        status, _ = forks.search(data, out=run, fault=f"kill9@{point}", **OPTIONS)
        if status == 0:
            break
    assert forks.search(data, out=run, **OPTIONS)[0] == 0
    assert timeless(run) == timeless(whole)


def test_an_interrupted_group_goes_on_from_its_checkpoint(forks, data, whole, tmp_path):
    run = tmp_path / "run"
    options = {**OPTIONS, "out": run, "checkpoint_seconds": 0.0}
    status, before = forks.search(data, fault="kill9@70", **options)
    assert status == KILLED
    assert list((run / "checkpoints").glob("*.safetensors"))
    steps = [e["rung"] for e in before if "rung" in e]
    group, reached = steps[-1]
    status, after = forks.search(data, **options)
    assert status == 0
    first = min(step for g, step in (e["rung"] for e in after if "rung" in e) if g == group)
    assert min(step for g, step in steps if g == group) < first <= reached + 20
    assert timeless(run) == timeless(whole)


def test_a_damaged_checkpoint_does_not_end_the_run(forks, data, whole, tmp_path):
    run = tmp_path / "run"
    options = {**OPTIONS, "out": run, "checkpoint_seconds": 0.0}
    assert forks.search(data, fault="kill9@70", **options)[0] == KILLED
    [path] = (run / "checkpoints").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    assert forks.search(data, **options)[0] == 0
    assert timeless(run) == timeless(whole)


def test_a_full_disk_loses_nothing(forks, data, whole, tmp_path):
    run = tmp_path / "run"
    status, said = forks.search(data, out=run, fault="enospc@33", **OPTIONS)
    assert status == 74
    assert "MB are free there" in said[-1]["error"]
    assert forks.search(data, out=run, **OPTIONS)[0] == 0
    assert timeless(run) == timeless(whole)


@pytest.mark.slow
def test_killed_at_random_with_workers_it_ends_as_without_and_leaves_no_process(
    data, whole, tmp_path
):
    options = [str(data), "--candidates", "10", "--space", "tiny", "--folds", "1"]
    found = kill_test.run(options, tmp_path, kills=3, workers=2, seed=1)
    assert found["kills"] >= 1  # the last come too late where the machine has become faster
    assert found["survivors"] == []
    assert found["identical"]
    # Two workers, and none at all.
    assert timeless(tmp_path / "killed") == timeless(whole)


def _start(arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "adanet_py", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        text=True,
    )


def _wait_for(condition, process, seconds=90.0):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not come so far"
        time.sleep(0.02)


def _seen(run, kind):
    path = run / "journal.jsonl"
    return path.exists() and f'"kind":"{kind}"' in path.read_text()


@pytest.mark.slow
def test_interrupted_once_it_saves_the_best_and_can_go_on(forks, data, tmp_path):
    run = tmp_path / "run"
    long = ["--candidates", "60", "--space", "tiny", "--folds", "1", "--workers", "1"]
    process = _start(["search", data, "--out", run, "--json", *long])
    _wait_for(lambda: _seen(run, "results"), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 130, err
    said = json.loads(out.splitlines()[-1])
    assert said["stopped"] == "interrupted"
    assert Path(said["model"]).exists()
    assert "Interrupted" in err
    assert "Traceback" not in err
    kinds = _kinds(run)
    assert "stop" not in kinds
    done = kinds.count("results")
    process = _start(["resume", run, "--json"])
    _wait_for(lambda: _kinds(run).count("results") > done, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGINT), (out, err)
    assert check(run) == [p for p in check(run) if "has not ended" in p]
