"""Schedule-free AdamW: an average of the iterates takes the place of a falling learning rate.

Defazio et al. 2024 (arXiv 2405.15682), algorithm 1. There are three sequences: z takes the steps,
x is the average of z that is evaluated, and gradients are taken at y = (1 - beta1) z + beta1 x.
The parameters are y; kept is z - x, which is zero at the start. No torch at import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adanet_py.training.optimizers import knobs
from adanet_py.training.optimizers.optimizer import Optimizer, Step, Transform
from adanet_py.training.optimizers.transforms import COUPLED_DECAY, Slots

if TYPE_CHECKING:
    from torch import Tensor


def _second_moment(g: Tensor, slots: Slots, s: Step) -> None:
    # v <- beta2 v + (1 - beta2) g^2; step along g / (sqrt(v / (1 - beta2^t)) + eps)
    import torch

    square, beta2 = slots["square"], s.hp["beta2"]
    scratch = g.square()
    square.lerp_(scratch, (1.0 - beta2).expand_as(g))
    g.div_(torch.div(square, 1.0 - beta2**s.t, out=scratch).sqrt_().add_(s.hp["eps"]))


def _schedule_free(g: Tensor, slots: Slots, s: Step) -> None:
    # z <- z - lr g; x <- (1 - c) x + c z, c = r_t^2 / (r_1^2 + ... + r_t^2) with r the largest
    # learning rate so far, so that steps of a warm-up count for little. With e = z - x:
    # y <- y + c beta1 e - lr (1 - beta1 (1 - c)) g; e <- (1 - c) (e - lr g)
    import torch

    ahead, beta1 = slots["ahead"], s.hp["beta1"]
    largest, total = slots["largest_rate"], slots["weight_sum"]
    torch.maximum(largest, s.lr, out=largest)
    weight = largest.square()
    total.add_(weight)
    share = torch.where(total > 0, weight / total, 0.0)
    s.w.addcmul_(ahead, (share * beta1).expand_as(g))
    ahead.addcmul_(g, s.lr.expand_as(g), value=-1.0).mul_(1.0 - share)
    g.mul_(1.0 - beta1 * (1.0 - share))


def _average(w: Tensor, slots: Slots, hp: Mapping[str, Tensor]) -> Tensor:
    # x = y - (1 - beta1) (z - x)
    return w.addcmul(slots["ahead"], (hp["beta1"] - 1.0).expand_as(w))


SECOND_MOMENT = Transform(("square",), _second_moment)
SCHEDULE_FREE = Transform(("ahead",), _schedule_free, ("largest_rate", "weight_sum"))

SCHEDULE_FREE_ADAMW = Optimizer(
    "schedule_free_adamw",
    "z <- z - lr (g / (sqrt(v) + eps) + weight_decay y), g at y = (1 - beta1) z + beta1 x; "
    "evaluated is x, the mean of z weighted by lr^2; for a constant rate (Defazio et al. 2024)",
    {"lr": knobs.rate(2.5e-3), **knobs.ADAM_KNOBS},
    (SECOND_MOMENT, COUPLED_DECAY, SCHEDULE_FREE),
    evaluated=_average,
)
