"""Pre-norm residual network for tables (Gorishniy et al. 2021, arXiv 2106.11959, section 3.2).

With a gated activation there is none after the last norm, where no linear layer comes before it.
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
from adanet_py.architectures.names import (
    ACTIVATIONS,
    GATED,
    NORM_PARAMETERS,
    NORMS,
    units_before,
)
from adanet_py.data.spec import DataSpec
from adanet_py.knob import Knob
from adanet_py.records import Scalar

if TYPE_CHECKING:
    from torch import nn

STATIC: Mapping[str, Knob] = {
    "depth": Knob(2, 1, 64, doc="residual blocks"),
    "width": Knob(128, 1, 65536, log=True, doc="width of the residual stream"),
    "expansion": Knob(2.0, 0.125, 8.0, doc="hidden units of a block as a multiple of the width"),
    "activation": Knob("relu", choices=tuple(ACTIVATIONS), doc="nonlinearity"),
    "norm": Knob("layer", choices=tuple(NORMS), doc="normalisation at the entry of each block"),
    "rank": Knob(
        0,
        0,
        65536,
        doc="rank of a block's dense layers where that makes them smaller; 0: full",
    ),
    **SHARED_STATIC,
}
NUMERIC: Mapping[str, Knob] = {
    **SHARED_NUMERIC,
    "drop_path": Knob(
        0.0,
        0.0,
        0.95,
        doc="probability that a row skips the last block, the others in proportion to depth "
        "(stochastic depth, Huang et al. 2016)",
    ),
}


def build(static: Mapping[str, Scalar], spec: DataSpec) -> nn.Module:
    """Build the module; see `Architecture`."""
    from torch import nn

    from adanet_py.architectures import layers
    from adanet_py.architectures.activations import activation
    from adanet_py.architectures.norms import norm
    from adanet_py.architectures.perturbations import Dropout, DropPath

    inputs = layers.Inputs(static, spec)
    width, kind, normed = whole(static, "width"), str(static["activation"]), str(static["norm"])
    hidden = max(1, round(width * float(static["expansion"])))  # type: ignore[arg-type]
    blocks: list[nn.Module] = [layers.Linear(inputs.features, width)]
    depth, rank = whole(static, "depth"), whole(static, "rank")
    for branch in range(1, depth + 1):
        blocks.append(
            layers.Residual(
                norm(normed, width),
                *layers.dense(width, units_before(kind, hidden), rank),
                activation(kind),
                Dropout(),
                *layers.dense(hidden, width, rank),
                DropPath(branch, depth),
            )
        )
    blocks.append(norm(normed, width))
    if kind not in GATED:
        blocks.append(activation(kind))
    return layers.Network(inputs, nn.Sequential(*blocks, layers.Linear(width, spec.n_outputs)))


def multiply_adds(static: Mapping[str, Scalar], spec: DataSpec) -> int:
    """Cost of one row; see `Architecture`."""
    width, (features, cost) = whole(static, "width"), input_features(static, spec)
    hidden = max(1, round(width * float(static["expansion"])))  # type: ignore[arg-type]
    units, rank = units_before(str(static["activation"]), hidden), whole(static, "rank")
    block = dense_cost(width, units, rank) + dense_cost(hidden, width, rank)
    stream = features * width + width * spec.n_outputs
    return cost + stream + whole(static, "depth") * block


def parameters(static: Mapping[str, Scalar], spec: DataSpec) -> int:
    """Parameters of the module; see `Architecture`."""
    width, (features, _) = whole(static, "width"), input_features(static, spec)
    hidden = max(1, round(width * float(static["expansion"])))  # type: ignore[arg-type]
    units, rank = units_before(str(static["activation"]), hidden), whole(static, "rank")
    scales = NORM_PARAMETERS[str(static["norm"])] * width
    block = dense_cost(width, units, rank) + units + dense_cost(hidden, width, rank) + width
    stream = (features + 1) * width + (width + 1) * spec.n_outputs + scales
    return input_parameters(static, spec) + stream + whole(static, "depth") * (block + scales)


ARCHITECTURE = Architecture(
    name="resnet",
    summary="pre-norm residual blocks",
    static=STATIC,
    numeric=NUMERIC,
    build=build,
    multiply_adds=multiply_adds,
    parameters=parameters,
)
