"""Bounds hold: what breaks one is not trained, teaches the controllers, and is never the model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from programs import make_candidates, make_program, make_spec
from tables import check_here, table, timeless

import adanet_py
from adanet_py import grouping, saving
from adanet_py.architectures import ARCHITECTURES
from adanet_py.controllers import CONTROLLERS
from adanet_py.controllers import random as random_controller
from adanet_py.errors import RunError
from adanet_py.metrics import METRICS
from adanet_py.records import History, Result, Status
from adanet_py.reward import Bounds, RewardRule, with_reward
from adanet_py.space import load_space, sample
from adanet_py.training.cost import TENSOR_BYTES, capacity, measure

QUICK = {"space": "tiny", "workers": 0, "folds": 1, "controller": "random"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)


def search(folder, frame=None, **options):
    notes = []
    found = adanet_py.search(
        table() if frame is None else frame, out=folder, on_note=notes.append, **QUICK | options
    )
    return found, notes


def by_status(found):
    results = found.state.finished()
    broken = [r for r in results if r.status is Status.INFEASIBLE]
    return [r for r in results if r.status.usable], broken


# ---------------------------------------------------------------- a search with a bound


def test_no_network_with_more_parameters_is_trained_and_the_others_are_as_many_as_asked(tmp_path):
    found, notes = search(tmp_path / "run", candidates=20, max_params=150)
    trained, broken = by_status(found)
    assert len(trained) == found.summary["candidates"] == 20
    assert broken
    assert all(r.parameters <= 150 for r in trained)
    for one in broken:
        assert one.parameters > 150
        assert (one.steps, one.curve, one.metrics) == (0, (), {})
        assert -2.0 < one.reward < -1.0
    assert len({r.candidate.family for r in broken}) == len({r.group for r in broken})  # each once
    assert found.best.parameters <= 150
    assert found.model.about["parameters"] <= 150
    rows = found.leaderboard.set_index("id")
    for one in broken:
        row = rows.loc[one.candidate.id]
        assert math.isnan(row["rank"])
        assert row["why"] == f"not trained: {one.message}"
        assert "more than --max-params 150" in row["why"]
    assert sum("more than --max-params 150" in n for n in notes) == 1


def test_the_same_search_again_finds_the_same_whatever_the_number_of_workers(tmp_path):
    one = search(tmp_path / "one", candidates=12, max_params=150)[0]
    two = search(tmp_path / "two", candidates=12, max_params=150, workers=2)[0]
    assert timeless(one.run) == timeless(two.run)


def test_the_model_file_is_no_larger_than_the_bound(tmp_path):
    found, _ = search(tmp_path / "run", candidates=12, max_size="23kB", folds=2)
    trained, broken = by_status(found)
    assert broken
    assert all(r.size_bytes <= 23_000 for r in trained)
    size = (found.run / "model.adanet").stat().st_size
    assert size <= found.best.size_bytes <= size + 8_000


def test_a_latency_no_network_has_leaves_a_baseline_as_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(grouping, "FRUITLESS", 24)
    found, notes = search(tmp_path / "run", candidates=4, max_latency="0.000001us")
    trained, broken = by_status(found)
    assert trained == []
    assert len(broken) >= 24
    assert found.best is None
    assert found.model.members[0].kind == "linear"
    assert any("No network within the bounds was trained" in n for n in notes)
    assert any("break a bound: the search ends here" in n for n in notes)
    assert found.summary["stopped"] == "the search space is exhausted"


def test_a_search_with_bounds_goes_on_where_it_was_broken_off(tmp_path, monkeypatch):
    whole = search(tmp_path / "whole", candidates=12, max_params=150)[0]
    calls = []

    def broken(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError
        return random_controller.propose(*arguments)

    monkeypatch.setitem(CONTROLLERS, "random", broken)
    with pytest.raises(ZeroDivisionError):
        search(tmp_path / "part", candidates=12, max_params=150)
    monkeypatch.undo()
    monkeypatch.setattr(saving, "start_check", check_here)
    again = search(tmp_path / "part", candidates=12, max_params=150)[0]
    assert timeless(again.run) == timeless(whole.run)
    with pytest.raises(RunError, match="--max-params: 150 then, 151 now"):
        search(tmp_path / "part", candidates=12, max_params=151)


def test_a_replay_leaves_out_what_was_not_trained(tmp_path):
    path = tmp_path / "table.csv"
    table().to_csv(path, index=False)
    found, _ = search(tmp_path / "run", path, candidates=8, max_params=150)
    trained, broken = by_status(found)
    assert broken
    answer = adanet_py.run.replay(found.run)
    assert (answer["identical"], answer["candidates"]) == (True, len(trained))


def test_fruitless_is_a_long_row_of_broken_bounds_without_an_exception(monkeypatch):
    monkeypatch.setattr(grouping, "FRUITLESS", 3)
    bad = Result(make_candidates("mlp", [{}])[0], Status.INFEASIBLE)
    good = bad.replace(status=Status.COMPLETE)
    assert grouping.fruitless(History((good, bad, bad, bad)))
    assert not grouping.fruitless(History((bad, good, bad, bad)))
    assert not grouping.fruitless(History((bad, bad)))


# ---------------------------------------------------------------- the reward of a search


def test_the_reward_of_a_search_is_the_one_asked_for(tmp_path):
    found, _ = search(
        tmp_path / "run", candidates=4, complexity="multiply_adds", complexity_target=200,
        complexity_weight=0.5,
    )  # fmt: skip
    rows = found.leaderboard.query("status != 'BASELINE'")
    distance = (rows["multiply_adds"] / 200 - 1).abs()
    np.testing.assert_allclose(rows["complexity"], distance)
    np.testing.assert_allclose(rows["reward"], rows["reward_error"] - 0.5 * distance)
    assert found.leaderboard["rank"].notna().all()  # baselines too


# ---------------------------------------------------------------- what is measured


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_size_is_that_of_the_weights_as_they_are_saved(architecture):
    program = make_program(make_candidates(architecture, [{}]), make_spec(), folds=2)
    state = program.build(0).state_dict()
    cost = measure(program, model_bytes=1000)
    assert cost.size_bytes == 1000 + 2 * sum(4 * t.numel() + TENSOR_BYTES for t in state.values())
    assert cost.parts().keys() <= Result.__dataclass_fields__.keys()


@pytest.mark.parametrize(("depth", "layers"), [(0, 0), (1, 1), (3, 3)])
def test_layers_are_the_hidden_weight_matrices(depth, layers):
    program = make_program(make_candidates("mlp", [{}], depth=depth), make_spec())
    assert measure(program).layers == layers


def test_the_capacity_is_the_bound_of_lemma_2():
    program = make_program(make_candidates("mlp", [{}], depth=2), make_spec(), folds=2)
    rng = np.random.default_rng(0)
    shapes = {n: tuple(p.shape) for n, p in program.build(0).named_parameters()}
    weights, expected = {}, []
    for f, rows in enumerate(program.order.rows):
        product = 1.0
        for name, shape in shapes.items():
            values = rng.normal(size=shape)
            weights[f"{f}/{name}"] = torch.tensor(values)
            if name.startswith("body.") and len(shape) == 2:
                product *= 2 * np.abs(values).sum(1).max()
        inputs = shapes["body.0.weight"][1]
        expected.append(np.log10(product * np.sqrt(np.log(2 * inputs) / (2 * len(rows)))))
    assert capacity(weights, program) == pytest.approx(np.mean(expected))
    # Twice the weights of one of three matrices: twice the bound.
    twice = {n: 2 * w if n.endswith("body.0.weight") else w for n, w in weights.items()}
    assert capacity(twice, program) - capacity(weights, program) == pytest.approx(np.log10(2))
    assert math.isnan(capacity({}, program))


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_trained_network_has_a_capacity(architecture):
    [one] = adanet_py.train(
        make_candidates(architecture, [{"lr": 0.01}]), table(), target="target", epochs=1, folds=1
    )
    assert math.isfinite(one.capacity)
    assert one.layers >= 1


@pytest.mark.parametrize("name", ["evolution", "tpe", "surrogate"])
def test_controllers_learn_where_the_bound_is(name):
    """All so far break the bound, the narrower the less: narrower ones are proposed."""
    space = load_space(
        {
            "name": "widths",
            "architectures": {"mlp": {"width": {"int": [8, 8192], "log": True}, "batch_size": 64}},
            "optimizers": {"adamw": {"lr": {"float": [1e-4, 1e-1], "log": True}}},
        }
    )
    rule = RewardRule(bounds=Bounds(parameters=10))

    def propose(results, seed):
        rng = np.random.default_rng(seed)
        return CONTROLLERS[name](space, History(tuple(results)), 8, rng)

    results = []
    for seed in range(40):
        one = sample(space, np.random.default_rng(1000 + seed))
        broken = Result(one, Status.INFEASIBLE, parameters=100 * one.static["width"])
        results.append(with_reward(broken, METRICS["log_loss"], 0.7, rule))
    blind = [c.static["width"] for s in range(12) for c in propose([], s)]
    told = [c.static["width"] for s in range(12) for c in propose(results, s)]
    assert np.median(np.log(told)) < np.median(np.log(blind)) - 0.5
