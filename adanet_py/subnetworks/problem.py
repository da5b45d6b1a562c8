"""What AdaNets are grown on: prepared rows, and which of them one AdaNet is fitted on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from adanet_py.data.spec import DataSpec
from adanet_py.subnetworks.options import GrowthOptions
from adanet_py.tasks import is_regression


@dataclass(frozen=True)
class Problem:
    """N prepared rows; several AdaNets may be grown on parts of them.

    `numeric` [N, n] float32, `category` [N, c] codes, `y` encoded [N] or [N, T], `weight` [N].
    """

    spec: DataSpec
    numeric: np.ndarray
    category: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None = None

    def inputs(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """What a network reads of some rows [k]: numeric [k, n] and category [k, c]."""
        numeric = torch.from_numpy(np.array(self.numeric[rows], np.float32))
        return numeric, torch.from_numpy(np.array(self.category[rows]))

    def targets(self, rows: np.ndarray) -> Tensor:
        """Codes, or numbers as float32."""
        y = torch.from_numpy(np.array(self.y[rows]))
        return y.float() if is_regression(self.spec.task) else y

    def weights(self, rows: np.ndarray) -> Tensor | None:
        """The weights of some rows [k], of mean 1, or None."""
        if self.weight is None:
            return None
        weight = np.array(self.weight[rows], np.float32)
        return torch.from_numpy(weight / weight.mean())


@dataclass(frozen=True)
class Task:
    """One AdaNet: rows it is fitted on, rows `held` out (for the selection by them), its seed."""

    fit: np.ndarray
    options: GrowthOptions
    seed: int = 0
    held: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
