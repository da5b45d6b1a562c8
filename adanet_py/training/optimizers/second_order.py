"""Optimizers that use the curvature, on the engine `separate`; no torch at import.

They step with a closure, several gradients a step, and are meant for small networks and large
batches: the static knob `sampling: full_batch` suits them best.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adanet_py.knob import Knob
from adanet_py.training.optimizers.optimizer import Optimizer

# Up to so many parameters a Newton step has the exact Hessian: P^2 numbers (8 MB in double
# precision at 1,000), P backward passes and an eigenvalue decomposition, some seconds a step.
# Beyond, conjugate gradient gets most of the way in far fewer passes.
EXACT_PARAMETERS = 1000

_LR = Knob(1.0, 0.0, 10.0, log=True, doc="share of the step that is taken")
_DECAY = Knob(
    0.0, 0.0, 10.0, log=True, doc="adds weight_decay / 2 |w|^2 to the loss, not of biases and norms"
)
_ITERATIONS = Knob(30, 1, 10_000, log=True, doc="products with the curvature of a step at most")


def _newton(groups: list[dict[str, Any]], hp: Mapping[str, float]) -> Any:
    from adanet_py.training.optimizers.newton import Newton

    return Newton(groups, hp["lr"], hp["damping"], round(hp["cg_iterations"]))


def _newton_passes(parameters: int, hp: Mapping[str, float]) -> float:
    # A product with the Hessian is the gradient of a gradient: two passes.
    return 2.0 + (parameters if parameters <= EXACT_PARAMETERS else 2.0 * hp["cg_iterations"])


def _newton_work(parameters: int, hp: Mapping[str, float]) -> str:
    if parameters <= EXACT_PARAMETERS:
        return f"exact Hessian of {parameters} parameters"
    return f"up to {hp['cg_iterations']:.0f} products with the Hessian of {parameters} parameters"


def _gauss_newton(groups: list[dict[str, Any]], hp: Mapping[str, float]) -> Any:
    from adanet_py.training.optimizers.newton import GaussNewton

    return GaussNewton(groups, hp["lr"], hp["damping"], round(hp["cg_iterations"]))


def _lbfgs(groups: list[dict[str, Any]], hp: Mapping[str, float]) -> Any:
    from adanet_py.training.optimizers.lbfgs import LBFGS

    return LBFGS(groups, hp["lr"], round(hp["history_size"]), round(hp["iterations"]))


NEWTON = Optimizer(
    "newton",
    f"damped Newton: w <- w - lr (H + damping I)^-1 g; exact to {EXACT_PARAMETERS} parameters, "
    "then by conjugate gradient",
    {
        "lr": _LR,
        "weight_decay": _DECAY,
        "damping": Knob(1e-2, 0.0, 1e6, log=True, doc="added to every curvature"),
        "cg_iterations": _ITERATIONS,
    },
    reference=_newton,
    engine="separate",
    passes=_newton_passes,
    work=_newton_work,
)
GAUSS_NEWTON = Optimizer(
    "gauss_newton",
    "Hessian-free: conjugate gradient on Gauss-Newton products, Levenberg-Marquardt damping "
    "(Martens 2010)",
    {
        "lr": _LR,
        "weight_decay": _DECAY,
        "damping": Knob(1.0, 0.0, 1e6, log=True, doc="added to every curvature, at the start"),
        "cg_iterations": _ITERATIONS,
    },
    reference=_gauss_newton,
    engine="separate",
    passes=lambda parameters, hp: 3.0 + 2.0 * hp["cg_iterations"],
    work=lambda parameters, hp: (
        f"up to {hp['cg_iterations']:.0f} products with the Gauss-Newton matrix of {parameters} "
        "parameters"
    ),
)
LBFGS = Optimizer(
    "lbfgs",
    "quasi-Newton with a short memory and a strong Wolfe line search (Liu and Nocedal 1989)",
    {
        "lr": _LR,
        "weight_decay": _DECAY,
        "history_size": Knob(10, 1, 1000, log=True, doc="changes of the gradient remembered"),
        "iterations": Knob(20, 1, 10_000, log=True, doc="iterations on one batch, a step"),
    },
    reference=_lbfgs,
    engine="separate",
    passes=lambda parameters, hp: 1.0 + 1.25 * hp["iterations"],
    work=lambda parameters, hp: f"{hp['iterations']:.0f} iterations with a line search",
)
