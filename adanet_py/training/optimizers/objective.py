"""What an optimizer that steps with a closure may ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from torch import Tensor


class Piece(NamedTuple):
    """A part of the batch: the loss is the sum of `loss(outputs)` over the parts.

    `outputs` carry the graph back to the parameters, and only the parameters.
    """

    outputs: Tensor
    loss: Callable[[Tensor], Tensor]


class Objective(Protocol):
    """The loss of one batch as a function of the parameters, as they are at each call.

    Every call sees the same rows and the same noise.
    """

    def __call__(self) -> Tensor:
        """The loss, its gradient put into `.grad` of every parameter."""

    def value(self) -> Tensor:
        """The loss alone."""

    def pieces(self) -> Iterator[Piece]:
        """The parts of the batch one after the other, to take derivatives of."""
