"""Every mistake a user can make with the command line: what is said, and that nothing is left.

Each case is one command in a folder of its own. It must end with exit code 2 and one sentence that
says what was expected, what was found and what to do, before any training, without a traceback, and
leave every file as it was.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tables import check_here, table
from typer.testing import CliRunner

import adanet_py
from adanet_py import cli, saving
from adanet_py import run as running
from adanet_py.journal import Lock
from adanet_py.model_file import MODEL_FILE

ROOT = Path(__file__).parents[1]
QUICK = ("--workers", "0", "--space", "tiny", "--folds", "1", "--candidates", "1")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with a good table and runs of it: finished, without a model, of a newer version."""
    folder = tmp_path_factory.mktemp("template")
    table().to_csv(folder / "good.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        patch.chdir(folder)
        adanet_py.search(
            "good.csv", out="run", space="tiny", workers=0, folds=1, candidates=1,
            on_note=lambda message: None,
        )  # fmt: skip
    shutil.copytree(folder / "run", folder / "newer")
    config = folder / "newer" / "config.yaml"
    config.write_text(re.sub(r"^version: \d+", "version: 999", config.read_text()))
    with zipfile.ZipFile(folder / "run" / MODEL_FILE) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["manifest.json"] = json.dumps(json.loads(parts["manifest.json"]) | {"version": 999})
    with zipfile.ZipFile(folder / "newer.adanet", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    whole = (folder / "run" / MODEL_FILE).read_bytes()
    (folder / "half.adanet").write_bytes(whole[: len(whole) // 2])
    (folder / "other").mkdir()
    (folder / "other" / "letter.txt").write_text("mine")
    (folder / "empty folder").mkdir()
    (folder / "letter.txt").write_text("mine")
    return folder


@pytest.fixture
def here(template, tmp_path, monkeypatch):
    """A copy of the template to be in; whoever trains in it fails."""
    folder = tmp_path / "here"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(running, "Search", lambda *a, **k: pytest.fail("training was begun"))
    return folder


def snapshot(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
        if p.name != "lock"  # names who looked last
    }


def refused(folder, *arguments):
    """Run a command that must be refused; the message."""
    before = snapshot(folder)
    done = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    said = done.stderr.strip()
    assert done.exit_code == 2, said
    assert done.stdout == ""
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("Error: ")
    assert last.endswith((".", "?", "integer"))  # the last by typer, of what is no number
    assert " object at 0x" not in last
    assert snapshot(folder) == before
    return last


def search(folder, *arguments, target=None):
    """A search that must be refused."""
    options = [] if target is None else ["--target", target]
    return refused(folder, "search", *arguments, *options, *QUICK)


# ---------------------------------------------------------------- the file


def content(text, rows=30):
    return text + "".join(f"{i},{i % 7},{'xy'[i % 2]}\n" for i in range(rows))


FILES = {
    "empty": ("", "is empty: expected a header line and rows. Give another file"),
    "blank": ("  \n\n", "is empty: expected a header line and rows. Give another file"),
    "header only": ("a,b,target\n", "expected rows after the header line, found none. Give"),
    "semicolons": (
        content("a,b,target\n").replace(",", ";"),
        "expected columns separated by commas, found one column 'a;b;target': it looks separated "
        "by semicolons. Save the file with commas",
    ),
    "tabs": (content("a,b,target\n").replace(",", "\t"), "it looks separated by tabs. Save"),
    "bars": (content("a,b,target\n").replace(",", "|"), "it looks separated by vertical bars"),
    "spaces": (content("a,b,target\n").replace(",", " "), "it looks separated by spaces"),
    "decimal commas": (
        "a;b;target\n" + "".join(f"{i},5;{i},25;{'xy'[i % 2]}\n" for i in range(30)),
        "it looks separated by semicolons",
    ),
    "names twice": (
        content("a,a,target\n"),
        "expected every column to have its own name, found 'a' 2 times (columns 1, 2). Rename",
    ),
    "no header": (content("7,8,x\n"), "They look like values: is the header line missing?"),
    "no header, cells alike": (content("7,7,x\n"), "Rename or remove one. They look like values"),
    "a long row": (content("a,b,target\n") + "1,2,x,4\n", "Expected 3 fields in line 32, saw 4"),
    "three rows": (content("a,b,target\n", 3), "at least 6 rows with a target, found 3. Add rows"),
    "target only": ("target\n" + "x\ny\n" * 9, "at least one feature column beside 'target'"),
    "constants": (
        "a,b,target\n" + "1,z,x\n1,z,y\n" * 9,
        "expected at least one usable feature column, found none ('a': every row has 1; 'b': every "
        "row has 'z'). Add columns",
    ),
    "latin": (content("a,b,targét\n").encode("latin-1"), "expected UTF-8 text, found the byte"),
    "binary": (bytes(range(256)) * 20, "expected UTF-8 text"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_table(here, case):
    text, message = FILES[case]
    (here / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message.lower() in search(here, "t.csv").lower()
    said = refused(here, "predict", "run", "t.csv").lower()
    if case not in ("no header", "three rows", "target only", "constants"):  # other columns only
        assert message.lower() in said
    else:
        assert "the table has no column 'size' (and 2 more" in said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("god.csv", "No such file: god.csv. Expected the path of a table. Did you mean 'good.csv'"),
        ("nowhere/good.csv", "There is no folder nowhere either"),
        ("other", "Expected a file, found a folder: other. Name a file in it"),
        ("letter.txt", "expected a file ending in .csv"),
        ("half.adanet", "expected a file ending in .csv"),
        ("", "--data: expected a value, found ''. Leave the option out"),
    ],
)
def test_a_path_that_leads_to_no_table(here, name, message):
    assert message in search(here, name)
    if name:
        assert message in refused(here, "predict", "run", name)
        assert message in refused(here, "evaluate", "run", name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t.csv.gz", "expected a file compressed with gzip, found another. If it is plain text"),
        ("t.tsv", "expected columns separated by tabs, found one column 'a,b,target'"),
        ("t.parquet", "t.parquet cannot be read"),
        ("t.feather", "t.feather cannot be read"),
        ("t.xlsx", "Save the sheet as CSV."),
        ("t.txt", "If it is a CSV file, rename it."),
    ],
)
def test_a_name_that_says_another_kind_of_file(here, name, message):
    (here / name).write_text(content("a,b,target\n"))
    assert message in search(here, name)


# ---------------------------------------------------------------- target and cells


def rows(**columns):
    """The good table with columns replaced or cells changed by (row, value)."""
    frame = table()
    for name, value in columns.items():
        if isinstance(value, tuple):
            frame[name] = frame[name].astype(object)
            frame.loc[value[0] - 1, name] = value[1]
        else:
            frame[name] = value
    return frame


NUMBERS = np.linspace(-3, 9, 120)
CELLS = {
    "misspelt target": (rows(), ["--target", "tarket"], "Did you mean 'target'? Columns: size,"),
    "no target": (
        rows().rename(columns={"target": "outcome"}),
        [],
        "which column is the target? None is called target, class, label or y. Name it with "
        "--target (target=...). Columns: size, weight, colour, outcome.",
    ),
    "two targets": (rows(label=1), [], "Several could be (target, label). Name it"),
    "empty target name": (rows(), ["--target", ""], "--target: expected a value, found ''"),
    "a misspelt target of two": (rows(), ["--target", "target,siez"], "Did you mean 'size'?"),
    "a target twice": (rows(), ["--target", "size,size"], "'size' was given twice. Name every"),
    "an empty name among targets": (
        rows(),
        ["--target", "size,"],
        "Target 'size,': expected names of columns separated by single commas, found an empty one.",
    ),
    "targets of two kinds": (
        rows(),
        ["--target", "target,size"],
        "Several targets: expected labels of two values in every column, or numbers in every "
        "column, found labels of two values: 'target'; numbers: 'size'. Name only targets of one",
    ),
    "classes among targets": (rows(), ["--target", "target,colour"], "found labels of two values"),
    "words among numbers as targets": (
        rows(),
        ["--target", "size,colour", "--task", "multioutput"],
        "The target 'colour', row 1: expected a number (the task is regression), found",
    ),
    "three classes as labels": (
        rows(),
        ["--target", "target,colour", "--task", "multilabel"],
        "The target 'colour': expected two different values (the task is multilabel), found 3.",
    ),
    "one target as several": (
        rows(),
        ["--target", "target", "--task", "multilabel"],
        "--task multilabel: expected several target columns, found one, 'target'. Name more",
    ),
    "several targets as one": (
        rows(),
        ["--target", "target", "--target", "size", "--task", "regression"],
        "--task regression: expected one target column, found 'target', 'size'. Use multilabel",
    ),
    "a constant among targets": (
        rows(one=1),
        ["--target", "target,one"],
        "The target 'one': expected at least two different values, found only 1 in all 120 rows.",
    ),
    "targets never there together": (
        rows(target=[*["yes", "no"] * 30, *[np.nan] * 60], b=[*[np.nan] * 60, *"pq" * 30]),
        ["--target", "target,b"],
        "The targets: expected rows that have all of them, found none. Choose fewer targets",
    ),
    "a metric of one target": (
        rows(b=["p", "q"] * 60),
        ["--target", "target,b", "--metric", "matthews"],
        "Metric 'matthews' is for binary and multiclass tasks, but this task is multilabel.",
    ),
    "class weights of several targets": (
        rows(b=["p", "q"] * 60),
        ["--target", "target,b", "--class-weight", "yes=3"],
        "--class-weight: expected balanced or none with several targets, found weights by label.",
    ),
    "a loss of classes for several numbers": (
        rows(b=NUMBERS),
        ["--target", "size,b", "--loss", "focal"],
        "--loss focal: the loss focal is for binary and multilabel and multiclass tasks",
    ),
    "one of several targets to drop": (
        rows(),
        ["--target", "target,size", "--drop", "size"],
        "'size' is the target and cannot be the column to drop as well.",
    ),
    "target all missing": (rows(target=np.nan), [], "expected values, found none in any of 120"),
    "one class": (rows(target="yes"), [], "found only 'yes' in all 120 rows. Choose another"),
    "one value": (rows(target=2.5), [], "at least two different values, found only 2.5"),
    "a class with one row": (
        rows(target=(7, "perhaps")),
        [],
        "at least two rows of every class, found one of class 'perhaps', row 7. Remove that row, "
        "merge the class into another or add rows of it.",
    ),
    "infinite target": (
        rows(target=np.where(NUMBERS == NUMBERS[4], np.inf, NUMBERS)),
        [],
        "The target 'target', row 5: expected a finite number, found inf. Correct it",
    ),
    "words as regression": (
        rows(),
        ["--task", "regression"],
        "row 1: expected a number (the task is regression), found",
    ),
    "numbers as two classes": (rows(target=NUMBERS), ["--task", "binary"], "found 120. Use multi"),
    "a stray word in the target": (
        rows(target=NUMBERS).assign(target=lambda f: f["target"].astype(object).where(
            f.index != 8, "oops")),
        ["--strict"],
        "The target 'target', row 9: expected a number, found 'oops'. Correct it",
    ),
    "infinite value": (
        rows(size=(10, np.inf)),
        [],
        "Column 'size', row 10: expected a finite number, found inf. Correct it or leave the cell",
    ),
    "a stray word": (
        rows(size=(11, "tallish")),
        ["--strict"],
        "Column 'size': expected numbers, found row 11 is 'tallish'. Correct it, or run without",
    ),
    "a negative target for rmsle": (
        rows(target=NUMBERS),
        ["--metric", "rmsle"],
        "Metric 'rmsle': expected a target of more than -1, found -3. Use another",
    ),
    "regression metric for classes": (
        rows(),
        ["--metric", "rmse"],
        "Metric 'rmse' is for regression and multioutput tasks, but this task is binary. Metrics "
        "for it: log_loss",
    ),
    "classes metric for regression": (rows(target=NUMBERS), ["--metric", "f1"], "it: rmse, mse,"),
    "binary metric for three classes": (
        rows(target=["a", "b", "c"] * 40),
        ["--metric", "f1"],
        "Metric 'f1' is for binary tasks, but this task is multiclass",
    ),
    "column to drop": (rows(), ["--drop", "colur"], "(column to drop). Did you mean 'colour'?"),
    "target to drop": (rows(), ["--drop", "target"], "is the target and cannot be the column to"),
    "weight": (rows(), ["--weight", "wieght"], "(weight). Did you mean 'weight'? Columns: size"),
    "negative weight": (
        rows(w=-1.0),
        ["--weight", "w"],
        "Column 'w' (weight), row 1: expected a number of at least 0, found '-1' (120 such rows). "
        "Correct it",
    ),
    "no weight above zero": (rows(w=0), ["--weight", "w"], "expected some above 0, found only 0"),
    "group": (rows(), ["--group", "color"], "(group). Did you mean 'colour'?"),
    "one group": (rows(g="a"), ["--group", "g"], "at least 2 different groups, found 1"),
    "group with gaps": (rows(), ["--group", "weight"], "row 1: expected a value, found none (8 su"),
    "time of words": (rows(), ["--time-column", "colour"], "expected a date or a number, found"),
    "one time": (rows(t=5), ["--time-column", "t"], "expected different times, found the same"),
    "no split": (rows(), ["--split", "part"], "expected a column of t.csv or a file, found neithe"),
    "words of a split": (
        rows(part="train").pipe(lambda f: f.assign(part=f["part"].where(f.index != 3, "trian"))),
        ["--split", "part"],
        "Split column 'part', row 4: expected train, valid or test, found 'trian' (1 such row).",
    ),
    "only train": (rows(part="train"), ["--split", "part"], "has no row 'valid': expected some"),
    "a file as split": (rows(), ["--split", "good.csv"], "expected one column or one called split"),
    "two ways to split": (
        rows(),
        ["--group", "colour", "--time-column", "size"],
        "at most one of --split, --group, --time-column, found --group and --time-column. Leave",
    ),
    "many folds": (rows(), ["--folds", "500"], "--folds: expected 1 (a hold-out) to 120 (rows)"),
}  # fmt: skip


@pytest.mark.parametrize("case", CELLS)
def test_a_table_that_does_not_fit_the_options(here, case):
    frame, options, message = CELLS[case]
    frame.to_csv(here / "t.csv", index=False)
    arguments = [a for a in QUICK if "--folds" not in options or a not in ("--folds", "1")]
    if "--folds" in options:
        arguments = ["--workers", "0", "--space", "tiny", "--candidates", "1"]
    assert message in refused(here, "search", "t.csv", *arguments, *options)


def test_what_is_said_of_cells_holds_for_a_frame_as_for_a_file(here):
    with pytest.raises(adanet_py.AdanetError, match="'size', row 10: expected a finite number"):
        adanet_py.search(rows(size=(10, np.inf)), target="target", workers=0, candidates=1)
    assert not (here / "results").exists()


# ---------------------------------------------------------------- options


OPTIONS = {
    "metric": (["--metric", "acuracy"], "Unknown metric 'acuracy'. Did you mean 'accuracy'?"),
    "space": (["--space", "tabel"], "Unknown search space 'tabel'. Did you mean 'table'? Known:"),
    "no space": (["--space", "mine.yaml"], "Expected a space file at mine.yaml, found none. Give"),
    "a folder as space": (["--space", "other"], "Expected a space file at other, found a folder."),
    "controller": (["--controller", "evolutoin"], "Did you mean 'evolution'? Known: auto,"),
    "no time": (["--time", "0"], "expected a time above zero such as 90s, 10m or 1h30m, found '0'"),
    "a time past": (["--time", "-5"], "expected a time above zero"),
    "nonsense time": (["--time", "soon"], "found 'soon'"),
    "endless time": (["--time", "inf"], "found 'inf'"),
    "no candidates": (["--candidates", "0"], "--candidates: expected a whole number of 1 or more"),
    "candidates in words": (["--candidates", "many"], "Invalid value for '--candidates'"),
    "folds": (["--folds", "0"], "--folds: expected a whole number of 1 or more, found 0."),
    "seed": (["--seed", "-1"], "--seed: expected a whole number of 0 or more, found -1."),
    "workers": (["--workers", "-2"], "--workers: expected a whole number of 0 or more, found -2."),
    "task": (["--task", "regresion"], "found 'regresion'. Did you mean 'regression'?"),
    "class weight": (["--class-weight", "equal"], "none, or weights such as yes=3,no=1"),
    "device": (["--device", "gpu"], "--device: expected auto, cpu, cuda or cuda:0, found 'gpu'."),
    "no such GPU": (["--device", "cuda:99", "--workers", "0"], "expected a CUDA device, found"),
    "empty folder name": (["--out", ""], "--out: expected a value, found ''."),
    "an option": (["--taget", "target"], "No such option: --taget"),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_that_cannot_be(here, case):
    options, message = OPTIONS[case]
    done = CliRunner().invoke(cli.app, ["search", "good.csv", *options])
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (here / "results").exists()


def test_a_target_without_data(here):
    assert "--target was given without data. Give" in refused(here, "search", "--target", "label")


# ---------------------------------------------------------------- the folder of a run


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("other", "other is not empty and not a run (it holds 'letter.txt'). Choose a new or an"),
        ("letter.txt", "Expected a folder for the run at letter.txt, found a file. Choose another"),
        ("letter.txt/run", "found a file. Choose another --out"),
        ("run", "run holds a run with other options (--folds: 1 then, 2 now"),
        ("newer", "newer is a run of a newer version (format 999, this program reads up to"),
    ],
)
def test_a_folder_that_cannot_take_the_run(here, out, message):
    options = ("--workers", "0", "--space", "tiny", "--candidates", "1", "--folds", "2")
    assert message in refused(here, "search", "good.csv", *options, "--out", out)


def test_a_folder_with_the_run_of_another_table(here):
    rows(size=1.5).to_csv(here / "t.csv", index=False)
    said = search(here, "t.csv", "--out", "run")
    assert "which has changed or is not the data given. Choose another --out" in said


def test_a_folder_that_cannot_be_written(here):
    folder = here / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):  # root may write anywhere but to what is no disk
        folder = Path("/proc")
        if not folder.is_dir():
            pytest.skip("this user may write everywhere")
    try:
        said = search(here, "good.csv", "--out", folder / "run")
        assert "Expected a folder this user may write to; choose another one (--out)" in said
        said = refused(here, "predict", "run", "good.csv", "--out", folder / "p.csv")
        assert f"Cannot write {folder / 'p.csv'}" in said
    finally:
        (here / "locked").chmod(0o755)


def test_a_folder_another_process_works_in(here):
    with Lock(here / "empty folder"):
        said = search(here, "good.csv", "--out", "empty folder")
    assert "empty folder is in use by" in said
    assert str(os.getpid()) in said
    assert "Wait until it has ended, stop it, or use another folder (--out)" in said


@pytest.mark.parametrize("out", ["deep/er/run", "empty folder"])
def test_refused_data_leave_no_folder_and_no_file_in_one(here, out):
    rows(size=(10, np.inf)).to_csv(here / "t.csv", index=False)
    assert "row 10" in search(here, "t.csv", "--out", out)


@pytest.mark.parametrize("command", ["resume", "leaderboard", "replay", "check"])
@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("nowhere", "Expected a run folder at nowhere, found nothing."),
        ("other", "Expected a run folder at other, found one without a configuration."),
        ("letter.txt", "Expected a run folder at letter.txt, found a file."),
        ("newer", "newer is a run of a newer version (format 999, this program reads up to"),
    ],
)
def test_commands_on_what_is_no_run(here, command, run, message):
    if (command, run) != ("check", "letter.txt"):  # check takes files, and reports what is wrong
        assert message in refused(here, command, run)


# ---------------------------------------------------------------- models


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nowhere", "Expected a model file or a run folder with one at nowhere, found none."),
        ("other", "Expected a model file or a run folder with one at other, found none."),
        ("good.csv", "good.csv is not a model file"),
        ("half.adanet", "half.adanet is not a model file"),
        ("newer.adanet", "newer.adanet was written by a newer version (format 999"),
    ],
)
def test_what_is_no_model(here, command, model, message):
    assert message in refused(here, command, model, "good.csv")


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_table_without_a_column_of_the_model(here, command):
    table().rename(columns={"size": "siez"}).to_csv(here / "t.csv", index=False)
    said = refused(here, command, "run", "t.csv")
    assert "no column 'size', which the model was trained on. Did you mean 'siez'? Columns" in said


def test_tables_that_cannot_be_scored(here):
    table().drop(columns="target").to_csv(here / "t.csv", index=False)
    assert "t.csv has no column 'target' (target)" in refused(here, "evaluate", "run", "t.csv")
    rows(target=(6, "perhaps")).to_csv(here / "u.csv", index=False)
    said = refused(here, "evaluate", "run", "u.csv")
    assert "row 6: expected one of the classes 'no', 'yes', found 'perhaps'" in said


def test_infinite_values_to_predict_from(here):
    rows(size=(10, -np.inf)).to_csv(here / "t.csv", index=False)
    (here / "p.csv").write_text("old predictions")
    said = refused(here, "predict", "run", "t.csv", "--out", "p.csv")
    assert "Column 'size', row 10: expected a finite number, found -inf" in said


# ---------------------------------------------------------------- space files


SPACES = {
    "a section": ("optimizers:", "optimisers:", "unknown key 'optimisers'. Did you mean 'optimize"),
    "an architecture": ("  mlp:", "  mpl:", "Unknown architecture 'mpl'. Did you mean 'mlp'?"),
    "an optimizer": ("  adam:", "  adma:", "Unknown optimizer 'adma'. Did you mean 'adam'"),
    "a schedule": ("  cosine: {}", "  cosin: {}", "Unknown schedule 'cosin'. Did you mean 'cosine"),
    "a knob": ("    depth:", "    dpeth:", "'dpeth'. Did you mean 'depth'? Known: activation,"),
    "a domain": ("{int: [1, 2]}", "{itn: [1, 2]}", "unknown key 'itn'. Did you mean 'int'? Known"),
    "a choice": ("relu, tanh", "rleu, tanh", "activation cannot be 'rleu'; expected one of"),
    "a range": ("{int: [1, 2]}", "{int: [9, 2]}", "the low end 9 is above the high end 2"),
    "a tab": ("  mlp:", "\tmlp:", "not valid YAML: found character"),
    "a start": ("depth: 1,", "dephts: 1,", "'dephts'. Did you mean 'depth'"),
}


@pytest.mark.parametrize("case", SPACES)
def test_a_mistake_in_a_space_file_is_named_with_its_line(here, case):
    good, bad, message = SPACES[case]
    text = (ROOT / "search_spaces" / "tiny.yaml").read_text()
    assert good in text
    (here / "mine.yaml").write_text(text.replace(good, bad, 1))
    line = 1 + text[: text.index(good)].count("\n")
    for command in (("spaces", "validate", "mine.yaml"), ("search", "good.csv", "--space", "mine.y"
                    "aml", "--workers", "0", "--candidates", "1")):  # fmt: skip
        said = refused(here, *command)
        assert message in said
        assert said.startswith(f"Error: mine.yaml:{line}: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.yml", "Did you mean 'mine.yaml'? Give the path of a .yaml file or one of: optim"),
        ("other", "found a folder"),
        ("letter.txt", "letter.txt:1: expected a mapping with name"),
        ("void.yaml", "found nothing. `spaces show tiny` prints one to start from."),
        ("bytes.yaml", "cannot be read as text"),
        ("tabel", "Did you mean 'table'?"),
    ],
)
def test_what_is_no_space_file(here, name, message):
    (here / "mine.yaml").write_text("name: x\n")
    (here / "void.yaml").write_text("")
    (here / "bytes.yaml").write_bytes(bytes(range(128, 256)))
    assert message in refused(here, "spaces", "validate", name)


# ---------------------------------------------------------------- what is not refused


def test_rows_without_a_target_are_dropped_and_stray_words_are_missing_and_both_are_said(
    here, monkeypatch
):
    class Stop(Exception):
        pass

    def stop(*_, **__):
        raise Stop

    monkeypatch.setattr(running, "Search", stop)
    frame = rows(target=(4, None), size=(11, "tallish"))
    frame.to_csv(here / "t.csv", index=False)
    notes = []
    with pytest.raises(Stop):
        adanet_py.search("t.csv", out="new", workers=0, candidates=1, on_note=notes.append)
    assert "Dropped 1 of 120 rows: the target 'target' is missing there (first: row 4)." in notes
    assert any("'size' holds numbers, but row 11 is 'tallish': treated as mis" in n for n in notes)


def test_a_stray_word_in_a_table_to_predict_is_missing_and_said(here):
    rows(size=(11, "tallish")).to_csv(here / "t.csv", index=False)
    done = CliRunner().invoke(cli.app, ["predict", "run", "t.csv"])
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 121
    assert done.stderr == (
        "note: Column 'size': expected a number, found 'tallish' in row 11: treated as missing "
        "(1 of 120 cells).\n"
    )


# ---------------------------------------------------------------- a process of its own


def test_the_command_itself_with_workers_leaves_nothing(here):
    rows(size=(10, np.inf)).to_csv(here / "t.csv", index=False)
    before = snapshot(here)
    done = subprocess.run(
        [sys.executable, "-m", "adanet_py", "search", "t.csv", "--time", "1h"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "Error: Column 'size', row 10: expected a finite number, found inf. "
        "Correct it or leave the cell empty.\n"
    )
    assert snapshot(here) == before
