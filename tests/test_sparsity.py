"""Weights held at zero: on every engine, through averages, checkpoints, files and moves."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from programs import make_candidates, make_program, make_run, make_spec, make_split
from tables import check_here, table
from test_refine import PARENT, _judge_all, child_of, family, group_of, never, result_of

import adanet_py
from adanet_py import saving
from adanet_py.architectures import ARCHITECTURES
from adanet_py.architectures.layers import is_decayed
from adanet_py.choosing import make_choice
from adanet_py.explain import explain, lines
from adanet_py.folder import candidate_file
from adanet_py.metrics import get_metric
from adanet_py.records import Candidate, History, Result, Status
from adanet_py.refine import MOVES
from adanet_py.refine.acceptance import judged
from adanet_py.refine.inheritance import TOLERANCE, read_parent
from adanet_py.refine.refiner import Refiner
from adanet_py.replay import replay
from adanet_py.reward import RewardRule
from adanet_py.space import load_space
from adanet_py.state import read_state
from adanet_py.training import probe
from adanet_py.training.engines import ENGINES, make_engine
from adanet_py.training.jobs import run_group
from adanet_py.training.optimizers import OPTIMIZERS
from adanet_py.training.setting import make_program as program_of_group
from adanet_py.training.sparsity import CRITERIA, counts, held, held_share, zero_smallest

SPARSIFY = [m for m in MOVES if m.startswith("sparsify")]
# Averaged, averaged at the end, and with everything that touches weights beside the optimizer.
NUMERIC = [
    {"lr": 0.01, "ema": 0.7, "dropout": 0.2},
    {"lr": 0.02, "swa": 0.5, "weight_decay": 0.1},
    {"lr": 0.01, "clip_norm": 0.1, "l1": 0.01, "max_norm": 0.5, "decoupled_decay": 0.1, "agc": 0.1},
]


def sparse_program(architecture="mlp", optimizer="adamw", folds=1, numeric=NUMERIC, **static):
    static = {"width": 6, "depth": 2, "sparsity": 0.5} | static
    static = {k: v for k, v in static.items() if k in ARCHITECTURES[architecture].static}
    candidates = make_candidates(architecture, numeric, optimizer=optimizer, **static)
    return make_program(candidates, make_spec("multiclass"), folds=folds)


def zeros_of(snapshot):
    """Where matrices are zero, by fold and name."""
    return {n: v == 0.0 for n, v in snapshot.items() if is_decayed(n, tuple(v.shape))}


def check_held(engine, program):
    """Every member is zero where it began so, and nowhere else."""
    count = len(program.candidates)
    for i, c in enumerate(engine.alive):
        found = zeros_of(engine.snapshot(i))
        for f in range(program.folds):
            for name, zero in held(program.build(f * count + c)).items():
                assert zero.any()
                assert torch.equal(found[f"{f}/{name}"], zero), (c, name)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("name", ENGINES)
def test_zeros_stay_and_engines_agree(name, architecture, monkeypatch):
    monkeypatch.setattr(probe, "DUE_EVERY", 1)
    static = {"embedding": "periodic", "norm": "batch", "members": 2}
    program = sparse_program(architecture, folds=2, **static)
    found = []
    for each in (name, "separate"):
        engine = make_engine(each, program)
        check_held(engine, program)
        outputs = [engine.advance(0, 5, never)[1:], engine.measure()["curvature"]]
        engine.select([0, 2])
        outputs.append(engine.advance(5, 12, never)[1:])
        check_held(engine, program)
        outputs.append(engine.predict(make_split(60, 2).valid))
        found.append(outputs)
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)  # curvature lost some digits
    torch.testing.assert_close(found[0][-1], found[1][-1], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ENGINES)
def test_zeros_stay_whatever_the_optimizer(name, optimizer):
    if OPTIMIZERS[optimizer].engine not in ("", name):
        pytest.skip("it runs on another engine")
    program = sparse_program(optimizer=optimizer, numeric=NUMERIC[:1], depth=1)
    engine = make_engine(name, program)
    before = engine.snapshot(0)
    engine.advance(0, 4, never)
    check_held(engine, program)
    after = engine.snapshot(0)
    assert any(not torch.equal(after[n], before[n]) for n in before)


@pytest.mark.parametrize("name", ENGINES)
def test_a_training_that_was_broken_off_goes_on_to_the_same_weights(name):
    program = sparse_program(folds=2)
    whole, first, second = (make_engine(name, program) for _ in range(3))
    for engine in (whole, first):
        engine.advance(0, 5, never)
        engine.select([1, 2])
    second.load(first.alive, {n: v.clone() for n, v in first.state().items()})
    for engine in (whole, second):
        engine.advance(5, 12, never)
    check_held(second, program)
    for i in range(2):
        want = whole.snapshot(i)
        assert all(torch.equal(v, want[n]) for n, v in second.snapshot(i).items())


def test_a_diverged_member_leaves_the_zeros_of_others_alone():
    wild, good = {"lr": 1e30}, {"lr": 0.01}
    program = sparse_program(optimizer="sgd", numeric=[wild, good])
    engine = make_engine("stacked", program)
    _, loss, _ = engine.advance(0, 12, never)
    assert not loss[0].isfinite()
    alone = make_engine("stacked", replace(program, candidates=program.candidates[1:]))
    alone.advance(0, 12, never)
    want = alone.snapshot(0)
    assert all(torch.equal(v, want[n]) for n, v in engine.snapshot(1).items())


def test_a_layer_that_starts_at_zero_learns():
    program = sparse_program(numeric=[{"lr": 0.01}], zero_last=True, activation="tanh")
    engine = make_engine("stacked", program)
    head = engine.parts[[p.head for p in engine.parts].index(True)].name
    assert not engine.snapshot(0)[f"0/{head}"].any()
    engine.advance(0, 3, never)
    assert engine.snapshot(0)[f"0/{head}"].all()


# ------------------------------------------------------------------ which weights


def network(**static):
    return sparse_program(numeric=[{}], width=7, **({"sparsity": 0.0} | static)).build(0)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.75])
def test_a_share_of_the_weights_is_zero_and_it_is_the_smallest(criterion, sparsity):
    module = network()
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    zero_smallest(module, sparsity, criterion)
    matrices = {n: p for n, p in before.items() if is_decayed(n, tuple(p.shape))}
    total = sum(p.numel() for p in matrices.values())
    share, nonzero = counts([module])
    assert share == round(sparsity * total) / total == held_share(module)
    assert nonzero == sum(p.numel() for p in before.values()) - round(sparsity * total)
    for name, p in module.named_parameters():
        gone = p == 0.0
        assert torch.equal(p[~gone], before[name][~gone])
        if name in matrices and gone.any():
            assert before[name][gone].abs().max() <= p[~gone].abs().min()
        assert name in matrices or not gone.any()
    if criterion == "magnitude" and sparsity:
        cut = [(before[n][p == 0.0], p[p != 0.0]) for n, p in module.named_parameters()
               if n in matrices]  # fmt: skip
        assert max(g.abs().max() for g, _ in cut if len(g)) <= min(k.abs().min() for _, k in cut)
    if criterion == "layer":
        for name in matrices:
            p = module.get_parameter(name)
            assert abs(int((p == 0.0).sum()) - sparsity * p.numel()) <= 1.0


def test_the_relative_size_is_the_papers():
    matrices = [torch.tensor([[3.0, -1.0], [0.5, 2.0]]), torch.tensor([[0.1, 0.2]])]
    found = CRITERIA["relative"](matrices)
    for w, scores in zip(matrices, found, strict=True):
        for value, score in zip(w.flatten().tolist(), scores.flatten().tolist(), strict=True):
            others = sum(v * v for v in w.flatten().tolist() if v * v >= value * value)
            assert score == pytest.approx(value**2 / others)


def test_no_matrix_becomes_zero_throughout():
    module = network()
    with torch.no_grad():
        module.body[0].weight.mul_(1e-6)
    zero_smallest(module, 0.9, "magnitude")
    assert int(torch.count_nonzero(module.body[0].weight)) == 1


# ------------------------------------------------------------------ children


@pytest.fixture
def trained(tmp_path):
    setting = make_run(tmp_path, make_spec(), rows=90, folds=2, audit=9)
    [result] = run_group(group_of(PARENT), setting)
    return setting, result


def sparse_child(move="sparsify:magnitude", parent=PARENT, share=0, **changes):
    static = MOVES[move].children(parent, ARCHITECTURES[parent.architecture])[share]
    return child_of(parent, move, static=static, **changes)


def stored(setting, candidate):
    program = program_of_group(group_of(candidate), setting)
    return read_parent(candidate_file(setting.run, candidate.id), program).weights


def share_of(weights):
    """Of exact zeros, counted plainly in what was stored."""
    matrices = [v for part in weights for n, v in part.items() if is_decayed(n, tuple(v.shape))]
    return sum(int((m == 0.0).sum()) for m in matrices) / sum(m.numel() for m in matrices)


@pytest.mark.parametrize("move", SPARSIFY)
def test_a_childs_record_tells_its_zeros(trained, move):
    setting, parent = trained
    assert parent.sparsity == 0.0
    child = sparse_child(move, numeric={"lr": 0.01, "ema": 0.5})
    [result] = run_group(group_of(child, index=1), setting)
    assert result.status is Status.COMPLETE
    assert result.sparsity == share_of(stored(setting, child)) == pytest.approx(0.5, abs=0.01)
    assert result.parameters == parent.parameters
    assert 0.4 < result.nonzero / parent.nonzero < 0.8  # biases and tables stay
    assert math.isfinite(result.drop)
    again = Result.from_json(result.to_json())
    assert (again.sparsity, again.nonzero) == (result.sparsity, result.nonzero)


def test_children_of_sparse_networks(trained):
    """`train_on` keeps the zeros, `sparsify` adds to them, all else is dense again."""
    setting, _ = trained
    first = sparse_child()
    run_group(group_of(first, index=1), setting)
    zeros = [zeros_of(w) for w in stored(setting, first)]
    assert not all(torch.equal(zeros[0][n], zeros[1][n]) for n in zeros[0])  # a fold's own
    on, further = child_of(first), sparse_child(parent=first)
    assert on.static["sparsity"] == 0.5
    assert further.static["sparsity"] == 0.75
    for i, child in enumerate((on, further)):
        [result] = run_group(group_of(child, index=2 + i), setting)
        assert result.sparsity == pytest.approx(child.static["sparsity"], abs=0.01)
        for before, after in zip(zeros, stored(setting, child), strict=True):
            found = zeros_of(after)
            assert all(bool(found[n][z].all()) for n, z in before.items())
            assert child is further or all(torch.equal(found[n], z) for n, z in before.items())
    wide = MOVES["widen"].children(first, ARCHITECTURES["mlp"])[0]
    assert wide["sparsity"] == 0.0
    [result] = run_group(group_of(child_of(first, "widen", static=wide), index=9), setting)
    assert result.difference <= TOLERANCE
    assert result.sparsity < 0.1  # what is left are dead units


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_half_and_a_quarter_of_the_weights_are_left(name):
    architecture = ARCHITECTURES[name]
    for move in SPARSIFY:
        for now, then in ((0.0, [0.5, 0.75]), (0.75, [0.875, 0.9375]), (0.97, [0.985]), (0.99, [])):
            found = MOVES[move].children(Candidate(name, {"sparsity": now}), architecture)
            assert [s["sparsity"] for s in found] == pytest.approx(then)
        bare = {k: v for k, v in architecture.static.items() if k != "sparsity"}
        assert MOVES[move].children(Candidate(name), replace(architecture, static=bare)) == ()


def test_for_sparsity_what_counts_is_the_number_that_is_not_zero():
    parent = result_of(PARENT, nonzero=1000)
    child = result_of(sparse_child(), gain=-0.01, gain_error=0.02, nonzero=520)
    found = judged(child, parent, "sparsity")
    assert found.accepted is True
    assert "parameters that are not zero 52 % of" in found.verdict
    assert judged(child.replace(nonzero=950), parent, "sparsity").accepted is False
    assert judged(child.replace(gain=-0.03), parent, "sparsity").accepted is False
    assert judged(child, parent, "size").accepted is False
    choice = make_choice("best", get_metric("rmse"), RewardRule(), lambda r: 0.0, "sparsity")
    further = result_of(sparse_child(parent=child.candidate), nonzero=300, accepted=True)
    further = further.replace(objective="sparsity")
    assert choice([parent, found, further], ()) is further


def test_for_sparsity_only_what_has_fewer_weights_is_proposed():
    history = History((family(1, width=16),))
    spec, space = make_spec(), load_space("tiny")

    def proposed(move, objective):
        refiner = Refiner((move,), objective, spec=spec)
        return refiner(space, history, 8, np.random.default_rng(0))

    assert proposed("sparsify:layer", "sparsity")
    assert proposed("prune:magnitude", "sparsity")
    assert not proposed("widen", "sparsity")
    assert not proposed("sparsify:layer", "size")


# ------------------------------------------------------------------ a run


def test_a_run_refined_for_sparsity(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    monkeypatch.setattr("adanet_py.plan.EPOCHS", (6, 10))
    _judge_all(monkeypatch, True)
    table("regression", 150).to_csv(tmp_path / "table.csv", index=False)
    run, quiet = tmp_path / "run", {"on_event": lambda event: None}
    options = {"space": "tiny", "folds": 2, "candidates": 8, "ensemble": "none"}
    adanet_py.search(tmp_path / "table.csv", out=run, workers=0, on_note=lambda m: None, **options)
    found = adanet_py.refine_run(
        run, candidates=16, moves=["sparsify"], objective="sparsity", **quiet
    )
    children = [r for r in read_state(run).finished() if r.candidate.inherits]
    assert len(children) == 16
    assert all(r.accepted and 0.4 < r.sparsity for r in children)
    best = found.best
    assert best.candidate.inherits
    row = found.leaderboard.set_index("id").loc[best.candidate.id]
    model = adanet_py.load(str(run))
    modules = [module for networks in model._networks.values() for module in networks.modules]
    assert row["sparsity"] == counts(modules)[0] == best.sparsity
    assert row["nonzero"] == counts(modules)[1]
    text = "\n".join(lines(explain(run)))
    assert f"{100 * best.sparsity:.3g} % of the weights zero" in text
    assert replay(run)["identical"]
