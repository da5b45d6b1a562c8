"""What an optimizer that steps with a closure is given: one member's loss on one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from adanet_py.training.optimizers.objective import Piece


class NotFiniteError(Exception):
    """The loss or its gradient is not finite before the step: the member has diverged."""


@dataclass
class Closure:
    """The loss as a function of the module's parameters; see `optimizers.objective.Objective`.

    `forward(i)` runs the module on the i-th of `count` parts of the batch, always with the same
    noise. `penalty()` is added to the loss; `constrain()` makes of the gradient in place what the
    optimizer shall see and returns its norm before. Only the first forward pass moves running
    statistics. `loss`, `norm` are of the first call, without the penalty; if `keeps`, `first` is
    its gradient.
    """

    module: nn.Module
    count: int
    forward: Callable[[int], Piece]
    penalty: Callable[[], Tensor | float]
    constrain: Callable[[], float]
    loss: float | None = None
    norm: float = 0.0
    keeps: bool = False
    first: list[Tensor] = field(default_factory=list)
    _moved: set[int] = field(default_factory=set)  # parts that have moved the statistics

    def __call__(self) -> Tensor:
        """The loss, its gradient in place.

        Raises NotFiniteError at the first call, where there is nothing to step from.
        """
        total = self.gradient()
        with torch.no_grad():
            if self.loss is None and self.keeps:
                self.first = [
                    p.grad.clone() for p in self.module.parameters() if p.grad is not None
                ]
            penalty, norm = self.penalty(), self.constrain()
        if self.loss is None:
            self.loss, self.norm = float(total), norm
            if not (math.isfinite(self.loss) and math.isfinite(norm)):
                raise NotFiniteError
        return total + penalty

    def gradient(self) -> Tensor:
        """The loss without the penalty, its gradient in place as it is."""
        for parameter in self.module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        total: Tensor | float = 0.0
        with torch.enable_grad():
            for piece in self.pieces():
                loss = piece.loss(piece.outputs)
                loss.backward()
                total = total + loss.detach()
        return torch.as_tensor(total)

    @torch.no_grad()
    def value(self) -> Tensor:
        """The loss alone."""
        total: Tensor | float = 0.0
        for piece in self.pieces():
            total = total + piece.loss(piece.outputs)
        return torch.as_tensor(total + self.penalty())

    def pieces(self) -> Iterator[Piece]:
        """The parts of the batch, each with a graph of its own."""
        for i in range(self.count):
            if i in self._moved:
                with _still(list(self.module.modules())):
                    piece = self.forward(i)
            else:
                piece = self.forward(i)
                self._moved.add(i)
            yield piece


@contextmanager
def _still(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Leave buffers as they are; they are put aside, for a graph may hold them."""
    kept = [(m, n, b) for m in modules for n, b in m._buffers.items() if b is not None]
    running = [(m, n, b) for m, n, b in kept if n.startswith("running_") or "num_batches" in n]
    for module, name, buffer in running:
        module._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for module, name, buffer in running:
            module._buffers[name] = buffer
