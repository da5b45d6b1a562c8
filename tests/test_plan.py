"""The plan of a group: pure functions of what is known, no clock without a time budget."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from programs import make_arrays, make_spec

from adanet_py import plan
from adanet_py.architectures import ARCHITECTURES
from adanet_py.fidelity import FIDELITIES
from adanet_py.plan import Workload
from adanet_py.records import Candidate, Group, History, Result, Status
from adanet_py.training.engines.program import build_module

SIZES = [
    pytest.param({}, id="default"),
    pytest.param({"width": 128, "depth": 4}, id="large"),
]


def work(rows: int = 1000, **changes: Any) -> Workload:
    values = {"spec": make_spec(), "rows": rows, "folds": 1}
    return Workload(**(values | changes))


def candidate(**static: Any) -> Candidate:
    return Candidate("mlp", static)


def result(seconds: float, steps: int = 1000) -> Result:
    return Result(candidate(), Status.COMPLETE, steps=steps, seconds=seconds, reward=-1.0)


def test_what_is_slower_than_its_estimate_is_known_to_be_and_nothing_else_suffers() -> None:
    load = work(rows=10_000, seconds=60.0)
    slow = replace(candidate(), optimizer="muon")
    results = [result(2.0) for _ in range(20)]
    results += [Result(slow, Status.COMPLETE, steps=1000, seconds=500.0) for _ in range(8)]
    seen = History(tuple(results))
    quick, late = (plan.measured_speed(seen, load, c) for c in (candidate(), slow))
    assert late < quick / 10
    left = 2.0
    assert plan.size_group(candidate(), load, quick, left, 8)[0] > 0
    assert plan.size_group(slow, load, late, left, 8) == (0, 0)
    unknown = replace(candidate(), optimizer="sgd")
    assert plan.measured_speed(seen, load, unknown) == plan.measured_speed(seen, load)


def test_the_first_groups_are_small_where_time_counts_and_it_costs_nothing() -> None:
    load = work(rows=10_000, seconds=60.0, dense="native")

    def sizes(load: plan.Workload) -> list[int]:
        found = [plan.size_group(candidate(), load, 1.0, 60.0, 10**6, i)[0] for i in range(9)]
        assert found == [load.members_of(i) for i in range(9)]
        return found

    small = len(plan.FIRST_MEMBERS)
    assert sizes(load) == [*plan.FIRST_MEMBERS, *[plan.MEMBERS] * (9 - small)]
    assert max(plan.FIRST_MEMBERS) < plan.MEMBERS
    for other in ({"dense": "stacked"}, {"seconds": None}):
        assert sizes(replace(load, **other)) == [plan.MEMBERS] * 9
    assert sizes(replace(load, gpu=80 << 30)) == [plan.GPU_MEMBERS] * 9


def test_a_gpu_trains_larger_groups_but_a_given_number_is_made_of_several() -> None:
    load = work(rows=10_000, seconds=60.0)
    most, on_gpu = 10**6, replace(load, gpu=80 << 30)
    assert plan.size_group(candidate(), load, 1.0, 60.0, most)[0] == plan.MEMBERS
    assert plan.size_group(candidate(), on_gpu, 1.0, 60.0, most)[0] == plan.GPU_MEMBERS
    assert on_gpu.members == plan.GPU_MEMBERS
    assert replace(on_gpu, wanted=200).members == 200 // plan.GROUPS
    assert replace(on_gpu, wanted=20).members == plan.MEMBERS
    # Large networks are as slow as their arithmetic there too.
    large = candidate(width=4096, depth=8)
    assert plan.seconds_per_step(large, 64, on_gpu, 1.0) > 10 * plan.seconds_per_step(
        candidate(), 64, on_gpu, 1.0
    )


def history(seconds: float, count: int = 5) -> History:
    return History(tuple(result(seconds) for _ in range(count)))


@pytest.mark.parametrize("static", SIZES)
@pytest.mark.parametrize("columns", [(8, (5, 30)), (20, ()), (0, (3, 9, 40))])
@pytest.mark.parametrize("embedding", ["none", "piecewise_linear", "periodic"])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_estimated_multiply_adds_are_those_torch_counts(
    architecture: str, embedding: str, columns: tuple[int, tuple[int, ...]], static: dict[str, Any]
) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    found = ARCHITECTURES[architecture]
    spec = make_spec("multiclass", *columns)
    values = found.complete(static | {"embedding": embedding})
    assert found.multiply_adds is not None
    estimate = found.multiply_adds(values, spec)
    module = build_module(found, Candidate(architecture, values), spec, 0).eval()
    arrays = make_arrays(spec, 10)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.from_numpy(arrays["quantile"]), torch.from_numpy(arrays["category"]))
    counted = counter.get_total_flops() / 2 / 10
    assert estimate == pytest.approx(counted, rel=0.25)


def test_planning_loads_no_torch() -> None:
    code = "import sys, adanet_py.plan; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_planning_has_no_clock() -> None:
    assert not {"time", "datetime", "perf_counter", "monotonic"} & set(vars(plan))


@pytest.mark.parametrize("rows", [10, 1000, 100_000, 10_000_000])
@pytest.mark.parametrize("most", [1, 2, 3, 8, 100])
def test_without_a_time_budget_only_the_data_and_the_count_matter(rows: int, most: int) -> None:
    load = work(rows)
    sizes = {
        plan.size_group(candidate(), load, speed, left, most)
        for speed in (0.05, 1.0, 20.0)
        for left in (None, 0.0, 1e9)
    }
    ((members, epochs),) = sizes
    assert members == min(plan.MEMBERS, most)
    assert epochs == plan.full_epochs(rows)
    assert plan.EPOCHS[0] <= epochs <= plan.EPOCHS[1]


@pytest.mark.parametrize("seconds", [0.5, 10.0, 60.0, 3600.0])
@pytest.mark.parametrize("rows", [100, 10_000, 500_000])
@pytest.mark.parametrize("most", [1, 2, 5, 100])
def test_with_a_time_budget_a_group_respects_its_bounds(
    seconds: float, rows: int, most: int
) -> None:
    load = work(rows, seconds=seconds)
    for speed in (0.05, 1.0, 20.0):
        for left in (None, seconds, seconds / 10):
            members, epochs = plan.size_group(candidate(), load, speed, left, most)
            assert (members, epochs) == plan.size_group(candidate(), load, speed, left, most)
            assert 0 <= members <= min(plan.MEMBERS, most)
            assert 0 <= epochs <= plan.full_epochs(rows, seconds) <= plan.EPOCHS[1]
            assert (members == 0) == (epochs == 0)
            # A first group is always made: a model must come out.
            assert members > 0 or left is not None


def test_a_group_is_estimated_to_fit_its_share_of_the_time() -> None:
    load = work(20_000, seconds=60.0)
    for width in (64, 512, 2048):
        chosen = candidate(width=width)
        members, epochs = plan.size_group(chosen, load, 1.0, None, 100)
        steps = epochs * load.rows / plan.batch_size(chosen, load)
        each = plan.seconds_per_step(chosen, plan.average_members(members, ()), load, 1.0)
        assert steps * each <= 1.001 * load.seconds / plan.SHARES


@pytest.mark.parametrize("rows", [100, 5000, 200_000])
def test_sampling_regimes_differ_in_steps_and_are_bounded(rows: int) -> None:
    def steps(regime: str, **changes: Any) -> int:
        chosen, load = candidate(sampling=regime), work(rows, **changes)
        members, epochs = plan.size_group(chosen, load, 1.0, None, 8)
        return plan.make_group(0, [chosen] * members, [], epochs, load, "stacked").steps

    assert steps("full_batch") == plan.FULL_BATCH_STEPS
    assert steps("one_sample") <= max(plan.ONE_SAMPLE_STEPS, rows)
    assert steps("one_sample") % rows == 0
    per_epoch = max(1, round(rows / 256))
    assert steps("mini_batch") == plan.full_epochs(rows) * per_epoch
    # A time budget may cut the only epoch of a large table short.
    assert steps("one_sample", seconds=60.0) < 60.0 / plan.SHARES / plan.PACES["stacked"].shared


def test_more_time_and_more_speed_never_buy_less() -> None:
    def bought(seconds: float, speed: float) -> float:
        load = work(50_000, seconds=seconds)
        members, epochs = plan.size_group(candidate(width=512), load, speed, None, 8)
        return members * epochs

    times = [bought(s, 1.0) for s in (1, 5, 20, 60, 300, 3000)]
    speeds = [bought(60, s) for s in (0.05, 0.2, 1.0, 5.0, 20.0)]
    assert times == sorted(times)
    assert speeds == sorted(speeds)
    assert times[0] < times[-1]
    assert speeds[0] < speeds[-1]


def test_too_little_time_left_makes_no_group() -> None:
    load = work(500_000, seconds=60.0)
    assert plan.size_group(candidate(width=2048), load, 1.0, 0.01, 8) == (0, 0)


def test_speed_is_measured_only_from_several_usable_results() -> None:
    load = work()
    assert plan.measured_speed(History(), load) == 1.0
    assert plan.measured_speed(history(1.0, 2), load) == 1.0
    slow, fast = plan.measured_speed(history(50.0), load), plan.measured_speed(history(2.0), load)
    assert 0.05 <= slow < fast <= 20.0
    failed = Result(candidate(), Status.DIVERGED, steps=1000, seconds=50.0)
    mixed = History((*history(2.0).results, *[failed] * 50))
    assert plan.measured_speed(mixed, load) == fast


@pytest.mark.parametrize("members", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("rows", [20, 999, 70_000])
@pytest.mark.parametrize("epochs", [0.1, 1, 12, 100])
@pytest.mark.parametrize("fidelity", sorted(FIDELITIES))
def test_a_group_is_planned_consistently(
    members: int, rows: int, epochs: float, fidelity: str
) -> None:
    candidates = [Candidate("mlp", numeric={"lr": 0.1 / (i + 1)}) for i in range(members)]
    load = work(rows, order_seed=5, fidelity=fidelity)
    group = plan.make_group(3, candidates, ["random"] * members, epochs, load, "stacked")
    assert group == plan.make_group(3, candidates, ["random"] * members, epochs, load, "stacked")
    assert group.candidates == tuple(candidates)
    assert (group.index, group.engine, group.order_seed) == (3, "stacked", 5)
    assert group.stop_at is None
    assert group.steps >= 1
    per_epoch = rows / plan.batch_size(candidates[0], load)
    assert group.steps == pytest.approx(epochs * per_epoch, rel=0.5, abs=1.0)
    assert 1 <= group.evaluate_every <= group.steps
    assert list(group.rungs) == sorted(set(group.rungs))
    assert len(group.rungs) == len(group.keep) == len(group.bars)
    assert all(0 < r < group.steps and r % group.evaluate_every == 0 for r in group.rungs)
    assert list(group.keep) == sorted(group.keep, reverse=True)
    assert all(1 <= k <= members for k in group.keep)
    assert members > 2 or all(k == members for k in group.keep)
    assert Group.from_json(json.loads(json.dumps(group.to_json()))) == group


def test_the_mean_number_of_living_members_agrees_with_the_rungs() -> None:
    for members, fidelity in itertools.product(range(1, 9), FIDELITIES):
        candidates = [Candidate("mlp", numeric={"lr": 0.1 / (i + 1)}) for i in range(members)]
        load = work(25_600, fidelity=fidelity)
        group = plan.make_group(0, candidates, [], 100, load, "stacked")
        alive, at, total = members, 0, 0
        for rung, keep in zip(group.rungs, group.keep, strict=True):
            total += alive * (rung - at)
            alive, at = keep, rung
        total += alive * (group.steps - at)
        found = plan.average_members(members, plan.rungs_of(100, 0, load))
        assert found == pytest.approx(total / group.steps, rel=0.05)


def test_the_best_is_usable_and_finite() -> None:
    good, better = result(1.0).replace(reward=-0.5), result(1.0).replace(reward=-0.2)
    broken = result(1.0).replace(reward=5.0, status=Status.DIVERGED)
    nothing = result(1.0).replace(reward=float("nan"))
    assert plan.best_of([good, broken, better, nothing]) == better
    assert plan.best_of([broken, nothing]) is None
