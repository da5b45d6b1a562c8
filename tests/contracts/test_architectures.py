"""The contract of every architecture: an ordinary module that vectorises over members."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from programs import TASKS, lowest, make_arrays, make_candidates, make_program, make_spec, small
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from adanet_py.architectures import ARCHITECTURES, Architecture
from adanet_py.architectures.layers import is_decayed
from adanet_py.architectures.names import ACTIVATIONS, NORMS
from adanet_py.architectures.perturbations import noise_pool
from adanet_py.data.spec import DataSpec
from adanet_py.knob import Knob
from adanet_py.records import Candidate, Scalar
from adanet_py.training.engines.program import build_module, noisy_layers
from adanet_py.training.engines.stacked import StackedEngine
from adanet_py.training.losses import LOSSES

ROWS = 16
CHOICES = [
    pytest.param(name, knob, choice, id=f"{name}-{knob}-{choice}")
    for name, architecture in sorted(ARCHITECTURES.items())
    for knob, domain in architecture.static.items()
    for choice in domain.choices or ()
]
NUMERIC = [
    pytest.param(name, knob, id=f"{name}-{knob}")
    for name, architecture in sorted(ARCHITECTURES.items())
    for knob in architecture.numeric
]
SPECS = {
    "no numeric": make_spec(n_numeric=0),
    "no category": make_spec(cardinalities=()),
    "one numeric": make_spec(n_numeric=1, cardinalities=()),
    "one category": make_spec(n_numeric=0, cardinalities=(2,)),
    "nothing known": make_spec(n_numeric=0, cardinalities=(1,)),
}


@pytest.fixture(params=sorted(ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return ARCHITECTURES[request.param]


def build(
    architecture: Architecture,
    static: dict[str, Scalar],
    spec: DataSpec,
    seed: int = 0,
    **numeric: float,
) -> nn.Module:
    candidate = Candidate(architecture.name, static, numeric=numeric)
    module = build_module(architecture, candidate, spec, seed).double()
    for layer in noisy_layers(module).values():
        layer.noise = noise_pool(seed)
    return module


def inputs(spec: DataSpec, rows: int = ROWS, scaling: str = "quantile") -> tuple[Tensor, Tensor]:
    arrays = make_arrays(spec, rows)
    return torch.from_numpy(arrays[scaling]).double(), torch.from_numpy(arrays["category"])


def check_trains(architecture: Architecture, static: dict[str, Scalar], spec: DataSpec) -> None:
    """One step of two members: finite loss, every parameter has a finite gradient, weights move."""
    module = build(architecture, static, spec, dropout=0.2).train()
    outputs = module(*inputs(spec, scaling=str(static.get("scaling", "quantile"))))
    assert outputs.shape[0] == ROWS
    assert outputs.shape[-1] == spec.n_outputs
    assert outputs.dim() in (2, 3)
    outputs.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    numeric = [{"lr": 0.01, "dropout": 0.2}, {"lr": 0.02}]
    candidates = tuple(Candidate(architecture.name, static, numeric=n) for n in numeric)
    engine = StackedEngine(make_program(candidates, spec, steps=1))
    before = engine.weights.clone()
    _, loss, norm = engine.advance(0, 1, lambda step: False)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(norm).all()
    assert torch.isfinite(engine.weights).all()
    assert (engine.weights != before).any(1).all()


def test_the_key_is_the_name_and_the_knobs_have_legal_defaults(architecture: Architecture) -> None:
    assert ARCHITECTURES[architecture.name] is architecture
    assert architecture.summary
    for knob in (*architecture.static.values(), *architecture.numeric.values()):
        assert knob.allows(knob.default)
        assert knob.doc
    assert set(architecture.complete({})) == set(architecture.static)
    assert architecture.complete({"batch_size": 3})["batch_size"] == 3
    assert not set(architecture.static) & set(architecture.numeric)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_one_row_of_outputs_per_row(architecture: Architecture, task: str) -> None:
    spec = make_spec(task)
    outputs = build(architecture, small(architecture), spec)(*inputs(spec))
    assert outputs.shape in ((ROWS, TASKS[task]), (ROWS, *outputs.shape[1:-1], TASKS[task]))
    assert outputs.dim() in (2, 3)
    assert torch.isfinite(outputs).all()
    check_trains(architecture, small(architecture), spec)


@pytest.mark.parametrize(("name", "knob", "choice"), CHOICES)
def test_every_static_choice_builds_and_trains(name: str, knob: str, choice: Scalar) -> None:
    architecture = ARCHITECTURES[name]
    loss = LOSSES.get(str(choice)) if knob == "loss" else None
    # The ratio makes every target of the table positive, which some losses ask for.
    spec = replace(make_spec(loss.tasks[0] if loss else "binary"), target_ratio=(4.0,))
    check_trains(architecture, small(architecture, **{knob: choice}), spec)


@pytest.mark.parametrize("embedding", ["none", "piecewise_linear", "periodic"])
@pytest.mark.parametrize("columns", sorted(SPECS))
def test_tables_without_some_kind_of_column(
    architecture: Architecture, columns: str, embedding: str
) -> None:
    check_trains(architecture, small(architecture, embedding=embedding), SPECS[columns])


def test_the_smallest_network_builds_and_trains(architecture: Architecture) -> None:
    static = lowest(architecture)
    for embedding in ("none", "piecewise_linear", "periodic"):
        check_trains(architecture, static | {"embedding": embedding}, make_spec())


def test_the_seed_alone_decides_the_weights(architecture: Architecture) -> None:
    spec, static = make_spec(), small(architecture, embedding="periodic")
    before = torch.random.get_rng_state()
    first = build(architecture, static, spec, seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    again = build(architecture, static, spec, seed=3).state_dict()
    other = build(architecture, static, spec, seed=4).state_dict()
    assert first.keys() == again.keys()
    assert all(torch.equal(v, again[n]) for n, v in first.items())
    assert any(not torch.equal(v, other[n]) for n, v in first.items())
    assert not any(n.rsplit(".", 1)[-1].startswith(("noise", "step_")) for n in first)


@pytest.mark.parametrize(("name", "knob"), NUMERIC)
@pytest.mark.parametrize("end", ["low", "high"])
def test_numeric_values_reach_the_module_and_give_finite_outputs(
    name: str, knob: str, end: str
) -> None:
    architecture, spec = ARCHITECTURES[name], make_spec()
    domain: Knob = architecture.numeric[knob]
    value = float(getattr(domain, end))
    static = small(architecture, embedding="periodic")
    module = build(architecture, static, spec, **{knob: value}).train()
    found = [b for n, b in module.named_buffers() if n.rsplit(".", 1)[-1] == f"knob_{knob}"]
    assert found
    for buffer in found:
        assert float(buffer) == pytest.approx(value)
    outputs = module(*inputs(spec))
    assert torch.isfinite(outputs).all()
    default = build(architecture, static, spec).train()
    if not math.isclose(value, float(domain.default or 0)):
        assert not torch.allclose(outputs, default(*inputs(spec)))


@pytest.mark.parametrize("norm", sorted(NORMS))
@pytest.mark.parametrize("embedding", ["none", "piecewise_linear", "periodic"])
def test_members_as_one_program_equal_a_loop_over_modules(
    architecture: Architecture, norm: str, embedding: str
) -> None:
    """Outputs, gradients and running statistics of three members with different dropout."""
    if "norm" not in architecture.static and norm != "none":
        pytest.skip("this architecture has no norm")
    static: dict[str, Any] = {"embedding": embedding}
    if "norm" in architecture.static:
        static["norm"] = norm
    numeric = [{"lr": 0.0, "dropout": p, "frequency": 0.2 + p} for p in (0.0, 0.3, 0.6)]
    candidates = make_candidates(architecture.name, numeric, **static)
    spec = make_spec("multiclass")
    program = make_program(candidates, spec, steps=1)
    engine = StackedEngine(program)
    _, loss, norms = engine.advance(0, 1, lambda step: False)
    rows = torch.from_numpy(program.order.take(0, 1)[0, 0])
    predicted = engine.predict([rows.numpy()])
    for k in range(3):
        module = program.build(k).train()
        for i, layer in enumerate(noisy_layers(module).values()):
            layer.noise = noise_pool(program.seeds()[k])
            layer.start = list(noisy_layers(engine._train).values())[i].start
        batch = program.data.numeric[rows], program.data.category[rows]
        outputs = module(*batch)
        outputs = outputs.unsqueeze(-2) if outputs.dim() == 2 else outputs
        target = program.data.target[rows].long().unsqueeze(1).expand(outputs.shape[:-1])
        own = nn.functional.cross_entropy(outputs.flatten(0, 1), target.flatten())
        own.backward()
        flat = torch.cat([p.grad.flatten() for p in module.parameters()])
        torch.testing.assert_close(loss[k], own.detach(), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(norms[k], flat.norm(), rtol=1e-10, atol=1e-10)
        with torch.no_grad():
            evaluated = module.eval()(*batch)
        if evaluated.dim() == 3:
            evaluated = evaluated.softmax(-1).mean(1).log()
        torch.testing.assert_close(predicted[k], evaluated, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("norm", sorted(NORMS))
def test_a_row_is_predicted_alone_as_among_others(architecture: Architecture, norm: str) -> None:
    static = {"norm": norm} if "norm" in architecture.static else {}
    candidates = make_candidates(architecture.name, [{"dropout": 0.5}, {"lr": 0.1}], **static)
    program = make_program(candidates, make_spec(), steps=4)
    engine = StackedEngine(program)
    engine.advance(0, 4, lambda step: False)
    rows = program.order.rows[0]
    together, alone = engine.predict([rows]), engine.predict([rows[5:6]])
    assert alone.shape == (2, 1, 1)
    torch.testing.assert_close(alone[:, 0], together[:, 5], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_multiply_adds_are_those_of_the_module(architecture: Architecture, activation: str) -> None:
    spec = make_spec("multiclass")
    for more in ({}, {"blocks": 2}, {"skip": True}, {"rank": 1}, {"rank": 2, "blocks": 1}):
        if not set(more) <= set(architecture.static):
            continue
        static = small(architecture, activation=activation, depth=3, width=5) | more
        module = build(architecture, static, spec).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(*inputs(spec, rows=10))
        assert architecture.multiply_adds is not None
        cost = architecture.multiply_adds(architecture.complete(static), spec)
        assert counter.get_total_flops() == 2 * 10 * cost


def test_missing_and_unseen_codes_are_code_zero_and_finite(architecture: Architecture) -> None:
    spec = make_spec()
    numeric, category = inputs(spec)
    module = build(architecture, small(architecture), spec).eval()
    with torch.no_grad():
        zero = module(numeric, torch.zeros_like(category))
        assert torch.isfinite(zero).all()
        assert not torch.allclose(zero, module(numeric, category))


def test_values_far_outside_the_training_range_give_finite_outputs(
    architecture: Architecture,
) -> None:
    spec = make_spec()
    numeric, category = inputs(spec)
    for embedding in ("none", "piecewise_linear", "periodic"):
        module = build(architecture, small(architecture, embedding=embedding), spec).eval()
        assert torch.isfinite(module(numeric * 1e4, category)).all()


def test_weight_decay_applies_to_matrices_and_nothing_else() -> None:
    for architecture in ARCHITECTURES.values():
        spec = make_spec()
        module = build(architecture, small(architecture, embedding="periodic"), spec)
        for name, parameter in module.named_parameters():
            kind = name.rsplit(".", 1)[-1]
            decayed = is_decayed(name, tuple(parameter.shape))
            assert decayed == (kind == "weight" and parameter.dim() > 1 and ".tables." not in name)
        assert any(is_decayed(n, tuple(p.shape)) for n, p in module.named_parameters())


def check_parameters(architecture: Architecture, spec: DataSpec, **static: Scalar) -> None:
    assert architecture.parameters is not None
    module = build(architecture, static, spec)
    found = architecture.parameters(architecture.complete(static), spec)
    assert found == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("name", "knob", "choice"), CHOICES)
def test_the_number_of_parameters_is_exact(name: str, knob: str, choice: Scalar) -> None:
    architecture = ARCHITECTURES[name]
    check_parameters(architecture, make_spec("multiclass"), **small(architecture, **{knob: choice}))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_number_of_parameters_is_exact_for_every_table(
    architecture: Architecture, spec: DataSpec
) -> None:
    more = {"blocks": 2, "rank": 1, "activation": "swiglu", "width": 24, "category_width": 3}
    known = {k: v for k, v in more.items() if k in architecture.static}
    for static in (lowest(architecture), small(architecture), small(architecture, **known)):
        check_parameters(architecture, spec, **static)
        for embedding in ("piecewise_linear", "periodic"):
            check_parameters(architecture, spec, **static | {"embedding": embedding})
