"""The end of a candidate: its best weights scored once more, kept with their predictions."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from adanet_py.records import Candidate, Group, Result, Status
from adanet_py.refine.inheritance import Start
from adanet_py.training.cost import Cost, capacity
from adanet_py.training.diagnostics import sentence
from adanet_py.training.engines.program import Program, as_members, build_module, load_weights
from adanet_py.training.groups import Plan, Track
from adanet_py.training.setting import Setting
from adanet_py.training.sparsity import counts

TRAIN_SAMPLE = 2000  # training rows the training score is measured on


def finished(
    track: Track,
    position: int,
    program: Program,
    plan: Plan,
    setting: Setting,
    cost: Cost,
    start: Start | None,
    blank: list[torch.nn.Module],
    keep: Callable[[Path, bytes], None],
) -> Result:
    """Score the weights, `keep` them with their predictions, and make the Result."""
    group = plan.group
    status = track.status or Status.FAILED
    result = Result(
        track.candidate,
        status,
        curve=tuple(track.curve),
        step=track.best_step,
        steps=track.steps,
        seconds=track.seconds,
        **cost.parts(),
        message=sentence(status, track.curve, plan.scorer.metric.greater_is_better),
    )
    result = described(result, group, position).replace(engine=track.engine)
    if start is not None:
        result = result.replace(difference=start.difference, latency_share=start.latency_share)
    if not status.usable or track.outputs is None:
        return result
    begun = time.monotonic()
    temperature = plan.scorer.temperature(track.outputs)
    metrics = {"validation": plan.scorer.cross_fitted(track.outputs)}
    modules = load_members(track, program, blank)
    predictions = {"validation": track.outputs}
    audit = setting.split.audit
    if len(audit):
        predictions["audit"] = mean_outputs(modules, program, audit)
        metrics["audit"] = setting.scorer(audit)(predictions["audit"], temperature)
    metrics["train"] = _train_score(modules, program, setting, temperature)
    result = result.replace(seconds=track.seconds + time.monotonic() - begun)
    if start is not None:
        gain, doubt = plan.scorer.gain(start.before, track.outputs)
        result = result.replace(gain=gain, gain_error=doubt)
        if start.after is not None:
            result = result.replace(drop=-plan.scorer.gain(start.before, start.after)[0])
    sparsity, nonzero = counts(modules)
    result = result.replace(
        capacity=capacity(track.weights, program), sparsity=sparsity, nonzero=nonzero
    )
    tensors = {f"weights/{n}": v.cpu().contiguous() for n, v in track.weights.items()}
    tensors |= {f"predictions/{n}": torch.from_numpy(v) for n, v in predictions.items()}
    about = {
        "candidate": track.candidate.to_json(),
        "spec": program.spec.to_json(),
        "folds": program.folds,
        "temperature": temperature,
        "step": track.best_step,
    }
    path = setting.run / "candidates" / f"{track.candidate.id}.safetensors"
    path.parent.mkdir(exist_ok=True)
    keep(path, save(tensors, metadata={"about": json.dumps(about)}))
    return result.replace(metrics=metrics)


def described(result: Result, group: Group, position: int) -> Result:
    """The result with what the group says of the candidate at that place."""
    controller = group.controllers[position] if group.controllers else ""
    return result.replace(controller=controller, group=group.index, engine=group.engine)


def blank_members(candidate: Candidate, program: Program) -> list[torch.nn.Module]:
    """The candidate's module of every fold, for evaluation, its weights not those trained."""
    modules = [build_module(program.architecture, candidate, program.spec, 0)]
    modules += [copy.deepcopy(modules[0]) for _ in range(program.folds - 1)]
    return [module.to(program.device, program.dtype).eval() for module in modules]


def load_members(
    track: Track, program: Program, into: list[torch.nn.Module] | None = None
) -> list[torch.nn.Module]:
    """The candidate's module of every fold with its best weights, put `into` those of a family."""
    modules = blank_members(track.candidate, program) if into is None else into
    for f, module in enumerate(modules):
        prefix = f"{f}/"
        state = {
            n.removeprefix(prefix): v for n, v in track.weights.items() if n.startswith(prefix)
        }
        load_weights(module, state)
    return modules


@torch.no_grad()
def mean_outputs(modules: list[torch.nn.Module], program: Program, rows: np.ndarray) -> np.ndarray:
    """Mean output of the folds [N, C]."""
    data = program.data
    where = torch.as_tensor(rows, device=program.device)
    pieces = where.split(4096)
    total: Tensor | int = 0
    for module in modules:
        parts = [as_members(module(data.numeric[p], data.category[p]), 1) for p in pieces]
        total = total + program.scored(torch.cat(parts), where)
    return (total / len(modules)).cpu().numpy()  # type: ignore[union-attr]


def _train_score(
    modules: list[torch.nn.Module], program: Program, setting: Setting, temperature: float
) -> float:
    """Mean over folds of the metric on a sample of the rows each was trained on."""
    values = []
    for f, module in enumerate(modules):
        rows = setting.split.train[f]
        rows = rows[:: max(1, len(rows) // TRAIN_SAMPLE)][:TRAIN_SAMPLE]
        values.append(setting.scorer(rows)(mean_outputs([module], program, rows), temperature))
    return float(np.mean(values))
