"""A recorded step repeats, on the same memory and without the host, what the step does."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from programs import (
    TASKS,
    make_candidates,
    make_program,
    make_scorer,
    make_spec,
    make_split,
)
from taping import Tape

from adanet_py.architectures import ARCHITECTURES
from adanet_py.architectures.names import NORMS
from adanet_py.records import Group
from adanet_py.training import groups
from adanet_py.training.batches import BatchOrder
from adanet_py.training.engines import capture, feed, stacked
from adanet_py.training.engines.program import Program
from adanet_py.training.groups import Plan
from adanet_py.training.optimizers import OPTIMIZERS
from adanet_py.training.schedules import SCHEDULES

STEPS = 24
MIXED: list[dict[str, float]] = [
    {"lr": 3e-3, "weight_decay": 0.1, "dropout": 0.3, "warmup": 0.3, "input_noise": 0.1},
    {"lr": 1e-2, "clip_norm": 0.2, "label_smoothing": 0.2, "mixup": 0.4, "ema": 0.9, "l1": 1e-4},
    {"lr": 1e-3, "clip_value": 0.1, "agc": 0.1, "cutmix": 0.5, "swa": 0.5, "max_norm": 1.0},
]
PLAIN: list[dict[str, float]] = [{"lr": 3e-3}, {"lr": 1e-2}]
OPEN = sorted(n for n, o in OPTIMIZERS.items() if not o.engine)


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Tape:
    """Recording as on a GPU; feeds of a few steps, so that a training goes through several."""
    found = Tape()
    monkeypatch.setattr(capture, "FEWEST_STEPS", 2)
    monkeypatch.setattr(feed, "FEED_STEPS", 5)
    monkeypatch.setitem(capture.CAPTURES, "cpu", found)
    return found


def program(
    architecture: str, numeric: list[dict[str, float]], *, optimizer: str = "adamw",
    task: str = "multiclass", folds: int = 1, **static: Any,
) -> Program:  # fmt: skip
    schedules = sorted(SCHEDULES)
    candidates = make_candidates(
        architecture, numeric, optimizer=optimizer, schedules=schedules, **static
    )
    return make_program(candidates, make_spec(task), steps=STEPS, folds=folds, dtype=torch.float32)


def trace(program: Program) -> dict[str, torch.Tensor]:
    """All that is left of a training in three parts, after the second of which one member goes."""
    engine = stacked.StackedEngine(program)
    out = {}
    for part, (start, stop) in enumerate(((0, 9), (9, 14), (14, STEPS))):
        _, out[f"loss {part}"], out[f"norm {part}"] = engine.advance(start, stop, lambda s: False)
        if part == 0:
            engine.scale_rates(stop, [0.5] * len(engine.alive))
        if part == 1:
            engine.select(range(1, len(engine.alive)))
    return out | {n: v.clone() for n, v in engine.state().items()}


def check(tape: Tape, program: Program) -> None:
    got = trace(program)
    assert tape.recorded == 2  # before and after one has left
    assert tape.repeated >= 8
    capture.CAPTURES.pop("cpu")
    want = trace(program)
    assert got.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_repeats(tape: Tape, task: str) -> None:
    check(tape, program("mlp", MIXED, task=task, folds=2))


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_repeats(tape: Tape, architecture: str) -> None:
    check(tape, program(architecture, MIXED))


def test_orders_of_their_own_repeat(tape: Tape) -> None:
    found = program("resnet", MIXED, folds=2)
    order, seeds = found.order, [c.seed for c in found.candidates]
    own = BatchOrder(order.rows, order.batch_size, order.seed, seeds)
    check(tape, replace(found, order=own))


@pytest.mark.parametrize("optimizer", OPEN)
def test_every_optimizer_repeats(tape: Tape, optimizer: str) -> None:
    check(tape, program("mlp", PLAIN, optimizer=optimizer, depth=1))


@pytest.mark.parametrize("norm", sorted(NORMS))
def test_every_norm_repeats(tape: Tape, norm: str) -> None:
    check(tape, program("resnet", MIXED, norm=norm))


def test_a_step_that_asks_the_host_is_told_of_and_trains_on(tape: Tape) -> None:
    said: list[str] = []
    whole = program("mlp", PLAIN)
    engine = stacked.StackedEngine(replace(whole, say=said.append))
    inner = engine._step

    def asking(now: Any) -> None:
        inner(now)
        float(engine.weights[0, 0])

    engine._step = asking  # type: ignore[method-assign]
    engine.advance(0, STEPS, lambda s: False)
    assert tape.recorded == 0
    (message,) = said
    assert "mlp cannot be recorded" in message
    assert "when stream is capturing" in message
    capture.CAPTURES.pop("cpu")
    plain = stacked.StackedEngine(whole)
    plain.advance(0, STEPS, lambda s: False)
    assert torch.equal(engine.weights, plain.weights)


def test_a_group_says_that_its_step_cannot_be_recorded(
    tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr(tape, "record", refuse)
    whole = program("mlp", PLAIN)
    valid = make_split(60, 1).valid
    events: list[dict[str, Any]] = []
    group = Group(0, whole.candidates, STEPS, evaluate_every=8)
    groups.train(whole, Plan(group, valid, make_scorer(whole, valid), emit=events.append))
    told = [e["message"] for e in events if e["kind"] == "note"]
    assert told
    assert all("mlp cannot be recorded" in message for message in told)
    assert all("operation not permitted" in message for message in told)


def test_a_training_may_stop_within_a_feed(tape: Tape) -> None:
    engine = stacked.StackedEngine(program("mlp", MIXED))
    assert engine.advance(0, STEPS, lambda step: step >= 12)[0] == 13
    capture.CAPTURES.pop("cpu")
    plain = stacked.StackedEngine(program("mlp", MIXED))
    plain.advance(0, 13, lambda step: False)
    assert tape.repeated
    assert torch.equal(engine.weights, plain.weights)


class FakeCuda:
    """The names of torch.cuda that recording uses; writes down what is asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        calls = self.calls

        class Stream:
            def __init__(self, device: Any = None) -> None:
                self.name = "own" if device is not None else "outer"

            def wait_stream(self, other: Stream) -> None:
                calls.append(f"{self.name} waits for {other.name}")

        class CUDAGraph:
            def capture_begin(self, *, capture_error_mode: str) -> None:
                assert not gc.isenabled()
                calls.append(f"begin {capture_error_mode}")

            def capture_end(self) -> None:
                calls.append("end")
                if "step fails" in calls:
                    raise RuntimeError("capture was invalidated")

            def replay(self) -> None:
                calls.append("replay")

        class Event:
            def record(self, stream: Stream) -> None:
                calls.append(f"mark {stream.name}")

            def synchronize(self) -> None:
                calls.append("wait for a mark")

        for made in (Stream, CUDAGraph, Event):
            monkeypatch.setattr(torch.cuda, made.__name__, made)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        capture._stream.cache_clear()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    yield FakeCuda(monkeypatch)
    capture._stream.cache_clear()


CUDA = torch.device("cuda", 0)


def test_a_cuda_graph_is_captured_on_a_stream_of_its_own(fake: FakeCuda) -> None:
    replay = capture.CudaGraphs().record(lambda: fake.calls.append("step"), CUDA)
    assert fake.calls == [
        "own waits for outer", "begin thread_local", "step", "end", "outer waits for own",
    ]  # fmt: skip
    assert gc.isenabled()
    replay()
    assert fake.calls[-1] == "replay"


def test_a_capture_that_fails_ends_and_tells_the_first_error(fake: FakeCuda) -> None:
    def step() -> None:
        fake.calls.append("step fails")
        raise RuntimeError("operation not permitted")

    with pytest.raises(RuntimeError, match="operation not permitted"):
        capture.CudaGraphs().record(step, CUDA)
    assert fake.calls[-1] == "end"
    assert gc.isenabled()


def test_the_host_is_never_far_ahead_of_a_gpu(fake: FakeCuda) -> None:
    backlog = capture.Backlog(CUDA)
    for _ in range(capture.AHEAD + 3):
        backlog.wait()
    assert fake.calls.count("mark outer") == capture.AHEAD + 3
    assert fake.calls.count("wait for a mark") == 3
    still = capture.Backlog(torch.device("cpu"))
    still.wait()
    assert len(fake.calls) == capture.AHEAD + 6
