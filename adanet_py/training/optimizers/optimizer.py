"""The records an optimizer over stacked parameters is made of; no torch at import.

A group keeps the parameters of its K members in one tensor w [K, P]; the gradient is g [K, P] and
every hyperparameter a tensor [K, 1]. A transform rewrites g in place (it is scratch) and keeps its
state in slots [K, P] and scalars [K, 1], all zero at the start; at the end w <- w - lr g. Rows
never mix, so a member that diverges leaves its neighbours untouched. Columns [0, D) of w are the
decayed parameters (matrices), the rest (biases, norms, member scales) are not decayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from adanet_py.knob import Knob

if TYPE_CHECKING:
    from torch import Tensor


class Part(NamedTuple):
    """One parameter of the module: columns [start, stop) of w, of `shape` once viewed.

    `decayed` parts are weight matrices: [out, in], or [n, in, out] where there are n of them.
    `head` marks the output layer's.
    """

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    decayed: bool
    head: bool = False

    def view(self, x: Tensor) -> Tensor:
        """The part's columns of x [K, P] as a view [K, *shape]."""
        return x[:, self.start : self.stop].view(x.shape[0], *self.shape)

    @property
    def unit_axis(self) -> int:
        """The axis of a matrix along which the weights of one unit lie."""
        return -1 if len(self.shape) == 2 else -2


class Step(NamedTuple):
    """What a transform may read at one step."""

    w: Tensor  # [K, P] parameters
    hp: Mapping[str, Tensor]  # name -> [K, 1]
    lr: Tensor  # [K, 1]
    t: Tensor  # [K, 1] steps taken by each member, counted from 1
    decayed: int  # D
    parts: tuple[Part, ...] = ()  # in the order of the columns; only for those that read shapes
    bias_decay: Tensor | None = None  # [K, 1] share of the decay that the other columns get
    zero: frozenset[str] = frozenset()  # names in hp known to be 0 for all: their work is skipped


class Transform(NamedTuple):
    """`apply(g, slots, step)` rewrites g in place; names of its state [K, P] and [K, 1]."""

    slots: tuple[str, ...]
    apply: Callable[[Tensor, Mapping[str, Tensor], Step], None]
    scalars: tuple[str, ...] = ()


def one_pass(parameters: int, hp: Mapping[str, float]) -> float:
    """The cost of a step that needs the gradient of its batch and no more."""
    return 1.0


@dataclass(frozen=True)
class Optimizer:
    """A chain of transforms with its hyperparameters.

    `reference(groups, hp)` builds the torch.optim optimizer it equals, where there is one.
    `evaluated(w, slots, hp)` gives the weights [K, P] the method is evaluated with, where those
    are not the ones its gradients are taken at. `engine` names the only engine that can run it,
    if it cannot run stacked: then `transforms` is empty and `reference` does the work, stepping
    with a closure (see `objective.py`). `passes(parameters, hp)` is the cost of one step in
    gradients of the batch and `work(parameters, hp)` says what it goes into.
    """

    name: str
    summary: str
    numeric: Mapping[str, Knob]
    transforms: tuple[Transform, ...] = ()
    reference: Callable[[list[dict[str, Any]], Mapping[str, float]], Any] | None = None
    evaluated: Callable[[Tensor, Mapping[str, Tensor], Mapping[str, Tensor]], Tensor] | None = None
    engine: str = ""
    passes: Callable[[int, Mapping[str, float]], float] = one_pass
    work: Callable[[int, Mapping[str, float]], str] | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of all state tensors [K, P]."""
        return tuple(s for t in self.transforms for s in t.slots)

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of all state tensors [K, 1]."""
        return tuple(s for t in self.transforms for s in t.scalars)

    def start(self, w: Tensor) -> dict[str, Tensor]:
        """The state before the first step, for parameters w [K, P]."""
        zeros = {name: w.new_zeros(w.shape) for name in self.slots}
        return zeros | {name: w.new_zeros(w.shape[0], 1) for name in self.scalars}

    def complete(self, numeric: Mapping[str, float]) -> dict[str, float]:
        """The hyperparameters of this optimizer, defaults filled in."""
        return {n: float(numeric.get(n, knob.default)) for n, knob in self.numeric.items()}  # type: ignore[arg-type]

    def update(self, g: Tensor, slots: Mapping[str, Tensor], step: Step) -> None:
        """One step: w <- w - lr * chain(g). g is scratch and is overwritten."""
        for transform in self.transforms:
            transform.apply(g, slots, step)
        step.w.sub_(g.mul_(step.lr))


def make_parts(
    shapes: Mapping[str, Sequence[int]], decayed: Mapping[str, bool]
) -> tuple[Part, ...]:
    """The layout of w: decayed parameters first, otherwise in the module's order.

    The last matrix of a module is its output layer.
    """
    head = next((n for n in reversed(list(shapes)) if decayed[n]), None)
    parts: list[Part] = []
    at = 0
    for name in sorted(shapes, key=lambda n: not decayed[n]):  # stable
        size = 1
        for length in shapes[name]:
            size *= length
        shape = tuple(shapes[name])
        parts.append(Part(name, at, at + size, shape, decayed[name], name == head))
        at += size
    return tuple(parts)
