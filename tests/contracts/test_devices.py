"""Training on another device: every tensor is there, and the results are those of the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from elsewhere import ELSEWHERE, Elsewhere
from programs import TASKS, make_candidates, make_program, make_run, make_spec, make_split
from test_capture import MIXED

from adanet_py.architectures import ARCHITECTURES
from adanet_py.records import Group
from adanet_py.subnetworks.options import GrowthOptions
from adanet_py.subnetworks.problem import Problem, Task
from adanet_py.subnetworks.rounds import grow
from adanet_py.training import jobs
from adanet_py.training.engines import make_engine
from adanet_py.training.engines.program import Program, Tensors
from adanet_py.training.optimizers import OPTIMIZERS

STEPS, CUT = 6, 4  # steps, and the step after which one candidate leaves


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    # A module moved there has new parameters; their data cannot be exchanged.
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    return Elsewhere()


def test_the_pretended_device_is_strict(elsewhere: Elsewhere) -> None:
    with elsewhere:
        there = torch.arange(3.0).to(ELSEWHERE)
        assert there.device == torch.zeros(1, device=ELSEWHERE).device == ELSEWHERE
        assert torch.equal((there * 2.0).cpu(), torch.tensor([0.0, 2.0, 4.0]))
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.arange(3.0)
        with pytest.raises((RuntimeError, TypeError)):
            there.numpy()


def there(program: Program) -> Program:
    """The same program on the other device."""
    data = program.data
    moved = {n: getattr(data, n) for n in ("numeric", "category", "target", "weight", "offset")}
    moved = {n: None if v is None else v.to(ELSEWHERE) for n, v in moved.items()}
    return replace(program, data=Tensors(**moved), device=ELSEWHERE)


def trace(name: str, program: Program) -> dict[str, torch.Tensor]:
    """All that an engine gives, on the host."""
    engine = make_engine(name, program)
    valid = make_split(60, program.folds).valid
    out = {}
    for part, (start, stop) in enumerate(((0, CUT), (CUT, STEPS))):
        _, out[f"loss {part}"], out[f"norm {part}"] = engine.advance(start, stop, lambda s: False)
        out |= {f"{n} {part}": v for n, v in engine.measure().items()}
        out[f"valid {part}"] = engine.predict(valid)
        out[f"same {part}"] = engine.predict([np.arange(20)])
        if part == 0:
            engine.scale_rates(stop, [0.5] * len(engine.alive))
            engine.select(range(1, len(engine.alive)))
            state = {n: v.cpu() for n, v in engine.state().items()}
            engine.load(engine.alive, state)
    for position in range(len(engine.alive)):
        out |= {f"{position}:{n}": v for n, v in engine.snapshot(position).items()}
    return {n: v.cpu() for n, v in out.items()}


def check(elsewhere: Elsewhere, name: str, program: Program) -> None:
    want = trace(name, program)
    with elsewhere:
        got = trace(name, there(program))
    assert got.keys() == want.keys()
    for key, value in want.items():
        torch.testing.assert_close(got[key], value, rtol=0, atol=0, equal_nan=True, msg=key)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_trains_there(elsewhere: Elsewhere, task: str) -> None:
    candidates = make_candidates("mlp", MIXED)
    program = make_program(candidates, make_spec(task), steps=STEPS, folds=2, weighted=True)
    check(elsewhere, "stacked", program)


@pytest.mark.parametrize("engine", ["stacked", "separate"])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_trains_there(
    elsewhere: Elsewhere, engine: str, architecture: str
) -> None:
    candidates = make_candidates(architecture, MIXED)
    check(elsewhere, engine, make_program(candidates, make_spec(), steps=STEPS))


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_every_optimizer_trains_there(elsewhere: Elsewhere, optimizer: str) -> None:
    engine = OPTIMIZERS[optimizer].engine or "stacked"
    few = {"iterations": 3, "cg_iterations": 3}
    few = {n: v for n, v in few.items() if n in OPTIMIZERS[optimizer].numeric}
    numeric: list[dict[str, float]] = [few | {"weight_decay": 0.01}, few | {"clip_norm": 1.0}]
    candidates = make_candidates("mlp", numeric, optimizer=optimizer, depth=1)
    check(elsewhere, engine, make_program(candidates, make_spec(), steps=STEPS))


@pytest.mark.parametrize(
    ("engine", "task"),
    [("stacked", "multiclass"), ("stacked", "multilabel"), ("separate", "regression")],
)
def test_a_whole_job_runs_there(
    elsewhere: Elsewhere, tmp_path: Path, engine: str, task: str
) -> None:
    """Rungs, checkpoints, scores, costs and files are those of the CPU."""
    group = Group(
        0, make_candidates("mlp", MIXED), STEPS,
        rungs=(4,), keep=(2,), evaluate_every=2, engine=engine,
    )  # fmt: skip
    both = []
    for name in ("cpu", "elsewhere"):
        spec = make_spec(task)
        weight = {"multilabel": [[1.0, 2.0], [1.0, 3.0]], "multiclass": [1.0, 2.0, 3.0]}.get(task)
        setting = make_run(
            tmp_path / name, spec, folds=2, audit=10, class_weight=weight, checkpoint_seconds=0.0
        )
        if name == "cpu":
            results = jobs.run_group(group, setting)
        else:
            with elsewhere:
                results = jobs.run_group(group, replace(setting, device=ELSEWHERE))
        files = sorted((tmp_path / name / "candidates").iterdir())
        both.append(([r.replace(seconds=0.0, latency_ms=0.0) for r in results], files))
    (want, theirs), (got, ours) = both
    assert [r.to_json() for r in got] == [r.to_json() for r in want]
    assert [f.name for f in ours] == [f.name for f in theirs] != []
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.read_bytes() == other.read_bytes()


def test_subnetworks_train_there(elsewhere: Elsewhere) -> None:
    generator = torch.Generator().manual_seed(0)
    numeric = torch.randn(90, 3, generator=generator)
    y = (numeric.sum(1) > 0).long().numpy()
    data = Problem(make_spec(cardinalities=()), numeric.numpy(), np.zeros((90, 0), np.int32), y)
    options = GrowthOptions(rounds=2, widths=(4,), epochs=2, batch_size=16)
    task = Task(np.arange(90), options, 0)
    [want] = grow(data, [task])
    with elsewhere:
        [got] = grow(data, [task], device=ELSEWHERE)
    assert len(got.modules) == len(want.modules) > 0
    for mine, other in zip(got.modules, want.modules, strict=True):
        for name, value in mine.state_dict().items():
            assert torch.equal(value.cpu(), other.state_dict()[name])
