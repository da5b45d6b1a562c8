"""What a network costs: parameters, multiply-adds, latency, bytes, layers, and its capacity."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adanet_py.architectures.layers import is_hidden_matrix
from adanet_py.training.engines.program import Program, numeric_values

LATENCY_ROWS = 1000
TENSOR_BYTES = 160  # of the header of a model file for each tensor: its name, type, shape and place


@dataclass(frozen=True)
class Cost:
    """What one candidate of a family costs, all folds together; known before it is trained.

    `size_bytes` is that of its model file, at most; `layers` the hidden weight matrices of one
    network.
    """

    parameters: int
    multiply_adds: int  # per row
    latency_ms: float  # for LATENCY_ROWS rows, the median of three
    size_bytes: int
    layers: int

    def parts(self) -> dict[str, Any]:
        """By the names of a `Result`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def measure(program: Program, model_bytes: int = 0) -> Cost:
    """Count and time the family's network on the device; `model_bytes`: a file without weights.

    Multiply-adds come from the architecture's own estimate, else one per entry of a weight matrix:
    torch's counter would import its compiler, which takes longer than training a small group.
    """
    module = program.build(0).eval()
    rows = torch.arange(min(LATENCY_ROWS, len(program.data.target)), device=program.device)
    numeric, category = program.data.numeric[rows], program.data.category[rows]
    times = []
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            module(numeric, category).sum().item()
            times.append(time.perf_counter() - start)
    scale = program.folds
    parameters = sum(p.numel() for p in module.parameters())
    estimate = program.architecture.multiply_adds
    if estimate is not None:
        static = program.architecture.complete(program.candidates[0].static)
        cost = estimate(static, program.spec)
    else:
        cost = sum(p.numel() for p in module.parameters() if p.dim() > 1)
    state = module.state_dict().values()
    # Models are saved in single precision whatever they are trained in.
    size = sum(4 * t.numel() if t.is_floating_point() else t.nbytes for t in state)
    return Cost(
        parameters * scale,
        cost * scale,
        sorted(times)[1] * 1e3 * LATENCY_ROWS / max(1, len(rows)) * scale,
        model_bytes + (size + TENSOR_BYTES * len(state)) * scale,
        max(0, len(_matrices(dict(module.named_parameters()))) - 1),
    )


def capacity(weights: Mapping[str, Tensor], program: Program) -> float:
    """Logarithm to base 10 of a bound on the network's Rademacher complexity, a mean over folds.

    Lemma 2 of Cortes et al. 2017 (AdaNet), there for the l_p balls of all layers, taken with p = 1
    and the norms the trained weights have, in units of the largest input:

        R <= prod_s 2 L_s sqrt(log(2 n) / (2 m)),   L_s = max over units of sum |incoming weights|

    n inputs, m training rows. Norms, gates and shortcuts are no part of the lemma and are passed
    over, so it orders networks and bounds those without them. NaN for a network without a matrix.

    `weights` by fold and name, as "0/body.0.weight".
    """
    found = []
    for f, rows in enumerate(program.order.rows):
        prefix = f"{f}/"
        own = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        matrices = _matrices(own)
        if not matrices:
            return math.nan
        found.append(lemma_2(matrices, len(rows)))
    return sum(found) / len(found)


def lemma_2(matrices: Sequence[Tensor], rows: int) -> float:
    """The logarithm of the bound in `capacity` for layers with these weights, m = `rows`.

    Matrices are [out, in], or [n, in, out] where there are n of them.
    """
    inputs = matrices[0].shape[-1 if matrices[0].dim() == 2 else -2]
    total = 0.5 * math.log10(math.log(2.0 * max(1, inputs)) / (2.0 * rows))
    for w in matrices:
        norm = float(w.abs().sum(-1 if w.dim() == 2 else -2).amax())
        total += math.log10(2.0 * norm) if norm > 0.0 else -math.inf
    return total


def _matrices(weights: Mapping[str, Tensor]) -> list[Tensor]:
    """The weight matrices behind the inputs, in order."""
    return [w for name, w in weights.items() if is_hidden_matrix(name, tuple(w.shape))]


def cost_note(program: Program) -> str:
    """What a step of a costly optimizer is, before the first is taken; empty for others."""
    optimizer = program.optimizer
    if optimizer.work is None:
        return ""
    hp = numeric_values(optimizer, program.candidates[0])
    parameters = sum(p.numel() for p in program.build(0).parameters())
    return (
        f"{optimizer.name}: {optimizer.work(parameters, hp)}, one step costs up to "
        f"{optimizer.passes(parameters, hp):.0f} gradients of the batch."
    )
