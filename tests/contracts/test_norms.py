"""The contract of norms and activations: what PyTorch gives, alone and as members of a group."""

from __future__ import annotations

import pytest
import torch
from programs import make_candidates, make_program, make_spec
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from adanet_py.architectures.activations import activation
from adanet_py.architectures.names import ACTIVATIONS, GATED, NORMS, units_before
from adanet_py.architectures.norms import ONE_ROW_MOMENTUM, BatchNorm, GroupNorm, norm
from adanet_py.training.engines import ENGINES, make_engine

WIDTH = 24
REFERENCE = {
    "none": nn.Identity,
    "batch": lambda: nn.BatchNorm1d(WIDTH),
    "layer": lambda: nn.LayerNorm(WIDTH),
    "rms": lambda: nn.RMSNorm(WIDTH, eps=1e-6),
    "group": lambda: nn.GroupNorm(6, WIDTH),
}
GATES = {"glu": torch.sigmoid, "geglu": F.gelu, "reglu": F.relu, "swiglu": F.silu}


def rows(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, WIDTH, dtype=torch.float64, generator=generator) * 3 + 1


def with_random_weights(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    return module.double()


@pytest.mark.parametrize("name", sorted(NORMS))
def test_a_norm_is_that_of_pytorch(name: str) -> None:
    own, reference = (with_random_weights(m, 0) for m in (norm(name, WIDTH), REFERENCE[name]()))
    for step in range(3):
        x = rows(9, step)
        torch.testing.assert_close(own(x), reference(x))
    torch.testing.assert_close(own.eval()(rows(4)), reference.eval()(rows(4)))


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", sorted(NORMS))
def test_members_of_a_norm_as_one_program_equal_a_loop(name: str, n: int) -> None:
    """Outputs, gradients and running statistics, with batches of one row as well."""
    modules = [with_random_weights(norm(name, WIDTH), k) for k in range(3)]
    copies = [with_random_weights(norm(name, WIDTH), k) for k in range(3)]
    parameters = {
        p: torch.stack([dict(m.named_parameters())[p].detach() for m in copies]).requires_grad_()
        for p, _ in copies[0].named_parameters()
    }
    buffers = {
        b: torch.stack([dict(m.named_buffers())[b] for m in copies])
        for b, _ in copies[0].named_buffers()
    }
    x = torch.stack([rows(n, k) for k in range(3)]).requires_grad_()
    alone = x.detach().clone().requires_grad_()
    for _ in range(3):
        together = vmap(lambda p, b, v: functional_call(copies[0], (p, b), (v,)))(
            parameters, buffers, x
        )
        single = torch.stack([m(v) for m, v in zip(modules, alone, strict=True)])
        torch.testing.assert_close(together, single)
    together.pow(3).sum().backward()
    single.pow(3).sum().backward()
    torch.testing.assert_close(x.grad, alone.grad)
    for k, module in enumerate(modules):
        for p, value in module.named_parameters():
            torch.testing.assert_close(parameters[p].grad[k], value.grad)
        for b, value in module.named_buffers():
            torch.testing.assert_close(buffers[b][k], value)


def test_batch_norm_of_one_row_uses_the_running_statistics_and_moves_them() -> None:
    layer = with_random_weights(BatchNorm(WIDTH), 0).train()
    mean, var = torch.zeros(WIDTH).double(), torch.ones(WIDTH).double()
    for step in range(4):
        x = rows(1, step)
        want = F.batch_norm(x, mean, var, layer.weight, layer.bias, training=False)
        torch.testing.assert_close(layer(x), want)
        a, d = ONE_ROW_MOMENTUM, x[0] - mean
        mean, var = mean + a * d, (1 - a) * (var + a * d * d)
        torch.testing.assert_close(layer.running_mean, mean)
        torch.testing.assert_close(layer.running_var, var)


def test_batch_norm_of_one_row_learns_the_statistics_of_the_rows() -> None:
    layer, x = BatchNorm(WIDTH).double().train(), rows(4000)
    for row in x:
        layer(row.unsqueeze(0))
    # The mean weighs about 200 rows: a standard error of 3 / sqrt(200) = 0.2.
    torch.testing.assert_close(
        layer.running_mean, torch.full((WIDTH,), 1.0).double(), rtol=0, atol=1.0
    )
    torch.testing.assert_close(
        layer.running_var.mean(), torch.tensor(9.0).double(), rtol=0.2, atol=0
    )


@pytest.mark.parametrize("norm", sorted(NORMS))
def test_one_row_a_step_equals_plain_pytorch_and_is_finite(norm: str) -> None:
    numeric = [{"lr": 3e-3, "dropout": 0.3}, {"lr": 1e-2}]
    candidates = make_candidates("mlp", numeric, norm=norm, batch_size=1)
    program = make_program(candidates, make_spec(), steps=12, folds=2)
    outputs = []
    for name in sorted(ENGINES):
        engine = make_engine(name, program)
        _, loss, _ = engine.advance(0, 12, lambda step: False)
        outputs.append((loss, engine.predict([program.order.rows[0]]), engine.snapshot(1)))
    assert torch.isfinite(outputs[0][0]).all()
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("width", "groups"), [(1, 1), (3, 1), (8, 2), (13, 1), (24, 6), (28, 7), (32, 8), (250, 5)]
)
def test_a_group_has_four_units_or_more(width: int, groups: int) -> None:
    assert GroupNorm(width).groups == groups
    assert GroupNorm(width)(torch.randn(2, 3, width)).shape == (2, 3, width)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_give_the_width_they_are_asked_for(name: str) -> None:
    x = torch.randn(5, 2, units_before(name, 3), dtype=torch.float64)
    y = activation(name)(x)
    assert y.shape == (5, 2, 3)
    if name in GATED:
        torch.testing.assert_close(y, x[..., :3] * GATES[name](x[..., 3:]))
    if name == "glu":
        torch.testing.assert_close(y, nn.GLU()(x))


def test_every_norm_has_a_reference_and_every_gate_is_an_activation() -> None:
    assert set(REFERENCE) == set(NORMS)
    assert set(GATES) == GATED < set(ACTIVATIONS)
