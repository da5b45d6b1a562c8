"""How much each group may cost: members, steps, rungs. Pure functions, no torch, no clock.

The cost of training is estimated from multiply-adds; with a time budget the measured speed of the
groups so far corrects the estimate. What is decided is written into the `Group`, so a replay needs
no clock.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from adanet_py.data.spec import DataSpec
from adanet_py.fidelity import FIDELITIES, TIES, Rung, step_of
from adanet_py.own import Own, engine_for
from adanet_py.records import Candidate, Group, History, Result
from adanet_py.training.batches import rows_per_step
from adanet_py.training.general import GENERAL
from adanet_py.training.optimizers.optimizer import one_pass

MEMBERS = 8  # candidates of a group on a CPU, where time allows
FIRST_MEMBERS = (2, 2, 4, 4)  # of the first groups where there is a time budget: results come soon
GPU_MEMBERS = 64  # the most on a GPU, where a step takes about as long for many as for a few
GROUPS = 8  # at least so many groups of candidates are made of a given number, to learn between
ROW_EPOCHS = 6.0e5  # rows x epochs a candidate is trained for, within the bounds below
EPOCHS = (12, 160)
LONGER = (1.0, 4.0)  # bounds of sqrt(minutes), by which more time lengthens the training
FEWEST_EPOCHS = 4
FULL_BATCH_STEPS = 300  # an epoch is one step there, and a few dozen steps train nothing
ONE_SAMPLE_STEPS = 30_000  # an epoch is as many steps as rows there
EVALUATIONS = 30  # per candidate
PATIENCE = int(GENERAL["patience"].default)  # type: ignore[arg-type]  # evaluations
SHARES = 4  # a group may take a quarter of a worker's time
SEPARATE_MEMBERS = 2  # candidates of a group there, where they gain nothing from each other
LATEST = 32  # results the speed is measured by
MEASURED = 3  # the fewest
CHILD_EPOCHS = 0.5  # of the epochs of others: a child goes on from its parent's weights
KINDS = 8  # times as many are looked through for those of one kind
CURVED_STEPS = (3, 30)  # steps that cost several gradients: the fewest worth a start, and enough


class Pace(NamedTuple):
    """What a step takes on one core, or the GPU, before anything is measured.

    In seconds, whatever its size.
    """

    shared: float  # by all members
    each: float  # of one member's gradient
    flops: float  # per second


PACES: dict[str, Pace] = {
    "native": Pace(0.0, 2.0e-5, 6.0e10),
    "stacked": Pace(2.0e-3, 0.0, 2.0e10),
    "separate": Pace(0.0, 1.0e-3, 2.0e10),
}
# Of a GPU; reckoned, not measured: some hundred launches of 2 to 3 microseconds in a recorded step.
GPU_PACES: dict[str, Pace] = {
    "stacked": Pace(3.0e-4, 0.0, 5.0e12),
    "separate": Pace(0.0, 2.0e-3, 5.0e12),
}


@dataclass(frozen=True)
class Workload:
    """The data as far as cost is concerned, and what can be spent."""

    spec: DataSpec
    rows: int  # training rows of a fold
    folds: int
    seconds: float | None = None  # of one worker, for everything; None: no time budget
    order_seed: int = 0
    own_order: bool = False  # of batches, for every candidate
    own: Own = field(default_factory=Own)
    dense: str = "stacked"  # engine of dense networks
    fidelity: str = "none"  # how candidates are compared before their end, see fidelity.py
    by_rows: bool = False  # whether a candidate sees a share of the rows until a rung
    gpu: int = 0  # bytes of memory of the GPU; 0: a CPU
    wanted: int | None = None  # candidates in all; None: as many as there is time for

    def pace(self, engine: str) -> Pace:
        """What steps take with an engine."""
        paces = GPU_PACES if self.gpu else PACES
        return paces.get(engine, paces["stacked"])

    @property
    def members(self) -> int:
        """The most candidates of a group."""
        if not self.gpu:
            return MEMBERS
        enough = GPU_MEMBERS if self.wanted is None else self.wanted // GROUPS
        return min(GPU_MEMBERS, max(MEMBERS, enough))

    def members_of(self, index: int) -> int:
        """The most candidates of the group `index`.

        The first are small where a member costs the same in any group and time is what counts.
        """
        early = index < len(FIRST_MEMBERS) and not self.gpu
        if early and self.seconds is not None and self.dense == "native":
            return FIRST_MEMBERS[index]
        return self.members


def step_flops(candidate: Candidate, load: Workload) -> float:
    """Floating-point operations of one step of one candidate, all folds, forward and backward."""
    architecture = load.own.all_architectures()[candidate.architecture]
    static = architecture.complete(candidate.static)
    estimate = architecture.multiply_adds
    per_row = estimate(static, load.spec) if estimate else 100_000
    return 6.0 * per_row * batch_size(candidate, load) * load.folds


def batch_size(candidate: Candidate, load: Workload) -> int:
    """Rows of one step."""
    static = load.own.all_architectures()[candidate.architecture].complete(candidate.static)
    return rows_per_step(static, load.rows)


def passes(candidate: Candidate, load: Workload) -> float:
    """What a step costs, in gradients of the batch.

    The number of parameters is estimated by the multiply-adds of a row.
    """
    optimizer = load.own.optimizer(candidate.optimizer)
    if optimizer.passes is one_pass:
        return 1.0
    architecture = load.own.all_architectures()[candidate.architecture]
    estimate = architecture.multiply_adds
    size = estimate(architecture.complete(candidate.static), load.spec) if estimate else 100_000
    return optimizer.passes(size, optimizer.complete(candidate.numeric))


def seconds_per_step(candidate: Candidate, members: float, load: Workload, speed: float) -> float:
    """Estimated seconds of a step of a group of `members` on one core."""
    pace = load.pace(engine_for(candidate, load.own, dense=load.dense))
    flops = step_flops(candidate, load) / (pace.flops * speed)
    gradients = passes(candidate, load)
    return pace.shared + members * gradients * (load.folds * pace.each + flops)


def measured_speed(history: History, load: Workload, like: Candidate | None = None) -> float:
    """Speed of the latest groups relative to the estimate; 1 before there are any.

    With `like`, of those with its architecture and optimizer, where there are enough: so what is
    slower than its estimate is known to be, and what else there is not held to be slow for it.
    """
    if like is not None:
        kind = like.architecture, like.optimizer
        latest = history.results[-LATEST * KINDS :]
        same = [r for r in latest if (r.candidate.architecture, r.candidate.optimizer) == kind]
        ratios = _speeds(same, load)
        if len(ratios) >= MEASURED:
            return _speed(ratios)
    return _speed(_speeds(history.results, load))


def _speed(ratios: Sequence[float]) -> float:
    if len(ratios) < MEASURED:
        return 1.0
    return float(np.clip(statistics.median(ratios), 0.05, 20.0))


def _speeds(results: Sequence[Result], load: Workload) -> list[float]:
    """Of the latest that were measured, speed over estimate."""
    ratios: list[float] = []
    for result in reversed(results):
        if len(ratios) == LATEST:
            break
        if result.steps and result.seconds > 0.05 and result.status.usable:
            # What the members of a group share is counted once per full group: their number is
            # not known here.
            pace = load.pace(result.engine)
            gradients = passes(result.candidate, load)
            overhead = pace.shared / load.members + pace.each * load.folds * gradients
            overhead *= result.steps
            flops = step_flops(result.candidate, load) * result.steps * gradients
            busy = max(result.seconds - overhead, 0.3 * result.seconds)
            ratios.append(flops / busy / pace.flops)
    return ratios


def average_members(members: int, rungs: Sequence[Rung]) -> float:
    """Mean number of members alive over the steps of a group, at most."""
    alive, at, total = float(members), 0.0, 0.0
    for rung in rungs:
        total += alive * (rung.share - at)
        alive, at = float(kept(members, rung)), rung.share
    return total + alive * (1.0 - at)


def kept(members: int, rung: Rung) -> int:
    """How many of a group stay at a rung; two are too few to choose from."""
    return members if members <= 2 else max(1, math.ceil(members * rung.stay - 1e-9))


def rungs_of(epochs: float, index: int, load: Workload) -> tuple[Rung, ...]:
    """The rungs of the group `index`."""
    return FIDELITIES[load.fidelity].rungs(epochs, index)


def full_epochs(rows: int, seconds: float | None = None) -> int:
    """Epochs of a candidate that is not stopped early, before its group is fitted into the time."""
    longer = 1.0 if seconds is None else float(np.clip((seconds / 60.0) ** 0.5, *LONGER))
    return int(np.clip(round(longer * ROW_EPOCHS / rows), *EPOCHS))


def planned_epochs(candidate: Candidate, load: Workload) -> float:
    """Epochs of the candidate under its sampling regime, before its group is fitted in.

    A group whose steps cost several gradients gets about as many gradients as others do, so fewer
    steps.
    """
    epochs: float = _epochs(candidate, load)
    if candidate.inherits:
        epochs = max(1.0, CHILD_EPOCHS * epochs)
    gradients = passes(candidate, load)
    if gradients <= 1.0:
        return epochs
    enough = CURVED_STEPS[1] * batch_size(candidate, load) / load.rows
    return min(epochs, max(enough, epochs * MEMBERS / SEPARATE_MEMBERS / gradients))


def _epochs(candidate: Candidate, load: Workload) -> int:
    epochs, rows = full_epochs(load.rows, load.seconds), batch_size(candidate, load)
    regime = candidate.static.get("sampling", "mini_batch")
    if regime == "full_batch":
        return max(epochs, FULL_BATCH_STEPS)
    if regime == "one_sample":
        return min(epochs, max(1, ONE_SAMPLE_STEPS * rows // load.rows))
    return epochs


def size_group(
    candidate: Candidate,
    load: Workload,
    speed: float,
    left: float | None,
    most: int,
    index: int = 0,
) -> tuple[int, float]:
    """(members, epochs) of group `index`, of the candidate's family; (0, 0) when nothing fits.

    `left` are the seconds until the deadline, `most` the candidates still wanted.
    """
    separate = bool(load.own.optimizer(candidate.optimizer).engine)
    epochs = planned_epochs(candidate, load)
    members = min(SEPARATE_MEMBERS if separate else load.members_of(index), most)
    if load.seconds is None:
        return members, epochs
    share = load.seconds / SHARES if left is None else min(load.seconds / SHARES, left)
    steps = max(1.0, load.rows / batch_size(candidate, load))
    rungs = rungs_of(epochs, index, load)

    def cost(members: int, epochs: float) -> float:
        each = seconds_per_step(candidate, average_members(members, rungs), load, speed)
        return epochs * steps * each

    while members > 2 and cost(members, epochs) > share and cost(members, epochs / 3) > share:
        members = (members + 1) // 2
    fitting = share / cost(members, 1.0)
    if passes(candidate, load) > 1.0:
        members = members if fitting * steps >= 1.0 else 1
        fitting = min(epochs, share / cost(members, 1.0))
        late = left is not None and fitting * steps < min(CURVED_STEPS[0], epochs * steps)
        return (0, 0) if late else (members, max(fitting, 1.0 / steps))
    if fitting < FEWEST_EPOCHS and left is not None and left < load.seconds / SHARES:
        return 0, 0  # too little time left for anything that could win
    return members, min(int(fitting), epochs) if fitting >= 1 else max(fitting, 1e-3)


def too_costly(
    candidate: Candidate, load: Workload, speed: float, members: int, epochs: float
) -> str:
    """What a candidate with costly steps is denied for want of time, in words; empty if nothing.

    `members`, `epochs` are what `size_group` gave it.
    """
    planned = planned_epochs(candidate, load)
    if passes(candidate, load) <= 1.0 or (members and epochs >= planned):
        return ""
    seconds = seconds_per_step(candidate, max(1, members), load, speed)
    per_epoch = load.rows / batch_size(candidate, load)
    steps, wanted = (max(1, round(e * per_epoch)) for e in (epochs, planned))
    fate = f"{steps} of {wanted} steps fit into the time" if members else "it is not started"
    return (
        f"{candidate.optimizer} on {candidate.architecture} takes about {seconds:.2g} s a step: "
        f"{fate}."
    )


def make_group(
    index: int,
    candidates: Sequence[Candidate],
    controllers: Sequence[str],
    epochs: float,
    load: Workload,
    engine: str,
    bars: Callable[[Sequence[Rung]], Sequence[float]] | None = None,
) -> Group:
    """The group with its steps, rungs and evaluations.

    `bars` says for rungs what error a candidate must not exceed there; None: there is no limit.
    """
    per_epoch = max(1, round(load.rows / batch_size(candidates[0], load)))
    steps = max(1, round(epochs * per_epoch))
    every = max(1, steps // EVALUATIONS)
    at: dict[int, Rung] = {}
    for rung in rungs_of(epochs, index, load):
        step = step_of(rung.share, steps, every)
        if step < steps:
            at.setdefault(step, rung)
    fresh = not any(c.inherits for c in candidates)  # a child knows all rows from its parent
    limits = bars(list(at.values())) if bars is not None else [math.inf] * len(at)
    return Group(
        index=index,
        candidates=tuple(candidates),
        steps=steps,
        rungs=tuple(at),
        keep=tuple(kept(len(candidates), rung) for rung in at.values()),
        bars=tuple(limits),
        ties=TIES,
        evaluate_every=every,
        patience=PATIENCE,
        engine=engine,
        controllers=tuple(controllers),
        order_seed=load.order_seed,
        own_order=load.own_order,
        row_shares=tuple(step / steps for step in at) if load.by_rows and fresh else (),
    )


def best_of(results: Iterable[Result], refused: Container[str] = ()) -> Result | None:
    """The network that stands with the highest reward, but for those of the `refused` ids."""
    best, top = None, -math.inf
    for result in results:  # a plain loop, for there are thousands; NaN: nothing to compare with
        score = result.score
        if score > top or (score == top and best and result.candidate.id > best.candidate.id):
            if result.stands and result.candidate.id not in refused:
                best, top = result, score
    return best
