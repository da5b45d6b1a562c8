"""Lion: steps along the sign of an interpolated momentum; no torch at import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adanet_py.training.optimizers import knobs
from adanet_py.training.optimizers.optimizer import Optimizer, Step, Transform
from adanet_py.training.optimizers.transforms import DECOUPLED_DECAY, Slots

if TYPE_CHECKING:
    from torch import Tensor


def _lion(g: Tensor, slots: Slots, s: Step) -> None:
    # c = beta1 m + (1 - beta1) g; m <- beta2 m + (1 - beta2) g; step along sign(c)
    # (Chen et al. 2023, algorithm 2)
    import torch

    mean = slots["mean"]
    mixed = torch.lerp(mean, g, (1.0 - s.hp["beta1"]).expand_as(g))
    mean.lerp_(g, (1.0 - s.hp["beta2"]).expand_as(g))
    # The sign of NaN is 0, with which a diverged member would stand still and look sound: adding
    # 0 c changes no other number.
    torch.sign(mixed, out=g).add_(mixed, alpha=0)


LION_SIGN = Transform(("mean",), _lion)

LION = Optimizer(
    "lion",
    "w <- w - lr sign(beta1 m + (1 - beta1) g), m <- beta2 m + (1 - beta2) g; decoupled decay "
    "(Chen et al. 2023)",
    {
        "lr": knobs.rate(1e-4),
        "weight_decay": knobs.DECAY,
        "beta1": knobs.mean_decay(0.9, "gradients in the step"),
        "beta2": knobs.mean_decay(0.99, "gradients that is kept"),
    },
    (DECOUPLED_DECAY, LION_SIGN),
)
