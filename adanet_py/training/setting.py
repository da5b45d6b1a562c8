"""Where and on what a group is trained: the run's data on a device, and the group's program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanet_py.architectures import Architecture
from adanet_py.data.source import ArraySource
from adanet_py.data.splits import Split
from adanet_py.own import Own
from adanet_py.records import Group
from adanet_py.reward import Bounds
from adanet_py.tasks import has_several_targets
from adanet_py.training.batches import BatchOrder, rows_per_step
from adanet_py.training.engines.program import Program, Tensors
from adanet_py.training.groups import Emit
from adanet_py.training.scoring import Scorer


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


def make_program(group: Group, setting: Setting) -> Program:
    """The program of a group on the setting's data."""
    static = setting.architecture.complete(group.candidates[0].static)
    rows = setting.split.train
    batch = rows_per_step(static, max(len(r) for r in rows))
    own = [c.seed for c in group.candidates] if group.own_order else None
    begun = (0, *group.rungs) if group.row_shares else (0,)
    stages = tuple(zip(begun, (*group.row_shares, 1.0), strict=True))
    order = BatchOrder(rows, batch, group.order_seed, own, stages)
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
