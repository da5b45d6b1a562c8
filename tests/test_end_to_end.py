"""The command line as users run it: one small search and everything that can follow it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from tables import table


def _run(*arguments, folder=None):
    return subprocess.run(
        [sys.executable, "-m", "adanet_py", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    table().to_csv(folder / "train.csv", index=False)
    table(rows=30, seed=5).drop(columns="target").to_csv(folder / "new.csv", index=False)
    table(rows=40, seed=6).to_csv(folder / "test.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def search(folder):
    """The finished process of a search with two workers and both bounds."""
    return _run(
        "search", "train.csv", "--time", "60s", "--candidates", "4", "--space", "tiny",
        "--folds", "1", "--workers", "2", "--out", "run", "--json", folder=folder,
    )  # fmt: skip


def test_search_says_what_it_found(search, folder):
    assert search.returncode == 0, search.stderr
    said = json.loads(search.stdout.splitlines()[-1])
    assert {
        "run", "model", "task", "metric", "direction", "validation", "audit", "seconds",
        "candidates", "best",
    } <= set(said)  # fmt: skip
    assert (said["task"], said["metric"], said["direction"]) == ("binary", "log_loss", "minimize")
    assert said["candidates"] >= 1
    assert set(said["best"]) == {"id", "architecture", "optimizer", "schedule", "n_params"}
    assert (folder / said["model"]).is_file()
    assert "Traceback" not in search.stderr
    # Nothing beside the run is left, and no data in it.
    assert {p.name for p in folder.iterdir()} >= {"run", "train.csv"}
    assert not (folder / "run" / "cache").exists()


def test_predict_writes_a_row_per_row(search, folder):
    done = _run("predict", "run", "new.csv", "--proba", "--out", "out.csv", folder=folder)
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(folder / "out.csv")
    assert list(found.columns) == ["prediction", "probability_no", "probability_yes"]
    assert len(found) == 30
    likelier = found["probability_yes"] > found["probability_no"]
    assert (likelier == (found["prediction"] == "yes")).all()


def test_evaluate_leaderboard_and_check(search, folder):
    scores = json.loads(_run("evaluate", "run", "test.csv", "--json", folder=folder).stdout)
    assert scores["accuracy"] > 0.7
    done = _run("leaderboard", "run", "--csv", "board.csv", folder=folder)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(folder / "board.csv")) >= 3
    done = _run("check", "run", folder=folder)
    assert done.returncode == 0, done.stdout


def test_replay_is_identical(search, folder):
    done = _run("replay", "run", "--json", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["identical"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search", "train.csv", "--target", "tarket"], "Did you mean 'target'"),
        (["search", "absent.csv"], "absent.csv"),
        (["resume", "absent"], "Expected a run folder"),
        (["predict", "train.csv", "new.csv"], "not a model file"),
    ],
)
def test_errors_are_short_and_leave_nothing(arguments, words, folder):
    before = sorted(folder.rglob("*"))
    done = _run(*arguments, folder=folder)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(folder.rglob("*")) == before
