"""Where a run trains: worker processes or this one, a CPU or a GPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from adanet_py.config import SearchConfig
from adanet_py.errors import ConfigError
from adanet_py.executors import EXECUTORS, Executor, Nursery
from adanet_py.executors.nursery import PRELOAD
from adanet_py.own import Own
from adanet_py.prepare import Prepared
from adanet_py.records import Group
from adanet_py.reward import Bounds

NO_CUDA = (
    "Training on the CPU: there is a CUDA driver, but this build of torch finds no CUDA device."
)

OnEvent = Callable[[dict[str, Any]], None]


class Device(NamedTuple):
    """What a run trains on, as torch calls it, and the bytes of memory a GPU has; 0: a CPU."""

    name: str
    memory: int = 0


def make_executor(
    workers: int | None, device: str, folder: Path, live: bool, nursery: Nursery
) -> Executor:
    """Worker processes, or this process where objects given by the user must be used.

    On a CPU every worker has one thread: sums of several threads differ in their last bits, and a
    run must not depend on the number of workers. `workers` None: one for each core.
    """
    if live or workers == 0:
        return EXECUTORS["serial"](1, threads=1)
    cuda = device.startswith("cuda") or (device == "auto" and cuda_hinted())
    return EXECUTORS["local"](
        workers or (1 if cuda else count_cores()),
        preload=PRELOAD,
        log=folder / "logs",
        nursery=nursery,
    )


def count_cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cuda_hinted() -> bool:
    """Whether a CUDA driver seems to be there; no torch is loaded to see it."""
    return os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/dxg")


def find_device(config: SearchConfig, executor: Executor, notify: OnEvent) -> Device:
    """The device to train on; ConfigError if CUDA was asked for and is not there."""
    if config.device == "cpu" or (config.device == "auto" and not cuda_hinted()):
        return Device("cpu")
    job = executor.submit({}, function="describe_devices")
    found: list[tuple[str, int]] = []
    while executor.unfinished:
        for event in executor.poll(1.0):
            if event.job == job and event.kind == "done":
                found = [(name, memory) for name, memory in event.data["cuda"]]
    if config.device == "auto" and not found:
        notify({"kind": "note", "message": NO_CUDA})
        return Device("cpu")
    index = int(config.device.partition(":")[2] or 0)
    if index >= len(found):
        listed = ", ".join(f"cuda:{i} ({n})" for i, (n, _) in enumerate(found)) or "none"
        raise ConfigError(
            f"--device {config.device}: expected a CUDA device, found {listed}. Use --device cpu, "
            "or install a build of torch with CUDA and its driver."
        )
    name, memory = found[index]
    notify({"kind": "note", "message": f"Training on {name}."})
    return Device("cuda" if config.device == "auto" else config.device, memory)


def make_job(
    group: Group,
    folder: Path,
    prepared: Prepared,
    device: str,
    own: Own,
    bounds: Bounds | None = None,
) -> dict[str, Any]:
    """What `training.jobs.run_job` is told; JSON unless there are objects of the user's.

    With `bounds`, candidates that break one are not trained.
    """
    job: dict[str, Any] = {
        "group": group.to_json(),
        "run": str(folder.resolve()),
        "metric": prepared.metric,
        "target": list(prepared.target_scale),
        "class_weight": prepared.class_weight,
        "device": device,
        "model_bytes": prepared.model_bytes,
    }
    if bounds:
        job["bounds"] = asdict(bounds)
    if own:
        job["own"] = own
    return job
