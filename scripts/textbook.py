"""Worked examples from the textbooks, by this package's own networks, optimizers and engines.

    python scripts/textbook.py

prints a table of what is reached beside what is known, in under a minute. Each example trains on
arrays as they are (`adanet_py.train_arrays`), the first three in float64 and by
full batches.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from adanet_py import Candidate, train_arrays
from adanet_py.console import print_table
from adanet_py.training.arrays import Trained
from adanet_py.training.diagnostics import diagnose


@dataclass(frozen=True)
class Example:
    """What was reached, and what is known to be right."""

    name: str
    found: str
    expected: str
    trained: Trained
    right: bool


def linear(optimizer: str, **numeric: float) -> Candidate:
    """A linear model, trained by full batches: an mlp without hidden layers."""
    static = {"depth": 0, "sampling": "full_batch"}
    return Candidate("mlp", static, optimizer, "constant", numeric)


def coefficients(trained: Trained) -> tuple[np.ndarray, np.ndarray]:
    """Weights [C, D] and biases [C] of the output layer."""
    state = {name: value.numpy() for name, value in trained.module.state_dict().items()}
    weight, bias = (next(v for n, v in state.items() if n.endswith(e)) for e in ("weight", "bias"))
    return weight, bias


def line() -> Example:
    """y = 2 x on five points: gradient descent on the mean squared error finds w = 2, b = 0."""
    x = np.arange(1.0, 6.0)
    # The curvature's largest eigenvalue is 23.7: below 2 / 23.7 = 0.084 descent converges.
    [trained] = train_arrays(
        [linear("sgd", lr=0.08, weight_decay=0.0)], x[:, None], 2 * x,
        task="regression", steps=1000, dtype="float64",
    )  # fmt: skip
    (w,), b = coefficients(trained)
    right = abs(w[0] - 2) < 1e-6 and abs(b[0]) < 1e-6
    return Example("y = 2 x", f"w = {w[0]:.7f}, b = {b[0]:.7f}", "w = 2, b = 0", trained, right)


def two_columns() -> Example:
    """[[1, 2], [2, 3], [3, 4], [4, 5]] -> [1, 2, 3, 4]: the loss falls below 1e-3.

    The second column is the first plus one, so that many weights are right; any will do.
    """
    x, y = np.array([[1, 2], [2, 3], [3, 4], [4, 5]]), np.array([1, 2, 3, 4])
    [trained] = train_arrays(
        [linear("sgd", lr=0.02, weight_decay=0.0)], x, y,
        task="regression", steps=1000, dtype="float64",
    )  # fmt: skip
    loss = float(np.mean((trained.predict(x) - y) ** 2))
    return Example(
        "four rows of two columns", f"loss {loss:.1e}", "loss < 1e-3", trained, loss < 1e-3
    )


def logistic() -> Example:
    """Logistic regression with L2 equals scikit-learn's on its breast cancer data.

    scikit-learn minimises sum of losses + |w|^2 / (2 C), so that of the mean loss the weight decay
    is 1 / (C N); the bias has none in either.
    """
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x, y)
    [trained] = train_arrays(
        [linear("nesterov", lr=0.25, momentum=0.95, weight_decay=1 / len(y))], x, y,
        task="binary", steps=2000, dtype="float64",
    )  # fmt: skip
    weight, bias = coefficients(trained)
    apart = max(np.abs(weight - reference.coef_).max(), np.abs(bias - reference.intercept_).max())
    return Example(
        "logistic regression", f"{apart:.1e} apart", "scikit-learn's to 1e-4", trained, apart < 1e-4
    )


def deep(norm: str) -> Trained:
    """Ten sigmoid layers of 32 units, on the breast cancer data."""
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    static = {"depth": 10, "width": 32, "activation": "sigmoid", "norm": norm, "batch_size": 128}
    candidate = Candidate("mlp", static, "momentum", "constant", {"lr": 0.05, "weight_decay": 0.0})
    [trained] = train_arrays([candidate], x, y, task="binary", steps=400)
    return trained


def problems(trained: Trained) -> set[str]:
    """What is named as wrong with a training."""
    return {p.name for p in diagnose(trained.curve, greater_is_better=False)}


def vanishing() -> Example:
    """Ten sigmoid layers: the gradient vanishes on its way back, and batch norm cures it.

    A sigmoid's slope is at most 1/4, so that ten of them divide a gradient by a million.
    """
    plain, cured = deep("none"), deep("batch")
    ratios = [t.curve[-1].depth_ratio for t in (plain, cured)]
    losses = [t.curve[-1].train_loss for t in (plain, cured)]
    named = ["vanishing gradients" in problems(t) for t in (plain, cured)]
    return Example(
        "ten sigmoid layers",
        f"gradient ratio {ratios[0]:.0e}, loss {losses[0]:.2f}; with batch norm "
        f"{ratios[1]:.0e}, {losses[1]:.2f}",
        "vanishes, and is cured",
        cured,
        named == [True, False] and losses[1] < losses[0] / 2,
    )


EXAMPLES = {
    "line": line,
    "two_columns": two_columns,
    "logistic": logistic,
    "vanishing": vanishing,
}


def main() -> None:
    """Run every example and print what it reached."""
    rows = []
    for example in EXAMPLES.values():
        start = time.perf_counter()
        done = example()
        seconds = time.perf_counter() - start
        steps, right = done.trained.curve[-1].step, "yes" if done.right else "NO"
        rows.append((done.name, done.found, done.expected, right, steps, f"{seconds:.1f} s"))
    print_table(rows, ("example", "found", "known", "right", "steps", "time"))


if __name__ == "__main__":
    main()
