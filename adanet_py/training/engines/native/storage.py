"""How what compiled code reads and changes lies in memory: contiguous for every member."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from adanet_py.architectures.perturbations import byte_deviation
from adanet_py.training.optimizers import Part

Array = npt.NDArray[Any]


def as_measured(numbers: Array, real: npt.DTypeLike) -> Array:
    """Numbers in double precision as they are after rounding, as a step that is measured has them.

    Which steps are measured must not change a bit.
    """
    return np.ascontiguousarray(numbers.astype(real).astype(np.float64))


def aligned(rows: Tensor) -> Tensor:
    """The rows [K, P], each beginning at a multiple of 64 bytes.

    The bits of a product may depend on where its matrices lie, and must not on who else is there.
    """
    store = rows.new_zeros(rows.shape[0], -(-rows.shape[1] // 16) * 16)[:, : rows.shape[1]]
    return store.copy_(rows)


def stacked(tensors: dict[str, Tensor], names: Sequence[str], like: Tensor) -> Array:
    """The named tensors [K, P] in one [K, S, P], S >= 1, of which they become views."""
    store = like.new_zeros(like.shape[0], max(1, len(names)), like.shape[1])
    for i, name in enumerate(names):
        store[:, i].copy_(tensors[name])
        tensors[name] = store[:, i]
    return store.numpy()


def joined(tensors: dict[str, Tensor], names: Sequence[str], like: Tensor) -> Array:
    """The named tensors [K, n] side by side in one [K, Q], of which they become views."""
    count = like.shape[0]
    store = like.new_zeros(count, sum(tensors[n].shape[1] for n in names))
    at = 0
    for name in names:
        size = tensors[name].shape[1]
        store[:, at : at + size].copy_(tensors[name])
        tensors[name] = store[:, at : at + size]
        at += size
    return store.numpy()


def matrices(parts: Sequence[Part]) -> npt.NDArray[np.int64]:
    """The weight matrices as compiled code reads them; see the columns in `updates`."""
    table = []
    for part in parts:
        if part.decayed:
            rows, cols = part.shape[-2:]
            count = int(np.prod(part.shape[:-2], dtype=np.int64))
            table.append([part.start, count, rows, cols, part.unit_axis == -1, part.head])
    return np.array(table, np.int64).reshape(-1, 6)


@functools.cache
def quantiles() -> npt.NDArray[np.float64]:
    """What each byte stands for in input noise; as in `perturbations.InputNoise`."""
    normal = np.array([NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256)])
    return normal / byte_deviation()
