"""Multilayer perceptron: `depth` times linear, norm, activation, dropout; then a linear head.

Before the head there may be residual blocks, and beside it all a linear path: what is off by
default is where refinement grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adanet_py.architectures.architecture import (
    SHARED_NUMERIC,
    SHARED_STATIC,
    Architecture,
    dense_cost,
    input_features,
    input_parameters,
    whole,
)
from adanet_py.architectures.names import ACTIVATIONS, NORM_PARAMETERS, NORMS, units_before
from adanet_py.data.spec import DataSpec
from adanet_py.knob import Knob
from adanet_py.records import Scalar

if TYPE_CHECKING:
    from torch import nn

STATIC: Mapping[str, Knob] = {
    "depth": Knob(2, 0, 32, doc="hidden layers; 0 is a linear model"),
    "width": Knob(128, 1, 65536, log=True, doc="units of each hidden layer"),
    "activation": Knob("relu", choices=tuple(ACTIVATIONS), doc="nonlinearity"),
    "norm": Knob("none", choices=tuple(NORMS), doc="normalisation before the nonlinearity"),
    "blocks": Knob(0, 0, 32, doc="residual blocks after the hidden layers"),
    "rank": Knob(
        0, 0, 65536, doc="rank of the hidden dense layers where that makes them smaller; 0: full"
    ),
    "skip": Knob(False, choices=(False, True), doc="a linear path beside the network"),
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
    rank = whole(static, "rank")
    blocks: list[nn.Module] = []
    features = inputs.features
    for _ in range(whole(static, "depth")):
        # A bias right before a norm's own is redundant but harmless; batch norm cancels it exactly,
        # so it is left out there.
        blocks += layers.dense(features, units, rank, bias=normed != "batch")
        blocks.append(norm(normed, units))
        blocks.append(activation(kind))
        blocks.append(Dropout())
        features = width
    for _ in range(whole(static, "blocks")):
        blocks.append(
            layers.Residual(
                norm(normed, features),
                *layers.dense(features, units, rank),
                activation(kind),
                Dropout(),
                *layers.dense(width, features, rank),
            )
        )
    head = layers.Linear(features, spec.n_outputs)
    if static["skip"]:
        return layers.Network(inputs, layers.Skip(inputs.features, spec.n_outputs, *blocks, head))
    return layers.Network(inputs, nn.Sequential(*blocks, head))


def multiply_adds(static: Mapping[str, Scalar], spec: DataSpec) -> int:
    """Cost of one row; see `Architecture`."""
    width, (features, cost) = whole(static, "width"), input_features(static, spec)
    depth, units = whole(static, "depth"), units_before(str(static["activation"]), width)
    rank = whole(static, "rank")
    if static["skip"]:
        cost += features * spec.n_outputs
    if depth > 0:
        cost += dense_cost(features, units, rank) + (depth - 1) * dense_cost(width, units, rank)
        features = width
    block = dense_cost(features, units, rank) + dense_cost(width, features, rank)
    return cost + whole(static, "blocks") * block + features * spec.n_outputs


def parameters(static: Mapping[str, Scalar], spec: DataSpec) -> int:
    """Parameters of the module; see `Architecture`."""
    width, (inputs, _) = whole(static, "width"), input_features(static, spec)
    depth, units = whole(static, "depth"), units_before(str(static["activation"]), width)
    rank, normed, outputs = whole(static, "rank"), str(static["norm"]), spec.n_outputs
    scales = NORM_PARAMETERS[normed]
    count, features = input_parameters(static, spec), inputs
    if depth > 0:
        count += dense_cost(inputs, units, rank) + (depth - 1) * dense_cost(width, units, rank)
        count += depth * units * (scales + (normed != "batch"))
        features = width
    block = dense_cost(features, units, rank) + units + dense_cost(width, features, rank)
    count += whole(static, "blocks") * (block + (1 + scales) * features)
    if static["skip"]:
        count += (inputs + 1) * outputs
    return count + (features + 1) * outputs


ARCHITECTURE = Architecture(
    name="mlp",
    summary="multilayer perceptron with optional norm and dropout",
    static=STATIC,
    numeric=SHARED_NUMERIC,
    build=build,
    multiply_adds=multiply_adds,
    parameters=parameters,
)
