"""Curvature of a loss: its Hessian, products with it or with the Gauss-Newton matrix, and solves.

Vectors are flat [P], all parameters one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from adanet_py.training.optimizers.objective import Objective, Piece

CHUNK = 16  # rows of the Hessian from one backward pass; more do not fit into a processor's cache

Product = Callable[[Tensor], Tensor]
Ready = TypeVar("Ready")


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """One vector [P]."""
    return torch.cat([t.reshape(-1) for t in tensors])


def unflat(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Inverse of `flat`."""
    parts = vector.split([t.numel() for t in like])
    return [part.view_as(t) for part, t in zip(parts, like, strict=True)]


def hessian(objective: Objective, parameters: Sequence[Tensor]) -> Tensor:
    """The matrix of second derivatives [P, P], in P backward passes of the gradient."""
    size = sum(p.numel() for p in parameters)
    total = parameters[0].new_zeros(size, size)
    with torch.enable_grad():
        for piece in objective.pieces():
            slopes = _gradient(piece.loss(piece.outputs), parameters, create_graph=True)
            if not slopes.requires_grad:  # linear in every parameter
                continue
            for start in range(0, size, CHUNK):
                stop = min(size, start + CHUNK)
                rows = slopes.new_zeros(stop - start, size)
                rows.diagonal(start).fill_(1.0)
                found = torch.autograd.grad(
                    slopes,
                    parameters,
                    rows,
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                    is_grads_batched=True,
                )
                total[start:stop] += torch.cat([f.reshape(stop - start, -1) for f in found], 1)
    return (total + total.T) / 2


class _Graphs(Generic[Ready]):
    """What `prepare` makes of every piece, again at each turn.

    Where there is only one it is kept; a batch was cut because all of it is too much to keep.
    """

    def __init__(self, objective: Objective, prepare: Callable[[Piece], Ready]) -> None:
        self.objective, self.prepare = objective, prepare
        self.kept: list[Ready] = []

    def __iter__(self) -> Iterator[Ready]:
        if self.kept:
            yield self.kept[0]
            return
        count = 0
        for piece in self.objective.pieces():
            ready, count = self.prepare(piece), count + 1
            yield ready
        if count == 1:
            self.kept.append(ready)


def hessian_product(objective: Objective, parameters: Sequence[Tensor]) -> Product:
    """v -> H v: the gradient of v . gradient (Pearlmutter 1994)."""

    def prepare(piece: Piece) -> Tensor:
        return _gradient(piece.loss(piece.outputs), parameters, create_graph=True)

    graphs = _Graphs(objective, prepare)

    def product(v: Tensor) -> Tensor:
        out = torch.zeros_like(v)
        with torch.enable_grad():
            for slopes in graphs:
                if slopes.requires_grad:  # not linear in every parameter
                    out += _gradient(slopes, parameters, v)
        return out

    return product


def gauss_newton_product(objective: Objective, parameters: Sequence[Tensor]) -> Product:
    """v -> J^T L J v: J the outputs' Jacobian, L the loss's Hessian in them (Schraudolph 2002).

    It is the Hessian of the loss with the network made linear, never negative where the loss is
    convex in the outputs.
    """

    def prepare(piece: Piece) -> tuple[Tensor, ...]:
        # J v is the derivative by u of v . J^T u, which is linear in u.
        u = torch.zeros_like(piece.outputs, requires_grad=True)
        back = _gradient(piece.outputs, parameters, u, create_graph=True)
        z = piece.outputs.detach().requires_grad_()
        slopes = torch.autograd.grad(piece.loss(z), z, create_graph=True)[0]
        return piece.outputs, u, back, z, slopes

    graphs = _Graphs(objective, prepare)

    def product(v: Tensor) -> Tensor:
        out = torch.zeros_like(v)
        with torch.enable_grad():
            for outputs, u, back, z, slopes in graphs:
                if slopes.requires_grad:  # not linear in the outputs
                    forward = torch.autograd.grad(back, u, v, retain_graph=True)[0]
                    bent = torch.autograd.grad(slopes, z, forward, retain_graph=True)[0]
                    out += _gradient(outputs, parameters, bent)
        return out

    return product


def _gradient(
    value: Tensor,
    parameters: Sequence[Tensor],
    direction: Tensor | None = None,
    create_graph: bool = False,
) -> Tensor:
    found = torch.autograd.grad(
        value,
        parameters,
        direction,
        create_graph=create_graph,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return flat(found)


def solve(matrix: Tensor, b: Tensor, damping: float) -> Tensor:
    """(|A| + damping I)^-1 b for a symmetric A, with |A| its matrix of absolute eigenvalues.

    Where A has no negative eigenvalue that is (A + damping I)^-1 b; where it has, the step still
    goes downhill (saddle-free Newton, Dauphin et al. 2014). Directions without curvature, whose
    step would be infinite, are left out.
    """
    values, vectors = torch.linalg.eigh(matrix.double())
    bent = values.abs() + damping
    bound = torch.finfo(b.dtype).eps * len(b) * bent.max()
    shares = vectors.T @ b.double()
    return (vectors @ torch.where(bent > bound, shares / bent, 0.0)).to(b.dtype)


def conjugate_gradient(product: Product, b: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """x with A x = b as far as so many products bring it, and what is missing, b - A x.

    Ends early at a residual of sqrt(epsilon) times |b|, and at a direction d of negative curvature
    (Nocedal and Wright 2006, algorithm 7.1) with what it has: where that is the first, along b by
    the length its absolute curvature gives. x . b > 0 in any case.
    """
    x, r = torch.zeros_like(b), b.clone()
    d, square = r.clone(), r @ r
    goal = square * torch.finfo(b.dtype).eps
    for i in range(iterations):
        if square <= goal:
            break
        bent = product(d)
        curvature = d @ bent
        if not curvature > 0.0:
            if i == 0 and curvature < 0.0:
                x, r = d * (square / -curvature), r - bent * (square / -curvature)
            break
        length = square / curvature
        x, r = x + length * d, r - length * bent
        before, square = square, r @ r
        d = r + d * (square / before)
    return x, r
