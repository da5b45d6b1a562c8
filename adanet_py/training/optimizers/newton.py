"""Damped Newton and Hessian-free (Gauss-Newton) steps as torch.optim optimizers with a closure.

Weight decay is a term (weight_decay / 2) |w|^2 of the objective, so it is in the gradient and in
the curvature. A gradient that is not finite makes the weights so: the candidate has diverged.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from adanet_py.training.optimizers.curvature import (
    conjugate_gradient,
    flat,
    gauss_newton_product,
    hessian,
    hessian_product,
    solve,
    unflat,
)
from adanet_py.training.optimizers.objective import Objective
from adanet_py.training.optimizers.second_order import EXACT_PARAMETERS

BACKTRACKS = 5  # lengths of a Gauss-Newton step that are tried, each half of the one before


class _Flat(torch.optim.Optimizer):
    """What both share: all parameters as one vector, and weight decay as part of the objective."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, iterations: int) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self.iterations = iterations

    @property
    def parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    @property
    def rate(self) -> float:
        return float(self.param_groups[0]["lr"])

    def decay(self) -> Tensor:
        """The weight decay of every number [P]."""
        return flat(
            [
                torch.full_like(p, group["weight_decay"])
                for group in self.param_groups
                for p in group["params"]
            ]
        )

    def gradient(self) -> Tensor:
        """Of the objective, from the gradients in place."""
        slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        return flat(slopes) + self.decay() * flat(self.parameters)

    def write(self, weights: Tensor) -> None:
        """Make `weights` [P] the parameters."""
        for p, value in zip(self.parameters, unflat(weights, self.parameters), strict=True):
            p.copy_(value)


class Newton(_Flat):
    """w <- w - lr (H + damping I)^-1 g.

    With at most EXACT_PARAMETERS parameters H is exact, and its eigenvalues count by their absolute
    values (see `solve`); with more the system is solved by conjugate gradient on Hessian-vector
    products, which stops at negative curvature.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1.0,
        damping: float = 0.0,
        iterations: int = 30,
    ) -> None:
        super().__init__(groups, lr, iterations)
        self.damping = damping

    @torch.no_grad()
    def step(self, closure: Objective) -> Tensor:  # type: ignore[override]
        """One step; returns the loss before it."""
        with torch.enable_grad():
            loss = closure()
        w, g = flat(self.parameters), self.gradient()
        if self.rate == 0.0:
            return loss
        self.write(w - self.rate * self._direction(closure, g))
        return loss

    def _direction(self, objective: Objective, g: Tensor) -> Tensor:
        if not bool(g.isfinite().all()):
            return torch.full_like(g, torch.nan)
        decay = self.decay()
        if len(g) <= EXACT_PARAMETERS:
            matrix = hessian(objective, self.parameters)
            matrix += torch.diag(decay)
            if not bool(matrix.isfinite().all()):
                return torch.full_like(g, torch.nan)
            return solve(matrix, g, self.damping)
        product = hessian_product(objective, self.parameters)
        extra = decay + self.damping
        return conjugate_gradient(lambda v: product(v) + extra * v, g, self.iterations)[0]


class GaussNewton(_Flat):
    """Hessian-free optimization (Martens 2010): w <- w + lr d with (G + damping I) d = -g.

    G is the Gauss-Newton matrix of the batch, the system is solved by conjugate gradient from zero.
    A step that raises the loss of its batch is halved, four times at most, and not taken if that
    does not help. With rho = (f(w + d) - f(w)) / (g d + d (G + damping I) d / 2) of the full step,
    damping grows by 3/2 where rho < 1/4 and shrinks by 2/3 where rho > 3/4 (Levenberg, Marquardt).
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1.0,
        damping: float = 1.0,
        iterations: int = 30,
    ) -> None:
        super().__init__(groups, lr, iterations)
        self.start = damping

    @torch.no_grad()
    def step(self, closure: Objective) -> Tensor:  # type: ignore[override]
        """One step; returns the loss before it."""
        with torch.enable_grad():
            loss = closure()
        w, g = flat(self.parameters), self.gradient()
        if self.rate == 0.0:
            return loss
        if not bool(g.isfinite().all()):
            self.write(torch.full_like(w, torch.nan))
            return loss
        state = self.state[self.parameters[0]]
        damping = state.setdefault("damping", self.start)
        product = gauss_newton_product(closure, self.parameters)
        extra = self.decay() + damping
        d, missing = conjugate_gradient(lambda v: product(v) + extra * v, -g, self.iterations)
        slope, bend = float(g @ d), -float(d @ (g + missing))  # d A d, for A d = -g - missing
        before, rate, taken = float(loss) + self._penalty(w), self.rate, False
        for i in range(BACKTRACKS):
            self.write(w + rate * d)
            change = float(closure.value()) + self._penalty(w + rate * d) - before
            if i == 0:
                model = rate * slope + 0.5 * rate * rate * bend
                state["damping"] = _next_damping(damping, change / model if model else 0.0)
            if taken := change <= 0.0:
                break
            rate *= 0.5
        if not taken:
            self.write(w)
        return loss

    def _penalty(self, w: Tensor) -> float:
        return 0.5 * float((self.decay() * w * w).sum())


def _next_damping(damping: float, rho: float) -> float:
    if rho > 0.75:
        return damping * 2.0 / 3.0
    return damping if rho >= 0.25 else damping * 1.5
