"""Multilayer perceptron: `depth` times linear, norm, activation, dropout; then a linear head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adanet_py.architectures.architecture import (
    SHARED_NUMERIC,
    SHARED_STATIC,
    Architecture,
    input_features,
    whole,
)
from adanet_py.architectures.names import ACTIVATIONS, NORMS, units_before
from adanet_py.records import DataSpec, Knob, Scalar

if TYPE_CHECKING:
    from torch import nn

STATIC: Mapping[str, Knob] = {
    "depth": Knob(2, 0, 32, doc="hidden layers; 0 is a linear model"),
    "width": Knob(128, 1, 65536, log=True, doc="units of each hidden layer"),
    "activation": Knob("relu", choices=tuple(ACTIVATIONS), doc="nonlinearity"),
    "norm": Knob("none", choices=tuple(NORMS), doc="normalisation before the nonlinearity"),
    **SHARED_STATIC,
}


def build(static: Mapping[str, Scalar], spec: DataSpec) -> nn.Module:
    """Build the module; see `Architecture`."""
    from torch import nn

    from adanet_py.architectures import layers
    from adanet_py.architectures.activations import activation
    from adanet_py.architectures.norms import norm
    from adanet_py.architectures.perturbations import Dropout

    inputs = layers.Inputs(static, spec)
    width, kind = whole(static, "width"), str(static["activation"])
    units, normed = units_before(kind, width), str(static["norm"])
    blocks: list[nn.Module] = []
    features = inputs.features
    for _ in range(whole(static, "depth")):
        # A bias right before a norm's own is redundant but harmless; batch norm cancels it exactly,
        # so it is left out there.
        blocks.append(layers.Linear(features, units, bias=normed != "batch"))
        blocks.append(norm(normed, units))
        blocks.append(activation(kind))
        blocks.append(Dropout())
        features = width
    return layers.Network(inputs, nn.Sequential(*blocks, layers.Linear(features, spec.n_outputs)))


def multiply_adds(static: Mapping[str, Scalar], spec: DataSpec) -> int:
    """Cost of one row; see `Architecture`."""
    width, (features, cost) = whole(static, "width"), input_features(static, spec)
    depth, units = whole(static, "depth"), units_before(str(static["activation"]), width)
    if depth == 0:
        return cost + features * spec.n_outputs
    return cost + features * units + (depth - 1) * width * units + width * spec.n_outputs


ARCHITECTURE = Architecture(
    name="mlp",
    summary="multilayer perceptron with optional norm and dropout",
    static=STATIC,
    numeric=SHARED_NUMERIC,
    build=build,
    multiply_adds=multiply_adds,
)
