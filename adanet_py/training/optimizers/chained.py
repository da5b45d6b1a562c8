"""A chain of transforms as a torch.optim optimizer of one ordinary module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from adanet_py.training.optimizers.optimizer import Optimizer, Part, Step


class ChainedOptimizer(torch.optim.Optimizer):
    """Steps `optimizer` on the parameters of one member, laid out as `parts` say.

    The learning rate is read from the first parameter group at every step, as schedules set it.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parts: tuple[Part, ...],
        named: Iterable[tuple[str, Tensor]],
        hp: Mapping[str, float],
    ) -> None:
        by_name = dict(named)
        super().__init__([by_name[p.name] for p in parts], {"lr": hp["lr"]})
        self.optimizer = optimizer
        self.parts = parts
        first = self.param_groups[0]["params"][0]
        self.hp = {n: first.new_tensor([[v]]) for n, v in hp.items()}
        self.decayed = sum(p.stop - p.start for p in parts if p.decayed)
        bias_decay = hp.get("bias_decay", 0.0)
        self.bias_decay = first.new_tensor([[bias_decay]]) if bias_decay else None
        self.zero = frozenset(n for n, v in hp.items() if v == 0)

    def _row(self, tensors: Iterable[Tensor]) -> Tensor:
        return torch.cat([t.detach().reshape(-1) for t in tensors]).unsqueeze(0)

    def slots(self, w: Tensor) -> dict[str, Tensor]:
        """The state, kept with the first parameter so that `state_dict` carries it."""
        state: dict[str, Any] = self.state[self.param_groups[0]["params"][0]]
        if "t" not in state:
            state.update(self.optimizer.start(w) | {"t": w.new_zeros(1, 1)})
        return state

    def evaluated(self) -> list[Tensor]:
        """The weights to evaluate with, one tensor per part, in the order of the parts."""
        w = self._row(self.param_groups[0]["params"])
        if self.optimizer.evaluated is not None:
            w = self.optimizer.evaluated(w, self.slots(w), self.hp)
        return [part.view(w)[0] for part in self.parts]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients the parameters hold."""
        group = self.param_groups[0]
        params = group["params"]
        w, g = self._row(params), self._row(p.grad for p in params)
        slots = self.slots(w)
        slots["t"] += 1
        lr = w.new_tensor([[group["lr"]]])
        step = Step(
            w, self.hp, lr, slots["t"], self.decayed, self.parts, self.bias_decay, self.zero
        )
        self.optimizer.update(g, slots, step)
        for param, part in zip(params, self.parts, strict=True):
            param.copy_(part.view(w)[0])
