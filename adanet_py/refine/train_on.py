"""Nothing changes but that training goes on: what every other move must be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adanet_py.records import Candidate, Scalar
from adanet_py.refine.move import Move, Probe

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from adanet_py.architectures import Architecture


def children(parent: Candidate, architecture: Architecture) -> tuple[Mapping[str, Scalar], ...]:
    """The parent's own description."""
    return (architecture.complete(parent.static),)


def copy(parent: nn.Module, child: nn.Module, probe: Probe, rng: np.random.Generator) -> None:
    """Every weight and running statistic; knobs stay those of the child."""
    carry(parent, child)


def carry(parent: nn.Module, child: nn.Module) -> None:
    """The same for other moves that keep all shapes."""
    own = {n: v for n, v in child.state_dict().items() if n.rsplit(".", 1)[-1].startswith("knob_")}
    child.load_state_dict(dict(parent.state_dict()) | own)


MOVE = Move(
    name="train_on",
    summary="trains on from the parent's weights",
    preserves=True,
    children=children,
    weights="adanet_py.refine.train_on:copy",
)
