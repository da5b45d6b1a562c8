"""The contract of every stacked optimizer: equal to its oracle, and members never meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from references import REFERENCES
from stepping import (
    DECAYED,
    PARTS,
    STEPS,
    K,
    P,
    Values,
    evaluated,
    filled,
    hyperparameters,
    noisy,
    rates,
    run,
    start,
    take,
)
from torch import Tensor

from adanet_py.training.optimizers import OPTIMIZERS, Optimizer, Part, make_parts


@pytest.fixture(params=sorted(n for n, o in OPTIMIZERS.items() if not o.engine))
def optimizer(request: pytest.FixtureRequest) -> Optimizer:
    return OPTIMIZERS[request.param]


def test_the_key_is_the_name_and_the_knobs_have_legal_defaults() -> None:
    for name, optimizer in OPTIMIZERS.items():
        assert optimizer.name == name
        assert optimizer.summary
        assert {"lr", "weight_decay"} <= set(optimizer.numeric) or optimizer.engine
        assert all(k.allows(k.default) and k.doc for k in optimizer.numeric.values())
        assert optimizer.complete({})["lr"] == optimizer.numeric["lr"].default
        assert optimizer.complete({"lr": 0.5})["lr"] == 0.5
        names = (*optimizer.slots, *optimizer.scalars)
        assert len(set(names)) == len(names)


# ------------------------------------------------------------------ equal to an oracle

Make = Callable[[list[dict[str, Any]], dict[str, float]], Any]


@pytest.fixture
def double() -> Iterator[None]:
    """Numbers that torch.optim.NAdam keeps in the default precision are then exact enough."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def check_oracle(
    optimizer: Optimizer, make: Make, dtype: torch.dtype, bias_decay: Tensor | None = None
) -> None:
    """100 steps of every member against `make`: parameters and what is evaluated."""
    hp, first = hyperparameters(optimizer, dtype), start(optimizer, dtype)
    state = run(optimizer, first, hp, range(STEPS), bias_decay=bias_decay)
    for k in range(K):
        own = {n: float(v[k]) for n, v in hp.items()}
        share = 0.0 if bias_decay is None else float(bias_decay[k])
        ours = [p.view(first[0])[k].clone().requires_grad_() for p in PARTS]
        yes = [w for w, p in zip(ours, PARTS, strict=True) if p.decayed]
        decay = own["weight_decay"]
        oracle = make(
            [
                {"params": yes, "weight_decay": decay},
                {"params": ours[len(yes) :], "weight_decay": decay * share},
            ],
            own,
        )
        for t in range(STEPS):
            for w, part in zip(ours, PARTS, strict=True):
                w.grad = part.view(noisy(t, dtype))[k].clone()
            for group in oracle.param_groups:
                group["lr"] = float(rates(t, hp)[k])
            oracle.step()
        check_close(state[0][k], ours, dtype)
        if hasattr(oracle, "evaluated"):
            check_close(evaluated(optimizer, state, hp)[k], oracle.evaluated(), dtype)
        assert not torch.allclose(state[0][k], first[0][k], atol=1e-3)


def check_close(got: Tensor, want: list[Tensor], dtype: torch.dtype) -> None:
    """|got - want| <= 1e-12 |want|, in single precision 1e-6."""
    row = torch.cat([w.detach().reshape(-1) for w in want])
    bound = 1e-12 if dtype == torch.float64 else 1e-6
    assert got.dtype == row.dtype == dtype
    assert (got - row).norm() <= bound * row.norm()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_torch_or_the_paper_over_100_steps(optimizer: Optimizer, dtype: torch.dtype) -> None:
    check_oracle(optimizer, optimizer.reference or REFERENCES[optimizer.name], dtype)


@pytest.mark.usefixtures("double")
def test_biases_get_their_share_of_the_decay(optimizer: Optimizer) -> None:
    share = torch.tensor([[0.0], [0.5], [1.0], [0.3], [0.0]], dtype=torch.float64)
    make = optimizer.reference or REFERENCES[optimizer.name]
    check_oracle(optimizer, make, torch.float64, bias_decay=share)


def test_the_references_of_the_tests_are_those_that_torch_lacks() -> None:
    assert set(REFERENCES) == {n for n, o in OPTIMIZERS.items() if not o.engine and not o.reference}


def test_lion_equals_that_of_the_package_pytorch_optimizer() -> None:
    package = pytest.importorskip("pytorch_optimizer", reason="pytorch-optimizer is no dependency")

    def make(groups: list[dict[str, Any]], hp: dict[str, float]) -> Any:
        return package.Lion(groups, lr=hp["lr"], betas=(hp["beta1"], hp["beta2"]))

    check_oracle(OPTIMIZERS["lion"], make, torch.float64)


def test_schedule_free_equals_that_of_the_package_schedulefree() -> None:
    package = pytest.importorskip("schedulefree", reason="schedulefree is no dependency")

    class Oracle(package.AdamWScheduleFree):
        def evaluated(self) -> list[Tensor]:
            self.eval()
            return [p for group in self.param_groups for p in group["params"]]

        def step(self) -> None:  # type: ignore[override]
            self.train()
            super().step()

    def make(groups: list[dict[str, Any]], hp: dict[str, float]) -> Any:
        betas = (hp["beta1"], hp["beta2"])
        return Oracle(groups, lr=hp["lr"], betas=betas, eps=hp["eps"])

    check_oracle(OPTIMIZERS["schedule_free_adamw"], make, torch.float64)


def test_muon_equals_that_of_torch_but_for_its_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch.optim.Muon is newer than this torch")
    optimizer = OPTIMIZERS["muon"]
    shapes = {"a.weight": (4, 7), "b.weight": (6, 4), "c.weight": (5, 5), "head.weight": (1, 1)}
    parts = make_parts(shapes, dict.fromkeys(shapes, True))
    size, hidden = parts[-1].stop, parts[-2].stop
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(1, size, dtype=torch.float64, generator=generator)
    hp = {n: v[:1] for n, v in hyperparameters(optimizer).items()}

    def noise(t: int, w: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(t)
        return torch.randn(1, size, dtype=torch.float64, generator=generator)

    def theirs() -> Tensor:
        w = [p.view(first)[0].clone().requires_grad_() for p in parts[:-1]]
        own = {n: float(hp[n]) for n in ("weight_decay", "momentum")}
        oracle = torch.optim.Muon(w, lr=float(hp["lr"]), **own)
        for t in range(STEPS):
            for each, part in zip(w, parts, strict=False):
                each.grad = part.view(noise(t, first))[0]
            for group in oracle.param_groups:
                group["lr"] = float(rates(t, hp))
            oracle.step()
        return torch.cat([each.detach().reshape(-1) for each in w])

    ours, _ = run(optimizer, (first, optimizer.start(first)), hp, range(STEPS), noise, parts=parts)
    torch.testing.assert_close(theirs(), ours[0, :hidden], rtol=0.05, atol=0.05)
    monkeypatch.setattr(Tensor, "bfloat16", Tensor.clone)
    torch.testing.assert_close(theirs(), ours[0, :hidden], rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------ members never meet


def test_members_together_equal_members_alone(optimizer: Optimizer) -> None:
    hp, first = hyperparameters(optimizer), start(optimizer)
    together = run(optimizer, first, hp, range(STEPS))
    for k in range(K):
        one = slice(k, k + 1)
        state, own = take(first, hp, one)
        alone = run(optimizer, state, own, range(STEPS), lambda t, w, one=one: noisy(t)[one])
        torch.testing.assert_close(together[0][one], alone[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            evaluated(optimizer, together, hp)[one],
            evaluated(optimizer, alone, own),
            rtol=1e-12,
            atol=1e-12,
        )


def test_permuting_members_permutes_the_result(optimizer: Optimizer) -> None:
    hp, first, order = hyperparameters(optimizer), start(optimizer), torch.tensor([3, 0, 4, 1, 2])
    plain, _ = run(optimizer, first, hp, range(20))
    permuted, _ = run(optimizer, *take(first, hp, order), range(20), lambda t, w: noisy(t)[order])
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

    plain = run(optimizer, first, hp, range(20))
    bad = run(optimizer, first, hp, range(20), poisoned)
    others = [0, 1, 3, 4]
    assert torch.equal(bad[0][others], plain[0][others])
    assert all(torch.equal(bad[1][n][others], plain[1][n][others]) for n in bad[1])
    both = (evaluated(optimizer, each, hp)[others] for each in (bad, plain))
    assert torch.equal(*both)
    assert not torch.equal(bad[0][2], plain[0][2])
    if poison != poison:  # it does not go unnoticed
        assert not torch.isfinite(bad[0][2]).any()


def test_dropping_members_leaves_the_others_alone(optimizer: Optimizer) -> None:
    hp, first, keep = hyperparameters(optimizer), start(optimizer), torch.tensor([0, 3])
    plain, _ = run(optimizer, first, hp, range(20))
    half = run(optimizer, first, hp, range(10))
    after, _ = run(optimizer, *take(half, hp, keep), range(10, 20), lambda t, w: noisy(t)[keep])
    torch.testing.assert_close(after, plain[keep], rtol=1e-13, atol=1e-13)


# ------------------------------------------------------------------ steps


def test_learning_rate_zero_changes_nothing(optimizer: Optimizer) -> None:
    hp, first = hyperparameters(optimizer), start(optimizer)
    hp["weight_decay"] = filled(0.5)
    hp["lr"] = torch.tensor([[0.0], [0.1], [0.0], [0.1], [0.0]], dtype=torch.float64)
    share = filled(1.0)
    state = run(optimizer, first, hp, range(5), bias_decay=share)
    assert torch.equal(state[0][::2], first[0][::2])
    assert torch.equal(evaluated(optimizer, state, hp)[::2], first[0][::2])
    assert not torch.equal(state[0][1], first[0][1])


def test_resumes_at_every_step_from_weights_and_slots(optimizer: Optimizer) -> None:
    hp, first = hyperparameters(optimizer), start(optimizer)
    whole = run(optimizer, first, hp, range(12))
    assert set(whole[1]) == {*optimizer.slots, *optimizer.scalars}
    assert all(whole[1][n].shape == (K, 1) for n in optimizer.scalars)
    for at in range(1, 12):
        again = run(optimizer, run(optimizer, first, hp, range(at)), hp, range(at, 12))
        assert torch.equal(again[0], whole[0])
        assert all(torch.equal(again[1][n], v) for n, v in whole[1].items())


def test_the_work_of_values_that_are_zero_can_be_left_out(optimizer: Optimizer) -> None:
    hp, first = hyperparameters(optimizer), start(optimizer)
    for name, knob in optimizer.numeric.items():
        if knob.low == 0.0 and name not in ("lr", "eps"):
            some = hp | {name: filled(0.0)}
            done, _ = run(optimizer, first, some, range(10))
            left_out, _ = run(optimizer, first, some, range(10), zero=frozenset({name}))
            assert torch.equal(done, left_out)


def test_only_the_decayed_columns_shrink(optimizer: Optimizer) -> None:
    hp, first = hyperparameters(optimizer), start(optimizer)
    hp["weight_decay"], hp["lr"] = filled(0.1), filled(1e-3)
    w, _ = run(optimizer, first, hp, range(10), lambda t, w: torch.zeros_like(w))
    assert torch.equal(w[:, DECAYED:], first[0][:, DECAYED:])
    assert (w[:, :DECAYED].abs() < first[0][:, :DECAYED].abs()).all()


def test_centred_rmsprop_survives_a_gradient_that_never_changes() -> None:
    optimizer = OPTIMIZERS["rmsprop_centered"]
    hp, first = hyperparameters(optimizer), start(optimizer)
    hp["alpha"] = filled(0.5)
    w, _ = run(optimizer, first, hp, range(200), lambda t, w: torch.full_like(w, 0.1))
    assert torch.isfinite(w).all()


# ------------------------------------------------------------------ convergence

# Learning rates for the quadratic where 0.1 is too small for 400 steps.
QUADRATIC = {
    "value_clipped_momentum": 1.0,
    "adagrad": 1.0,
    "adadelta": 10.0,
    "radam": 0.3,
    "muon": 1.0,
    "schedule_free_adamw": 0.3,
}

# Learning rates that lead into the minimum of Rosenbrock's valley within 3,000 steps. Left out are
# those too slow for it (sgd, which has no momentum, and adagrad, whose steps only get shorter),
# radam, which begins with steps as long as the gradient, of which the largest here is 1,150, and
# muon, which is for matrices.
ROSENBROCK = {
    "momentum": 4e-4,
    "nesterov": 4e-4,
    "averaged_momentum": 4e-3,
    "value_clipped_momentum": 0.03,
    "norm_clipped_momentum": 0.03,
    "adadelta": 1.0,
    "rmsprop": 0.01,
    "rmsprop_centered": 0.01,
    "adam": 0.3,
    "adamw": 0.3,
    "amsgrad": 1.0,
    "adamw_amsgrad": 1.0,
    "nadam": 0.2,
    "adamax": 1.0,
    "lion": 0.01,
    "schedule_free_adamw": 0.1,
}


def descend(
    optimizer: Optimizer, w: Tensor, gradient: Callable[[Tensor], Tensor], lr: float, total: int
) -> Tensor:
    """Where `total` steps with the default knobs lead, the rate falling to 0 where it may."""
    hp = {
        name: torch.full((len(w), 1), float(knob.default), dtype=w.dtype)
        for name, knob in optimizer.numeric.items()
    }
    parts = PARTS if w.shape[1] == P else (Part("w", 0, w.shape[1], (w.shape[1],), True),)

    def rate(t: int, hp: Values) -> Tensor:
        return torch.full_like(hp["lr"], lr * (1.0 if optimizer.evaluated else 1.0 - t / total))

    state = run(
        optimizer, (w, optimizer.start(w)), hp, range(total), lambda t, w: gradient(w),
        rate=rate, parts=parts,
    )  # fmt: skip
    return evaluated(optimizer, state, hp)


def test_converges_on_a_quadratic(optimizer: Optimizer) -> None:
    curvature = torch.linspace(0.5, 2.0, P, dtype=torch.float64)

    def loss(w: Tensor) -> Tensor:
        return (curvature * (w - 1.0).square()).sum(1)

    first, _ = start(optimizer)
    lr = QUADRATIC.get(optimizer.name, 0.1)
    w = descend(optimizer, first, lambda w: curvature * (w - 1.0), lr, 400)
    assert (loss(w) < 1e-4 * loss(first)).all()


@pytest.mark.parametrize("name", ROSENBROCK)
def test_reaches_the_minimum_of_the_rosenbrock_function(name: str) -> None:
    def gradient(w: Tensor) -> Tensor:
        x, y = w[:, :1], w[:, 1:]
        slope = 200.0 * (y - x.square())
        return torch.cat([2.0 * (x - 1.0) - 2.0 * x * slope, slope], 1)

    first = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [1.5, -0.5]], dtype=torch.float64)
    w = descend(OPTIMIZERS[name], first, gradient, ROSENBROCK[name], 3000)
    loss = (1.0 - w[:, 0]).square() + 100.0 * (w[:, 1] - w[:, 0].square()).square()
    assert (loss < 1e-2).all()
