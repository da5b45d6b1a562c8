"""Averages of the weights equal torch's AveragedModel, a mean written out, or the weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from adanet_py.records import Candidate
from adanet_py.training.averaging import averages, averaging_weights
from adanet_py.training.general import GENERAL

TOTAL = 40


def member(**numeric: float) -> Candidate:
    return Candidate("mlp", numeric=numeric)


def walk(total: int = TOTAL) -> np.ndarray:
    """Weights [total, 3] that wander."""
    return np.random.default_rng(0).normal(size=(total, 3)).cumsum(0)


def follow(weights: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The average after every step [total, 3]."""
    out = np.empty_like(weights)
    average = np.full(weights.shape[1], 123.0)  # where it starts must not matter
    for t, w in enumerate(weights):
        average = average + c[t] * (w - average)
        out[t] = average
    return out


def torch_average(
    weights: np.ndarray, average: Callable[[Tensor, Tensor, Tensor | int], Tensor] | None
) -> np.ndarray:
    """What AveragedModel holds after every update [total, 3]."""
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    averaged = AveragedModel(model, avg_fn=average)
    out = []
    for w in weights:
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(w))
        averaged.update_parameters(model)
        out.append(averaged.module.weight.detach().numpy().ravel().copy())
    return np.array(out)


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.99999])
def test_an_exponential_average_is_that_of_torch_with_the_decay_warmed_up(decay: float) -> None:
    def rule(average: Tensor, w: Tensor, n: Tensor | int) -> Tensor:
        d = min(decay, (1.0 + float(n)) / (10.0 + float(n)))
        return d * average + (1.0 - d) * w

    got = follow(walk(), averaging_weights([member(ema=decay)], TOTAL)[:, 0])
    np.testing.assert_allclose(got, torch_average(walk(), rule), rtol=1e-12, atol=1e-12)


def test_a_small_decay_is_the_plain_exponential_average_of_torch() -> None:
    # 0.1 is below every value of the warm-up from the second step on.
    rule = torch.optim.swa_utils.get_ema_avg_fn(0.1)
    got = follow(walk(), averaging_weights([member(ema=0.1)], TOTAL)[:, 0])
    np.testing.assert_allclose(got, torch_average(walk(), rule), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 1.0])
def test_an_equal_average_is_that_of_torch_over_the_last_steps(share: float) -> None:
    got = follow(walk(), averaging_weights([member(swa=share)], TOTAL)[:, 0])
    start = TOTAL - max(1, round(share * TOTAL))
    np.testing.assert_allclose(got[:start], walk()[:start], rtol=1e-12)
    want = torch_average(walk()[start:], None)
    np.testing.assert_allclose(got[start:], want, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(got[-1], walk()[start:].mean(0), rtol=1e-12)


def test_without_either_the_average_is_the_weights() -> None:
    table = averaging_weights([member(), member(ema=0.0, swa=0.0)], TOTAL)
    np.testing.assert_array_equal(table, np.ones((TOTAL, 2)))
    assert not averages([member(), member(ema=0.0, swa=0.0)])
    assert averages([member(), member(ema=0.5)])
    assert averages([member(swa=0.5)])


def test_with_both_the_equal_mean_begins_anew_at_its_start() -> None:
    both, ema, swa = averaging_weights(
        [member(ema=0.9, swa=0.25), member(ema=0.9), member(swa=0.25)], TOTAL
    ).T
    np.testing.assert_array_equal(both[:30], ema[:30])
    np.testing.assert_array_equal(both[30:], swa[30:])


@pytest.mark.parametrize("total", [1, 2, 3, TOTAL])
def test_members_do_not_depend_on_each_other_and_every_weight_is_a_share(total: int) -> None:
    ends = [float(v) for n in ("ema", "swa") for v in (GENERAL[n].low, GENERAL[n].high) if v]
    members = [member(ema=0.99999), member(swa=1.0), member(ema=0.5, swa=0.3), member()]
    assert ends == [0.99999, 1.0]
    table = averaging_weights(members, total)
    assert table.shape == (total, 4)
    assert ((table > 0.0) & (table <= 1.0)).all()
    np.testing.assert_array_equal(table[0], np.ones(4))
    for k, one in enumerate(members):
        np.testing.assert_array_equal(table[:, k], averaging_weights([one], total)[:, 0])
