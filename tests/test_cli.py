"""The command line against a stand-in for the search: options, output, errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from adanet_py import console
from adanet_py.cli import app
from adanet_py.errors import DataError
from adanet_py.listing import REGISTRIES

SUMMARY = {
    "run": "results/x", "model": "results/x/model.adanet", "task": "binary", "metric": "log_loss",
    "direction": "minimize", "validation": 0.25, "audit": float("nan"), "seconds": 61.2,
    "candidates": 12,
    "best": {"id": "abc", "architecture": "mlp", "optimizer": "adamw", "schedule": "cosine",
             "n_params": 1234},
    "ensemble": {"members": 3, "validation": 0.24, "audit": 0.26, "mean": 0.245, "single": 0.25,
                 "alone": 0.255, "saved": True},
    "costs": {"ensemble": {"predict_ms": 12.345, "bytes": 345678.0},
              "single": {"predict_ms": 3.0, "bytes": 1200.0}},
}  # fmt: skip
BOARD = pd.DataFrame(
    {"rank": [1, 2, None], "id": ["abc", "def", "xyz"], "architecture": ["mlp", "tabm", "mlp"],
     "status": ["COMPLETE", "PRUNED", "DIVERGED"], "validation": [0.25, 0.3, np.nan],
     "lr": [0.1, 0.2, 0.3], "message": ["", "=cmd()", ""]}
)  # fmt: skip


IMPORTANCE = pd.DataFrame(
    {"decision": [None, "adamw.lr"], "importance": [np.nan, 0.75], "p_value": [np.nan, 0.01],
     "tried": [None, 40], "best": [None, "0.01"], "usual": [None, "0.02"],
     "low": [None, "0.001"], "high": [None, "0.02"], "next": ["give more time.", "try more."]}
)  # fmt: skip


class FakeModel:
    task, classes = "binary", ("no", "yes")
    preprocessor = SimpleNamespace(doubts=lambda frame: ())

    def predict(self, frame):
        return np.array(["yes" if v > 0 else "no" for v in frame["x"]])

    def predict_proba(self, frame):
        p = 1 / (1 + np.exp(-frame["x"].to_numpy(float)))
        return np.stack([1 - p, p], 1)

    def evaluate(self, data, on_note, metric, weight):
        on_note("one row was left out")
        frame = pd.read_csv(data)
        return {"accuracy": float((self.predict(frame) == frame["label"]).mean())}


@pytest.fixture
def fake(monkeypatch):
    """Stand-ins for adanet_py.run and adanet_py.model that note how they were called."""
    calls = SimpleNamespace(config=None, data=None, event=None, raises=None, differences=[])
    found = SimpleNamespace(summary=SUMMARY, leaderboard=BOARD, importance=IMPORTANCE)

    def search(data, *, config, on_event, **_):
        calls.data, calls.config = data, config
        on_event({"kind": "note", "message": "column 'id' dropped [counts the rows]"})
        on_event({"kind": "progress", "done": 3, "best": 0.25, "metric": "log_loss",
                  "seconds": 5.0, "time_left": 55.0, "candidates": None, "running": 2})  # fmt: skip
        if calls.raises:
            raise calls.raises
        return found

    def replay(run, on_event=None):
        same = not calls.differences
        return {"identical": same, "candidates": 12, "differences": calls.differences}

    run = SimpleNamespace(
        search=search, resume=lambda run, on_event=None: found, replay=replay,
        check=lambda run: calls.differences, leaderboard=lambda run: BOARD,
        importance=lambda run: IMPORTANCE, study=lambda run, out: (out or run / "study.log", 12),
    )  # fmt: skip
    model = SimpleNamespace(load=lambda path: FakeModel())
    monkeypatch.setitem(sys.modules, "adanet_py.run", run)
    monkeypatch.setitem(sys.modules, "adanet_py.model", model)
    return calls


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_every_option_of_search_reaches_the_search(fake):
    done = run(
        "search", "t.csv", "--target", "y", "--task", "binary", "--metric", "roc_auc", "--loss",
        "quantile", "--quantile", 0.9, "--time", "10m", "--candidates", 5, "--fidelity", "asha",
        "--batch-order", "own", "--fidelity-by", "rows",
        "--space", "tiny",
        "--controller", "tpe", "--prior", "p.json", "--folds", 4,
        "--split", "part", "--group", "g", "--time-column", "when", "--weight", "w",
        "--exposure", "e",
        "--class-weight", "balanced", "--drop", "a", "--drop", "b", "--out", "here", "--seed", 7,
        "--device", "cpu", "--workers", 1, "--strict", "--quiet",
        "--choose", "simplest", "--complexity", "latency",
        "--complexity-weight", 0.2, "--complexity-target", 2.5,
        "--max-params", "50k", "--max-latency", "8ms", "--max-size", "2MB",
        "--ensemble", "greedy", "--adanet-lambda", 0.5, "--adanet-beta", 0.25,
        "--refine-share", 0.3, "--members", "any",
    )  # fmt: skip
    assert done.exit_code == 0
    assert fake.data == "t.csv"
    assert fake.config.to_json() == {
        "data": "t.csv", "target": "y", "task": "binary", "metric": "roc_auc", "time": 600.0,
        "loss": "quantile", "quantile": 0.9,
        "candidates": 5, "fidelity": "asha", "batch_order": "own", "fidelity_by": "rows",
            "space": "tiny", "controller": "tpe", "prior": "p.json", "folds": 4, "split": "part",
        "group": "g", "time_column": "when", "weight": "w", "exposure": "e",
        "class_weight": "balanced",
        "drop": ["a", "b"], "out": "here", "seed": 7, "device": "cpu", "workers": 1,
        "strict": True,
        "choose": "simplest", "complexity": "latency",
        "complexity_weight": 0.2, "complexity_target": 2.5,
        "max_params": 50_000, "max_latency": 8.0, "max_size": 2_000_000,
        "ensemble": "greedy", "adanet_lambda": 0.5, "adanet_beta": 0.25, "refine_share": 0.3,
            "members": "any",
    }  # fmt: skip
    assert done.stderr == ""


def test_the_command_line_has_an_option_for_everything_that_can_be_configured(fake):
    text = run("search", "--help").stdout
    run("search")
    for name in fake.config.to_json():
        assert f"--{name.replace('_', '-')}" in text or name == "data"
    assert fake.config.time == 60


def test_json_is_one_strict_object_on_the_last_line_of_stdout(fake):
    done = run("search", "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout.splitlines()[-1], parse_constant=pytest.fail)
    assert found == SUMMARY | {"audit": None}


def test_notes_go_to_stderr_as_plain_lines_and_the_result_to_stdout(fake):
    done = run("search")
    assert done.stderr == "note: column 'id' dropped [counts the rows]\n"
    assert "results/x/model.adanet" in done.stdout
    assert "log_loss 0.25" in done.stdout
    assert "3 members, log_loss 0.24, of one alone 0.255, both cross-fitted" in done.stdout
    assert "Cost:   ensemble 12.3 ms, 346 kB; single 3 ms, 1 kB: 1,000 rows" in done.stdout
    assert "12 candidates in 1m01s" in done.stdout


@pytest.mark.parametrize("command", [["search", "--json"], ["resume", "RUN", "--json"]])
def test_resume_answers_as_search_does(fake, command):
    assert json.loads(run(*command).stdout.splitlines()[-1])["candidates"] == 12


def test_an_error_of_the_input_is_one_line_and_exit_code_2(fake):
    fake.raises = DataError("Expected rows, found none.")
    done = run("search")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == "Error: Expected rows, found none."
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "--time", "0"], "Time budget: expected a time above zero"),
        (["search", "--time", "soon"], "found 'soon'"),
        (["search", "--candidates", "0"], "--candidates: expected a whole number of 1 or more"),
        (["search", "--metric", "acuracy"], "Did you mean 'accuracy'?"),
        (["search", "--task", "clasification"], "--task: expected"),
        (["search", "--device", "gpu"], "--device: expected auto, cpu"),
        (["search", "--refine-share", "2"], "--refine-share: expected a share from 0"),
        (["list", "optimisers"], "Did you mean 'optimizers'?"),
        (["spaces", "show", "tabel"], "Did you mean 'table'?"),
        (["spaces", "validate", "none/such.yaml"], "found none"),
    ],
)
def test_bad_options_are_answered_before_anything_starts(fake, arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.startswith("Error: ")
    assert fake.config is None


def test_a_defect_is_short_and_names_the_file_with_the_traceback(fake):
    fake.raises = ZeroDivisionError("division by zero")
    done = run("search", "--quiet")
    assert done.exit_code == 1
    first, second = done.stderr.splitlines()
    assert first == "Error: ZeroDivisionError: division by zero"
    with open(second.rpartition(" ")[2].rstrip(".").removesuffix(".txt") + ".txt") as file:
        assert "Traceback" in file.read()


def test_debug_shows_tracebacks(fake):
    fake.raises = ZeroDivisionError("division by zero")
    done = run("--debug", "search", "--quiet")
    assert done.exit_code == 1
    assert "Traceback (most recent call last)" in done.stderr


def test_an_interrupt_has_its_own_exit_code(fake):
    fake.raises = KeyboardInterrupt()
    done = run("search")
    assert done.exit_code == 130
    assert "Traceback" not in done.stderr


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("x,label\n1,yes\n-2,yes\n0.5,yes\n")
    return path


def test_predict_writes_a_row_per_row_in_order(fake, table, tmp_path):
    out = tmp_path / "p.csv"
    assert run("predict", "RUN", table, "--out", out).exit_code == 0
    assert out.read_text().splitlines() == ["prediction", "yes", "no", "yes"]
    done = run("predict", "RUN", table, "--proba")
    lines = done.stdout.splitlines()
    assert lines[0] == "prediction,probability_no,probability_yes"
    rows = [line.split(",") for line in lines[1:]]
    assert [r[0] for r in rows] == ["yes", "no", "yes"]
    np.testing.assert_allclose([float(r[2]) for r in rows], 1 / (1 + np.exp([-1, 2, -0.5])))


def test_probabilities_of_a_number_are_refused(fake, table, monkeypatch):
    monkeypatch.setattr(FakeModel, "task", "regression")
    done = run("predict", "RUN", table, "--proba")
    assert done.exit_code == 2
    assert "--proba: expected a classification model" in done.stderr


def test_predicting_a_missing_file_is_an_error_of_the_input(fake, tmp_path):
    done = run("predict", "RUN", tmp_path / "no.csv")
    assert done.exit_code == 2
    assert "no.csv" in done.stderr


def test_evaluate_shows_every_metric(fake, table):
    done = run("evaluate", "RUN", table)
    assert "accuracy" in done.stdout
    assert "one row was left out" in done.stderr
    found = json.loads(run("evaluate", "RUN", table, "--json").stdout)
    assert found == {"accuracy": pytest.approx(2 / 3)}


def test_leaderboard_is_shown_cut_and_written(fake, tmp_path):
    text = run("leaderboard", "RUN").stdout
    assert [line.split()[1] for line in text.splitlines()] == ["id", "abc", "def", "xyz"]
    assert "nan" not in text.lower()
    short = run("leaderboard", "RUN", "--top", 1).stdout
    assert "abc" in short
    assert "def" not in short
    assert "... and 2 more" in short
    out = tmp_path / "board.csv"
    assert run("leaderboard", "RUN", "--csv", out).exit_code == 0
    written = pd.read_csv(out)
    assert len(written) == 3
    assert "lr" in written
    assert not written["message"].astype(str).str.startswith("=").any()


def test_replay_and_check_say_what_differs_and_fail(fake):
    assert run("replay", "RUN").exit_code == 0
    assert run("check", "RUN").exit_code == 0
    fake.differences = ["candidate abc: 0.25 was 0.26"]
    for command in ("replay", "check"):
        done = run(command, "RUN")
        assert done.exit_code == 1
        assert "0.25 was 0.26" in done.stdout
        assert json.loads(run(command, "RUN", "--json").stdout)


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registry_is_listed_with_a_summary_each(kind):
    found = json.loads(run("list", kind, "--json").stdout)
    assert found
    assert all(len(e["summary"]) > 1 for e in found)
    text = run("list", kind).stdout
    assert all(e["name"] in text for e in found)


def test_spaces_can_be_shown_and_what_is_shown_is_valid(tmp_path):
    names = [s["name"] for s in json.loads(run("spaces", "list", "--json").stdout)]
    assert {"table", "tiny"} <= set(names)
    for name in names:
        mine = tmp_path / f"{name}.yaml"
        mine.write_text(run("spaces", "show", name).stdout)
        done = run("spaces", "validate", mine)
        assert done.exit_code == 0
        assert "fine" in done.stdout
    assert json.loads(run("spaces", "schema").stdout)["properties"]["architectures"]


def test_validating_a_space_prints_what_its_priors_come_to(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "name: mine\narchitectures: {mlp: {norm: {choice: [none, rms, batch], prior: [6, 1, 1]}}}\n"
        "optimizers: {adam: {prior: 3}, sgd: {}}\n"
    )
    lines = run("spaces", "validate", mine).stdout.splitlines()
    assert lines[1:] == [
        "architectures.mlp.norm: none 75%, rms 12%, batch 12%",
        "optimizer: adam 75%, sgd 25%",
    ]


def test_a_mistake_in_a_space_file_is_answered_with_its_line(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(run("spaces", "show", "tiny").stdout.replace("optimizers:", "optimisers:"))
    line = 1 + mine.read_text().splitlines().index("optimisers:")
    done = run("spaces", "validate", mine)
    assert done.exit_code == 2
    assert f"{line}" in done.stderr
    assert "optimizers" in done.stderr


def test_the_bar_shows_progress_in_the_metrics_unit_and_the_nearer_bound(monkeypatch):
    event = {"kind": "progress", "done": 3, "best": 52310.4, "metric": "rmse", "seconds": 6.0,
             "time_left": 54.0, "candidates": 4}  # fmt: skip
    assert console._status(event) == "3 of 4 candidates, best rmse 52310"
    assert console._left(event) == "54s left"
    assert console._share(event, 60, None) == pytest.approx(0.1)
    assert console._share(event, 60, 4) == pytest.approx(0.75)
    assert console._share(event, None, None) is None
    assert console._status({"done": 0, "best": float("nan")}) == "0 candidates"


def test_a_bar_is_drawn_on_a_terminal_only(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.reporter(False, 60, None) as on_event:
        on_event({"kind": "note", "message": "a [b] c"})
        on_event({"kind": "progress", "done": 3, "best": 0.25, "metric": "log_loss",
                  "seconds": 6.0, "time_left": 54.0, "candidates": None})  # fmt: skip
    shown = capsys.readouterr()
    assert "3 candidates, best log_loss 0.25" in shown.err
    assert "a [b] c" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.6, "1m00s"), (187, "3m07s"), (7500, "2h05m")]
)
def test_durations_read_well(seconds, text):
    assert console.duration(seconds) == text


def test_importance_is_a_table_and_what_to_change_next(fake, tmp_path):
    shown = run("importance", "x").stdout
    assert [line.split() for line in shown.splitlines()[:2]] == [
        ["decision", "importance", "p_value", "tried", "best", "usual"],
        ["adamw.lr", "0.75", "0.01", "40", "0.01", "0.02"],
    ]
    assert "Next:   give more time." in shown
    assert "Next:   try more." in run("search", "t.csv").stdout
    run("importance", "x", "--csv", tmp_path / "i.csv")
    assert pd.read_csv(tmp_path / "i.csv")["next"].tolist() == ["give more time.", "try more."]


def test_study_says_what_it_wrote_and_how_to_open_it(fake):
    assert "x/study.log, 12 trials; open it with: optuna-dashboard x/study.log" in (
        run("study", "x").stdout
    )
    assert "Written: there.log" in run("study", "x", "--out", "there.log").stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_a_process_knows_when_it_began():
    code = (
        "import time; first = time.monotonic(); time.sleep(0.1)\n"
        "from adanet_py.commands.app import process_began\n"
        "print(process_began(), first)"
    )
    before = time.monotonic()
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    began, first = map(float, said.stdout.split())
    assert before - 0.02 <= began <= first + 0.02  # in hundredths of a second
