"""L-BFGS with a strong Wolfe line search: torch.optim.LBFGS, with weight decay in the objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LBFGS(torch.optim.LBFGS):
    """Up to `iterations` steps along the direction the last `history_size` changes of the gradient
    give, each as long as the strong Wolfe conditions ask (Nocedal and Wright 2006, chapter 7).

    The learning rate is the length that is tried first. Every group's weight decay is a term
    (weight_decay / 2) |w|^2 of the objective. A loss that is not finite is held for infinite, which
    the line search avoids; where it is not at the start, the weights become so.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1.0,
        history_size: int = 10,
        iterations: int = 20,
    ) -> None:
        groups = list(groups)
        self.decays = [g.get("weight_decay", 0.0) for g in groups for _ in g["params"]]
        super().__init__(
            [p for g in groups for p in g["params"]],
            lr=lr,
            history_size=history_size,
            max_iter=iterations,
            line_search_fn="strong_wolfe",
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """Up to `iterations` iterations on one batch; returns the loss before them."""
        parameters = self.param_groups[0]["params"]

        def objective() -> Tensor:
            with torch.enable_grad():
                loss = closure().detach()
            with torch.no_grad():  # torch calls a closure with gradients on
                for p, decay in zip(parameters, self.decays, strict=True):
                    if decay:
                        loss = loss + 0.5 * decay * p.square().sum()
                        p.grad.add_(p, alpha=decay)
            return loss

        first = objective()
        finite = math.isfinite(first) and all(bool(p.grad.isfinite().all()) for p in parameters)
        if not finite:
            for p in parameters:
                p.fill_(torch.nan)
            return first
        if self.param_groups[0]["lr"] == 0.0:
            return first
        known = [first]

        def again() -> Tensor:
            loss = known.pop() if known else objective()
            if math.isfinite(loss):
                return loss
            # Infinite and without a slope: torch's search then halves the step, where it would
            # compute a length that is not a number from a slope.
            for p in parameters:
                p.grad.fill_(torch.nan)
            return torch.full_like(loss, torch.inf)

        super().step(again)
        return first
