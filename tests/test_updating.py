"""A model updated with new rows: members frozen, weights refitted, one may join."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tables import check_here, few_trees, table
from typer.testing import CliRunner

import adanet_py
from adanet_py import saving
from adanet_py.cli import app
from adanet_py.errors import DataError, RunError
from adanet_py.model import load
from adanet_py.updating import update

pytestmark = pytest.mark.usefixtures("reloaded_here")


def searched(folder, task, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        few_trees(patch)
        table(task, rows=200).to_csv(folder / "rows.csv", index=False)
        given = {"target": "target", "candidates": 4, "space": "tiny", "workers": 0, "folds": 2}
        return adanet_py.search(folder / "rows.csv", out=folder / "run", **given, **options).run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("update"), "binary", members="any")


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_weights_are_refitted_and_members_stay_as_they_are(task, tmp_path):
    run = searched(tmp_path, task)
    before = load(run)
    found = update(run, table(task, rows=150, seed=4))
    after = load(found.path)
    known = {m.candidate.id: m for m in before.members}
    for member in after.members:
        if member.candidate.id in known:
            for name, array in known[member.candidate.id].arrays.items():
                np.testing.assert_array_equal(member.arrays[name], array)
    assert found.objective["refitted"] <= found.objective["before"] + 1e-12
    if found.joined:
        assert found.objective["with_new"] < found.objective["refitted"]
    new = set(m.candidate.id for m in after.members) - set(known)
    assert len(new) == int(found.joined)
    assert np.isfinite([found.before, found.after]).all()


def test_rows_of_another_kind_change_the_model(run, tmp_path):
    rows = table(rows=300, seed=8)
    rows["target"] = np.where(rows["target"] == "yes", "no", "yes")  # the world has turned
    found = update(run, rows, tmp_path / "turned.adanet")
    assert found.joined
    assert found.after < found.before


def test_nothing_is_overwritten_and_what_does_not_suit_is_said(run, tmp_path):
    rows = table(rows=60, seed=3)
    there = tmp_path / "there.adanet"
    there.write_bytes(b"mine")
    with pytest.raises(RunError, match=r"exists\. Give another --out"):
        update(run, rows, there)
    assert there.read_bytes() == b"mine"
    with pytest.raises(DataError, match="no column 'size'"):
        update(run, rows.drop(columns="size"), tmp_path / "a.adanet")
    with pytest.raises(DataError, match="at least 20 new rows"):
        update(run, rows.head(9), tmp_path / "a.adanet")
    assert not (tmp_path / "a.adanet").exists()


def test_the_command_writes_a_model_and_says_what_changed(run, tmp_path):
    new, out = tmp_path / "new.csv", tmp_path / "m.adanet"
    table(rows=80, seed=6).to_csv(new, index=False)
    done = CliRunner().invoke(app, ["update", str(run), str(new), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["model"] == str(out)
    assert found["rows"] == 80
    assert len(load(out).predict(new)) == 80
