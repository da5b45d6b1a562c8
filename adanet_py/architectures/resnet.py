"""Pre-norm residual network for tables (Gorishniy et al. 2021, arXiv 2106.11959, section 3.2)."""

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
from adanet_py.architectures.names import ACTIVATIONS, NORMS
from adanet_py.records import DataSpec, Knob, Scalar

if TYPE_CHECKING:
    from torch import nn

STATIC: Mapping[str, Knob] = {
    "depth": Knob(2, 1, 64, doc="residual blocks"),
    "width": Knob(128, 1, 65536, log=True, doc="width of the residual stream"),
    "expansion": Knob(2.0, 0.125, 8.0, doc="hidden units of a block as a multiple of the width"),
    "activation": Knob("relu", choices=tuple(ACTIVATIONS), doc="nonlinearity"),
    "norm": Knob("layer", choices=tuple(NORMS), doc="normalisation at the entry of each block"),
    **SHARED_STATIC,
}


def build(static: Mapping[str, Scalar], spec: DataSpec) -> nn.Module:
    """Build the module; see `Architecture`."""
    from torch import nn

    from adanet_py.architectures import layers

    inputs = layers.Inputs(static, spec)
    width, norm = whole(static, "width"), str(static["norm"])
    hidden = max(1, round(width * float(static["expansion"])))  # type: ignore[arg-type]
    blocks: list[nn.Module] = [layers.Linear(inputs.features, width)]
    for _ in range(whole(static, "depth")):
        blocks.append(
            layers.Residual(
                layers.norm(norm, width),
                layers.Linear(width, hidden),
                layers.activation(str(static["activation"])),
                layers.Dropout(),
                layers.Linear(hidden, width),
            )
        )
    blocks += [layers.norm(norm, width), layers.activation(str(static["activation"]))]
    return layers.Network(inputs, nn.Sequential(*blocks, layers.Linear(width, spec.n_outputs)))


def multiply_adds(static: Mapping[str, Scalar], spec: DataSpec) -> int:
    """Cost of one row; see `Architecture`."""
    width, (features, cost) = whole(static, "width"), input_features(static, spec)
    hidden = max(1, round(width * float(static["expansion"])))  # type: ignore[arg-type]
    blocks = whole(static, "depth") * 2 * width * hidden
    return cost + features * width + blocks + width * spec.n_outputs


ARCHITECTURE = Architecture(
    name="resnet",
    summary="pre-norm residual blocks",
    static=STATIC,
    numeric=SHARED_NUMERIC,
    build=build,
    multiply_adds=multiply_adds,
)
