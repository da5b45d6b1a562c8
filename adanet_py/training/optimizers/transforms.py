"""The transforms optimizers are composed of; see `optimizer.py` for shapes. No torch at import.

In the formulas g is what the chain has made of the gradient so far, w the parameters, t the steps
taken, counted from 1, and b, b1, b2 the decays of running means.
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


def _momentum(g: Tensor, slots: Slots, s: Step) -> None:
    # v <- momentum v + g; step along v (heavy ball, Polyak 1964, as torch.optim.SGD has it)
    velocity = slots["velocity"]
    velocity.mul_(s.hp["momentum"]).add_(g)
    g.copy_(velocity)


def _nesterov(g: Tensor, slots: Slots, s: Step) -> None:
    # v <- momentum v + g; step along g + momentum v (Sutskever et al. 2013)
    velocity = slots["velocity"]
    velocity.mul_(s.hp["momentum"]).add_(g)
    g.addcmul_(velocity, s.hp["momentum"].expand_as(velocity))


def _rms(g: Tensor, slots: Slots, s: Step) -> None:
    # v <- alpha v + (1 - alpha) g^2; step along g / (sqrt(v) + eps) (Tieleman and Hinton 2012)
    square = slots["square"]
    square.lerp_(g.square(), (1.0 - s.hp["alpha"]).expand_as(g))
    g.div_(square.sqrt().add_(s.hp["eps"]))


def _adam(g: Tensor, slots: Slots, s: Step) -> None:
    # m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; corrected by 1 - b^t (Kingma and Ba 2015)
    mean, square = slots["mean"], slots["square"]
    beta1, beta2 = s.hp["beta1"], s.hp["beta2"]
    mean.lerp_(g, (1.0 - beta1).expand_as(g))
    square.lerp_(g.square_(), (1.0 - beta2).expand_as(g))
    denominator = (square / (1.0 - beta2**s.t)).sqrt_().add_(s.hp["eps"])
    g.copy_(mean).div_(1.0 - beta1**s.t).div_(denominator)


COUPLED_DECAY = Transform((), _coupled_decay)
DECOUPLED_DECAY = Transform((), _decoupled_decay)
MOMENTUM = Transform(("velocity",), _momentum)
NESTEROV = Transform(("velocity",), _nesterov)
RMS = Transform(("square",), _rms)
ADAM = Transform(("mean", "square"), _adam)
