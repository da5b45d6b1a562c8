"""The job a worker runs: open the data, train one group, write weights and predictions, report.

A job is plain JSON (an in-process executor may add an `Own` record of live objects under
"own"): group, run (folder), metric, target [mean, scale], class_weight, device, deadline_s (from
now), threads. The answer holds one Result per candidate.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adanet_py.data import SOURCES
from adanet_py.data.source import ArraySource
from adanet_py.data.splits import Split
from adanet_py.errors import AdanetError
from adanet_py.journal import write_atomic
from adanet_py.own import Own
from adanet_py.records import Group, Result, Status
from adanet_py.refine.inheritance import Start, read_parent, start_of
from adanet_py.reward import Bounds
from adanet_py.training.cost import cost_note, measure
from adanet_py.training.engines.program import Program
from adanet_py.training.finishing import blank_members, described, finished
from adanet_py.training.groups import Emit, Plan, train
from adanet_py.training.setting import Setting, make_program

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
            return [described(result, group, 0)]
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


def _run_whole(group: Group, setting: Setting, checkpoint: Path) -> list[Result]:
    program = make_program(group, setting)
    starts, failed = _starts(program, setting)
    if failed:
        lost = [
            described(Result(c, Status.FAILED, message=failed[c.id]), group, i)
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
                described(Result(c, Status.INFEASIBLE, message=why, **cost.parts()), group, i)
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
            finished(t, i, program, plan, setting, cost, starts.get(t.candidate.id), blank, keep)
            for i, t in enumerate(tracks)
        ]
    for each in written:
        each.result()  # raises what writing it raised
    checkpoint.unlink(missing_ok=True)
    return results
