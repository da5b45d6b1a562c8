"""TabM: M implicit members share the weights of one MLP (Gorishniy et al. 2024, 2410.24210)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adanet_py.architectures.architecture import (
    SHARED_NUMERIC,
    SHARED_STATIC,
    Architecture,
    input_features,
    input_parameters,
    whole,
)
from adanet_py.architectures.names import ACTIVATIONS, units_before
from adanet_py.data.spec import DataSpec
from adanet_py.knob import Knob
from adanet_py.records import Scalar

if TYPE_CHECKING:
    from torch import nn

STATIC: Mapping[str, Knob] = {
    "depth": Knob(2, 1, 32, doc="hidden layers"),
    "width": Knob(128, 1, 65536, log=True, doc="units of each hidden layer"),
    "members": Knob(8, 1, 256, doc="implicit members; their probabilities are averaged"),
    "activation": Knob("relu", choices=tuple(ACTIVATIONS), doc="nonlinearity"),
    "blocks": Knob(0, 0, 32, doc="residual blocks after the hidden layers"),
    "skip": Knob(False, choices=(False, True), doc="a linear path beside each implicit member"),
    **SHARED_STATIC,
}


def build(static: Mapping[str, Scalar], spec: DataSpec) -> nn.Module:
    """Build the module; it returns [B, members, n_outputs]; see `Architecture`."""
    from torch import nn

    from adanet_py.architectures import layers
    from adanet_py.architectures.activations import activation
    from adanet_py.architectures.perturbations import Dropout

    inputs = layers.Inputs(static, spec)
    width, members = whole(static, "width"), whole(static, "members")
    kind = str(static["activation"])
    units = units_before(kind, width)
    blocks: list[nn.Module] = [layers.MemberScale(members, inputs.features, random_signs=True)]
    features = inputs.features
    for _ in range(whole(static, "depth")):
        blocks.append(
            layers.SharedLinear(members, features, units, scale_input=bool(len(blocks) > 1))
        )
        blocks.append(activation(kind))
        blocks.append(Dropout())
        features = width
    for _ in range(whole(static, "blocks")):
        blocks.append(
            layers.Residual(
                layers.SharedLinear(members, width, units, scale_input=False),
                activation(kind),
                Dropout(),
                layers.SharedLinear(members, width, width, scale_input=True),
            )
        )
    head = layers.MemberLinear(members, features, spec.n_outputs)
    if static["skip"]:
        path = members * spec.n_outputs
        return layers.Network(inputs, layers.Skip(inputs.features, path, *blocks, head))
    return layers.Network(inputs, nn.Sequential(*blocks, head))


def multiply_adds(static: Mapping[str, Scalar], spec: DataSpec) -> int:
    """Cost of one row; see `Architecture`."""
    width, (features, cost) = whole(static, "width"), input_features(static, spec)
    units = units_before(str(static["activation"]), width)
    member = features * units + (whole(static, "depth") - 1) * width * units
    member += whole(static, "blocks") * width * (units + width) + width * spec.n_outputs
    if static["skip"]:
        member += features * spec.n_outputs
    return cost + whole(static, "members") * member


def parameters(static: Mapping[str, Scalar], spec: DataSpec) -> int:
    """Parameters of the module; see `Architecture`."""
    width, (features, _) = whole(static, "width"), input_features(static, spec)
    units, members = units_before(str(static["activation"]), width), whole(static, "members")
    outputs, deeper = spec.n_outputs, whole(static, "depth") - 1

    def layer(wide: int, out: int, scaled: bool) -> int:
        """Shared weights, and of each member the outputs' scales and biases, the inputs' scales."""
        return wide * out + members * (2 * out + wide * scaled)

    count = input_parameters(static, spec) + members * features
    count += layer(features, units, False) + deeper * layer(width, units, True)
    count += whole(static, "blocks") * (layer(width, units, False) + layer(width, width, True))
    if static["skip"]:
        count += (features + 1) * members * outputs
    return count + members * (width + 1) * outputs


ARCHITECTURE = Architecture(
    name="tabm",
    summary="MLP with implicit ensemble members that share weights",
    static=STATIC,
    numeric=SHARED_NUMERIC,
    build=build,
    multiply_adds=multiply_adds,
    parameters=parameters,
)
