"""Losses: one value per member and row, so that every member has its own loss; no torch at import.

Shapes: outputs [K, B, M, C] (M implicit members, 1 for most networks), target [B] or [K, B],
hyperparameters [K, 1]. The result [K, B] is the mean over implicit members of their losses (not
the loss of their mean), as in Gorishniy et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """`rows(outputs [K, B, M, C], target [K or 1, B], hp)` -> [K, B]; `tasks` it is meant for."""

    name: str
    summary: str
    tasks: tuple[str, ...]
    rows: Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


def _binary_cross_entropy(outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> Tensor:
    # softplus(z) - y z, the target pulled towards 1/2 by label smoothing
    from torch.nn import functional as F

    smoothing = hp["label_smoothing"]
    y = (target * (1.0 - smoothing) + 0.5 * smoothing).unsqueeze(-1)  # [K, B, 1]
    z = outputs.squeeze(-1)  # [K, B, M]
    return (F.softplus(z) - y * z).mean(-1)


def _cross_entropy(outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> Tensor:
    # -(1 - s) log p_y - s mean_c log p_c (Szegedy et al. 2016)
    smoothing = hp["label_smoothing"]
    log_p = outputs.log_softmax(-1)  # [K, B, M, C]
    index = target.long().unsqueeze(-1).unsqueeze(-1).expand(*log_p.shape[:-1], 1)
    picked = log_p.gather(-1, index).squeeze(-1).mean(-1)
    return -(1.0 - smoothing) * picked - smoothing * log_p.mean(-1).mean(-1)


def _mean_squared_error(outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> Tensor:
    return (outputs.squeeze(-1) - target.unsqueeze(-1)).square().mean(-1)


LOSSES: dict[str, Loss] = {
    "binary_cross_entropy": Loss(
        "binary_cross_entropy",
        "minus the log likelihood of a logistic output",
        ("binary",),
        _binary_cross_entropy,
    ),
    "cross_entropy": Loss(
        "cross_entropy",
        "minus the log likelihood of a softmax output",
        ("multiclass",),
        _cross_entropy,
    ),
    "mean_squared_error": Loss(
        "mean_squared_error", "squared difference", ("regression",), _mean_squared_error
    ),
}


def default_loss(task: str) -> Loss:
    """The loss networks are trained with for `task`."""
    return next(loss for loss in LOSSES.values() if task in loss.tasks)
