"""The textbooks' worked examples come out, on either engine and by every candidate of a group."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from adanet_py import Candidate, train_arrays
from adanet_py.errors import ConfigError, DataError, SpaceError
from adanet_py.records import Status

SCRIPT = Path(__file__).parents[1] / "scripts" / "textbook.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("textbook", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["textbook"] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


textbook = _load()


@pytest.mark.parametrize("name", sorted(textbook.EXAMPLES))
def test_every_example_comes_out(name: str) -> None:
    example = textbook.EXAMPLES[name]()
    assert example.right, f"{example.name}: {example.found}, not {example.expected}"
    assert example.trained.status is Status.COMPLETE


def test_the_line_is_found_to_seven_digits_and_its_loss_falls_at_every_evaluation() -> None:
    trained = textbook.line().trained
    (w,), b = textbook.coefficients(trained)
    assert (w[0], b[0]) == pytest.approx((2.0, 0.0), abs=1e-7)
    losses = [e.train_loss for e in trained.curve]
    assert losses == sorted(losses, reverse=True)
    np.testing.assert_allclose(trained.predict([[10.0], [-1.0]]), [20.0, -2.0], atol=1e-5)


def test_the_script_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    textbook.main()
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == len(textbook.EXAMPLES) + 1
    assert " NO " not in printed


@pytest.mark.parametrize("engine", ["stacked", "separate"])
def test_gradient_descent_on_arrays_is_that_of_the_formula(engine: str) -> None:
    """w <- w - lr grad, by hand; two learning rates in one group, with row weights."""
    rng = np.random.default_rng(0)
    x, y, weight = rng.normal(size=(7, 2)), rng.normal(size=7), rng.uniform(0.5, 2, 7)
    candidates = [textbook.linear("sgd", lr=lr, weight_decay=0.0) for lr in (0.01, 0.1)]
    found = train_arrays(
        candidates, x, y, task="regression", steps=20, weight=weight, engine=engine, dtype="float64"
    )
    for candidate, trained in zip(candidates, found, strict=True):
        state = {n: v.numpy().copy() for n, v in trained.program.build(0).state_dict().items()}
        w, b = (next(v for n, v in state.items() if n.endswith(e)) for e in ("weight", "bias"))
        w, b = w[0], b[0]
        for _ in range(20):
            error = weight / weight.mean() * (x @ w + b - y)
            w = w - candidate.numeric["lr"] * 2 * error @ x / 7
            b = b - candidate.numeric["lr"] * 2 * error.mean()
        weights, bias = textbook.coefficients(trained)
        np.testing.assert_allclose(weights[0], w, rtol=1e-10)
        np.testing.assert_allclose(bias[0], b, rtol=1e-10)
        assert trained.candidate == candidate


def test_classes_have_probabilities_and_the_order_of_candidates_is_kept() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 60)
    x = np.eye(3)[y] + 0.1 * rng.normal(size=(60, 3))
    candidates = [
        textbook.linear("adam", lr=0.05),
        Candidate("mlp", {"depth": 1, "width": 8, "batch_size": 16}, "sgd", "constant"),
        textbook.linear("adam", lr=0.1),
    ]
    found = train_arrays(candidates, x, y, task="multiclass", steps=100)
    assert [t.candidate for t in found] == candidates
    proba = found[0].predict(x)
    np.testing.assert_allclose(proba.sum(1), 1.0, rtol=1e-12)
    assert (proba.argmax(1) == y).mean() > 0.95
    assert found[0].module.training is False


def test_the_arrays_of_the_caller_are_left_alone() -> None:
    x, y = np.ones((6, 1)), np.arange(6.0)
    train_arrays([textbook.linear("sgd", lr=0.01)], x, y, task="regression", steps=2)
    assert (x == 1).all()
    assert (y == np.arange(6.0)).all()
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"x": np.ones(4)}, DataError, r"x: expected finite numbers \[rows, columns\]"),
        ({"x": np.full((4, 1), np.nan)}, DataError, "not finite"),
        ({"y": np.ones(3)}, DataError, r"y: expected 4 finite numbers, one per row"),
        ({"weight": -np.ones(4)}, DataError, "weight: expected numbers of at least 0"),
        ({"task": "binary", "y": [0, 1, 2, 1]}, DataError, "the codes 0 and 1"),
        ({"task": "multiclass", "y": [0.5, 1, 2, 1]}, DataError, "expected codes 0, 1"),
        ({"task": "regresion"}, ConfigError, "Did you mean 'regression'"),
        ({"engine": "staked"}, ConfigError, "Did you mean 'stacked'"),
        ({"dtype": "float16"}, ConfigError, "Unknown dtype 'float16'"),
        ({"steps": 0}, ConfigError, "steps: expected a whole number of 1 or more, found 0"),
        ({"static": {"embedding": "piecewise_linear"}}, ConfigError, "which have no bins"),
        ({"static": {"loss": "poisson"}}, ConfigError, "not standardised"),
        ({"static": {"depht": 1}}, SpaceError, "Did you mean 'depth'"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_used_is_said(changed: dict, error: type[Exception], message: str) -> None:
    static = changed.pop("static", {"depth": 0})
    options = {"x": np.ones((4, 1)), "y": np.arange(4.0), "task": "regression", "steps": 1}
    options |= changed
    with pytest.raises(error, match=message):
        train_arrays([Candidate("mlp", static, "sgd", "constant")], **options)
