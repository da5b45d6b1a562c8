"""The contract of what disturbs training: its moments, its independence, and that off is free."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from programs import make_candidates, make_program, make_spec, small
from scipy import stats
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from adanet_py.architectures import ARCHITECTURES, Architecture
from adanet_py.architectures.architecture import SHARED_STATIC
from adanet_py.architectures.perturbations import (
    Cutmix,
    Dropout,
    DropPath,
    InputNoise,
    Mixup,
    noise_pool,
)
from adanet_py.errors import SpaceError
from adanet_py.records import Candidate
from adanet_py.training.engines.program import build_module, perturbations
from adanet_py.training.engines.stacked import StackedEngine
from adanet_py.training.mixing import Mixer, symmetric_beta


@pytest.mark.parametrize("share", [0.0, 0.25, 0.3, 0.95])
def test_dropout_zeroes_its_share_and_keeps_the_mean(share: float) -> None:
    layer = Dropout().train()
    layer.knob_dropout.fill_(share)
    layer.noise = noise_pool(5)
    x = torch.ones(1000, 100)
    y = layer(x)
    exact = round(share * 256) / 256
    # 100,000 draws: six standard deviations of the share.
    bound = 6 * math.sqrt(exact * (1 - exact) / x.numel())
    assert abs(float((y == 0).float().mean()) - exact) <= bound
    assert abs(exact - share) <= 1 / 512
    kept = y[y != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - exact)))
    assert torch.equal(layer.eval()(x), x)


def test_dropout_moves_with_its_place_and_differs_between_members_and_rows() -> None:
    layer = Dropout().train()
    layer.knob_dropout.fill_(0.5)
    layer.noise = noise_pool(1)
    x = torch.ones(64, 50)
    first = layer(x)
    layer.start = 12345
    moved = layer(x)
    layer.noise = noise_pool(2)
    other = layer(x)
    for a, b in ((first, moved), (moved, other), (first[0], first[1])):
        assert 0.3 < float((a == b).float().mean()) < 0.7
    layer.start = 0
    layer.noise = noise_pool(1)
    assert torch.equal(layer(x), first)


@pytest.mark.parametrize("shape", [(1, 1), (3, 8, 7), (3000, 400), (2, 600_000), (512, 3000)])
def test_dropout_takes_layers_of_any_size(shape: tuple[int, ...]) -> None:
    layer = Dropout().train()
    layer.knob_dropout.fill_(0.5)
    layer.noise = noise_pool(1)
    layer.start = 2**31 - 2
    y = layer(torch.ones(shape))
    assert y.shape == shape
    if y.numel() > 1000:
        assert 0.45 < float((y == 0).float().mean()) < 0.55


@pytest.mark.parametrize("branch", [1, 2, 4])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_drop_path_drops_whole_rows_and_keeps_the_mean(share: float, branch: int) -> None:
    layer = DropPath(branch, 4).train()
    layer.knob_drop_path.fill_(share)
    layer.noise = noise_pool(5)
    y = layer(torch.ones(20_000, 3))
    exact = min(255, round(share * branch / 4 * 256)) / 256
    dropped = (y == 0).all(1)
    assert torch.equal(dropped, (y == 0).any(1))
    # Six standard deviations of the share.
    assert abs(float(dropped.float().mean()) - exact) <= 6 * math.sqrt(exact * (1 - exact) / 20_000)
    torch.testing.assert_close(y[~dropped], torch.full_like(y[~dropped], 1 / (1 - exact)))
    assert torch.equal(layer.eval()(y), y)


@pytest.mark.parametrize("scale", [0.0, 0.1, 2.0])
def test_input_noise_is_standard_normal_times_its_scale(scale: float) -> None:
    layer = InputNoise().double().train()
    layer.knob_input_noise.fill_(scale)
    layer.noise = noise_pool(3)
    x = torch.randn(10_000, 10, dtype=torch.float64)
    noise = layer(x) - x
    if scale == 0.0:
        assert not noise.any()
        return
    z, n = noise / scale, x.numel()
    assert abs(float(z.mean())) < 6 / math.sqrt(n)
    assert float(z.var()) == pytest.approx(1.0, abs=6 * math.sqrt(2 / n))
    assert float(z.pow(3).mean()) == pytest.approx(0.0, abs=6 * math.sqrt(15 / n))
    # The tails are cut, so the kurtosis is a little below 3.
    assert 2.8 < float(z.pow(4).mean()) < 3.0
    assert stats.kstest(z.flatten().numpy(), "norm").statistic < 0.01
    assert abs(float(torch.corrcoef(z.T).fill_diagonal_(0).abs().max())) < 6 / math.sqrt(len(z))
    assert torch.equal(layer.eval()(x), x)


def test_mixup_mixes_a_row_with_the_one_before() -> None:
    layer = Mixup().double().train()
    layer.step_share.fill_(0.3)
    x = torch.randn(5, 4, dtype=torch.float64)
    want = torch.stack([0.3 * x[i] + 0.7 * x[i - 1] for i in range(5)])
    torch.testing.assert_close(layer(x), want)
    layer.step_share.fill_(1.0)
    assert torch.equal(layer(x), x)
    assert torch.equal(layer.eval()(x), x)


def test_cutmix_takes_columns_from_the_row_before() -> None:
    layer = Cutmix(5).train()
    layer.step_keep.copy_(torch.tensor([True, False, True, False, True]))
    numeric, category = torch.randn(4, 3), torch.randint(0, 9, (4, 2))
    n, c = layer(numeric, category)
    for i in range(4):
        assert n[i].tolist() == [numeric[i, 0], numeric[i - 1, 1], numeric[i, 2]]
        assert c[i].tolist() == [category[i - 1, 0], category[i, 1]]
    n, c = layer.eval()(numeric, category)
    assert torch.equal(n, numeric)
    assert torch.equal(c, category)


# ------------------------------------------------------------------ how rows are mixed, as data


@pytest.mark.parametrize("alpha", [1e-3, 0.05, 0.2, 0.4, 1.0, 3.0, 10.0])
def test_draws_from_the_symmetric_beta_distribution(alpha: float) -> None:
    rng, n = np.random.default_rng(0), 100_000
    x = symmetric_beta(rng.random(n), rng.random(n), np.full(n, alpha))
    assert ((x >= 0) & (x <= 1)).all()
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(x.mean() - 0.5) < 6 * math.sqrt(variance / n)
    assert x.var() == pytest.approx(
        variance, abs=6 * (x - 0.5).__pow__(2).std() / math.sqrt(n) + 1e-9
    )
    # Beyond the resolution of floating-point numbers near 1 for smaller alpha.
    if alpha >= 0.4:
        assert stats.kstest(x, stats.beta(alpha, alpha).cdf).pvalue > 1e-6


def mixer(mixup: list[float], cutmix: list[float], columns: int = 7) -> Mixer:
    candidates = [
        Candidate("mlp", numeric={"mixup": a, "cutmix": b}, seed=i)
        for i, (a, b) in enumerate(zip(mixup, cutmix, strict=True))
    ]
    made = Mixer.make(candidates, list(range(100, 100 + len(mixup))), 1, columns)
    assert made is not None
    return made


def test_mixing_is_a_function_of_seed_and_step_alone() -> None:
    made = mixer([0.2, 0.0, 1.0, 0.0], [0.0, 0.5, 1.0, 0.0])
    whole = made.take(0, 40)
    for start, stop in ((3, 17), (39, 40)):
        part = made.take(start, stop)
        for name in ("share", "keep", "own"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[start:stop])
    some = made.select([2, 0]).take(0, 40)
    for name in ("share", "keep", "own"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[:, [2, 0]])
    assert len(np.unique(whole.share[:, 0])) == 40


def test_members_mix_as_they_ask_for() -> None:
    taken = mixer([0.2, 0.0, 1.0, 0.0], [0.0, 0.5, 1.0, 0.0]).take(0, 4000)
    np.testing.assert_array_equal(taken.own, taken.share * taken.keep.mean(-1))
    up, cut, both, none = range(4)
    assert taken.keep[:, [up, none]].all()
    assert (taken.share[:, [cut, none]] == 1).all()
    assert (taken.own[:, none] == 1).all()
    blends = taken.share[:, both] < 1
    assert taken.keep[blends, both].all()
    assert abs(blends.mean() - 0.5) < 6 * 0.5 / math.sqrt(4000)
    assert taken.share[:, up].var() == pytest.approx(1 / (4 * 1.4), rel=0.1)
    # The share of columns kept: a Beta-binomial distribution over the number of columns.
    a, n = 0.5, 7
    chance = stats.betabinom(n, a, a).pmf(np.arange(n + 1))
    count = np.bincount((taken.keep[:, cut]).sum(-1), minlength=n + 1)
    assert stats.chisquare(count, 4000 * chance).pvalue > 1e-6
    assert Mixer.make([Candidate("mlp")], [1], 3, 5) is None


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_mixed_as_the_rows_are(weighted: bool) -> None:
    program = make_program(make_candidates("mlp", [{}, {}]), make_spec("multiclass"))
    outputs = torch.randn(2, 5, 1, 3, dtype=torch.float64)
    target = torch.tensor([[0, 1, 2, 1, 0]]).double()
    weight = torch.rand(1, 5, dtype=torch.float64) if weighted else None
    own, hp = torch.tensor([[0.3], [1.0]]).double(), program.hyperparameters()
    got = program.row_losses(outputs, target, weight, hp, own)
    for k in range(2):
        each = [
            [nn.functional.cross_entropy(outputs[k, i, 0], target[0, j].long()) for j in range(5)]
            for i in range(5)
        ]
        w = [1.0] * 5 if weight is None else weight[0].tolist()
        a = float(own[k])
        want = [a * w[i] * each[i][i] + (1 - a) * w[i - 1] * each[i][i - 1] for i in range(5)]
        torch.testing.assert_close(got[k], torch.stack(want))


# ------------------------------------------------------------------ in an engine


class Counting(TorchDispatchMode):
    """Counts the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def operations(architecture: str, bare: bool, **numeric: float) -> Counter[str]:
    """Of one step of two members; `bare`: of a network without any layer that could perturb."""
    candidates = make_candidates(architecture, [{}, numeric])
    engine = StackedEngine(make_program(candidates, make_spec(), steps=2))
    if bare:
        for module in engine._train.modules():
            for name, child in list(module.named_children()):
                if isinstance(child, Cutmix):
                    child.forward = lambda numeric, category: (numeric, category)
                elif child in perturbations(engine._train):
                    setattr(module, name, nn.Identity())
    else:
        assert (engine.noise is None) == (engine.mixer is None) == (not numeric)
    with Counting() as counting:
        engine.advance(0, 1, lambda step: False)
    return counting.calls


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_what_nobody_uses_costs_nothing(architecture: str) -> None:
    off = operations(architecture, bare=False)
    assert off == operations(architecture, bare=True)
    on = operations(architecture, bare=False, dropout=0.1, input_noise=0.1, mixup=0.1)
    assert sum(on.values()) > sum(off.values())


def test_an_architecture_without_inputs_refuses_what_acts_there() -> None:
    class Own(nn.Module):
        def __init__(self, static: Any, spec: Any) -> None:
            super().__init__()
            self.linear = nn.Linear(spec.n_numeric, spec.n_outputs)

        def forward(self, numeric: Tensor, category: Tensor) -> Tensor:
            return self.linear(numeric)

    own = Architecture("own", "linear", SHARED_STATIC, {}, Own)
    spec, static = make_spec(), small(ARCHITECTURES["mlp"])
    static = {n: v for n, v in static.items() if n in SHARED_STATIC}
    build_module(own, Candidate("own", static, numeric={"mixup": 0.0}), spec, 0)
    for knob in ("input_noise", "mixup", "cutmix"):
        with pytest.raises(
            SpaceError, match=f"{knob} = 0.1 acts in .*layers.Inputs, which the .*own"
        ):
            build_module(own, Candidate("own", static, numeric={knob: 0.1}), spec, 0)
