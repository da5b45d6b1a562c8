"""Optimizers over stacked parameters, composed from small transforms; no torch at import.

A group keeps the parameters of its K members in one tensor w [K, P]; the gradient is g [K, P] and
every hyperparameter a tensor [K, 1]. A transform rewrites g in place (it is scratch) and keeps its
state in slots [K, P]; at the end w <- w - lr g. Rows never mix, so a member that diverges leaves
its neighbours untouched. Columns [0, D) of w are the decayed parameters (matrices), the rest
(biases, norms, member scales) are not decayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from adanet_py.records import Knob

if TYPE_CHECKING:
    from torch import Tensor


class Step(NamedTuple):
    """What a transform may read at one step."""

    w: Tensor  # [K, P] parameters
    hp: Mapping[str, Tensor]  # name -> [K, 1]
    lr: Tensor  # [K, 1]
    t: Tensor  # [K, 1] steps taken by each member, counted from 1
    decayed: int  # D


class Transform(NamedTuple):
    """`apply(g, slots, step)` rewrites g in place; `slots` names its state tensors [K, P]."""

    slots: tuple[str, ...]
    apply: Callable[[Tensor, Mapping[str, Tensor], Step], None]


@dataclass(frozen=True)
class Optimizer:
    """A chain of transforms, its hyperparameters, and the torch.optim optimizer it equals."""

    name: str
    summary: str
    numeric: Mapping[str, Knob]
    transforms: tuple[Transform, ...]
    reference: Callable[[list[dict[str, Any]], Mapping[str, float]], Any]

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of all state tensors."""
        return tuple(s for t in self.transforms for s in t.slots)

    def complete(self, numeric: Mapping[str, float]) -> dict[str, float]:
        """The hyperparameters of this optimizer, defaults filled in."""
        return {n: float(numeric.get(n, knob.default)) for n, knob in self.numeric.items()}  # type: ignore[arg-type]

    def update(self, g: Tensor, slots: Mapping[str, Tensor], step: Step) -> None:
        """One step: w <- w - lr * chain(g). g is scratch and is overwritten."""
        for transform in self.transforms:
            transform.apply(g, slots, step)
        step.w.sub_(g.mul_(step.lr))


def _coupled_decay(g: Tensor, slots: Mapping[str, Tensor], s: Step) -> None:
    # g <- g + weight_decay w
    d = s.decayed
    g[:, :d].add_(s.w[:, :d] * s.hp["weight_decay"])


def _decoupled_decay(g: Tensor, slots: Mapping[str, Tensor], s: Step) -> None:
    # w <- (1 - lr weight_decay) w (Loshchilov and Hutter 2019)
    s.w[:, : s.decayed].mul_(1.0 - s.lr * s.hp["weight_decay"])


def _momentum(g: Tensor, slots: Mapping[str, Tensor], s: Step) -> None:
    # v <- momentum v + g; step along v (heavy ball, Polyak 1964, as torch.optim.SGD has it)
    velocity = slots["velocity"]
    velocity.mul_(s.hp["momentum"]).add_(g)
    g.copy_(velocity)


def _nesterov(g: Tensor, slots: Mapping[str, Tensor], s: Step) -> None:
    # v <- momentum v + g; step along g + momentum v (Sutskever et al. 2013)
    velocity = slots["velocity"]
    velocity.mul_(s.hp["momentum"]).add_(g)
    g.addcmul_(velocity, s.hp["momentum"].expand_as(velocity))


def _rms(g: Tensor, slots: Mapping[str, Tensor], s: Step) -> None:
    # v <- alpha v + (1 - alpha) g^2; step along g / (sqrt(v) + eps) (Tieleman and Hinton 2012)
    square = slots["square"]
    square.lerp_(g.square(), (1.0 - s.hp["alpha"]).expand_as(g))
    g.div_(square.sqrt().add_(s.hp["eps"]))


def _adam(g: Tensor, slots: Mapping[str, Tensor], s: Step) -> None:
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

_LR = Knob(1e-3, 0.0, 100.0, log=True, doc="learning rate")
_SGD_LR = Knob(1e-2, 0.0, 100.0, log=True, doc="learning rate")
_DECAY = Knob(0.0, 0.0, 10.0, log=True, doc="weight decay, not on biases and norms")
_MOMENTUM = Knob(0.9, 0.0, 0.9999, doc="momentum")
_EPS = Knob(1e-8, 0.0, 1.0, log=True, doc="added to the root of the second moment")
_BETA1 = Knob(0.9, 0.0, 0.9999, doc="decay of the first moment")
_BETA2 = Knob(0.999, 0.0, 0.999999, doc="decay of the second moment")
_ALPHA = Knob(0.99, 0.0, 0.999999, doc="decay of the second moment")


def _sgd(groups: list[dict[str, Any]], hp: Mapping[str, float], **options: Any) -> Any:
    import torch

    return torch.optim.SGD(groups, lr=hp["lr"], **options)


def _torch_rmsprop(groups: list[dict[str, Any]], hp: Mapping[str, float]) -> Any:
    import torch

    return torch.optim.RMSprop(groups, lr=hp["lr"], alpha=hp["alpha"], eps=hp["eps"])


def _torch_adam(groups: list[dict[str, Any]], hp: Mapping[str, float], decoupled: bool) -> Any:
    import torch

    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    return kind(groups, lr=hp["lr"], betas=(hp["beta1"], hp["beta2"]), eps=hp["eps"])


_ADAM_KNOBS = {"weight_decay": _DECAY, "beta1": _BETA1, "beta2": _BETA2, "eps": _EPS}

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(
        "sgd",
        "gradient descent on mini-batches: w <- w - lr g",
        {"lr": _SGD_LR, "weight_decay": _DECAY},
        (COUPLED_DECAY,),
        _sgd,
    ),
    "momentum": Optimizer(
        "momentum",
        "heavy ball: v <- momentum v + g, w <- w - lr v",
        {"lr": _SGD_LR, "weight_decay": _DECAY, "momentum": _MOMENTUM},
        (COUPLED_DECAY, MOMENTUM),
        lambda groups, hp: _sgd(groups, hp, momentum=hp["momentum"]),
    ),
    "nesterov": Optimizer(
        "nesterov",
        "heavy ball with the gradient looked up ahead",
        {"lr": _SGD_LR, "weight_decay": _DECAY, "momentum": _MOMENTUM},
        (COUPLED_DECAY, NESTEROV),
        lambda groups, hp: _sgd(groups, hp, momentum=hp["momentum"], nesterov=True),
    ),
    "rmsprop": Optimizer(
        "rmsprop",
        "gradient over the root of its running mean square",
        {"lr": _LR, "weight_decay": _DECAY, "alpha": _ALPHA, "eps": _EPS},
        (COUPLED_DECAY, RMS),
        _torch_rmsprop,
    ),
    "adam": Optimizer(
        "adam",
        "bias-corrected first over root of second moment, decay in the gradient",
        {"lr": _LR, **_ADAM_KNOBS},
        (COUPLED_DECAY, ADAM),
        lambda groups, hp: _torch_adam(groups, hp, decoupled=False),
    ),
    "adamw": Optimizer(
        "adamw",
        "Adam with decoupled weight decay",
        {"lr": _LR, **_ADAM_KNOBS},
        (DECOUPLED_DECAY, ADAM),
        lambda groups, hp: _torch_adam(groups, hp, decoupled=True),
    ),
}
