"""Networks of which a share of the weights is exactly zero: which, and that they stay so.

A sparse network has the shape of a dense one. What is zero in its matrices (those weight decay
applies to: `layers.is_decayed`) when training begins is held there, on every engine: the gradient
is zero at those places before it is clipped or measured, and what an optimizer moves all the same
(one that mixes the entries of a matrix) is put back after its step, before weights are averaged.
So the places follow from the first weights alone, and nothing is stored for them. A matrix that is
zero throughout is held nowhere: it has only not begun to learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from adanet_py.architectures.layers import is_decayed
from adanet_py.training.optimizers import Part


def _size(matrices: Sequence[Tensor]) -> list[Tensor]:
    return [w.abs() for w in matrices]


def _ranked(matrices: Sequence[Tensor]) -> list[Tensor]:
    out = []
    for w in matrices:
        order = w.abs().flatten().argsort(stable=True)
        share = torch.empty(w.numel(), dtype=torch.float64)
        share[order] = torch.arange(w.numel(), dtype=torch.float64) / w.numel()
        out.append(share.view(w.shape))
    return out


def _relative(matrices: Sequence[Tensor]) -> list[Tensor]:
    out = []
    for w in matrices:
        square = w.double().square().flatten()
        order = square.argsort(stable=True)
        larger = square[order].flip(0).cumsum(0).flip(0)  # with its own
        score = torch.empty_like(square)
        score[order] = square[order] / larger.clamp(min=1e-300)
        out.append(score.view(w.shape))
    return out


# By what weights of different matrices are compared; in a matrix it is always by their size.
CRITERIA: Mapping[str, Callable[[Sequence[Tensor]], list[Tensor]]] = {
    "magnitude": _size,  # their size
    "layer": _ranked,  # their rank in their matrix: every matrix loses the same share
    "relative": _relative,  # their square over that of what would be left with them: LAMP
}


@torch.no_grad()
def zero_smallest(module: nn.Module, sparsity: float, criterion: str) -> None:
    """Make a share of the weights of all matrices zero: the smallest by one of `CRITERIA`.

    The number of zeros is `sparsity` times that of weights, rounded; what is zero already counts,
    but for matrices that are zero throughout. The largest weight of every matrix stays, for a layer
    of zeros would end the network.
    """
    matrices = _begun(module)
    if not matrices:
        return
    scores = [s.flatten().double() for s in CRITERIA[criterion](matrices)]
    for p, score in zip(matrices, scores, strict=True):
        score[p.abs().argmax()] = torch.inf
    every = torch.cat(scores)
    goes = torch.zeros_like(every, dtype=torch.bool)
    goes[every.argsort(stable=True)[: round(sparsity * len(every))]] = True
    goes &= every.isfinite()
    for p, part in zip(matrices, goes.split([len(s) for s in scores]), strict=True):
        p.masked_fill_(part.view(p.shape), 0.0)


def held(module: nn.Module) -> dict[str, Tensor]:
    """Where the weights of a module stay zero if it is trained on, by the names of its matrices."""
    named = module.named_parameters()
    zeros = {n: p.detach() == 0.0 for n, p in named if is_decayed(n, tuple(p.shape))}
    return {n: torch.zeros_like(z) if bool(z.all()) else z for n, z in zeros.items()}


def held_share(module: nn.Module) -> float:
    """The share of them in the matrices that are not zero throughout."""
    begun = _begun(module)
    zeros = sum(int((p == 0.0).sum()) for p in begun)
    return zeros / max(1, sum(p.numel() for p in begun))


def call_held(module: nn.Module, where: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
    """The module's outputs as no function of the weights `held`: nor is any derivative."""
    if not where:
        outputs: Tensor = module(*inputs)
        return outputs
    weights = {n: module.get_parameter(n).masked_fill(zero, 0.0) for n, zero in where.items()}
    return torch.func.functional_call(module, weights, inputs)


def put_back_zeros(module: nn.Module, where: Mapping[str, Tensor]) -> None:
    """Make the weights `held` zero again."""
    for name, zero in where.items():
        module.get_parameter(name).masked_fill_(zero, 0.0)


def held_columns(modules: Sequence[nn.Module], parts: Sequence[Part]) -> Tensor:
    """The same for members laid out as `parts` say: [K, D], D columns of matrices."""
    names = [part.name for part in parts if part.decayed]
    return torch.stack([torch.cat([held(m)[n].flatten() for n in names]) for m in modules])


def _begun(module: nn.Module) -> list[nn.Parameter]:
    named = module.named_parameters()
    return [p for n, p in named if is_decayed(n, tuple(p.shape)) and bool(p.any())]


def counts(modules: Sequence[nn.Module]) -> tuple[float, int]:
    """The share of exact zeros in the weight matrices, and how many parameters are not zero."""
    zeros = weights = other = 0
    for module in modules:
        for name, p in module.named_parameters():
            count = int(torch.count_nonzero(p))
            other += count
            if is_decayed(name, tuple(p.shape)):
                zeros += p.numel() - count
                weights += p.numel()
    return zeros / max(1, weights), other
