"""Norms by name; see `names.NORMS`. They compute in the precision of their own weights."""

# ruff: noqa: D102 - what `forward` computes stands in the docstring of its layer

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adanet_py.architectures.names import norm_groups

ONE_ROW_MOMENTUM = 0.01


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last dimension (Zhang and Sennrich 2019)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.scale.dtype)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.scale


class LayerNorm(nn.Module):
    """As `nn.LayerNorm` (Ba et al. 2016, arXiv 1607.06450)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.to(self.weight.dtype), x.shape[-1:], self.weight, self.bias)


class GroupNorm(nn.Module):
    """Layer norm of each of several groups of features (Wu and He 2018, arXiv 1803.08494).

    As `nn.GroupNorm` on [..., features]. The number of groups is the largest divisor of the width
    up to 8 that leaves at least 4 units in a group: two units normalised are just a sign, one is
    always zero. Widths without such a divisor have one group.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.groups = norm_groups(features)
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype).unflatten(-1, (self.groups, -1))
        return F.layer_norm(x, x.shape[-1:]).flatten(-2) * self.weight + self.bias


class BatchNorm(nn.Module):
    """Batch normalisation over rows, running statistics in buffers (Ioffe and Szegedy 2015).

    As `nn.BatchNorm1d`, without its count of batches, which loading would ask for. A batch of one
    row has no variance: there the running statistics normalise, as constants, and are then moved
    towards the row by exponential weighting (Finch 2009, section 9):

        d = x - mean;  mean <- mean + a d;  var <- (1 - a) (var + a d^2),  a = 0.01,

    a memory of about a hundred rows, where batches have one of about ten batches.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        x, mean, var = x.to(self.weight.dtype), self.running_mean, self.running_var
        if self.training and x.shape[0] == 1:
            return self._one_row(x, mean, var)
        return F.batch_norm(x, mean, var, self.weight, self.bias, training=self.training)

    def _one_row(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        # Nothing the backward pass needs is a running statistic itself: they change below.
        y = (x - mean) * torch.rsqrt(var + 1e-5) * self.weight + self.bias
        with torch.no_grad():
            distance = x[0] - mean
            move = ONE_ROW_MOMENTUM * distance
            mean.add_(move)
            var.add_(distance * move).mul_(1.0 - ONE_ROW_MOMENTUM)
        return y


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda _: nn.Identity(),
    "batch": BatchNorm,
    "layer": LayerNorm,
    "rms": RMSNorm,
    "group": GroupNorm,
}


def norm(name: str, features: int) -> nn.Module:
    """The norm called `name` for [B, features]."""
    return _NORMS[name](features)
