"""Newton, Gauss-Newton and L-BFGS: against dense solutions, on problems with known answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from adanet_py.training.optimizers import OPTIMIZERS
from adanet_py.training.optimizers import newton as newton_module
from adanet_py.training.optimizers.curvature import (
    conjugate_gradient,
    flat,
    gauss_newton_product,
    hessian,
    hessian_product,
    solve,
)
from adanet_py.training.optimizers.objective import Piece

CURVED = ["newton", "gauss_newton", "lbfgs"]


class Problem:
    """An objective without a network: outputs of the parameters, and a loss of the outputs."""

    def __init__(
        self,
        parameters: Sequence[Tensor],
        outputs: Callable[..., Tensor],
        loss: Callable[[Tensor], Tensor],
        parts: int = 1,
    ) -> None:
        self.parameters = [p.clone().double().requires_grad_() for p in parameters]
        self.outputs, self.loss, self.parts = outputs, loss, parts
        self.calls = 0

    def pieces(self) -> Iterator[Piece]:
        for _ in range(self.parts):
            yield Piece(self.outputs(*self.parameters), lambda z: self.loss(z) / self.parts)

    def value(self) -> Tensor:
        with torch.no_grad():
            return sum((p.loss(p.outputs) for p in self.pieces()), torch.tensor(0.0))

    def __call__(self) -> Tensor:
        self.calls += 1
        for p in self.parameters:
            p.grad = torch.zeros_like(p)
        with torch.enable_grad():
            for piece in self.pieces():
                piece.loss(piece.outputs).backward()
        return self.value()

    def optimizer(self, name: str, decay: float = 0.0, **hp: float) -> Any:
        entry = OPTIMIZERS[name]
        groups = [
            {"params": self.parameters[:1], "weight_decay": decay},
            {"params": self.parameters[1:], "weight_decay": 0.0},
        ]
        assert entry.reference is not None
        return entry.reference(groups, entry.complete(hp))

    @property
    def w(self) -> np.ndarray:
        return flat([p.detach() for p in self.parameters]).numpy()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


X, Y = random(30, 4), random(30, seed=1)


def least_squares(parts: int = 1) -> Problem:
    """A linear model with a bias: quadratic in both."""
    return Problem(
        [random(4, seed=2), random(1, seed=3)],
        lambda w, b: X @ w + b,
        lambda z: (z - Y).square().mean(),
        parts,
    )


def network(parts: int = 1) -> Problem:
    """Tanh units under a softplus: not convex in the weights, convex in the outputs."""
    return Problem(
        [random(4, 3, seed=4), random(3, seed=5)],
        lambda w, v: torch.tanh(X @ w) @ v,
        lambda z: torch.nn.functional.softplus(-z * Y.sign()).mean(),
        parts,
    )


def rosenbrock() -> Problem:
    """100 (y - x^2)^2 + (1 - x)^2 as a sum of squares, from (-1.2, 1)."""
    return Problem(
        [torch.tensor([-1.2]), torch.tensor([1.0])],
        lambda x, y: torch.cat([10.0 * (y - x * x), 1.0 - x]),
        lambda z: z.square().sum(),
    )


def dense_hessian(problem: Problem) -> np.ndarray:
    def whole(vector: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in problem.parameters])
        shaped = [v.view_as(p) for v, p in zip(parts, problem.parameters, strict=True)]
        return problem.loss(problem.outputs(*shaped))

    return torch.autograd.functional.hessian(whole, torch.from_numpy(problem.w)).numpy()


def dense_gauss_newton(problem: Problem) -> np.ndarray:
    def outputs(vector: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in problem.parameters])
        shaped = [v.view_as(p) for v, p in zip(parts, problem.parameters, strict=True)]
        return problem.outputs(*shaped)

    at = torch.from_numpy(problem.w)
    jacobian = torch.autograd.functional.jacobian(outputs, at).numpy()
    bent = torch.autograd.functional.hessian(problem.loss, outputs(at)).numpy()
    return jacobian.T @ bent @ jacobian


# ------------------------------------------------------------------ the parts


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("make", [least_squares, network])
def test_curvature_equals_the_dense_matrices(make: Callable[[int], Problem], parts: int) -> None:
    problem = make(parts)
    dense, gauss = dense_hessian(problem), dense_gauss_newton(problem)
    found = hessian(problem, problem.parameters).numpy()
    np.testing.assert_allclose(found, dense, rtol=1e-10, atol=1e-12)
    by_hessian = hessian_product(problem, problem.parameters)
    by_gauss = gauss_newton_product(problem, problem.parameters)
    for seed in range(3):
        v = random(len(dense), seed=10 + seed)
        np.testing.assert_allclose(by_hessian(v), dense @ v.numpy(), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(by_gauss(v), gauss @ v.numpy(), rtol=1e-10, atol=1e-12)
    assert np.linalg.eigvalsh(gauss).min() > -1e-12


def test_solving_equals_numpy_and_turns_negative_curvature_around() -> None:
    a = random(6, 6)
    b, convex = random(6, seed=1), a @ a.T + torch.eye(6)
    expected = np.linalg.solve(convex.numpy() + 0.3 * np.eye(6), b.numpy())
    np.testing.assert_allclose(solve(convex, b, 0.3), expected, rtol=1e-10)
    x, missing = conjugate_gradient(lambda v: convex @ v + 0.3 * v, b, 50)
    np.testing.assert_allclose(x, expected, rtol=1e-6)
    np.testing.assert_allclose(missing, b - (convex @ x + 0.3 * x), atol=1e-9)
    bent = a + a.T
    values, vectors = np.linalg.eigh(bent.numpy())
    assert values.min() < -0.1
    turned = (vectors / (np.abs(values) + 0.3)) @ vectors.T @ b.numpy()
    np.testing.assert_allclose(solve(bent, b, 0.3), turned, rtol=1e-10)
    for iterations in (1, 3, 50):
        x, missing = conjugate_gradient(lambda v: bent @ v, b, iterations)
        assert x @ b > 0  # downhill, with b minus the gradient
        np.testing.assert_allclose(missing, b - bent @ x, atol=1e-9)
    x, _ = conjugate_gradient(lambda v: -2.0 * v, b, 5)
    np.testing.assert_allclose(x, b / 2.0)


def test_directions_without_curvature_are_left_out() -> None:
    b = torch.ones(3, dtype=torch.float64)
    matrix = torch.diag(torch.tensor([4.0, 0.0, 1.0], dtype=torch.float64))
    np.testing.assert_allclose(solve(matrix, b, 0.0), [0.25, 0.0, 1.0])
    np.testing.assert_allclose(conjugate_gradient(lambda v: 0.0 * v, b, 5)[0], [0.0] * 3)


# ------------------------------------------------------------------ one step


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("limit", [1000, 0])
def test_a_newton_step_solves_a_quadratic(
    limit: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newton_module, "EXACT_PARAMETERS", limit)
    problem = least_squares(parts)
    problem.optimizer("newton", damping=0.0, lr=1.0).step(problem)
    ones = np.column_stack([X, np.ones(len(X))])
    expected = np.linalg.lstsq(ones, Y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(problem.w, expected, rtol=1e-10 if limit else 1e-5)


@pytest.mark.parametrize("name", ["gauss_newton", "lbfgs"])
def test_the_others_solve_a_quadratic_in_one_step_too(name: str) -> None:
    problem = least_squares()
    settings = {"gauss_newton": {"damping": 0.0}, "lbfgs": {"iterations": 40.0}}
    problem.optimizer(name, **settings[name]).step(problem)
    ones = np.column_stack([X, np.ones(len(X))])
    expected = np.linalg.lstsq(ones, Y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(problem.w, expected, rtol=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.7])
@pytest.mark.parametrize("lr", [1.0, 0.3])
def test_a_newton_step_is_its_formula(lr: float, decay: float) -> None:
    problem = network()
    problem()
    bend = np.diag([decay] * 12 + [0.0] * 3)  # the first group alone decays
    g = flat([p.grad for p in problem.parameters]).numpy() + bend @ problem.w
    matrix = dense_hessian(problem) + bend
    damping = 0.1 - min(0.0, float(np.linalg.eigvalsh(matrix).min()))
    values, vectors = np.linalg.eigh(matrix)
    inverse = (vectors / (np.abs(values) + damping)) @ vectors.T
    expected = problem.w - lr * inverse @ g
    problem.optimizer("newton", decay, damping=damping, lr=lr).step(problem)
    np.testing.assert_allclose(problem.w, expected, rtol=1e-9, atol=1e-12)


def test_a_gauss_newton_step_is_its_formula_and_moves_the_damping() -> None:
    problem = network()
    problem()
    g = flat([p.grad for p in problem.parameters]).numpy() + 0.2 * problem.w * (np.arange(15) < 12)
    matrix = dense_gauss_newton(problem) + np.diag([0.2] * 12 + [0.0] * 3) + 0.5 * np.eye(15)
    expected = problem.w - np.linalg.solve(matrix, g)
    optimizer = problem.optimizer("gauss_newton", 0.2, damping=0.5, cg_iterations=60)
    optimizer.step(problem)
    np.testing.assert_allclose(problem.w, expected, rtol=1e-5, atol=1e-7)
    assert optimizer.state[problem.parameters[0]]["damping"] == pytest.approx(0.5 * 2 / 3)


def test_a_gauss_newton_step_never_raises_the_loss_of_its_batch() -> None:
    problem = rosenbrock()
    optimizer = problem.optimizer("gauss_newton", damping=0.0)
    losses, dampings = [float(problem.value())], []
    for _ in range(25):
        optimizer.step(problem)
        losses.append(float(problem.value()))
        dampings.append(optimizer.state[problem.parameters[0]]["damping"])
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-12


def test_a_bad_step_raises_the_damping() -> None:
    problem = Problem(
        [torch.tensor([2.0])], lambda x: torch.atan(x), lambda z: z.square().sum()
    )  # a Gauss-Newton step from here overshoots far
    optimizer = problem.optimizer("gauss_newton", damping=1e-6)
    before = float(problem.value())
    optimizer.step(problem)
    assert optimizer.state[problem.parameters[0]]["damping"] == pytest.approx(1.5e-6)
    assert float(problem.value()) < before  # a shorter one was taken


# ------------------------------------------------------------------ to the optimum


@pytest.mark.parametrize(
    ("name", "hp", "steps"),
    [
        ("newton", {"damping": 1e-6}, 200),
        ("gauss_newton", {"damping": 1e-3}, 60),
        ("lbfgs", {}, 6),
    ],
)
def test_converges_on_rosenbrock(name: str, hp: dict[str, float], steps: int) -> None:
    problem = rosenbrock()
    optimizer = problem.optimizer(name, **hp)
    for _ in range(steps):
        optimizer.step(problem)
    np.testing.assert_allclose(problem.w, [1.0, 1.0], atol=1e-5)


@pytest.mark.parametrize("name", CURVED)
def test_logistic_regression_reaches_the_optimum_of_scipy(name: str) -> None:
    sign = (Y + X[:, 0]).sign()

    def make() -> Problem:
        return Problem(
            [torch.zeros(4), torch.zeros(1)],
            lambda w, b: X @ w + b,
            lambda z: torch.nn.functional.softplus(-sign * z).mean(),
        )

    problem = make()
    optimizer = problem.optimizer(name, 0.1, damping=0.0 if name == "newton" else 1e-3)
    for _ in range(15):
        optimizer.step(problem)
    x, s = X.numpy(), sign.numpy()

    def objective(v: np.ndarray) -> float:
        return float(np.logaddexp(0, -s * (x @ v[:4] + v[4])).mean() + 0.05 * (v[:4] ** 2).sum())

    best = minimize(objective, np.zeros(5), tol=1e-14)
    assert objective(problem.w) <= best.fun + 1e-9
    np.testing.assert_allclose(problem.w, best.x, atol=1e-4)


def test_lbfgs_without_decay_is_that_of_torch() -> None:
    mine, theirs = network(), network()
    ours = mine.optimizer("lbfgs", iterations=5.0, history_size=4.0)
    reference = torch.optim.LBFGS(
        theirs.parameters, lr=1.0, max_iter=5, history_size=4, line_search_fn="strong_wolfe"
    )
    for _ in range(4):
        ours.step(mine)
        reference.step(theirs)
    assert np.array_equal(mine.w, theirs.w)
    assert mine.calls == theirs.calls


# ------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("name", CURVED)
def test_learning_rate_zero_changes_nothing(name: str) -> None:
    problem = network()
    before = problem.w.copy()
    optimizer = problem.optimizer(name, 0.5, lr=0.0)
    for _ in range(3):
        optimizer.step(problem)
    assert np.array_equal(problem.w, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", CURVED)
def test_a_gradient_that_is_not_finite_ends_in_weights_that_are_not(name: str, bad: float) -> None:
    problem = Problem([torch.tensor([1.0])], lambda x: x * bad, lambda z: z.sum())
    optimizer = problem.optimizer(name)
    for _ in range(2):
        optimizer.step(problem)
    assert not np.isfinite(problem.w).any()


@pytest.mark.parametrize("name", ["gauss_newton", "lbfgs"])
def test_a_loss_without_a_value_ahead_is_kept_away_from(name: str) -> None:
    # minus log x + x: a step from 3 that looks at the slope alone ends below zero
    problem = Problem([torch.tensor([3.0])], lambda x: x, lambda z: (10.0 * z - torch.log(z)).sum())
    optimizer = problem.optimizer(name, damping=1e-3, lr=1.0)
    for _ in range(30):
        optimizer.step(problem)
    np.testing.assert_allclose(problem.w, [0.1], rtol=1e-3)
