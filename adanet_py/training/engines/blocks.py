"""Members of a group whose forward and backward passes run together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adanet_py.training.engines.members import call_members
from adanet_py.training.engines.program import Program, State, as_members
from adanet_py.training.optimizers import Part


@dataclass(frozen=True)
class Block:
    """k members: views of the engine's tensors, whose memory they share.

    `leaves` are the parameters that autograd differentiates by [k, ...], `gradients` where their
    gradients are put, in the same order.
    """

    members: slice
    leaves: dict[str, Tensor]
    gradients: list[Tensor]
    buffers: dict[str, Tensor]
    hp: dict[str, Tensor]
    stream: Tensor  # of each member, see `BatchOrder.take`
    own: Tensor | None  # [k, 1]: share of its own target in a row's loss; None = all

    def backward(
        self, program: Program, module: nn.Module, constants: State, rows: Tensor, piece: slice
    ) -> Tensor:
        """Add the gradient of a piece of a batch, rows [streams, B]; its part of the loss [k].

        The first piece of a batch overwrites the gradient of the batch before.
        """
        numeric, category, target, weight, offset = self._batch(program, rows[:, piece])
        with program.precision():
            state = (self.leaves, self.buffers, constants)
            outputs = as_members(call_members(module, *state, numeric, category), 2)
        outputs = outputs.to(program.dtype)
        losses = program.row_losses(outputs, target, weight, self.hp, self.own, offset)
        loss = losses.mean(-1)
        count = piece.stop - piece.start
        if count < rows.shape[1]:
            loss = loss * (count / rows.shape[1])
        gradients = torch.autograd.grad(loss.sum(), list(self.leaves.values()))
        with torch.no_grad():
            if piece.start == 0:
                torch._foreach_copy_(self.gradients, gradients)
            else:
                torch._foreach_add_(self.gradients, gradients)
        return loss.detach()

    def _batch(
        self, program: Program, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Numeric, category, target, weight and offset of a batch, rows [streams, B].

        Of one stream all members share the first two, which then have no member axis. The other
        three have one, of size 1 where they are shared.
        """
        data = program.data
        shared = program.folds == 1 and program.order.own is None
        picked = rows[0] if shared else rows[self.stream]
        target = data.target[picked]
        weight = None if data.weight is None else data.weight[picked]
        offset = None if data.offset is None else data.offset[picked]
        if shared:
            target = target.unsqueeze(0)
            weight = None if weight is None else weight.unsqueeze(0)
            offset = None if offset is None else offset.unsqueeze(0)
        return data.numeric[picked], data.category[picked], target, weight, offset


def views(parts: Sequence[Part], rows: Tensor) -> dict[str, Tensor]:
    """The parameters of k members, by name [k, ...], as views of `rows` [k, P]."""
    return {part.name: part.view(rows) for part in parts}


def of_members(tensors: Mapping[str, Tensor], members: slice) -> dict[str, Tensor]:
    """The rows of some members, by name, as views."""
    return {name: value[members] for name, value in tensors.items()}
