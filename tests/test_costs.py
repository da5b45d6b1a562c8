"""Costly steps: charged in the plan, said before they start, refused where there is no time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from programs import make_spec
from tables import check_here, table

import adanet_py
from adanet_py import plan, saving
from adanet_py.errors import ConfigError, SpaceError
from adanet_py.own import Own, engine_for
from adanet_py.plan import Workload
from adanet_py.records import Candidate, History, Result, Status
from adanet_py.run import replay, resume
from adanet_py.space import json_schema, load_space, sample
from adanet_py.training.optimizers import OPTIMIZERS

CURVED = sorted(n for n, o in OPTIMIZERS.items() if o.engine)


def work(rows: int = 1000, **changes: Any) -> Workload:
    return Workload(**({"spec": make_spec(), "rows": rows, "folds": 1} | changes))


def candidate(optimizer: str, **static: Any) -> Candidate:
    return Candidate("mlp", {"depth": 1, "width": 16, **static}, optimizer)


# ------------------------------------------------------------------ the plan


def test_an_optimizer_gets_the_engine_it_asks_for() -> None:
    for name in CURVED:
        assert engine_for(candidate(name), Own()) == "separate"
        with pytest.raises(ConfigError, match="'separate' only, not on 'stacked'"):
            engine_for(candidate(name), Own(), "stacked")
    assert engine_for(candidate("adam"), Own()) == "stacked"
    assert engine_for(candidate("adam"), Own(), "separate") == "separate"
    assert engine_for(candidate("torch.optim.Rprop"), Own()) == "separate"


def test_a_step_costs_as_many_gradients_as_it_takes() -> None:
    load = work()
    assert plan.passes(candidate("adam"), load) == 1.0
    small, large = candidate("newton"), candidate("newton", width=512)
    size = 16 * 20  # at least as many weights as inputs times units
    assert 100 < plan.passes(small, load) < 4 * size
    assert plan.passes(large, load) == 2.0 + 2.0 * 30  # by conjugate gradient
    more = replace(large, numeric={"cg_iterations": 100.0})
    assert plan.passes(more, load) == 2.0 + 2.0 * 100
    assert plan.seconds_per_step(small, 1, load, 1.0) > 50 * plan.seconds_per_step(
        candidate("adam"), 1, load, 1.0
    )


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("sampling", ["mini_batch", "full_batch"])
@pytest.mark.parametrize("rows", [100, 5_000, 200_000])
def test_costly_steps_are_fewer(name: str, sampling: str, rows: int) -> None:
    load, chosen = work(rows), candidate(name, sampling=sampling)
    members, epochs = plan.size_group(chosen, load, 1.0, None, 100)
    assert members == plan.SEPARATE_MEMBERS
    group = plan.make_group(0, [chosen] * members, [], epochs, load, "separate")
    assert group.steps >= min(plan.CURVED_STEPS[1], rows / plan.batch_size(chosen, load))
    cheap = replace(chosen, optimizer="adam")
    many, all_epochs = plan.size_group(cheap, load, 1.0, None, 100)
    assert epochs <= all_epochs
    gradients = members * group.steps * plan.passes(chosen, load)
    steps = plan.make_group(0, [cheap], [], all_epochs, load, "stacked").steps
    enough = plan.CURVED_STEPS[1] * members * plan.passes(chosen, load)
    assert gradients <= 1.1 * max(many * steps, enough)


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("seconds", [1.0, 20.0, 600.0])
@pytest.mark.parametrize("rows", [100, 20_000])
def test_with_a_time_budget_they_fit_or_are_not_started(
    name: str, seconds: float, rows: int
) -> None:
    load = work(rows, seconds=seconds)
    for width in (8, 64, 512):
        chosen = candidate(name, width=width)
        for left in (seconds, seconds / 10):
            members, epochs = plan.size_group(chosen, load, 1.0, left, 8)
            said = plan.too_costly(chosen, load, 1.0, members, epochs)
            steps = epochs * load.rows / plan.batch_size(chosen, load)
            cost = steps * plan.seconds_per_step(chosen, members, load, 1.0)
            if members:
                assert cost <= min(left, seconds / plan.SHARES) + 1e-9
                assert steps >= 1.0
                assert bool(said) == (epochs < plan.planned_epochs(chosen, load))
                assert not said or "steps fit into the time" in said
            else:
                assert "it is not started" in said
        members, epochs = plan.size_group(chosen, load, 1.0, None, 8)
        assert members >= 1  # a first group is always made


def test_cheap_steps_are_never_called_costly() -> None:
    load = work(seconds=10.0)
    assert plan.too_costly(candidate("adam"), load, 1.0, 0, 0) == ""
    assert plan.too_costly(candidate("torch.optim.Rprop"), load, 1.0, 0, 0) == ""


@pytest.mark.parametrize("name", ["adam", *CURVED])
def test_speed_is_measured_alike_on_both_engines(name: str) -> None:
    load, chosen = work(), candidate(name, width=2048, batch_size=1000)
    for speed in (0.5, 1.0, 2.0):
        seconds = 100 * plan.seconds_per_step(chosen, 1, load, speed)
        result = Result(chosen, Status.COMPLETE, steps=100, seconds=seconds, reward=-1.0)
        assert plan.measured_speed(History((result,) * 3), load) == pytest.approx(speed, rel=0.3)


# ------------------------------------------------------------------ in a search


SPACE = {
    "name": "curved",
    "summary": "one of each",
    "architectures": {"mlp": {"depth": 1, "width": 4, "batch_size": 64}},
    "optimizers": {"newton": {"damping": {"float": [0.01, 1.0], "log": True}}},
    "schedules": {"constant": {}},
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "start_check", check_here)
    monkeypatch.setattr(plan, "CURVED_STEPS", (3, 4))


def search(out: Any, **options: Any) -> tuple[Any, list[str]]:
    notes: list[str] = []
    values = {"space": SPACE, "folds": 1, "workers": 0, "candidates": 2, "out": out}
    found = adanet_py.search(table(), on_note=notes.append, **(values | options))
    return found, notes


def test_a_search_says_the_cost_once_and_repeats_bit_by_bit(tmp_path: Any) -> None:
    found, notes = search(tmp_path / "run", candidates=4)
    said = [n for n in notes if "gradients of the batch" in n]
    assert len(said) == 1
    assert said[0].startswith("newton: exact Hessian of ")
    assert {r.engine for r in found.state.finished()} == {"separate"}
    assert found.best is not None
    assert replay(tmp_path / "run", data=table())["identical"]


def test_what_is_too_costly_for_the_time_is_said_and_others_are_tried(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = plan.PACES["separate"]._replace(each=1e3)
    monkeypatch.setitem(plan.PACES, "separate", slow)
    space = SPACE | {
        "optimizers": {"newton": {}, "adam": {"lr": {"float": [0.001, 0.1], "log": True}}},
        "start": [{"architecture": "mlp", "optimizer": "newton"}],
    }
    found, notes = search(tmp_path / "run", space=space, candidates=None, time="4s")
    assert {r.candidate.optimizer for r in found.state.finished()} == {"adam"}
    said = [n for n in notes if "it is not started" in n]
    assert said
    assert "newton on mlp takes about" in said[0]


class Sign(torch.optim.Optimizer):
    """w <- w - lr sign(g)."""

    def __init__(self, params: Any, lr: float = 0.01, share: float = 1.0) -> None:
        super().__init__(params, {"lr": lr, "share": share})

    @torch.no_grad()
    def step(self, closure: Any) -> Any:
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad.sign(), alpha=group["lr"] * group["share"])
        return loss


def test_a_class_of_the_user_is_searched_and_asked_for_again(tmp_path: Any) -> None:
    space = SPACE | {"optimizers": {"Sign": {"lr": {"float": [0.001, 0.1], "log": True}}}}
    run = tmp_path / "run"
    found, _ = search(run, space=space, optimizers=[Sign])
    assert {r.candidate.optimizer for r in found.state.finished()} == {"Sign"}
    assert len(adanet_py.load(run).predict(table())) == len(table())  # a model needs it no more
    with pytest.raises(adanet_py.RunError, match=r"optimizer 'Sign'.*optimizers=\.\.\."):
        replay(run, data=table())
    from adanet_py.own import make_own

    assert replay(run, data=table(), own=make_own(optimizers=[Sign]))["identical"]
    again = resume(run, own=make_own(optimizers=[Sign]))
    assert again.best.candidate == found.best.candidate


def test_library_classes_are_named_in_spaces_and_train_in_worker_processes(tmp_path: Any) -> None:
    space = SPACE | {"optimizers": {"torch.optim.Rprop": {"lr": {"float": [0.001, 0.1]}}}}
    found, _ = search(tmp_path / "run", space=space, workers=1)
    results = list(found.state.finished())
    assert {r.candidate.optimizer for r in results} == {"torch.optim.Rprop"}
    assert {r.status for r in results} <= {Status.COMPLETE, Status.CONVERGED}


# ------------------------------------------------------------------ in spaces


def test_a_space_may_name_a_library_class_with_its_knobs() -> None:
    import numpy as np

    jsonschema = pytest.importorskip("jsonschema")
    value = SPACE | {
        "optimizers": {
            "torch.optim.NAdam": {"lr": {"float": [1e-4, 1e-2]}, "beta1": {"choice": [0.8, 0.9]}},
            "adam": {},
        },
        "start": [{"architecture": "mlp", "optimizer": "torch.optim.ASGD", "numeric": {"t0": 5}}],
    }
    space = load_space(value)
    drawn = [sample(space, np.random.default_rng(i)) for i in range(30)]
    ours = [c for c in drawn if c.optimizer == "torch.optim.NAdam"]
    assert {c.numeric["beta1"] for c in ours} == {0.8, 0.9}
    assert {c.numeric["momentum_decay"] for c in ours} == {0.004}
    assert space.start[0].numeric["t0"] == 5.0
    jsonschema.validate(value, json_schema())


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"torch.optim.Nadam": {}}, "Did you mean 'NAdam'"),
        ({"torch.optim.NAdam": {"beta3": 0.5}}, "beta3"),
        ({"torch.nn.Linear": {}}, "Unknown optimizer"),
        ({"os.system": {}}, "Unknown optimizer"),
    ],
)
def test_what_a_space_cannot_name_is_refused(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        load_space(SPACE | {"optimizers": entry})
