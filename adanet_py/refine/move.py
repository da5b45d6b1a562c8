"""The record that describes a move; importing it loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adanet_py.data.spec import DataSpec
from adanet_py.records import Candidate, Scalar

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adanet_py.architectures import Architecture
    from adanet_py.training.losses import Loss


Sized = Callable[
    [Candidate, "Architecture", DataSpec, int],
    tuple[Mapping[str, Scalar], ...],
]


@dataclass(frozen=True)
class Move:
    """A way to make children of a network.

    `children(parent, architecture)` gives the static description of every child the move offers,
    complete, none where it does not apply. `weights` names a function
    ``(parent, child, probe, rng) -> None`` ("module:function") that writes the parent's weights
    and buffers into the child's module, in place, both in evaluation mode. The child is otherwise
    as `build_module` makes it.
    `preserves`: whether parent and child then compute the same function; that is checked.
    `sized(parent, architecture, spec, most)` gives, for moves that make networks smaller, those of
    at most so many parameters, embeddings and head included, and of as many as that allows.
    """

    name: str
    summary: str
    preserves: bool
    children: Callable[[Candidate, Architecture], tuple[Mapping[str, Scalar], ...]]
    weights: str
    sized: Sized | None = None

    def transfer(self) -> Callable[[nn.Module, nn.Module, Probe, np.random.Generator], None]:
        """The function called `weights`; loads torch."""
        from importlib import import_module

        module, _, attribute = self.weights.partition(":")
        found: Callable[[nn.Module, nn.Module, Probe, np.random.Generator], None]
        found = getattr(import_module(module), attribute)
        return found


def dense(parent: Candidate, architecture: Architecture) -> dict[str, Scalar]:
    """The parent's static description, complete, with no weight held at zero any more."""
    static = architecture.complete(parent.static)
    return static | {"sparsity": 0.0} if "sparsity" in static else static


@dataclass(frozen=True)
class Probe:
    """Training rows that a move may look at: numeric [B, n], category [B, c], target [B].

    Several targets are [B, T]; `offset` [B] or None is the rows' log exposure. `loss` is that of
    the candidate, for moves that ask how much a unit matters to it.
    """

    numeric: Tensor
    category: Tensor
    target: Tensor
    loss: Loss
    offset: Tensor | None = None
