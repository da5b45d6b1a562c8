"""What a step reads that no other step does: its rows, places in the noise, mixing and number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adanet_py.training.batches import noise_starts
from adanet_py.training.engines.program import Program
from adanet_py.training.mixing import Mixer

FEED_STEPS = 64  # whose inputs are made and sent to the device at once

Places = list[list[int]] | Tensor  # where windows into the noise begin: [pieces, layers]


class Moment(NamedTuple):
    """The inputs of one step; its number and places are tensors where the step is recorded."""

    at: int | Tensor  # counted from 0; [1]
    t: Tensor  # [1, 1]: counted from 1
    rows: Tensor  # [streams, B], see `BatchOrder.take`
    places: Places
    mix: Mapping[str, Tensor]  # see `Program.mixes`


@dataclass(frozen=True)
class Feed:
    """The inputs of S steps, the first of which is `first`."""

    first: int
    t: Tensor  # [S, 1, 1]
    rows: Tensor  # [S, streams, B]
    places: npt.NDArray[np.int64]  # [S, pieces, layers]
    mixes: Mapping[str, Tensor]  # [S, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def moment(self, s: int) -> Moment:
        """The inputs of the s-th of the steps."""
        mix = {name: value[s] for name, value in self.mixes.items()}
        return Moment(self.first + s, self.t[s], self.rows[s], self.places[s].tolist(), mix)


def feeds(
    program: Program,
    mixer: Mixer | None,
    alive: Sequence[int],
    start: int,
    stop: int,
    pieces: int,
    layers: int,
) -> Iterator[Feed]:
    """The inputs of steps [start, stop) of the candidates `alive`.

    Each step is of so many micro-batches and noisy layers.
    """
    for first in range(start, stop, FEED_STEPS):
        end = min(stop, first + FEED_STEPS)
        counts = torch.arange(first + 1, end + 1, device=program.device, dtype=program.dtype)
        yield Feed(
            first,
            counts.view(-1, 1, 1),
            program.put(program.order.take(first, end, alive)),
            noise_starts(first, end, layers, pieces),
            program.mixes(mixer, first, end),
        )


def moments(found: Iterable[Feed]) -> Iterator[Moment]:
    """The inputs of every step of these feeds, one by one."""
    for feed in found:
        yield from map(feed.moment, range(len(feed)))
