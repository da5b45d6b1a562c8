"""The transforms that optimizers of several families share; see `optimizer.py` for shapes.

In the formulas g is what the chain has made of the gradient so far, w the parameters, lr the
learning rate and t the steps taken, counted from 1. No torch at import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adanet_py.training.optimizers.optimizer import Step, Transform

if TYPE_CHECKING:
    from torch import Tensor

Slots = Mapping[str, "Tensor"]


def _coupled_decay(g: Tensor, slots: Slots, s: Step) -> None:
    # g <- g + weight_decay w
    d = s.decayed
    g[:, :d].add_(s.w[:, :d] * s.hp["weight_decay"])
    if s.bias_decay is not None:
        g[:, d:].add_(s.w[:, d:] * (s.hp["weight_decay"] * s.bias_decay))


def _decoupled_decay(g: Tensor, slots: Slots, s: Step) -> None:
    # w <- (1 - lr weight_decay) w (Loshchilov and Hutter 2019)
    d = s.decayed
    s.w[:, :d].mul_(1.0 - s.lr * s.hp["weight_decay"])
    if s.bias_decay is not None:
        s.w[:, d:].mul_(1.0 - s.lr * s.hp["weight_decay"] * s.bias_decay)


def _value_clip(g: Tensor, slots: Slots, s: Step) -> None:
    # g <- min(max(g, -value_limit), value_limit), each number by itself
    import torch

    limit = s.hp["value_limit"]
    # On a CPU four times as fast as clamp_ with tensors.
    torch.minimum(torch.maximum(g, -limit, out=g), limit, out=g)


def _norm_clip(g: Tensor, slots: Slots, s: Step) -> None:
    # g <- g min(1, norm_limit / |g|), |g| over all parameters of a member (Pascanu et al. 2013);
    # the 1e-6 is that of torch.nn.utils.clip_grad_norm_
    norm = g.norm(dim=1, keepdim=True)
    g.mul_((s.hp["norm_limit"] / (norm + 1e-6)).clamp_(max=1.0))


def _momentum(g: Tensor, slots: Slots, s: Step) -> None:
    # v <- momentum v + g; step along v (heavy ball, Polyak 1964, as torch.optim.SGD has it)
    if "momentum" in s.zero:
        return
    velocity = slots["velocity"]
    velocity.mul_(s.hp["momentum"]).add_(g)
    g.copy_(velocity)


COUPLED_DECAY = Transform((), _coupled_decay)
DECOUPLED_DECAY = Transform((), _decoupled_decay)
VALUE_CLIP = Transform((), _value_clip)
NORM_CLIP = Transform((), _norm_clip)
MOMENTUM = Transform(("velocity",), _momentum)
