"""The contract of every optimizer: equal to torch.optim, and members never touch each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from adanet_py.training.optimizers import OPTIMIZERS, Optimizer, Step

K, P, DECAYED, STEPS = 5, 23, 14, 100

State = tuple[Tensor, dict[str, Tensor]]


@pytest.fixture(params=sorted(OPTIMIZERS))
def optimizer(request: pytest.FixtureRequest) -> Optimizer:
    return OPTIMIZERS[request.param]


def hyperparameters(optimizer: Optimizer, k: int = K) -> dict[str, Tensor]:
    """A different value for each member, inside the knob's domain."""
    rng = np.random.default_rng(1)
    out = {}
    for name, knob in optimizer.numeric.items():
        low, high = float(knob.low or 0.0), float(knob.high or 1.0)
        values = np.clip(float(knob.default or 0.01) * rng.uniform(0.5, 1.05, k), low, high)
        assert all(knob.allows(float(v)) for v in values)
        out[name] = torch.tensor(values, dtype=torch.float64).reshape(k, 1)
    return out


def noisy(step: int, k: int = K) -> Tensor:
    """Gradients of step `step`, of very different sizes."""
    generator = torch.Generator().manual_seed(step)
    g = torch.randn(k, P, dtype=torch.float64, generator=generator)
    return g * torch.logspace(-3, 1, P, dtype=torch.float64)


def start(optimizer: Optimizer, k: int = K) -> State:
    generator = torch.Generator().manual_seed(10**6)
    w = torch.randn(k, P, dtype=torch.float64, generator=generator)
    return w, {name: torch.zeros_like(w) for name in optimizer.slots}


def rates(step: int, hp: dict[str, Tensor]) -> Tensor:
    """A learning rate that moves from step to step."""
    return hp["lr"] * (1.0 + 0.5 * np.cos(step / 7))


def run(
    optimizer: Optimizer,
    state: State,
    hp: dict[str, Tensor],
    steps: range,
    gradient: Callable[[int, Tensor], Tensor],
) -> State:
    """Take steps from a copy of `state`."""
    w, slots = state[0].clone(), {n: s.clone() for n, s in state[1].items()}
    for t in steps:
        count = torch.tensor([[t + 1.0]], dtype=torch.float64)
        g = gradient(t, w).clone()
        optimizer.update(g, slots, Step(w, hp, rates(t, hp), count, DECAYED))
    return w, slots


def test_the_key_is_the_name_and_the_knobs_have_legal_defaults(optimizer: Optimizer) -> None:
    assert OPTIMIZERS[optimizer.name] is optimizer
    assert optimizer.summary
    assert {"lr", "weight_decay"} <= set(optimizer.numeric)
    assert all(knob.allows(knob.default) for knob in optimizer.numeric.values())
    assert optimizer.complete({})["lr"] == optimizer.numeric["lr"].default
    assert optimizer.complete({"lr": 0.5})["lr"] == 0.5
    assert len(set(optimizer.slots)) == len(optimizer.slots)


def test_equals_torch_over_100_steps(optimizer: Optimizer) -> None:
    hp = hyperparameters(optimizer)
    first = start(optimizer)
    w, _ = run(optimizer, first, hp, range(STEPS), lambda t, w: noisy(t))
    for k in range(K):
        own = {n: float(v[k]) for n, v in hp.items()}
        yes = first[0][k, :DECAYED].clone().requires_grad_()
        no = first[0][k, DECAYED:].clone().requires_grad_()
        groups = [
            {"params": [yes], "weight_decay": own["weight_decay"]},
            {"params": [no], "weight_decay": 0.0},
        ]
        reference = optimizer.reference(groups, own)
        for t in range(STEPS):
            yes.grad, no.grad = noisy(t)[k, :DECAYED].clone(), noisy(t)[k, DECAYED:].clone()
            for group in reference.param_groups:
                group["lr"] = float(rates(t, hp)[k])
            reference.step()
        expected = torch.cat([yes, no]).detach()
        assert not torch.allclose(expected, first[0][k], atol=1e-3)
        torch.testing.assert_close(w[k], expected, rtol=1e-12, atol=1e-12)


def test_members_together_equal_members_alone(optimizer: Optimizer) -> None:
    hp, first = hyperparameters(optimizer), start(optimizer)
    together, _ = run(optimizer, first, hp, range(STEPS), lambda t, w: noisy(t))
    for k in range(K):
        own = {n: v[k : k + 1] for n, v in hp.items()}
        state = first[0][k : k + 1], {n: s[k : k + 1] for n, s in first[1].items()}
        alone, _ = run(optimizer, state, own, range(STEPS), lambda t, w, k=k: noisy(t)[k : k + 1])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-13, atol=1e-13)


def test_permuting_members_permutes_the_result(optimizer: Optimizer) -> None:
    hp, first, order = hyperparameters(optimizer), start(optimizer), torch.tensor([3, 0, 4, 1, 2])
    plain, _ = run(optimizer, first, hp, range(20), lambda t, w: noisy(t))
    moved = first[0][order], {n: s[order] for n, s in first[1].items()}
    permuted, _ = run(
        optimizer,
        moved,
        {n: v[order] for n, v in hp.items()},
        range(20),
        lambda t, w: noisy(t)[order],
    )
    torch.testing.assert_close(permuted, plain[order], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e300])
def test_a_diverged_member_leaves_the_others_bit_identical(
    optimizer: Optimizer, poison: float
) -> None:
    hp, first = hyperparameters(optimizer), start(optimizer)

    def poisoned(t: int, w: Tensor) -> Tensor:
        g = noisy(t)
        if t >= 3:
            g[2] = poison
        return g

    plain, _ = run(optimizer, first, hp, range(20), lambda t, w: noisy(t))
    bad, _ = run(optimizer, first, hp, range(20), poisoned)
    others = [0, 1, 3, 4]
    assert torch.equal(bad[others], plain[others])
    assert not torch.equal(bad[2], plain[2])


def test_dropping_members_leaves_the_others_alone(optimizer: Optimizer) -> None:
    hp, first, keep = hyperparameters(optimizer), start(optimizer), torch.tensor([0, 3])
    plain, _ = run(optimizer, first, hp, range(20), lambda t, w: noisy(t))
    w, slots = run(optimizer, first, hp, range(10), lambda t, w: noisy(t))
    rest = w[keep], {n: s[keep] for n, s in slots.items()}
    after, _ = run(
        optimizer,
        rest,
        {n: v[keep] for n, v in hp.items()},
        range(10, 20),
        lambda t, w: noisy(t)[keep],
    )
    torch.testing.assert_close(after, plain[keep], rtol=1e-13, atol=1e-13)


def test_learning_rate_zero_changes_nothing(optimizer: Optimizer) -> None:
    hp, first = hyperparameters(optimizer), start(optimizer)
    hp["weight_decay"] = torch.full((K, 1), 0.5, dtype=torch.float64)
    hp["lr"] = torch.tensor([[0.0], [0.1], [0.0], [0.1], [0.0]], dtype=torch.float64)
    w, _ = run(optimizer, first, hp, range(5), lambda t, w: noisy(t))
    assert torch.equal(w[::2], first[0][::2])
    assert not torch.equal(w[1], first[0][1])


def test_resumes_at_every_step_from_weights_and_slots(optimizer: Optimizer) -> None:
    hp, first = hyperparameters(optimizer), start(optimizer)
    whole, _ = run(optimizer, first, hp, range(12), lambda t, w: noisy(t))
    for at in range(1, 12):
        state = run(optimizer, first, hp, range(at), lambda t, w: noisy(t))
        w, _ = run(optimizer, state, hp, range(at, 12), lambda t, w: noisy(t))
        assert torch.equal(w, whole)


def test_converges_on_a_quadratic(optimizer: Optimizer) -> None:
    hp, first = hyperparameters(optimizer), start(optimizer)
    curvature = torch.linspace(0.5, 2.0, P, dtype=torch.float64)
    w, slots = first[0].clone(), first[1]
    hp["weight_decay"] = torch.zeros_like(hp["weight_decay"])
    total = 400
    for t in range(total):
        lr = torch.full((K, 1), 0.1 * (1.0 - t / total), dtype=torch.float64)
        count = torch.tensor([[t + 1.0]], dtype=torch.float64)
        optimizer.update(curvature * (w - 1.0), slots, Step(w, hp, lr, count, DECAYED))

    def loss(w: Tensor) -> Tensor:
        return (curvature * (w - 1.0).square()).sum(1)

    assert (loss(w) < 1e-4 * loss(first[0])).all()


def test_only_the_decayed_columns_shrink(optimizer: Optimizer) -> None:
    hp, first = hyperparameters(optimizer), start(optimizer)
    hp["weight_decay"] = torch.full((K, 1), 0.1, dtype=torch.float64)
    hp["lr"] = torch.full((K, 1), 1e-3, dtype=torch.float64)
    w, _ = run(optimizer, first, hp, range(10), lambda t, w: torch.zeros_like(w))
    assert torch.equal(w[:, DECAYED:], first[0][:, DECAYED:])
    assert (w[:, :DECAYED].abs() < first[0][:, :DECAYED].abs()).all()
