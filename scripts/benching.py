"""What the benchmarks share: cores and memory settings, the equality gate, medians and tables."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peers import LOSSES, network
from torch import Tensor

from adanet_py.executors.nursery import WORKER_ENV
from adanet_py.training import groups
from adanet_py.training.engines.program import Program
from adanet_py.training.groups import Plan

TOLERANCE = 1e-5  # of the equality gate


def settle(cores: int | None, device: str) -> int:
    """Bind this process to its first `cores` cores, with as many threads; returns their number.

    None: one on a CPU; all there are for a GPU, whose peers need a second thread on the host. All
    sides run with the memory settings of a worker of a search, which the loops gain from too; they
    must be there when the process begins, so it is begun anew once.
    """
    mine = list(range(os.cpu_count() or 1))
    if hasattr(os, "sched_getaffinity"):
        mine = sorted(os.sched_getaffinity(0))
    cores = cores or (1 if device == "cpu" else len(mine))
    if not 1 <= cores <= len(mine):
        raise SystemExit(f"--cores: expected 1 to {len(mine)}, found {cores}.")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, mine[:cores])
    wanted = WORKER_ENV | {"OMP_NUM_THREADS": str(cores), "MKL_NUM_THREADS": str(cores)}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    torch.set_num_threads(cores)
    return cores


def find_device(name: str) -> torch.device:
    """The device of that name; SystemExit where it is not there."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(f"--device {name}: expected a CUDA device, found none. Use --device cpu.")
    return torch.device(name)


# ------------------------------------------------------------------------------- equality


def largest_difference(program: Program, plan: Plan) -> float:
    """The group against plain PyTorch, step by step: the largest difference of a training loss.

    `plan` evaluates after every step. Each candidate, a multilayer perceptron on numeric columns
    alone, is trained anew by nn.Sequential, autograd and torch.optim.Adam from the same initial
    weights on the same batches. The difference is relative where a loss is above one; infinite
    where the group left candidates or steps out.
    """
    tracks = groups.train(program, plan)
    batches = torch.from_numpy(program.order.take(0, program.steps)[:, 0])
    largest = 0.0
    for member, track in enumerate(tracks):
        expected = _plain_losses(program, member, batches)
        found = [e.train_loss for e in track.curve]
        if len(found) != len(expected):
            return math.inf
        for a, b in zip(found, expected, strict=True):
            difference = abs(a - b) / max(1.0, abs(b))
            largest = max(largest, difference if math.isfinite(difference) else math.inf)
    return largest


def _plain_losses(program: Program, member: int, batches: Tensor) -> list[float]:
    """Losses of every batch [S, B], each taken before its step."""
    candidate, data, device = program.candidates[member], program.data, program.device
    static = program.architecture.complete(candidate.static)
    model = network(
        data.numeric.shape[1],
        program.spec.n_outputs,
        int(static["width"]),  # type: ignore[arg-type]
        int(static["depth"]),  # type: ignore[arg-type]
        str(static["activation"]),
    ).to(device)
    with torch.no_grad():
        ours = program.build(member).parameters()
        for mine, initial in zip(model.parameters(), ours, strict=True):
            mine.copy_(initial)
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=candidate.numeric["lr"],
        weight_decay=candidate.numeric["weight_decay"],
    )
    task = program.spec.task
    criterion = LOSSES[task]()
    target = data.target.long() if task == "multiclass" else data.target
    losses = []
    for batch in batches.to(device):
        outputs = model(data.numeric[batch])
        loss = criterion(outputs if task == "multiclass" else outputs.squeeze(1), target[batch])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def require_equal(differences: Iterable[float], what: str) -> float:
    """The largest difference; ends the program with status 1 where it is above the tolerance."""
    largest = max(differences)
    if not largest <= TOLERANCE:
        print(
            f"Equality gate, {what}: expected losses within {TOLERANCE:g} of plain PyTorch's, "
            f"found a difference of {largest:.3g}. Other computations' speeds are no comparison.",
            file=sys.stderr,
        )
        raise SystemExit(1)
    return largest


# --------------------------------------------------------------------------------- figures


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive numbers."""
    return math.exp(statistics.fmean(math.log(v) for v in values))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def shown(found: dict[str, float], digits: int = 3) -> str:
    """A spread as text: median (least to greatest)."""
    median, low, high = (f"{found[k]:.{digits}g}" for k in ("median", "min", "max"))
    return f"{median} ({low} to {high})"


def machine(device: torch.device, cores: int) -> str:
    """The hardware and the versions, in words."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(s.partition(":")[2].strip() for s in lines if s.startswith("model name"))
    except (OSError, StopIteration):
        pass
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, host {name}"
    return f"{name}, {cores} core(s), torch {torch.__version__}"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(str(v) for v in row) + " |" for row in rows]


def command(script: str) -> str:
    """How this program was called, without the folders of this machine."""
    words = [
        {"--data": "DATA", "--out": "FILE", "--keep": "FOLDER"}.get(before, word)
        for before, word in zip(sys.argv, sys.argv[1:], strict=False)
    ]
    return " ".join(["python", f"scripts/{Path(script).name}", *words])


def deliver(report: dict[str, Any], lines: Sequence[str], stem: Path | None, as_json: bool) -> None:
    """Print the report, and write it as Markdown and JSON where a stem is given."""
    text = "\n".join(lines) + "\n"
    print(json.dumps(report) if as_json else text)
    if stem is not None:
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(".md").write_text(text)
        stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
