"""Losses of logits; targets are class codes. No torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adanet_py.training.losses.loss import Loss, columns, knob

if TYPE_CHECKING:
    from torch import Tensor

_LABELS = ("binary", "multilabel")
_CLASSES = ("multiclass",)


def binary_cross_entropy(outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> Tensor:
    """softplus(z) - y z: minus the log likelihood of the label y under p = sigmoid(z).

    Label smoothing s pulls the label towards 1/2: y <- y (1 - s) + s / 2.
    """
    from torch.nn import functional as F

    smoothing = knob(hp, "label_smoothing")
    y = columns(target) * (1.0 - smoothing) + 0.5 * smoothing
    return (F.softplus(outputs) - y * outputs).mean((-2, -1))


def cross_entropy(outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> Tensor:
    """-(1 - s) log p_y - s mean_c log p_c, p = softmax(z), label smoothing s.

    Szegedy et al. 2016, Rethinking the Inception architecture, section 7.
    """
    smoothing = hp["label_smoothing"]
    log_p = outputs.log_softmax(-1)  # [K, B, M, C]
    picked = log_p.gather(-1, _index(log_p, target)).squeeze(-1).mean(-1)
    return -(1.0 - smoothing) * picked - smoothing * log_p.mean(-1).mean(-1)


def focal(outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> Tensor:
    """-(1 - p_y)^gamma log p_y, p_y the probability of the true label; p as for cross-entropy.

    Rows that are right already count less the larger gamma (knob `focal_gamma`); 0 is the
    cross-entropy. Lin et al. 2017, Focal loss for dense object detection, equation 4; its factor
    alpha is a class weight.
    """
    from torch.nn import functional as F

    gamma = hp["focal_gamma"].unsqueeze(-1)
    if outputs.shape[-1] == 1 or target.dim() == 3:  # logits of labels
        right = (2.0 * columns(target) - 1.0) * outputs
        picked, others = F.logsigmoid(right), F.logsigmoid(-right)
        return -((gamma.unsqueeze(-1) * others).exp() * picked).mean((-2, -1))
    log_p = outputs.log_softmax(-1)  # [K, B, M, C]
    index = _index(log_p, target)
    # log (1 - p_y) as the log of the sum of the others has a gradient where p_y rounds to 1 too.
    others = log_p.scatter(-1, index, -float("inf")).logsumexp(-1)
    picked = log_p.gather(-1, index).squeeze(-1)
    return -((gamma * others).exp() * picked).mean(-1)


def _index(log_p: Tensor, target: Tensor) -> Tensor:
    """Class codes [K or 1, B] as an index [K, B, M, 1]."""
    return target.long().unsqueeze(-1).unsqueeze(-1).expand(*log_p.shape[:-1], 1)


LOSSES: tuple[Loss, ...] = (
    Loss(
        "binary_cross_entropy", "minus the log likelihood of a logistic output", _LABELS,
        binary_cross_entropy, knobs=("label_smoothing",), metric="log_loss",
    ),
    Loss(
        "cross_entropy", "minus the log likelihood of a softmax output", _CLASSES,
        cross_entropy, knobs=("label_smoothing",), metric="log_loss",
    ),
    Loss(
        "focal", "cross-entropy with less weight on what is right already", (*_LABELS, *_CLASSES),
        focal, knobs=("focal_gamma",),
    ),
)  # fmt: skip
