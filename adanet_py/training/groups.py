"""Train one group: advance the engine from rung to rung, keep the best weights, drop the losers.

The loop is the same for every engine. All that decides a result is in the `Group` (candidates,
steps, rungs) and in the data: the clock can only end the group early, and the step at which it did
is recorded, so that a replay can stop there too.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from adanet_py.errors import RunError
from adanet_py.fidelity import staying
from adanet_py.journal import write_atomic
from adanet_py.records import Candidate, Evaluation, Group, Result, Status
from adanet_py.training.denormals import flushed
from adanet_py.training.engines import UnsuitedError, make_engine
from adanet_py.training.engines.program import Program
from adanet_py.training.engines.storing import UnstorableError
from adanet_py.training.probe import is_due
from adanet_py.training.schedules import ROUNDING, feedback_factor
from adanet_py.training.scoring import Scorer

Emit = Callable[[dict[str, Any]], None]


@dataclass
class Track:
    """What is remembered of one candidate while its group trains."""

    candidate: Candidate
    curve: list[Evaluation] = field(default_factory=list)
    best_error: float = math.inf
    best_step: int = 0
    stale: int = 0  # evaluations since the best
    temperature: float = 1.0
    status: Status | None = None  # None while training
    steps: int = 0
    seconds: float = 0.0
    weights: dict[str, Tensor] = field(default_factory=dict)
    outputs: np.ndarray | None = None  # of the best weights on the validation rows [N, C]
    engine: str = ""  # that trained it

    _PLAIN = ("best_error", "best_step", "stale", "temperature", "steps", "seconds")

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays."""
        out: dict[str, Any] = {n: repr(getattr(self, n)) for n in self._PLAIN}
        curve = Result(self.candidate, Status.COMPLETE, curve=tuple(self.curve)).to_json()["curve"]
        return out | {"curve": curve, "status": self.status.name if self.status else None}

    def load(self, value: dict[str, Any]) -> None:
        """Inverse of `to_json`."""
        for name in self._PLAIN:
            text = value[name]
            setattr(self, name, int(text) if text.lstrip("-").isdigit() else float(text))
        whole = Result(self.candidate, Status.COMPLETE).to_json() | {"curve": value["curve"]}
        self.curve = list(Result.from_json(whole).curve)
        self.status = Status[value["status"]] if value["status"] else None


@dataclass(frozen=True)
class Plan:
    """How a group is scored, saved and stopped."""

    group: Group
    valid: tuple[np.ndarray, ...]  # one array of rows per fold
    scorer: Scorer  # over the validation rows, fold after fold
    checkpoint: Path | None = None
    checkpoint_seconds: float = 5.0
    emit: Emit = lambda event: None
    should_stop: Callable[[], bool] = lambda: False
    keep_last: bool = False  # the weights of the last evaluation, not those of the best

    def note(self, message: str) -> None:
        """Tell the user, once in a run."""
        self.emit({"kind": "note", "message": message, "once": message})


@flushed()
def train(program: Program, plan: Plan) -> list[Track]:
    """Train all candidates of the group; one `Track` each, in the group's order."""
    group = plan.group
    engine, name = _engine(program, plan)
    tracks = [Track(c, engine=name) for c in program.candidates]
    step = _restore(engine, tracks, plan.checkpoint) if plan.checkpoint else 0
    limit = group.steps if group.stop_at is None else min(group.stop_at, group.steps)
    started, saved = time.monotonic(), time.monotonic()

    def tick(done: int) -> bool:
        return plan.should_stop()

    while step < limit and engine.alive:
        before = time.monotonic()
        at = step
        _follow(engine, tracks, plan.scorer, at)
        step, loss, norm = engine.advance(at, _boundary(group, at, limit), tick)
        stopped = step < limit and plan.should_stop()
        _evaluate(engine, tracks, plan, step, loss, norm)
        share = (time.monotonic() - before) / len(engine.alive)
        for c in engine.alive:
            tracks[c].seconds += share
            tracks[c].steps = step
        _leave(engine, tracks, plan, step)
        _report(plan, tracks, engine.alive, step, time.monotonic() - started)
        if stopped:
            break
        if plan.checkpoint and time.monotonic() - saved > plan.checkpoint_seconds:
            try:
                _save(engine, tracks, step, plan.checkpoint)
            except UnstorableError as error:
                plan.note(f"{error}: a group with it cannot be resumed, but begins afresh.")
                plan = replace(plan, checkpoint=None)
            saved = time.monotonic()
    for c in engine.alive:
        tracks[c].status = Status.COMPLETE if step >= group.steps else Status.DEADLINE
    return tracks


def _engine(program: Program, plan: Plan) -> tuple[Any, str]:
    """The engine the group asks for and its name, or the stacked one, saying so."""
    wanted, program = plan.group.engine, replace(program, say=plan.note)
    try:
        return make_engine(wanted, program), wanted
    except UnsuitedError as why:
        name = program.candidates[0].architecture
        plan.note(f"Engine {wanted!r} cannot train {name}: {why}. It trains on 'stacked'.")
        return make_engine("stacked", program), "stacked"


def _follow(engine: Any, tracks: list[Track], scorer: Scorer, step: int) -> None:
    """Scale the rates from `step` on for those whose schedule follows their evaluations.

    The factor comes from the whole curve, so that it is the same after a resume.
    """
    factors = []
    for c in engine.alive:
        errors = [scorer.error(e.validation) for e in tracks[c].curve]
        factors.append(feedback_factor(tracks[c].candidate, errors))
    if any(f != 1.0 for f in factors):
        engine.scale_rates(step, factors)


def _boundary(group: Group, step: int, limit: int) -> int:
    """The next step at which something is decided."""
    every = (step // group.evaluate_every + 1) * group.evaluate_every
    return min([every, limit, *(r for r in group.rungs if r > step)])


def _evaluate(
    engine: Any, tracks: list[Track], plan: Plan, step: int, loss: Tensor, norm: Tensor
) -> None:
    """Score every living candidate on the validation rows and keep the best weights."""
    alive = engine.alive
    outputs = engine.predict(plan.valid).numpy()
    folds = engine.program.folds
    before = tracks[alive[0]].curve[-1].step if tracks[alive[0]].curve else 0
    measured = {"train_loss": loss, "grad_norm": norm}
    measured |= engine.measure(units=is_due(before, step))
    table = torch.stack(list(measured.values())).reshape(-1, folds, len(alive)).mean(1).tolist()
    means = dict(zip(measured, table, strict=True))
    rates = engine.rates[min(step, plan.group.steps) - 1].reshape(-1)[: len(alive)].tolist()
    epochs = step / engine.program.order.steps_per_epoch
    for i, c in enumerate(alive):
        track = tracks[c]
        value, track.temperature = plan.scorer.track(outputs[i], track.temperature)
        of_member = {name: mean[i] for name, mean in means.items()}
        track.curve.append(Evaluation(step, epochs, rates[i], validation=value, **of_member))
        error = plan.scorer.error(value)
        track.stale += 1
        if plan.keep_last or error < track.best_error * (1.0 - ROUNDING):
            track.best_error, track.best_step, track.stale = error, step, 0
            track.weights, track.outputs = engine.snapshot(i), outputs[i].copy()
        if not (math.isfinite(means["train_loss"][i]) and math.isfinite(error)):
            track.status = Status.DIVERGED


def _leave(engine: Any, tracks: list[Track], plan: Plan, step: int) -> None:
    """Drop the diverged, the converged and, at a rung, all but the best."""
    group = plan.group
    alive = list(engine.alive)
    if group.patience:
        for c in alive:
            patience = tracks[c].candidate.numeric.get("patience", group.patience)
            if tracks[c].status is None and 0 < patience <= tracks[c].stale:
                tracks[c].status = Status.CONVERGED
    if step in group.rungs:
        stay_on = _staying(tracks, plan, group.rungs.index(step))
        for c in alive:
            if tracks[c].status is None and c not in stay_on:
                tracks[c].status = Status.PRUNED
    stay = [i for i, c in enumerate(alive) if tracks[c].status is None]
    if len(stay) == len(alive):
        return
    if stay:
        engine.select(stay)
    else:
        engine.alive = []


def _staying(tracks: list[Track], plan: Plan, rung: int) -> set[int]:
    """Places of those that may go on after the rung.

    The converged compete too: a place is earned by the score, not by still training. The diverged
    do not: they have nothing to show for it.
    """
    group = plan.group
    fit = [
        i
        for i, t in enumerate(tracks)
        if t.status is not Status.DIVERGED and math.isfinite(t.best_error)
    ]
    doubt = 0.0
    if group.ties:
        outputs = [tracks[i].outputs for i in fit]
        temperatures = [tracks[i].temperature for i in fit]
        doubt = group.ties * plan.scorer.doubt([o for o in outputs if o is not None], temperatures)
    places = staying(
        [tracks[i].best_error for i in fit],
        [tracks[i].candidate.id for i in fit],
        group.keep[rung],
        group.bars[rung] if group.bars else math.inf,
        doubt,
    )
    return {fit[p] for p in places}


def _report(plan: Plan, tracks: list[Track], alive: list[int], step: int, seconds: float) -> None:
    best = min(tracks, key=lambda t: t.best_error)
    last = next((e for e in reversed(best.curve) if e.step == best.best_step), None)
    plan.emit(
        {
            "kind": "rung",
            "group": plan.group.index,
            "step": step,
            "steps": plan.group.steps,
            "alive": len(alive),
            "candidate": best.candidate.id,
            "validation": last.validation if last and math.isfinite(last.validation) else None,
            "seconds": seconds,
        }
    )


def _save(engine: Any, tracks: list[Track], step: int, path: Path) -> None:
    """Write all that is needed to go on, atomically."""
    tensors = {f"engine/{n}": v.detach().cpu().contiguous() for n, v in engine.state().items()}
    for c, track in enumerate(tracks):
        tensors |= {f"best/{c}/{n}": v.cpu().contiguous() for n, v in track.weights.items()}
        if track.outputs is not None:
            tensors[f"outputs/{c}"] = torch.from_numpy(track.outputs)
    progress = json.dumps(
        {"step": step, "alive": engine.alive, "tracks": [t.to_json() for t in tracks]}
    )
    about = {"progress": progress, "crc": _checksum(progress, tensors)}
    write_atomic(path, save(tensors, metadata=about))


def _checksum(progress: str, tensors: dict[str, Tensor]) -> str:
    """Of all a checkpoint holds: the format itself does not notice a changed byte."""
    crc = zlib.crc32(progress.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].numpy().tobytes(), zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def _restore(engine: Any, tracks: list[Track], path: Path) -> int:
    """Load what `_save` wrote, if it is there; the step to go on from.

    Raises RunError for a damaged checkpoint.
    """
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if about["crc"] != _checksum(about["progress"], tensors):
        raise RunError(f"The checkpoint {path} is damaged: its checksum does not fit.")
    progress = json.loads(about["progress"])
    for c, (track, value) in enumerate(zip(tracks, progress["tracks"], strict=True)):
        track.load(value)
        prefix = f"best/{c}/"
        track.weights = {
            n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)
        }
        if f"outputs/{c}" in tensors:
            track.outputs = tensors[f"outputs/{c}"].numpy()
    prefix = "engine/"
    state = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
    if progress["alive"]:
        engine.load(progress["alive"], state)
    else:  # all had left: nothing trains on
        engine.alive = []
    return int(progress["step"])
