"""What is measured of steps and units: against plain PyTorch; no trace in the training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from programs import make_candidates, make_program, make_spec
from torch import Tensor, nn
from torch.func import functional_call

import adanet_py
from adanet_py.architectures import ARCHITECTURES, Architecture
from adanet_py.architectures.activations import activation
from adanet_py.architectures.layers import Inputs
from adanet_py.architectures.names import ACTIVATIONS
from adanet_py.data.spec import DataSpec
from adanet_py.records import Candidate, Result, Scalar, Status
from adanet_py.training import probe
from adanet_py.training.engines import ENGINES, make_engine
from adanet_py.training.probe import is_activation, is_due, probe_rows, watched

RATES = [{"lr": 0.05}, {"lr": 0.3}]


@pytest.fixture(params=sorted(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "DUE_EVERY", 1)


def never(step: int) -> bool:
    return False


@pytest.mark.usefixtures("every_step")
def test_a_step_is_measured_as_by_hand(engine_name: str) -> None:
    candidates = make_candidates("mlp", RATES, optimizer="sgd", norm="none")
    program = make_program(candidates, make_spec("regression"))
    engine = make_engine(engine_name, program)
    engine.advance(0, 2, never)
    found = engine.measure()
    data, rows = program.data, program.order.take(0, 2)[:, 0]
    for k in range(len(RATES)):
        module = program.build(k).eval()  # without a dropout layer's noise

        def gradients(batch: np.ndarray, module: nn.Module = module) -> list[Tensor]:
            module.zero_grad()
            outputs = module(data.numeric[batch], data.category[batch])[:, 0]
            (outputs - data.target[batch]).square().mean().backward()
            return [p.grad.clone() for p in module.parameters() if p.grad is not None]

        def flat(values: list[Tensor]) -> Tensor:
            return torch.cat([v.detach().reshape(-1) for v in values])

        for batch in rows:
            before = flat(list(module.parameters())).clone()
            g0 = gradients(batch)
            with torch.no_grad():
                for p, g in zip(module.parameters(), g0, strict=True):
                    p -= RATES[k]["lr"] * g
        matrices = {
            n: g
            for (n, _), g in zip(module.named_parameters(), g0, strict=True)
            if n.startswith("body") and n.endswith("weight")
        }
        first, *_, last = matrices.values()
        d = flat(list(module.parameters())) - before
        want = {
            "update_ratio": d.norm() / before.norm(),
            "depth_ratio": first.square().mean().sqrt() / last.square().mean().sqrt(),
            "curvature": d @ (flat(gradients(rows[1])) - flat(g0)) / (d @ d),
        }
        for name, value in want.items():
            torch.testing.assert_close(found[name][k], value, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.usefixtures("every_step")
def test_the_curvature_of_a_quadratic_is_that_of_its_hessian(engine_name: str) -> None:
    candidates = make_candidates("mlp", RATES, optimizer="sgd", depth=0, batch_size=64)
    program = make_program(candidates, make_spec("regression", cardinalities=()))
    engine = make_engine(engine_name, program)
    engine.advance(0, 1, never)
    found = engine.measure()
    batch = program.order.take(0, 1)[0, 0]
    x = torch.cat([program.data.numeric[batch], torch.ones(len(batch), 1).double()], 1)
    hessian = 2 * x.T @ x / len(batch)
    for k in range(len(RATES)):
        weights = torch.cat([p.detach().reshape(-1) for p in program.build(k).parameters()])
        d = hessian @ weights - 2 * x.T @ program.data.target[batch] / len(batch)
        torch.testing.assert_close(found["curvature"][k], d @ hessian @ d / (d @ d))
    assert found["depth_ratio"].isnan().all()  # there is no hidden matrix
    assert found["dead_units"].isnan().all()  # and no hidden unit


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_measuring_leaves_the_training_bit_identical(
    engine_name: str, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    numeric = [{"lr": 0.01, "dropout": 0.3}, {"lr": 0.1, "clip_norm": 0.1, "l1": 0.01}]
    states = []
    for every in (1, 10**9):
        monkeypatch.setattr(probe, "DUE_EVERY", every)
        candidates = make_candidates("mlp", numeric, norm=norm)
        program = make_program(candidates, make_spec(), folds=2)
        engine = make_engine(engine_name, program)
        losses = []
        for start in range(0, 12, 3):
            losses.append(engine.advance(start, start + 3, never)[1])
            measured = engine.measure() if every == 1 else {}
            assert all(v.isfinite().all() for v in measured.values())
        states.append(engine.state() | {f"loss {i}": v for i, v in enumerate(losses)})
    measured_state, plain = states
    assert measured_state.keys() == plain.keys()
    assert all(torch.equal(v, plain[n]) for n, v in measured_state.items())


def test_a_member_that_diverges_leaves_the_measures_of_others_alone(engine_name: str) -> None:
    def measure(rate: float) -> Mapping[str, Tensor]:
        candidates = make_candidates("mlp", [{"lr": 0.01}, {"lr": rate}], optimizer="sgd")
        engine = make_engine(engine_name, make_program(candidates, make_spec("regression")))
        engine.advance(0, 12, never)
        return engine.measure()

    sound, mixed = measure(0.02), measure(1e300)
    assert mixed["update_ratio"][1].isnan()
    assert mixed["dead_units"][1].isnan()
    for name, value in sound.items():
        torch.testing.assert_close(mixed[name][0], value[0], rtol=0, atol=0, equal_nan=True)


def test_evaluations_share_the_cost_of_what_is_dear() -> None:
    for apart in (1, 5, 32, 100):
        steps = range(0, 3201, apart)
        curved = [b for a, b in itertools.pairwise(steps) if is_due(a, b)]
        assert len(curved) == min(100, 3200 // apart)


def test_probe_rows_are_spread_over_the_training_rows_of_each_fold() -> None:
    folds = (np.arange(1000), np.arange(2000, 2900))
    rows = probe_rows(folds)
    assert rows.shape == (2, 256)
    for own, fold in zip(rows, folds, strict=True):
        assert set(own) <= set(fold)
        assert np.diff(own).min() >= 3
    np.testing.assert_array_equal(probe_rows((np.arange(7),))[0], np.arange(7))


class Layer(nn.Module):
    """One hidden layer of four units with given biases."""

    def __init__(self, name: str, biases: list[float]) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, len(biases))
        self.activation = activation(name)
        self.out = nn.Linear(len(biases), 1)
        with torch.no_grad():
            self.hidden.bias.copy_(torch.tensor(biases))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.activation(self.hidden(x)))


@pytest.mark.parametrize(
    ("name", "biases", "share"),
    [
        ("relu", [-1e3, 0.0, 0.0, 1.0], 0.25),
        ("relu", [-1e3] * 4, 1.0),
        ("leaky_relu", [-1e3] * 4, 0.0),
        ("sigmoid", [200.0, -200.0, 0.0, 0.0], 0.5),
        ("tanh", [50.0, -50.0, 40.0, 0.0], 0.75),
        ("gelu", [-1e3, 0.0, 0.0, 0.0], 0.25),
    ],
)
def test_dead_units_are_counted(name: str, biases: list[float], share: float) -> None:
    torch.manual_seed(0)
    module, x = Layer(name, biases), torch.randn(100, 3)
    with watched(module):
        assert float(module(x)) == share
        # A single row says nothing about change: every unit is the same for all rows there are.
        assert float(module(x[:1])) == 1.0
        assert math.isnan(float(module(x * math.inf)))
        state = {
            n: v.unsqueeze(0).repeat(3, *[1] * v.dim()) for n, v in module.state_dict().items()
        }
        both = torch.vmap(lambda s: functional_call(module, s, (x,)))(state)
        assert both.tolist() == [share] * 3
    assert module(x).shape == (100, 1)  # afterwards it is as before


def test_every_activation_is_watched_and_nothing_else() -> None:
    assert all(is_activation(activation(name)) for name in ACTIVATIONS)
    assert is_activation(nn.Softplus())
    assert not any(map(is_activation, (nn.Linear(1, 1), nn.Identity(), nn.BatchNorm1d(1))))


# ------------------------------------------------------------------ real trainings


def table(rows: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4))
    y = np.where(x[:, 0] * x[:, 1] + x[:, 2] > 0, "yes", "no")
    return pd.DataFrame(x, columns=list("abcd")).assign(y=y)


def train(static: dict[str, Scalar], optimizer: str, rate: float, **options: Any) -> Result:
    values: dict[str, Scalar] = {"width": 16, "batch_size": 32} | static
    candidate = Candidate("mlp", values, optimizer, numeric={"lr": rate})
    options = {"target": "y", "folds": 1, "epochs": 15} | options
    (result,) = adanet_py.train([candidate], options.pop("data", table()), **options)
    return result


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_gradients_vanish_in_ten_layers_of_sigmoids(engine: str) -> None:
    deep: dict[str, Scalar] = {"depth": 10, "activation": "sigmoid"}
    result = train(deep | {"norm": "none"}, "adam", 3e-3, engine=engine, epochs=5)
    assert all(e.depth_ratio < 1e-6 for e in result.curve)
    assert "; vanishing gradients: the first layer's gradient is " in result.message


def test_batch_normalisation_cures_it() -> None:
    deep: dict[str, Scalar] = {"depth": 10, "activation": "sigmoid"}
    sick = train(deep | {"norm": "none"}, "adam", 3e-3)
    cured = train(deep | {"norm": "batch"}, "adam", 3e-3)
    assert "vanishing" not in cured.message
    assert all(e.depth_ratio > 0.01 for e in cured.curve)
    assert sick.metrics["validation"] > 0.95 * math.log(2)  # it has learned nothing
    assert cured.metrics["validation"] < 0.8 * math.log(2)


def test_a_rate_that_diverges_is_named_with_the_step() -> None:
    data = table().assign(y=lambda t: t["a"] + t["b"])
    for rate in (2.0, 50.0):
        result = train({"depth": 2, "activation": "silu"}, "sgd", rate, data=data)
        assert result.status is Status.DIVERGED
        before = result.curve[-2].step if len(result.curve) > 1 else 0
        assert f", between steps {before} and {result.curve[-1].step}" in result.message
    sound = train({"depth": 2, "activation": "silu"}, "sgd", 0.02, data=data)
    assert sound.message.startswith(Status.COMPLETE.value)
    assert "diver" not in sound.message


def test_units_die_at_a_rate_that_is_too_large() -> None:
    static: dict[str, Scalar] = {"depth": 2, "activation": "relu", "norm": "none"}
    dead, alive = train(static, "sgd", 30.0), train(static, "sgd", 0.05)
    assert "; dead units: " in dead.message
    assert "dead" not in alive.message
    [*_, most], [*_, few] = (
        [e.dead_units for e in r.curve if math.isfinite(e.dead_units)] for r in (dead, alive)
    )
    assert most > 0.4 > few


def test_steps_that_are_too_small_are_named() -> None:
    static: dict[str, Scalar] = {"depth": 2, "activation": "relu", "norm": "none"}
    assert "; small steps: " in train(static, "adam", 1e-8).message
    assert "small steps" not in train(static, "adam", 3e-3).message


def test_what_begins_with_half_its_units_dead_is_seen() -> None:
    class HalfDead(nn.Module):
        def __init__(self, static: Mapping[str, Scalar], spec: DataSpec) -> None:
            super().__init__()
            self.inputs = Inputs(static, spec)
            self.hidden = nn.Linear(self.inputs.features, 8)
            self.relu = nn.ReLU()
            self.head = nn.Linear(8, spec.n_outputs)
            with torch.no_grad():
                self.hidden.bias[:4] = -1e6

        def forward(self, numeric: Tensor, category: Tensor) -> Tensor:
            return self.head(self.relu(self.hidden(self.inputs(numeric, category))))

    mlp = ARCHITECTURES["mlp"]
    half = Architecture("half", "half dead", mlp.static, {}, HalfDead)
    candidate = Candidate("half", {"batch_size": 32}, "adam", numeric={"lr": 1e-3})
    (result,) = adanet_py.train(
        [candidate], table(), target="y", folds=1, epochs=15, architectures=[half]
    )
    found = [e.dead_units for e in result.curve if math.isfinite(e.dead_units)]
    assert found
    assert set(found) == {0.5}
    assert "dead units: 50% of the hidden units" in result.message
