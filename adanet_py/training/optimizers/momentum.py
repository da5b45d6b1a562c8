"""Gradient descent with and without momentum, in both conventions, and of clipped gradients.

Heavy ball sums gradients, so that in the long run a step is 1 / (1 - momentum) times that of
plain descent; averaged momentum takes their running mean, and steps stay of the same size. No
torch at import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adanet_py.knob import Knob
from adanet_py.training.optimizers import knobs
from adanet_py.training.optimizers.optimizer import Optimizer, Step, Transform
from adanet_py.training.optimizers.transforms import (
    COUPLED_DECAY,
    MOMENTUM,
    NORM_CLIP,
    VALUE_CLIP,
    Slots,
)

if TYPE_CHECKING:
    from torch import Tensor


def _dampening(g: Tensor, slots: Slots, s: Step) -> None:
    # g <- (1 - dampening) g, but for the first gradient and where there is no momentum, as
    # torch.optim.SGD has it
    if "dampening" in s.zero:
        return
    import torch

    momentum, dampening = s.hp["momentum"], s.hp["dampening"]
    g.mul_(torch.where((s.t > 1) & (momentum > 0), 1.0 - dampening, torch.ones_like(dampening)))


def _nesterov(g: Tensor, slots: Slots, s: Step) -> None:
    # v <- momentum v + g; step along g + momentum v (Sutskever et al. 2013)
    velocity = slots["velocity"]
    velocity.mul_(s.hp["momentum"]).add_(g)
    g.addcmul_(velocity, s.hp["momentum"].expand_as(velocity))


def _average(g: Tensor, slots: Slots, s: Step) -> None:
    # v <- momentum v + (1 - momentum) g, from v = 0 and not corrected for it; step along v
    velocity = slots["velocity"]
    velocity.lerp_(g, (1.0 - s.hp["momentum"]).expand_as(g))
    g.copy_(velocity)


DAMPENING = Transform((), _dampening)
NESTEROV = Transform(("velocity",), _nesterov)
AVERAGE = Transform(("velocity",), _average)


def _torch_sgd(groups: list[dict[str, Any]], hp: Mapping[str, float], **options: Any) -> Any:
    import torch

    return torch.optim.SGD(groups, lr=hp["lr"], **options)


_PLAIN = {"lr": knobs.rate(1e-2), "weight_decay": knobs.DECAY}
_WITH_MOMENTUM = {**_PLAIN, "momentum": knobs.MOMENTUM}

SGD = Optimizer(
    "sgd",
    "gradient descent: w <- w - lr g",
    _PLAIN,
    (COUPLED_DECAY,),
    _torch_sgd,
)

HEAVY_BALL = Optimizer(
    "momentum",
    "heavy ball: v <- momentum v + (1 - dampening) g, w <- w - lr v (Polyak 1964)",
    {
        **_WITH_MOMENTUM,
        "dampening": Knob(0.0, 0.0, 1.0, doc="share of each gradient but the first left out"),
    },
    (COUPLED_DECAY, DAMPENING, MOMENTUM),
    lambda groups, hp: _torch_sgd(groups, hp, momentum=hp["momentum"], dampening=hp["dampening"]),
)

NESTEROV_MOMENTUM = Optimizer(
    "nesterov",
    "heavy ball that looks ahead: v <- momentum v + g, w <- w - lr (g + momentum v) "
    "(Sutskever et al. 2013)",
    _WITH_MOMENTUM,
    (COUPLED_DECAY, NESTEROV),
    lambda groups, hp: _torch_sgd(groups, hp, momentum=hp["momentum"], nesterov=True),
)

AVERAGED = Optimizer(
    "averaged_momentum",
    "running mean of gradients: v <- momentum v + (1 - momentum) g, w <- w - lr v",
    _WITH_MOMENTUM,
    (COUPLED_DECAY, AVERAGE),
)

VALUE_CLIPPED = Optimizer(
    "value_clipped_momentum",
    "averaged momentum of gradients clipped to [-value_limit, value_limit], each by itself",
    {
        **_WITH_MOMENTUM,
        "value_limit": Knob(0.1, 1e-9, 1e9, log=True, doc="largest size of one gradient"),
    },
    (VALUE_CLIP, COUPLED_DECAY, AVERAGE),
)

NORM_CLIPPED = Optimizer(
    "norm_clipped_momentum",
    "averaged momentum of g min(1, norm_limit / |g|), the gradient clipped by its norm",
    {
        **_WITH_MOMENTUM,
        "norm_limit": Knob(1.0, 1e-9, 1e9, log=True, doc="largest norm of a member's gradient"),
    },
    (NORM_CLIP, COUPLED_DECAY, AVERAGE),
)
