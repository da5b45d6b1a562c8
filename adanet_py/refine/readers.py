"""Linear layers on the rows of a probe: what they read, and how a constant is added to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from adanet_py.architectures import layers
from adanet_py.architectures.norms import BatchNorm
from adanet_py.refine.move import Probe
from adanet_py.refine.sites import sites

DAMPING = 0.05  # of a unit's mean square, against what holds for the rows of the probe alone


def inputs_of(
    module: nn.Module, names: Sequence[str], probe: Probe
) -> tuple[dict[str, Tensor], Tensor]:
    """What the modules of these names read on the probe, in evaluation, and the outputs.

    Each input is a tensor of its own, so that a gradient is that of the one layer that reads it and
    not of all that read a stream.
    """
    seen: dict[str, Tensor] = {}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
        def hook(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            seen[name] = inputs[0].view_as(inputs[0])
            return (seen[name],)

        return hook

    hooks = [module.get_submodule(n).register_forward_pre_hook(look(n)) for n in names]
    try:
        outputs: Tensor = module.eval()(probe.numeric, probe.category)
    finally:
        for hook in hooks:
            hook.remove()
    return seen, outputs


class Reader:
    """A linear layer that reads units, as P maps with one weight matrix [o, n] each."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self.network = module
        self.name = name
        self.layer = module.get_submodule(name)

    def weight(self) -> Tensor:
        """[P, o, n], a view; P is 1 but for a map per implicit member."""
        weight = self.layer.get_parameter("weight").detach()
        own = isinstance(self.layer, layers.MemberLinear)
        return weight.transpose(-1, -2) if own else weight.unsqueeze(0)

    def design(self, x: Tensor) -> Tensor:
        """Inputs [B, n] or [B, M, n] as the weights read them: [M, B, n]."""
        scale = getattr(self.layer, "scale_in", None)
        x = x.detach().unsqueeze(1) if x.dim() == 2 else x.detach()
        return (x if scale is None else x * scale.detach()).transpose(0, 1)

    def shift(self, constant: Tensor) -> None:
        """Add a constant [M, o] to what the weights give."""
        layer, constant = self.layer, constant.detach()
        if isinstance(layer, layers.SharedLinear):
            layer.bias_member.add_(constant * layer.scale_out)
        elif isinstance(layer, layers.MemberLinear):
            layer.bias_member.add_(constant)
        elif isinstance(layer, layers.Linear) and layer.bias is not None:
            layer.bias.add_(constant[0])
        else:
            site = next(
                s
                for s in sites(self.network, every=True)
                if any(entry.tensor == f"{self.name}.weight" for entry in s.own)
            )
            if site.norms:
                behind = self.network.get_submodule(site.norms[0])
                assert isinstance(behind, BatchNorm)
                behind.running_mean.sub_(constant[0])
            else:  # one half of a factorised layer
                after = Reader(self.network, site.readers[0])
                after.shift(constant @ after.weight()[0].T)


def covariance(x: Tensor) -> Tensor:
    """Second moments [P, n, n] of centred values [P, S, n], times S and damped.

    In proportion to each unit's own, so that the scale of a unit does not matter; and by next to
    nothing else, for units that never change.
    """
    h = torch.matmul(x.transpose(1, 2), x)
    own = h.diagonal(dim1=1, dim2=2)
    least = 1e-9 * own.mean(1, keepdim=True).clamp(min=1e-20)
    return h + torch.diag_embed(DAMPING * own + least)
