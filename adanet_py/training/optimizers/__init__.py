"""Optimizers over stacked parameters, composed from small transforms; no torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adanet_py.records import Knob
from adanet_py.training.optimizers.optimizer import Optimizer, Part, Step, Transform, make_parts
from adanet_py.training.optimizers.transforms import (
    ADAM,
    COUPLED_DECAY,
    DECOUPLED_DECAY,
    MOMENTUM,
    NESTEROV,
    RMS,
)

__all__ = ["OPTIMIZERS", "Optimizer", "Part", "Step", "Transform", "make_parts"]

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
