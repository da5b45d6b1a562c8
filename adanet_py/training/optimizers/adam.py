"""Adam and its variants; no torch at import.

In the formulas b1 and b2 are `beta1` and `beta2`, and m <- b1 m + (1 - b1) g and
v <- b2 v + (1 - b2) g^2 the running moments, all from zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adanet_py.knob import Knob
from adanet_py.training.optimizers import knobs
from adanet_py.training.optimizers.optimizer import Optimizer, Step, Transform
from adanet_py.training.optimizers.transforms import COUPLED_DECAY, DECOUPLED_DECAY, Slots

if TYPE_CHECKING:
    from torch import Tensor


def adam_direction(g: Tensor, mean: Tensor, square: Tensor, s: Step) -> None:
    """Make of g, in place, (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) for some columns."""
    beta1, beta2 = s.hp["beta1"], s.hp["beta2"]
    mean.lerp_(g, (1.0 - beta1).expand_as(g))
    square.lerp_(g.square_(), (1.0 - beta2).expand_as(g))
    denominator = (square / (1.0 - beta2**s.t)).sqrt_().add_(s.hp["eps"])
    g.copy_(mean).div_(1.0 - beta1**s.t).div_(denominator)


def _adam(g: Tensor, slots: Slots, s: Step) -> None:
    # step along (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) (Kingma and Ba 2015)
    adam_direction(g, slots["mean"], slots["square"], s)


def _amsgrad(g: Tensor, slots: Slots, s: Step) -> None:
    # as Adam with u <- max(u, v) in the place of v (Reddi et al. 2018), corrected by 1 - b2^t as
    # in torch.optim
    import torch

    mean, square, largest = slots["mean"], slots["square"], slots["largest"]
    beta1, beta2 = s.hp["beta1"], s.hp["beta2"]
    mean.lerp_(g, (1.0 - beta1).expand_as(g))
    square.lerp_(g.square_(), (1.0 - beta2).expand_as(g))
    torch.maximum(largest, square, out=largest)
    denominator = (largest / (1.0 - beta2**s.t)).sqrt_().add_(s.hp["eps"])
    g.copy_(mean).div_(1.0 - beta1**s.t).div_(denominator)


def _nadam(g: Tensor, slots: Slots, s: Step) -> None:
    # mu_t = b1 (1 - 0.96^(t momentum_decay) / 2), M_t = mu_1 ... mu_t; step along
    # (mu_{t+1} m / (1 - M_{t+1}) + (1 - mu_t) g / (1 - M_t)) / (sqrt(v / (1 - b2^t)) + eps)
    # (Dozat 2016). What is kept is 1 - M, which is 0 at the start.
    mean, square, rest = slots["mean"], slots["square"], slots["momentum_rest"]
    beta1, beta2, decay = s.hp["beta1"], s.hp["beta2"], s.hp["momentum_decay"]
    mu = beta1 * (1.0 - 0.5 * 0.96 ** (s.t * decay))
    mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((s.t + 1.0) * decay))
    rest.mul_(mu).add_(1.0 - mu)
    rest_next = rest * mu_next + (1.0 - mu_next)
    mean.lerp_(g, (1.0 - beta1).expand_as(g))
    denominator = g.square()
    square.lerp_(denominator, (1.0 - beta2).expand_as(g))
    denominator.copy_(square).div_(1.0 - beta2**s.t).sqrt_().add_(s.hp["eps"])
    g.mul_((1.0 - mu) / rest).addcmul_(mean, (mu_next / rest_next).expand_as(g))
    g.div_(denominator)


def _radam(g: Tensor, slots: Slots, s: Step) -> None:
    # r_inf = 2 / (1 - b2) - 1, r = r_inf - 2 t b2^t / (1 - b2^t). Where r > 5 step along
    # (m / (1 - b1^t)) R sqrt(1 - b2^t) / (sqrt(v) + eps) with
    # R^2 = (r - 4) (r - 2) r_inf / ((r_inf - 4) (r_inf - 2) r), else along m / (1 - b1^t)
    # (Liu et al. 2020, algorithm 2)
    import torch

    mean, square = slots["mean"], slots["square"]
    beta1, beta2 = s.hp["beta1"], s.hp["beta2"]
    mean.lerp_(g, (1.0 - beta1).expand_as(g))
    denominator = g.square()
    square.lerp_(denominator, (1.0 - beta2).expand_as(g))
    torch.sqrt(square, out=denominator).add_(s.hp["eps"])
    b2, t = beta2.double(), s.t.double()  # r is the small difference of large numbers
    rest = 1.0 - b2**t
    long = 2.0 / (1.0 - b2) - 1.0
    length = long - 2.0 * t * b2**t / rest
    known = length > 5.0
    rectified = (
        (length - 4.0) * (length - 2.0) * long / ((long - 4.0) * (long - 2.0) * length) * rest
    ).sqrt_()
    factor = torch.where(known, rectified, 1.0).to(g.dtype) / (1.0 - beta1**s.t)
    torch.mul(mean, factor, out=g)
    g.div_(torch.where(known, denominator, denominator.new_ones(())))


def _adamax(g: Tensor, slots: Slots, s: Step) -> None:
    # u <- max(b2 u, |g| + eps); step along (m / (1 - b1^t)) / u (Kingma and Ba 2015, algorithm 2)
    import torch

    mean, largest, beta1 = slots["mean"], slots["largest"], s.hp["beta1"]
    mean.lerp_(g, (1.0 - beta1).expand_as(g))
    largest.mul_(s.hp["beta2"])
    torch.maximum(largest, g.abs_().add_(s.hp["eps"]), out=largest)
    torch.div(mean, largest, out=g).div_(1.0 - beta1**s.t)


ADAM_SCALE = Transform(("mean", "square"), _adam)
AMSGRAD_SCALE = Transform(("mean", "square", "largest"), _amsgrad)
NADAM_SCALE = Transform(("mean", "square"), _nadam, ("momentum_rest",))
RADAM_SCALE = Transform(("mean", "square"), _radam)
ADAMAX_SCALE = Transform(("mean", "largest"), _adamax)


def _torch(kind: str, groups: list[dict[str, Any]], hp: Mapping[str, float], **options: Any) -> Any:
    import torch

    betas = (hp["beta1"], hp["beta2"])
    return getattr(torch.optim, kind)(groups, lr=hp["lr"], betas=betas, eps=hp["eps"], **options)


ADAM = Optimizer(
    "adam",
    "w <- w - lr m / (sqrt(v) + eps), m and v the bias-corrected running means of g and g^2; "
    "decay in the gradient (Kingma and Ba 2015)",
    {"lr": knobs.rate(1e-3), **knobs.ADAM_KNOBS},
    (COUPLED_DECAY, ADAM_SCALE),
    lambda groups, hp: _torch("Adam", groups, hp),
)

AMSGRAD = Optimizer(
    "amsgrad",
    "Adam with the largest v so far in the place of v (Reddi et al. 2018)",
    {"lr": knobs.rate(1e-3), **knobs.ADAM_KNOBS},
    (COUPLED_DECAY, AMSGRAD_SCALE),
    lambda groups, hp: _torch("Adam", groups, hp, amsgrad=True),
)

ADAMW = Optimizer(
    "adamw",
    "Adam with decoupled weight decay: first w <- (1 - lr weight_decay) w "
    "(Loshchilov and Hutter 2019)",
    {"lr": knobs.rate(1e-3), **knobs.ADAM_KNOBS},
    (DECOUPLED_DECAY, ADAM_SCALE),
    lambda groups, hp: _torch("AdamW", groups, hp),
)

ADAMW_AMSGRAD = Optimizer(
    "adamw_amsgrad",
    "AMSGrad with decoupled weight decay",
    {"lr": knobs.rate(1e-3), **knobs.ADAM_KNOBS},
    (DECOUPLED_DECAY, AMSGRAD_SCALE),
    lambda groups, hp: _torch("AdamW", groups, hp, amsgrad=True),
)

NADAM = Optimizer(
    "nadam",
    "Adam with Nesterov momentum: (mu' m + (1 - mu) g) / (sqrt(v) + eps), corrected for bias, "
    "mu = beta1 (1 - 0.96^(t momentum_decay) / 2) and mu' the next (Dozat 2016)",
    {
        "lr": knobs.rate(2e-3),
        **knobs.ADAM_KNOBS,
        "momentum_decay": Knob(4e-3, 0.0, 1.0, log=True, doc="how fast mu rises to beta1"),
    },
    (COUPLED_DECAY, NADAM_SCALE),
    lambda groups, hp: _torch("NAdam", groups, hp, momentum_decay=hp["momentum_decay"]),
)

RADAM = Optimizer(
    "radam",
    "Adam whose step is damped by what is known of v, and does without v in the first steps "
    "(Liu et al. 2020)",
    {"lr": knobs.rate(1e-3), **knobs.ADAM_KNOBS},
    (COUPLED_DECAY, RADAM_SCALE),
    lambda groups, hp: _torch("RAdam", groups, hp),
)

ADAMAX = Optimizer(
    "adamax",
    "Adam with the largest recent gradient as scale: u <- max(beta2 u, |g| + eps), "
    "w <- w - lr m / u (Kingma and Ba 2015)",
    {"lr": knobs.rate(2e-3), **knobs.ADAM_KNOBS},
    (COUPLED_DECAY, ADAMAX_SCALE),
    lambda groups, hp: _torch("Adamax", groups, hp),
)
