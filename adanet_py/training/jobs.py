"""The job a worker runs: open the data, train one group, write weights and predictions, report.

A job is plain JSON (an in-process executor may add an `Own` record of live objects under
"own"): group, run (folder), metric, target [mean, scale], class_weight, device, deadline_s (from
now), threads. The answer holds one Result per candidate.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from adanet_py.architectures import Architecture
from adanet_py.data import SOURCES
from adanet_py.data.source import ArraySource
from adanet_py.data.splits import Split
from adanet_py.errors import AdanetError
from adanet_py.journal import write_atomic
from adanet_py.own import Own
from adanet_py.records import Candidate, Group, Result, Status
from adanet_py.refine.inheritance import Start, read_parent, start_of
from adanet_py.reward import Bounds
from adanet_py.tasks import has_several_targets
from adanet_py.training.batches import BatchOrder, rows_per_step
from adanet_py.training.cost import Cost, capacity, cost_note, measure
from adanet_py.training.diagnostics import sentence
from adanet_py.training.engines.program import (
    Program,
    Tensors,
    as_members,
    build_module,
    load_weights,
)
from adanet_py.training.groups import Emit, Plan, Track, train
from adanet_py.training.scoring import Scorer
from adanet_py.training.sparsity import counts

TRAIN_SAMPLE = 2000  # training rows the training score is measured on
MOST_PIECES = 64  # micro-batches of a step that are tried before giving up


def run_job(job: dict[str, Any], emit: Emit, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Train the job's group; see the module's docstring."""
    deadline = time.monotonic() + float(job.get("deadline_s") or math.inf)
    group = Group.from_json(job["group"]) if isinstance(job["group"], dict) else job["group"]
    run = Path(job["run"])
    written = (run / "cache" / "arrays.json").stat().st_mtime_ns
    source, split = _open(str(run), written)
    own: Own = job.get("own") or Own()
    setting = Setting(
        run=run,
        source=source,
        split=split,
        architecture=own.all_architectures()[group.candidates[0].architecture],
        metric=job["metric"],
        target=tuple(job.get("target", (0.0, 1.0))),
        class_weight=job.get("class_weight"),
        device=torch.device(job.get("device", "cpu")),
        emit=emit,
        should_stop=lambda: should_stop() or time.monotonic() > deadline,
        checkpoint_seconds=float(job.get("checkpoint_s", 5.0)),
        own=own,
        bounds=Bounds(**job.get("bounds", {})),
        model_bytes=int(job.get("model_bytes", 0)),
    )
    results = run_group(group, setting)
    return {"group": group.index, "results": [r.to_json() for r in results]}


@functools.lru_cache(maxsize=1)
def _open(run: str, written: int) -> tuple[ArraySource, Split]:
    """Data and split of a run; opened anew when they were prepared anew."""
    folder = Path(run)
    return SOURCES["arrays"].open(folder / "cache"), Split.load(folder / "split.npz")


@dataclass(frozen=True)
class Setting:
    """Where and on what a group is trained."""

    run: Path
    source: ArraySource
    split: Split
    architecture: Architecture
    metric: str
    target: tuple[Any, ...]  # (mean, scale), lists for several targets
    class_weight: list[Any] | None  # of each class; of several labels such a list each
    device: torch.device
    emit: Emit
    should_stop: Callable[[], bool]
    checkpoint_seconds: float = 5.0
    dtype: torch.dtype = torch.float32
    pieces: int = 1  # micro-batches of a step at least
    own: Own = field(default_factory=Own)
    bounds: Bounds = field(default_factory=Bounds)
    model_bytes: int = 0  # of a model file without weights

    def scorer(self, rows: np.ndarray) -> Scorer:
        """The run's metric on `rows`."""
        y = np.asarray(self.source.y[rows])
        weight = None if self.source.weight is None else np.asarray(self.source.weight[rows])
        mean, scale = self.target
        return Scorer.make(self.metric, self.source.spec.task, y, weight, (mean, scale))


def run_group(group: Group, setting: Setting) -> list[Result]:
    """Train a group; out of memory, the same candidates go on in two halves.

    A single one goes on with its batches cut in halves, quarters ..., gradients accumulated.
    """
    checkpoint = setting.run / "checkpoints" / f"{group.index}-{_digest(group)}.safetensors"
    try:
        return _run_whole(group, setting, checkpoint)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        message = str(error).splitlines()[0]
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()
    count = len(group.candidates)
    if count == 1:
        pieces = 2 * setting.pieces
        if pieces > MOST_PIECES:
            result = Result(group.candidates[0], Status.OUT_OF_MEMORY, message=message)
            return [_describe(result, group, 0)]
        note = f"Candidate {group.candidates[0].id} did not fit into memory; "
        setting.emit({"kind": "note", "message": f"{note}its batches are cut into {pieces}."})
        return run_group(group, replace(setting, pieces=pieces))
    note = f"Group {group.index} of {count} candidates did not fit into memory; going on in halves."
    setting.emit({"kind": "note", "message": note})
    results = []
    for part in (slice(0, count // 2), slice(count // 2, count)):
        half = _part(group, range(count)[part])
        half = replace(half, keep=tuple(max(1, k // 2) for k in group.keep))
        results += run_group(half, setting)
    return results


def _part(group: Group, places: Sequence[int]) -> Group:
    """The candidates of a group at `places`."""
    return replace(
        group,
        candidates=tuple(group.candidates[i] for i in places),
        controllers=tuple(group.controllers[i] for i in places) if group.controllers else (),
    )


def _starts(program: Program, setting: Setting) -> tuple[dict[str, Start], dict[str, str]]:
    """Where the children of a program begin, and why some cannot, by id.

    Children that differ in numbers alone and share their seed begin with the same weights.
    """
    starts: dict[str, Start] = {}
    failed: dict[str, str] = {}
    made: dict[tuple[Any, ...], Start] = {}
    for child in (c for c in program.candidates if c.inherits):
        key = child.parent, child.move, child.seed
        try:
            if key not in made:
                path = setting.run / "candidates" / f"{child.parent}.safetensors"
                parent = read_parent(path, program)
                made[key] = start_of(child, parent, program, setting.split.valid)
            made[key].check(child)
            starts[child.id] = made[key]
        except (AdanetError, LookupError, OSError, RuntimeError, ValueError) as error:
            if _is_out_of_memory(error):
                raise
            found = str(error) if isinstance(error, AdanetError) else repr(error)
            failed[child.id] = f"The move {child.move} from {child.parent}: {found}"
    return starts, failed


def _digest(group: Group) -> str:
    """Tells apart checkpoints of different plans; where a replay stops is no part of the plan."""
    plan = json.dumps(replace(group, stop_at=None).to_json(), sort_keys=True)
    return hashlib.sha256(plan.encode()).hexdigest()[:8]


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "not enough memory" in str(error) or "can't allocate memory" in str(error)


def make_program(group: Group, setting: Setting) -> Program:
    """The program of a group on the setting's data."""
    static = setting.architecture.complete(group.candidates[0].static)
    rows = setting.split.train
    batch = rows_per_step(static, max(len(r) for r in rows))
    order = BatchOrder(rows, batch, group.order_seed)
    return Program(
        setting.architecture,
        setting.own.optimizer(group.candidates[0].optimizer),
        group.candidates,
        setting.source.spec,
        order,
        group.steps,
        load_tensors(setting, str(static["scaling"])),
        setting.device,
        setting.dtype,
        setting.pieces,
        setting.own.all_losses(),
        label_weight(setting),
    )


def label_weight(setting: Setting) -> Tensor | None:
    """Class weights of several labels [T, 2], or None; see `with_label_weight`."""
    if setting.class_weight is None or not has_several_targets(setting.source.spec.task):
        return None
    return torch.tensor(setting.class_weight, device=setting.device, dtype=setting.dtype)


def load_tensors(setting: Setting, scaling: str) -> Tensors:
    """The data as tensors on the device; on a CPU they are the memory-mapped files themselves."""

    def tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
        if not array.flags.writeable:
            # Private mapping: torch wants writable memory; nothing is ever written.
            file = getattr(array, "filename", None)
            array = np.load(file, mmap_mode="c") if file else np.array(array)
        return torch.from_numpy(np.asarray(array)).to(setting.device, dtype)

    source = setting.source
    weight = None if source.weight is None else tensor(source.weight, setting.dtype)
    target = tensor(source.y, setting.dtype)
    if setting.class_weight is not None and not has_several_targets(source.spec.task):
        balance = torch.tensor(setting.class_weight, device=setting.device, dtype=setting.dtype)
        each = balance[target.long()]
        weight = each if weight is None else weight * each
    if weight is not None:
        # Mean one over the training rows, so that a learning rate means the same with weights.
        rows = np.unique(np.concatenate(setting.split.train))
        weight = weight / weight[torch.from_numpy(rows).to(setting.device)].mean()
    return Tensors(
        tensor(source.arrays[scaling], setting.dtype),
        tensor(source.arrays["category"], torch.int32),
        target,
        weight,
        None if source.exposure is None else tensor(source.exposure, setting.dtype).log(),
    )


def _run_whole(group: Group, setting: Setting, checkpoint: Path) -> list[Result]:
    program = make_program(group, setting)
    starts, failed = _starts(program, setting)
    if failed:
        lost = [
            _describe(Result(c, Status.FAILED, message=failed[c.id]), group, i)
            for i, c in enumerate(group.candidates)
            if c.id in failed
        ]
        rest = [i for i, c in enumerate(group.candidates) if c.id not in failed]
        trained = _run_whole(_part(group, rest), setting, checkpoint) if rest else []
        found = {r.candidate.id: r for r in (*lost, *trained)}
        return [found[c.id] for c in group.candidates]
    program = replace(program, starts={name: s.weights for name, s in starts.items()})
    cost = None
    if setting.bounds:  # what a family costs is known before it is trained
        cost = measure(program, setting.model_bytes)
        if why := setting.bounds.why_not(cost):
            return [
                _describe(Result(c, Status.INFEASIBLE, message=why, **cost.parts()), group, i)
                for i, c in enumerate(group.candidates)
            ]
    setting_valid = setting.split.valid
    plan = Plan(
        group=group,
        valid=setting_valid,
        scorer=setting.scorer(np.concatenate(setting_valid)),
        checkpoint=checkpoint,
        checkpoint_seconds=setting.checkpoint_seconds,
        emit=setting.emit,
        should_stop=setting.should_stop,
    )
    checkpoint.parent.mkdir(exist_ok=True)
    if note := cost_note(program):
        setting.emit({"kind": "note", "message": note, "once": note})
    tracks = train(program, plan)
    cost = cost or measure(program, setting.model_bytes)
    blank = blank_members(program.candidates[0], program)  # what differs in it acts in training
    written: list[Future[None]] = []
    with ThreadPoolExecutor(1) as disk:  # waited for while the next member is scored

        def keep(path: Path, content: bytes) -> None:
            written.append(disk.submit(write_atomic, path, content))

        results = [
            _finish(t, i, program, plan, setting, cost, starts.get(t.candidate.id), blank, keep)
            for i, t in enumerate(tracks)
        ]
    for each in written:
        each.result()  # raises what writing it raised
    checkpoint.unlink(missing_ok=True)
    return results


def _finish(
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
    result = _describe(result, group, position).replace(engine=track.engine)
    if start is not None:
        result = result.replace(difference=start.difference, latency_share=start.latency_share)
    if not status.usable or track.outputs is None:
        return result
    temperature = plan.scorer.temperature(track.outputs)
    metrics = {"validation": plan.scorer.cross_fitted(track.outputs)}
    modules = load_members(track, program, blank)
    predictions = {"validation": track.outputs}
    audit = setting.split.audit
    if len(audit):
        predictions["audit"] = _outputs(modules, program, audit)
        metrics["audit"] = setting.scorer(audit)(predictions["audit"], temperature)
    metrics["train"] = _train_score(modules, program, setting, temperature)
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


def _describe(result: Result, group: Group, position: int) -> Result:
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
def _outputs(modules: list[torch.nn.Module], program: Program, rows: np.ndarray) -> np.ndarray:
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
        values.append(setting.scorer(rows)(_outputs([module], program, rows), temperature))
    return float(np.mean(values))
