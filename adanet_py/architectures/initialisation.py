"""Initial weights by name, for the linear layers of a module; see `names.INITS`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from adanet_py.architectures.layers import FeatureLinear, Linear, MemberLinear, SharedLinear, Skip
from adanet_py.errors import SpaceError


def initialise(module: nn.Module, name: str, zero_last: bool) -> None:
    """Draw the weights of the linear layers of `module` anew from torch's global generator.

    Linear layers are `nn.Linear` and those of `layers`; layers of several maps (one per column or
    implicit member) count each map by itself. "default" leaves all as it is; every other name also
    sets their biases to zero. Embedding tables, norms and scales of implicit members keep their
    own start. `zero_last` sets weights and bias of the output layer to zero: the linear layer
    registered last, and the linear path beside a network (`layers.Skip`), which adds to the same
    outputs. They alone: the blocks of a residual network keep theirs.

    Raises SpaceError where something is asked for and the module has no linear layer.
    """
    if name == "default" and not zero_last:
        return
    layers = [_Maps.of(layer) for layer in module.modules() if isinstance(layer, _LINEAR)]
    if not layers:
        raise SpaceError(
            f"init {name!r} with zero_last {zero_last} starts linear layers, and "
            f"{type(module).__name__} has none. Leave both at their defaults, or build it from "
            "torch.nn.Linear or the layers of adanet_py.architectures.layers."
        )
    with torch.no_grad():
        for layer in layers if name != "default" else []:
            if layer.weight.numel():
                _DRAWS[name](layer.weight)
            if layer.bias is not None:
                layer.bias.zero_()
        paths = [_Maps.of(skip.path) for skip in module.modules() if isinstance(skip, Skip)]
        for layer in [*paths, layers[-1]] if zero_last else []:
            layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.zero_()


_LINEAR = (nn.Linear, Linear, FeatureLinear, SharedLinear, MemberLinear)


class _Maps:
    """The linear maps of one layer: `weight` is a view [maps, out, in]."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight
        self.bias = bias

    @classmethod
    def of(cls, layer: nn.Module) -> _Maps:
        if isinstance(layer, FeatureLinear):
            return cls(layer.weight.detach().transpose(-1, -2), layer.bias)
        if isinstance(layer, MemberLinear):
            return cls(layer.weight.detach().transpose(-1, -2), layer.bias_member)
        if isinstance(layer, SharedLinear):
            return cls(layer.weight.detach().unsqueeze(0), layer.bias_member)
        assert isinstance(layer, nn.Linear | Linear)
        return cls(layer.weight.detach().unsqueeze(0), layer.bias)


def _normal(variance: Callable[[int, int], float]) -> Callable[[Tensor], None]:
    def draw(weight: Tensor) -> None:
        weight.normal_(0.0, math.sqrt(variance(weight.shape[-1], weight.shape[-2])))

    return draw


def _uniform(variance: Callable[[int, int], float]) -> Callable[[Tensor], None]:
    def draw(weight: Tensor) -> None:
        bound = math.sqrt(3.0 * variance(weight.shape[-1], weight.shape[-2]))
        weight.uniform_(-bound, bound)

    return draw


def _orthogonal(weight: Tensor) -> None:
    for each in weight:
        nn.init.orthogonal_(each)


def _he(fan_in: int, fan_out: int) -> float:
    return 2.0 / fan_in


def _glorot(fan_in: int, fan_out: int) -> float:
    return 2.0 / (fan_in + fan_out)


def _lecun(fan_in: int, fan_out: int) -> float:
    return 1.0 / fan_in


_DRAWS: dict[str, Callable[[Tensor], None]] = {
    "he_normal": _normal(_he),
    "he_uniform": _uniform(_he),
    "glorot_normal": _normal(_glorot),
    "glorot_uniform": _uniform(_glorot),
    "lecun_normal": _normal(_lecun),
    "lecun_uniform": _uniform(_lecun),
    "orthogonal": _orthogonal,
}
