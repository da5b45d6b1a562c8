"""Weights held at zero in a network of the same shape; one move per way to compare weights.

Magnitude pruning, iterative where children have children (Han et al. 2015, arXiv 1506.02626): each
time half or a quarter of the weights is left. Nothing becomes smaller or faster but the number of
weights that are not zero; for that see `prune`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adanet_py.records import Candidate, Scalar
from adanet_py.refine.move import Move, Probe

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from adanet_py.architectures import Architecture

LEFT = (1 / 2, 1 / 4)  # of the weights that are not zero yet


def children(parent: Candidate, architecture: Architecture) -> tuple[Mapping[str, Scalar], ...]:
    """Half and a quarter of the weights, of any architecture that has the knob `sparsity`."""
    static = architecture.complete(parent.static)
    if "sparsity" not in static:
        return ()
    there = 1.0 - float(static["sparsity"])  # type: ignore[arg-type]
    found = [1.0 - there * share for share in LEFT]
    return tuple(
        static | {"sparsity": value}
        for value in found
        if architecture.static["sparsity"].allows(value)
    )


def magnitude(parent: nn.Module, child: nn.Module, probe: Probe, rng: np.random.Generator) -> None:
    """Zero the smallest weights of all matrices."""
    _zero(parent, child, "magnitude")


def layer(parent: nn.Module, child: nn.Module, probe: Probe, rng: np.random.Generator) -> None:
    """Zero the same share of every matrix, its smallest weights."""
    _zero(parent, child, "layer")


def relative(parent: nn.Module, child: nn.Module, probe: Probe, rng: np.random.Generator) -> None:
    """Zero the weights with the smallest w^2 / sum of all v^2 >= w^2 of their matrix.

    Layer-adaptive magnitude (Lee et al. 2021, arXiv 2010.07611, equation 3): what zeroing a weight
    adds to a bound on the relative change of its layer's output.
    """
    _zero(parent, child, "relative")


def _zero(parent: nn.Module, child: nn.Module, criterion: str) -> None:
    from adanet_py.refine import train_on
    from adanet_py.training.sparsity import held_share, zero_smallest

    sparsity = held_share(child)  # it is built with zeros, of weights that were drawn
    train_on.carry(parent, child)
    zero_smallest(child, sparsity, criterion)


def _move(criterion: str, summary: str) -> Move:
    return Move(
        name=f"sparsify:{criterion}",
        summary=f"half or three quarters of the weights left become zero and stay so, {summary}",
        preserves=False,
        children=children,
        weights=f"adanet_py.refine.sparsify:{criterion}",
    )


MAGNITUDE = _move("magnitude", "the smallest of all")
LAYER = _move("layer", "the smallest of each matrix")
RELATIVE = _move("relative", "the smallest beside what is left of their matrix (LAMP)")
