"""What a loss is: a value per member and row, the data it suits, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from adanet_py.data.spec import DataSpec
from adanet_py.metrics.metric import Domain

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """One training loss.

    `rows(outputs [K, B, M, C], target [K or 1, B], hp)` -> [K, B] is the mean over the M implicit
    members of their losses; `hp` maps every numeric hyperparameter to [K, 1]. Several targets at
    once are [K or 1, B, T], with C = T outputs, and the mean is over them too. `tasks` it is meant
    for. `needs` names the fields of `DataSpec` that `rows` and `link` take as keywords besides.

    `link(outputs)` makes standardised values of raw outputs, elementwise, where these are neither
    that nor logits. `log_link`: whether raw outputs are logs of a mean, to which a log
    exposure may be added. `domain`: the numbers a target may hold. `knobs`: the hyperparameters it
    reads. `metric`: what a run with it is judged by unless told; a run judged by that metric is, in
    turn, trained with it.
    """

    name: str
    summary: str
    tasks: tuple[str, ...]
    rows: Callable[..., Tensor]
    knobs: tuple[str, ...] = ()
    metric: str | None = None
    link: Callable[..., Tensor] | None = None
    log_link: bool = False
    domain: Domain | None = None
    needs: tuple[str, ...] = ()

    def of(self, spec: DataSpec) -> Loss:
        """This loss for the data at hand: nothing is needed any more."""
        if not self.needs:
            return self
        values = {name: getattr(spec, name) for name in self.needs}
        link = None if self.link is None else partial(self.link, **values)
        return replace(self, rows=partial(self.rows, **values), link=link, needs=())


def columns(target: Tensor) -> Tensor:
    """A target [K, B] or [K, B, T] beside outputs [K, B, M, T]: [K, B, 1, T]."""
    return (target.unsqueeze(-1) if target.dim() == 2 else target).unsqueeze(-2)


def knob(hp: Mapping[str, Tensor], name: str) -> Tensor:
    """A hyperparameter [K, 1] beside outputs [K, B, M, C]: [K, 1, 1, 1]."""
    return hp[name].unsqueeze(-1).unsqueeze(-1)
