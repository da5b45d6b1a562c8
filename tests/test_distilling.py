"""An ensemble distilled into one network: its loss, its teacher, its file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tables import check_here, few_trees, table
from torch.nn import functional as F
from typer.testing import CliRunner

import adanet_py
from adanet_py import saving
from adanet_py.cli import app
from adanet_py.distilling import Distilling, distil, make_loss, teach, trust
from adanet_py.ensembling import Options
from adanet_py.errors import ConfigError, RunError
from adanet_py.model import load
from adanet_py.state import read_state

pytestmark = pytest.mark.usefixtures("reloaded_here")

SEARCH = {"target": "target", "candidates": 6, "space": "tiny", "workers": 0, "seed": 1}
FREE = Options(lambda_=0.0, beta=0.0)


def searched(folder, task, folds, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        few_trees(patch)
        table(task, rows=240).to_csv(folder / "rows.csv", index=False)
        given = SEARCH | {"folds": folds, "out": folder / "run"} | options
        return adanet_py.search(folder / "rows.csv", **given).run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("distil"), "binary", 2, members="any")


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_loss_is_that_of_the_paper(task):
    torch.manual_seed(0)
    k, b, c, t = 2, 5, 3 if task == "multiclass" else 1, 3.0
    z, taught = torch.randn(k, b, 1, c, dtype=torch.float64), torch.randn(1, b, c).double()
    label = torch.arange(b).double()[None, :, None] % (3 if task == "multiclass" else 2)
    share = torch.rand(1, b, 1).double()
    found = make_loss(task, c, t).rows(z, torch.cat([label, taught, share], -1), {})
    for j in range(k):
        one = z[j, :, 0]
        if task == "regression":
            hard, soft = (one - label[0]) ** 2, (one - taught[0]) ** 2
            hard, soft = hard[:, 0], soft[:, 0]
        elif task == "binary":
            each = F.binary_cross_entropy_with_logits
            hard = each(one, label[0], reduction="none")[:, 0]
            soft = t * t * each(one / t, (taught[0] / t).sigmoid(), reduction="none")[:, 0]
        else:
            hard = F.cross_entropy(one, label[0, :, 0].long(), reduction="none")
            soft = t * t * F.cross_entropy(one / t, (taught[0] / t).softmax(-1), reduction="none")
        expected = (1 - share[0, :, 0]) * hard + share[0, :, 0] * soft
        torch.testing.assert_close(found[j], expected)


def test_a_teacher_is_trusted_where_it_is_right():
    outputs = np.array([[4.0], [-4.0], [0.0]])
    np.testing.assert_allclose(
        trust("binary", np.array([1, 1, 1]), outputs), 1 / (1 + np.exp([-4.0, 4.0, 0.0]))
    )
    shares = trust("regression", np.array([0.0, 3.0]), np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(shares, [1.0, 1 / 3])


@pytest.mark.parametrize("task", ["multiclass", "regression"])
@pytest.mark.parametrize("folds", [1, 2])
def test_one_network_takes_the_place_of_the_ensemble(task, folds, tmp_path):
    run = searched(tmp_path, task, folds)
    found = distil(run, FREE, Distilling(), tmp_path / "one.adanet")
    [member] = load(found.path).members
    assert member.kind == "network"
    assert member.folds == folds
    best = max(read_state(run).finished(), key=lambda r: r.reward)
    assert member.candidate.parent == best.candidate.id
    assert member.candidate.architecture == best.candidate.architecture
    constant = read_state(run).baselines[0].metrics["validation"]
    assert found.scores.validation < 0.9 * constant


def test_the_student_of_a_teacher_alone_follows_it(run, tmp_path):
    """All weight on the teacher: nearer to it than a network trained on the labels is."""
    found = distil(run, FREE, Distilling("single", alpha=1.0), tmp_path / "again.adanet")
    rows = table(rows=300, seed=9)
    p = load(found.path).predict_proba(rows)[:, 1]
    state = read_state(run)
    best = max(state.finished(), key=lambda r: r.reward)
    from adanet_py.regrow import model_of

    q = model_of(run, best, found.grown).predict_proba(rows)[:, 1]
    assert np.corrcoef(p, q)[0, 1] > 0.9


def test_every_fold_has_a_teacher_that_never_saw_its_validation_rows(run):
    from adanet_py.regrow import grow_again, model_of

    _, grown = grow_again(run, Options("mean", members="any"))
    model = model_of(run, None, grown)
    assert {m.kind for m in model.members} > {"network"}
    rows = model.features(table(rows=50))
    each = [teach(model, rows, fold) for fold in range(2)]
    assert np.abs(each[0] - each[1]).max() > 1e-3


def test_the_command_saves_the_student_and_says_what_each_costs(run, tmp_path):
    out = tmp_path / "s.adanet"
    command = ["ensemble", str(run), "--distil", "--lambda", "0", "--out", str(out), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["model"] == str(out)
    names = {"ensemble", "single", "distilled"}
    assert set(found["costs"]) == names
    assert names < set(found["scores"])
    assert found["costs"]["distilled"]["bytes"] == out.stat().st_size
    assert found["costs"]["distilled"]["bytes"] < found["costs"]["ensemble"]["bytes"]


def test_what_cannot_be_distilled_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'single'"):
        Distilling("singel")
    with pytest.raises(ConfigError, match="--alpha: expected a number from 0 to 1"):
        Distilling(alpha=1.5)
    with pytest.raises(ConfigError, match="--temperature: expected a number above 0"):
        Distilling(temperature=0.0)
    other = tmp_path / "other.csv"
    table(rows=240, seed=5).to_csv(other, index=False)
    with pytest.raises(RunError, match="not the data given"):
        distil(run, FREE, Distilling(), data=other)
    done = CliRunner().invoke(app, ["ensemble", str(run), "--distil", "--single"])
    assert done.exit_code == 2
    assert "leave one out" in done.output
