"""The README is true: its code runs; its tables, options, links and versions are the real ones."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
import yaml

import adanet_py
from adanet_py.advice import IMPORTANCE_COLUMNS
from adanet_py.cli import app
from adanet_py.ensembling import COLUMNS as ENSEMBLE_COLUMNS
from adanet_py.fronts import HYPERVOLUME_COLUMNS, PARETO_COLUMNS
from adanet_py.leaderboard import COLUMNS, CURVE_COLUMNS
from adanet_py.listing import REGISTRIES
from adanet_py.refine import MOVES
from adanet_py.reward import MEASURES
from adanet_py.space import load_space
from adanet_py.subnetworks.folder import COLUMNS as ADANET_COLUMNS
from adanet_py.subnetworks.options import SELECTIONS, VARIANTS
from adanet_py.training.diagnostics import PROBLEMS
from adanet_py.training.losses import LOSSES
from adanet_py.training.optimizers import OPTIMIZERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL_BLOCKS = 2  # of bash, the first ones: what .ci/run does in a fresh environment


class Block(NamedTuple):
    language: str
    line: int  # of its first line of code in the README
    text: str


def read_blocks(text):
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(m[1], text.count("\n", 0, m.start(2)) + 1, m[2]) for m in found]


BLOCKS = read_blocks(README)
BASH = [b for b in BLOCKS if b.language == "bash"]
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)


def rows_after(heading):
    """The first table after a text: its rows as lists of cells, without the header."""
    lines = README[README.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    out = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        out.append([c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line)[1:-1]])
    return out[2:]


def command_options():
    """Every command of the program and the long options it has, --help apart."""
    out = {}

    def visit(command, name):
        if hasattr(command, "commands"):
            for child, found in command.commands.items():
                visit(found, f"{name} {child}".strip())
        else:
            flags = {o for p in command.params for o in p.opts if o.startswith("--")}
            out[name] = flags - {"--help"}

    visit(typer.main.get_command(app), "")
    return out


def options_in(text):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


# ------------------------------------------------------------------ the code


def play_bash(block, env):
    """Run the lines of a block one by one; what each printed on stdout, by line."""
    out = {}
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        assert words[0] == "python", f"README.md:{block.line}: not a call of python: {line}"
        if "curves" in words and importlib.util.find_spec("matplotlib") is None:
            continue  # without the extra "plot" there is nothing to see
        if "make_pipeline" in line and importlib.util.find_spec("skl2onnx") is None:
            continue  # nor without the extra "onnx" to convert
        command = [sys.executable, *words[1:]]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"README.md:{block.line}: {line}\n{done.stdout}{done.stderr}"
        out[line] = done.stdout
    return out


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")  # before the clock of a block begins
def test_every_block_of_code_runs_and_prints_what_is_said_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = {**os.environ, "PYTHONPATH": str(Path(adanet_py.__file__).parents[1])}
    namespace = {"__name__": "readme"}
    printed = {}
    skipped = BASH[:INSTALL_BLOCKS]
    for block in BLOCKS:
        if block.language == "python":
            code = "\n" * (block.line - 1) + block.text  # so that a traceback names its line
            exec(compile(code, str(ROOT / "README.md"), "exec", dont_inherit=True), namespace)
        elif block.language == "bash" and block not in skipped:
            printed |= play_bash(block, env)
        elif block.language == "yaml":
            Path(f"{yaml.safe_load(block.text)['name']}.yaml").write_text(block.text)

    [resumed] = [text for line, text in printed.items() if "resume" in line]
    summary = json.loads(resumed.splitlines()[-1])
    said = PROSE[PROSE.index("The JSON object has") : PROSE.index("Exit codes")]
    assert set(re.findall(r"`(\w+)`", said)) == set(summary) | set(summary["best"])

    files = {name.rstrip("/") for row in rows_after("## The run folder") for name in ticked(row[0])}
    assert {p.name for p in Path("churn-run").iterdir()} <= files
    board = namespace["pd"].read_csv("churn-run/leaderboard.csv")
    assert set(COLUMNS) < set(board.columns)
    assert "gated" in set(namespace["found"].leaderboard["architecture"])
    predictions = namespace["pd"].read_csv("predictions.csv")
    assert list(predictions) == ["prediction", "probability_no", "probability_yes"]
    assert len(predictions) == len(namespace["pd"].read_csv("new.csv"))


def ticked(text):
    return re.findall(r"`([^`]+)`", text)


def test_every_block_is_of_a_language_that_is_tested():
    assert {b.language for b in BLOCKS} == {"bash", "python", "yaml"}


def test_yaml_blocks_are_search_spaces(tmp_path):
    for block in BLOCKS:
        if block.language == "yaml":
            path = tmp_path / "space.yaml"
            path.write_text(block.text)
            assert load_space(path).decisions


def test_the_first_two_bash_blocks_install_with_the_main_job_and_the_tests():
    first, second = (b.text for b in BASH[:INSTALL_BLOCKS])
    assert 'pip install --no-compile -c constraints.txt ".[native]"' in first
    assert first.rstrip().endswith("-m adanet_py search")
    assert '".[test]"' in second
    assert second.rstrip().endswith("-m pytest")


# ------------------------------------------------------------------ the tables


@pytest.mark.parametrize(
    ("heading", "columns"),
    [
        ("`leaderboard.csv`; after", COLUMNS),
        ("`curves.csv`, one row", CURVE_COLUMNS),
        ("`pareto.csv`:", PARETO_COLUMNS),
        ("`hypervolume.csv`, a row", HYPERVOLUME_COLUMNS),
        ("`importance.csv`, the", IMPORTANCE_COLUMNS),
        ("`ensemble.csv`, a row", ENSEMBLE_COLUMNS),
        ("`adanet.csv`, a row", ADANET_COLUMNS),
    ],
)
def test_the_columns_of_the_output_are_documented_as_in_the_program(heading, columns):
    assert [(ticked(name)[0], text) for name, text in rows_after(heading)] == list(columns.items())


def test_the_options_of_search_are_those_of_the_program():
    described = [ticked(row[0])[0].split()[0] for row in rows_after("## Command line")]
    assert len(described) == len(set(described))
    assert set(described) == command_options()["search"]


def test_the_other_commands_and_their_options_are_those_of_the_program():
    described = {}
    for name, options, _ in rows_after("| other commands"):
        words = [w for w in ticked(name)[0].split() if w.islower()]
        described[" ".join(words)] = {o.split()[0] for o in ticked(options)}
    program = command_options()
    assert described == {name: program[name] for name in program if name != "search"}


def test_no_option_is_named_that_does_not_exist():
    known = set().union(*command_options().values(), {"--help", "--version", "--debug"})
    played = "".join(b.text for b in BASH[INSTALL_BLOCKS:])
    assert options_in(PROSE + played) <= known


def test_every_problem_that_can_be_diagnosed_is_named():
    said = README[README.index("A diagnosis is one or more of:") :].partition(".")[0]
    assert " ".join(said.split()).partition(": ")[2].split(", ") == list(PROBLEMS)


def test_the_optimizers_are_those_of_the_program():
    described = [name for row in rows_after("| optimizers | |") for name in ticked(row[0])]
    assert len(described) == len(set(described))
    assert set(described) == set(OPTIMIZERS)


def test_the_losses_are_those_of_the_program():
    described = {
        ticked(name)[0]: (tuple(tasks.split(", ")), (ticked(metric) or [None])[0])
        for name, tasks, metric, _ in rows_after("## Losses")
    }
    assert described == {n: (loss.tasks, loss.metric) for n, loss in LOSSES.items()}


def test_the_measures_of_complexity_are_those_of_the_program():
    described = [(ticked(name)[0], text) for name, text in rows_after("| `--complexity` | compl")]
    assert described == [(name, measure.summary) for name, measure in MEASURES.items()]


def test_the_moves_are_those_of_the_program():
    described = {ticked(name)[0]: text for name, text in rows_after("| move | children |")}
    assert described == {name: move.summary for name, move in MOVES.items()}


def test_the_selections_and_variants_of_adanet_are_those_of_the_program():
    selections = [(ticked(name)[0], *rest) for name, *rest in rows_after("| `--select` |")]
    assert selections == [(n, s.summary, s.forfeits) for n, s in SELECTIONS.items()]
    variants = [(ticked(name)[0], text) for name, text in rows_after("| `--variant` |")]
    assert variants == [(n, v.summary) for n, v in VARIANTS.items()]


def test_what_can_be_listed_is_named():
    [words] = [text for name, _, text in rows_after("| other commands") if "`list KIND`" in name]
    assert re.split(r", | or ", words) == list(REGISTRIES)


# ------------------------------------------------------------------ links and versions


def test_every_relative_link_leads_somewhere():
    headings = {
        re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-")
        for h in re.findall(r"^#+ (.*)$", PROSE, re.MULTILINE)
    }
    for link in re.findall(r"\]\(([^)\s]+)\)", PROSE):
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif "://" not in link:
            assert (ROOT / link.partition("#")[0]).exists(), link


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE)
    assert next(v for v in versions if v != "Unreleased") == adanet_py.__version__


def test_the_python_that_is_asked_for_is_the_one_of_the_package():
    wanted = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert wanted is not None
    assert f"Python {wanted[1]} or newer" in README
