"""Class weights of several labels: a weight of its own for every label of a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from adanet_py.training.losses import Loss

if TYPE_CHECKING:
    from torch import Tensor


def with_label_weight(loss: Loss, label_weight: Tensor) -> Loss:
    """`loss` of outputs [K, B, M, T] and labels [K or 1, B, T], each label weighted by its value.

    L_kb = 1/T sum_t c_t(y_bt) l(z_kbt, y_bt), with the class weights c_t(0) and c_t(1) in
    `label_weight` [T, 2]; a label between 0 and 1 has a weight between them.
    """

    def rows(outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> Tensor:
        k, b, m, t = outputs.shape
        # Every label as a row of its own, so that the loss gives a value for each.
        flat = outputs.transpose(2, 3).reshape(k, b * t, m, 1)
        each = loss.rows(flat, target.reshape(-1, b * t), hp).reshape(k, b, t)
        low, high = label_weight.unbind(-1)
        return (each * (low + (high - low) * target)).mean(-1)

    return replace(loss, rows=rows)
