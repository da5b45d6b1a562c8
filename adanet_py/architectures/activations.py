"""Nonlinearities by name; see `names.ACTIVATIONS`."""

# ruff: noqa: D102 - what `forward` computes stands in the docstring of its layer

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PLAIN: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
_GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "glu": torch.sigmoid,
    "geglu": F.gelu,
    "reglu": F.relu,
    "swiglu": F.silu,
}


class Gated(nn.Module):
    """a gate(b), where a and b are the halves of the last dimension. [..., 2 d] -> [..., d].

    Dauphin et al. 2016 (arXiv 1612.08083); other gates Shazeer 2020 (arXiv 2002.05202). With the
    sigmoid it is torch.nn.GLU.
    """

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        value, control = x.chunk(2, -1)
        return value * self.gate(control)


def activation(name: str) -> nn.Module:
    """The nonlinearity called `name`; those of `names.GATED` halve their input."""
    return Gated(_GATES[name]) if name in _GATES else _PLAIN[name]()


def name_of(module: nn.Module) -> str | None:
    """The name under which `activation` makes such a module; None for any other module."""
    if isinstance(module, Gated):
        return next((n for n, gate in _GATES.items() if gate is module.gate), None)
    return next((n for n, kind in _PLAIN.items() if type(module) is kind), None)
