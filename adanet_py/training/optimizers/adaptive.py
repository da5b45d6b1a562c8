"""Optimizers that divide the gradient by the root of its mean square; no torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adanet_py.knob import Knob
from adanet_py.training.optimizers import knobs
from adanet_py.training.optimizers.optimizer import Optimizer, Step, Transform
from adanet_py.training.optimizers.transforms import COUPLED_DECAY, MOMENTUM, Slots

if TYPE_CHECKING:
    from torch import Tensor


def _adagrad(g: Tensor, slots: Slots, s: Step) -> None:
    # G <- G + g^2; step along g / (sqrt(G) + eps) (Duchi et al. 2011)
    total = slots["square_sum"]
    total.addcmul_(g, g)
    g.div_(total.sqrt().add_(s.hp["eps"]))


def _adadelta(g: Tensor, slots: Slots, s: Step) -> None:
    # v <- rho v + (1 - rho) g^2; d = g sqrt(u + eps) / sqrt(v + eps);
    # u <- rho u + (1 - rho) d^2; step along d (Zeiler 2012, algorithm 1)
    import torch

    square, moved = slots["square"], slots["moved_square"]
    eps, fresh = s.hp["eps"], (1.0 - s.hp["rho"]).expand_as(g)
    scratch = g.square()
    square.lerp_(scratch, fresh)
    g.div_(torch.add(square, eps, out=scratch).sqrt_())
    g.mul_(torch.add(moved, eps, out=scratch).sqrt_())
    moved.lerp_(torch.mul(g, g, out=scratch), fresh)


def _rms(g: Tensor, slots: Slots, s: Step) -> None:
    # v <- alpha v + (1 - alpha) g^2; step along g / (sqrt(v) + eps) (Tieleman and Hinton 2012)
    import torch

    square, scratch = slots["square"], g.square()
    square.lerp_(scratch, (1.0 - s.hp["alpha"]).expand_as(g))
    g.div_(torch.sqrt(square, out=scratch).add_(s.hp["eps"]))


def _rms_centered(g: Tensor, slots: Slots, s: Step) -> None:
    # m <- alpha m + (1 - alpha) g; v <- alpha v + (1 - alpha) g^2;
    # step along g / (sqrt(v - m^2) + eps) (Graves 2013, equations 38 to 40)
    import torch

    square, mean, fresh = slots["square"], slots["mean"], (1.0 - s.hp["alpha"]).expand_as(g)
    scratch = g.square()
    square.lerp_(scratch, fresh)
    mean.lerp_(g, fresh)
    # A variance of zero comes out below zero by rounding.
    variance = torch.addcmul(square, mean, mean, value=-1.0, out=scratch).clamp_(min=0.0)
    g.div_(variance.sqrt_().add_(s.hp["eps"]))


ADAGRAD_SCALE = Transform(("square_sum",), _adagrad)
ADADELTA_SCALE = Transform(("square", "moved_square"), _adadelta)
RMS = Transform(("square",), _rms)
RMS_CENTERED = Transform(("square", "mean"), _rms_centered)


def _torch_adagrad(groups: list[dict[str, Any]], hp: Mapping[str, float]) -> Any:
    import torch

    return torch.optim.Adagrad(groups, lr=hp["lr"], eps=hp["eps"])


def _torch_adadelta(groups: list[dict[str, Any]], hp: Mapping[str, float]) -> Any:
    import torch

    return torch.optim.Adadelta(groups, lr=hp["lr"], rho=hp["rho"], eps=hp["eps"])


def _torch_rmsprop(groups: list[dict[str, Any]], hp: Mapping[str, float], centered: bool) -> Any:
    import torch

    return torch.optim.RMSprop(
        groups,
        lr=hp["lr"],
        alpha=hp["alpha"],
        eps=hp["eps"],
        momentum=hp["momentum"],
        centered=centered,
    )


_RMS_KNOBS = {
    "lr": knobs.rate(1e-3),
    "weight_decay": knobs.DECAY,
    "alpha": Knob(0.99, 0.0, 0.999999, doc="decay of the second moment"),
    "eps": knobs.epsilon(),
    "momentum": Knob(0.0, 0.0, 0.9999, doc="momentum, heavy ball, of the scaled gradient"),
}

ADAGRAD = Optimizer(
    "adagrad",
    "gradient over the root of the sum of all its squares: G <- G + g^2, "
    "w <- w - lr g / (sqrt(G) + eps) (Duchi et al. 2011)",
    {"lr": knobs.rate(1e-2), "weight_decay": knobs.DECAY, "eps": knobs.epsilon(1e-10)},
    (COUPLED_DECAY, ADAGRAD_SCALE),
    _torch_adagrad,
)

ADADELTA = Optimizer(
    "adadelta",
    "gradient scaled to the size of recent steps: d = g sqrt(u + eps) / sqrt(v + eps), "
    "w <- w - lr d, u and v the running means of d^2 and g^2 (Zeiler 2012)",
    {
        "lr": knobs.rate(1.0),
        "weight_decay": knobs.DECAY,
        "rho": Knob(0.9, 0.0, 0.999999, doc="decay of both running means"),
        "eps": Knob(1e-6, 0.0, 1.0, log=True, doc="added to both running means"),
    },
    (COUPLED_DECAY, ADADELTA_SCALE),
    _torch_adadelta,
)

RMSPROP = Optimizer(
    "rmsprop",
    "gradient over the root of its running mean square: v <- alpha v + (1 - alpha) g^2, "
    "w <- w - lr g / (sqrt(v) + eps) (Tieleman and Hinton 2012)",
    _RMS_KNOBS,
    (COUPLED_DECAY, RMS, MOMENTUM),
    lambda groups, hp: _torch_rmsprop(groups, hp, centered=False),
)

RMSPROP_CENTERED = Optimizer(
    "rmsprop_centered",
    "gradient over its running standard deviation: as rmsprop with v less the square of the "
    "running mean (Graves 2013)",
    _RMS_KNOBS,
    (COUPLED_DECAY, RMS_CENTERED, MOMENTUM),
    lambda groups, hp: _torch_rmsprop(groups, hp, centered=True),
)
