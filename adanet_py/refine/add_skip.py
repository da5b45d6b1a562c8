"""A linear path from the features to the outputs beside the network, zero at first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adanet_py.records import Candidate, Scalar
from adanet_py.refine.move import Move, Probe, dense

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from adanet_py.architectures import Architecture

APPLIES = ("mlp", "tabm")  # the stream of a resnet is such a path


def children(parent: Candidate, architecture: Architecture) -> tuple[Mapping[str, Scalar], ...]:
    """The network with its path, unless it has one or is nothing else."""
    static = dense(parent, architecture)
    if architecture.name not in APPLIES or static["skip"]:
        return ()
    return () if static["depth"] == static["blocks"] == 0 else (static | {"skip": True},)


def put_beside(parent: nn.Module, child: nn.Module, probe: Probe, rng: np.random.Generator) -> None:
    """y = body(x) + P x with P = 0: exact, and its gradient is not zero."""
    import torch

    from adanet_py.refine.sites import load

    state = {
        f"body.layers.{name.removeprefix('body.')}" if name.startswith("body.") else name: value
        for name, value in parent.state_dict().items()
    }
    path = {n: v for n, v in child.state_dict().items() if n.startswith("body.path.")}
    load(child, state | {name: torch.zeros_like(value) for name, value in path.items()})


MOVE = Move(
    name="add_skip",
    summary="a linear path from the features to the outputs, zero at first",
    preserves=True,
    children=children,
    weights="adanet_py.refine.add_skip:put_beside",
)
