"""What did not fit into memory is not proposed again, nor anything larger, by any controller."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from programs import make_spec
from spaces import ZOO
from tables import table

import adanet_py
from adanet_py import grouping
from adanet_py.architectures import ARCHITECTURES
from adanet_py.architectures.architecture import SHARED_NUMERIC, SHARED_STATIC, Architecture
from adanet_py.controllers import CONTROLLERS
from adanet_py.memory import fitting, learn_limits, memory_estimate
from adanet_py.own import Own
from adanet_py.plan import Workload
from adanet_py.proposing import TRIES, ask
from adanet_py.records import Candidate, History, Result, Status
from adanet_py.space import load_space

LOAD = Workload(make_spec(), rows=10_000, folds=1)
SPACE = load_space(
    {
        "name": "sizes",
        "architectures": {
            "mlp": {"depth": {"int": [1, 4]}, "width": {"choice": [16, 64, 256, 1024]}},
            "resnet": {"width": {"choice": [16, 256]}},
        },
        "optimizers": {"adamw": {"lr": {"float": [1e-4, 1e-1], "log": True}}, "sgd": {}},
    }
)


def rng(seed=0):
    return np.random.default_rng(seed)


def lost(optimizer="adamw", **static):
    return Result(Candidate("mlp", static, optimizer), Status.OUT_OF_MEMORY)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("knob", ["width", "depth", "batch_size"])
def test_the_estimate_grows_with_the_network_and_the_batch(architecture, knob):
    found = [
        memory_estimate(Candidate(architecture, {knob: value}), LOAD) for value in (2, 4, 8, 16)
    ]
    assert found == sorted(set(found))


def test_a_group_is_as_large_as_the_memory_of_a_gpu_has_room_for():
    one = Candidate("mlp", {"width": 1024, "depth": 4})
    assert fitting(one, LOAD) > 10**6  # a CPU: the group is small anyway
    room = [fitting(one, replace(LOAD, gpu=bytes_)) for bytes_ in (1, 2 << 30, 4 << 30)]
    assert room[0] == 1
    assert 1 < room[1] < 64
    assert abs(room[2] - 2 * room[1]) <= 1
    assert fitting(one, replace(LOAD, gpu=4 << 30, folds=5)) < room[2] // 4


def test_the_estimate_is_that_of_weights_states_and_activations():
    # 64 x 64 layers: as many multiply-adds as weights but the biases; Adam keeps two states.
    spec = make_spec("multiclass", 64, ())
    load = Workload(spec, rows=10_000, folds=3)
    static = {"depth": 5, "width": 64, "batch_size": 128}
    size = 64 * 64 * 5 + 64 * spec.n_outputs
    expected = 4 * 3 * (4 * size + 128 * np.sqrt(5 * size))
    assert memory_estimate(Candidate("mlp", static, "adam"), load) == pytest.approx(expected)
    less = memory_estimate(Candidate("mlp", static, "sgd"), load)
    assert less == pytest.approx(expected - 4 * 3 * 2 * size)


def test_at_and_above_the_smallest_failure_nothing_is_worth_a_try():
    results = [lost(width=512), lost(width=256), lost(width=1024)]
    limits = learn_limits([*results, Result(Candidate("mlp"), Status.COMPLETE)], LOAD)
    assert limits.why_not(Candidate("mlp", {"width": 128})) == ""
    reason = limits.why_not(Candidate("mlp", {"width": 256}, numeric={"lr": 0.1}))
    assert results[1].candidate.id in reason
    assert limits.why_not(Candidate("mlp", {"width": 2048}))
    assert limits.why_not(Candidate("resnet", {"width": 2048}))
    assert learn_limits([], LOAD).why_not(Candidate("mlp", {"width": 65536})) == ""


def test_an_optimizer_with_an_engine_of_its_own_teaches_about_itself_alone():
    limits = learn_limits([lost("lbfgs", width=64)], LOAD)
    assert limits.why_not(Candidate("mlp", {"width": 64}, "lbfgs"))
    assert limits.why_not(Candidate("mlp", {"width": 1024}, "adamw")) == ""
    both = learn_limits([lost("lbfgs", width=64), lost("sgd", width=512)], LOAD)
    assert both.why_not(Candidate("mlp", {"width": 512}, "gauss_newton"))


def test_an_architecture_without_an_estimate_loses_the_program_that_failed_alone():
    def build(static, spec):
        raise AssertionError

    static = {**SHARED_STATIC, "width": ARCHITECTURES["mlp"].static["width"]}
    mine = Architecture("mine", "", static, SHARED_NUMERIC, build)
    load = Workload(make_spec(), rows=1000, folds=1, own=Own(architectures={"mine": mine}))
    failed = Candidate("mine", {"width": 64})
    limits = learn_limits([Result(failed, Status.OUT_OF_MEMORY), lost(width=32)], load)
    assert limits.why_not(Candidate("mine", {"width": 64}, numeric={"lr": 0.1}))
    assert limits.why_not(Candidate("mine", {"width": 128})) == ""


@pytest.mark.parametrize("name", CONTROLLERS)
def test_no_controller_gets_through_with_what_cannot_fit(name):
    failed = lost(width=256, depth=1)
    limit = memory_estimate(failed.candidate, LOAD)
    results, told = (failed,), 0
    for call in range(12):
        asked = ask(CONTROLLERS[name], SPACE, History(results), 4, rng(call), LOAD)
        assert asked.candidates
        assert len({c.family for c in asked.candidates}) == 1
        told += bool(asked.too_large)
        for c in asked.candidates:
            assert memory_estimate(c, LOAD) < limit
        results += tuple(Result(c, Status.COMPLETE, reward=1.0) for c in asked.candidates)
    assert told  # the space holds plenty of what is too large


def test_what_is_left_is_only_too_large_is_said_after_a_bounded_number_of_tries():
    calls = []

    def stubborn(space, history, n, rng):
        calls.append(len(history.pending))
        return [Candidate("mlp", {"width": 1024}, numeric={"lr": rng.random()})]

    history = History((lost(width=256),))
    asked = ask(stubborn, SPACE, history, 1, rng(), LOAD)
    assert asked.candidates == ()
    assert "did not fit into memory" in asked.too_large
    assert calls == list(range(TRIES))  # each time what was refused is pending


def test_the_same_settings_are_never_taken_twice_and_others_are_asked_for():
    calls = []

    def forgetful(space, history, n, rng):
        calls.append(n)
        width = 8 if len(calls) < 4 else 16
        return [Candidate("mlp", {"width": width}, seed=int(rng.integers(1 << 30)))] * 2

    history = History((Result(Candidate("mlp", {"width": 8}), Status.COMPLETE, reward=1.0),))
    asked = ask(forgetful, SPACE, history, 2, rng(), LOAD)
    assert [c.static["width"] for c in asked.candidates] == [16]
    assert len(calls) == 4

    def stuck(space, history, n, rng):
        return [Candidate("mlp", {"width": 8}, seed=int(rng.integers(1 << 30)))]

    assert ask(stuck, SPACE, history, 1, rng(), LOAD).candidates == ()


def test_without_a_failure_nothing_is_held_back():
    def huge(space, history, n, rng):
        return [Candidate("mlp", {"width": 65536})]

    asked = ask(huge, ZOO["table"], History(), 1, rng(), LOAD)
    assert len(asked.candidates) == 1
    assert asked.too_large == ""


def test_a_search_learns_what_does_not_fit_and_ends_where_nothing_else_is_left(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(grouping, "LAG", 1)  # a proposal sees all groups before it
    mlp = ARCHITECTURES["mlp"]

    def build(static, spec):
        if static["width"] > 16:
            raise MemoryError("out of memory")
        return mlp.build(static, spec)

    mine = replace(mlp, name="mine", build=build)
    space = {
        "name": "two sizes",
        "architectures": {"mine": {"width": {"choice": [8, 256, 512, 1024]}}},
        "optimizers": {
            "adamw": {"lr": {"choice": [0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008]}}
        },
    }
    notes = []
    found = adanet_py.search(
        table(rows=80),
        space=space,
        controller="random",
        architectures=[mine],
        candidates=40,
        folds=1,
        seed=2,
        on_note=notes.append,
        out=tmp_path / "run",
    )
    results = found.state.finished()
    lost_widths = [r.candidate.static["width"] for r in results if not r.status.usable]
    assert lost_widths
    assert lost_widths == sorted(lost_widths, reverse=True)  # nothing larger after a failure
    assert len({r.group for r in results if not r.status.usable}) == len(set(lost_widths))
    assert {r.candidate.static["width"] for r in results if r.status.usable} == {8}
    assert found.summary["stopped"] == "the search space is exhausted"
    assert sum("did not fit into memory" in n and "Not trained" in n for n in notes) == 1
