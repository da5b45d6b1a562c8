"""The contract of every loss: the values of torch.nn.functional, one per member and row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adanet_py.training.losses import LOSSES, Loss, default_loss

K, B, M, C = 3, 7, 2, 4
SMOOTHING = (0.0, 0.1, 0.6)


@pytest.fixture(params=sorted(LOSSES))
def loss(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param]


def example(loss: Loss, k: int = K) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Outputs [K, B, M, C], targets [K, B], smoothing [K, 1]."""
    generator = torch.Generator().manual_seed(0)
    outputs_per_row = C if "multiclass" in loss.tasks else 1
    outputs = torch.randn(K, B, M, outputs_per_row, dtype=torch.float64, generator=generator) * 3
    if "regression" in loss.tasks:
        target = torch.randn(K, B, dtype=torch.float64, generator=generator)
    else:
        classes = max(2, outputs_per_row)
        target = torch.randint(0, classes, (K, B), generator=generator).double()
    smoothing = torch.tensor(SMOOTHING, dtype=torch.float64).reshape(K, 1)
    return outputs[:k], target[:k], {"label_smoothing": smoothing[:k]}


def torch_binary(outputs: Tensor, target: Tensor, smoothing: float) -> Tensor:
    soft = target * (1.0 - smoothing) + 0.5 * smoothing
    return F.binary_cross_entropy_with_logits(outputs[:, 0], soft, reduction="none")


def torch_multiclass(outputs: Tensor, target: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(outputs, target.long(), label_smoothing=smoothing, reduction="none")


def torch_squared(outputs: Tensor, target: Tensor, smoothing: float) -> Tensor:
    return F.mse_loss(outputs[:, 0], target, reduction="none")


# A new loss needs its reference here; the test below fails until it has one.
REFERENCES = {
    "binary_cross_entropy": torch_binary,
    "cross_entropy": torch_multiclass,
    "mean_squared_error": torch_squared,
}


def test_every_loss_has_a_reference_and_every_task_a_loss() -> None:
    assert set(REFERENCES) == set(LOSSES)
    for task in ("binary", "multiclass", "regression"):
        assert task in default_loss(task).tasks
    assert all(LOSSES[name].name == name for name in LOSSES)


def test_equals_torch_for_every_member_row_and_smoothing(loss: Loss) -> None:
    outputs, target, hp = example(loss)
    rows = loss.rows(outputs, target, hp)
    assert rows.shape == (K, B)
    for k in range(K):
        each = [REFERENCES[loss.name](outputs[k, :, m], target[k], SMOOTHING[k]) for m in range(M)]
        torch.testing.assert_close(rows[k], torch.stack(each).mean(0), rtol=1e-12, atol=1e-12)


def test_members_may_share_a_target(loss: Loss) -> None:
    outputs, target, hp = example(loss)
    shared = loss.rows(outputs, target[:1], hp)
    assert torch.equal(shared, loss.rows(outputs, target[:1].expand(K, B), hp))


def test_gradients_are_finite_even_for_extreme_outputs(loss: Loss) -> None:
    outputs, target, hp = example(loss)
    scale = torch.tensor([1.0, 1e4, 1e8], dtype=torch.float64).reshape(K, 1, 1, 1)
    leaf = (outputs * scale).requires_grad_()
    rows = loss.rows(leaf, target, hp)
    (gradient,) = torch.autograd.grad(rows.sum(), leaf)
    assert torch.isfinite(rows).all()
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


def test_the_gradient_of_the_sum_gives_every_member_its_own(loss: Loss) -> None:
    outputs, target, hp = example(loss)
    leaf = outputs.clone().requires_grad_()
    (together,) = torch.autograd.grad(loss.rows(leaf, target, hp).mean(-1).sum(), leaf)
    for k in range(K):
        alone = outputs[k : k + 1].clone().requires_grad_()
        own = {"label_smoothing": hp["label_smoothing"][k : k + 1]}
        mean = loss.rows(alone, target[k : k + 1], own).mean()
        torch.testing.assert_close(torch.autograd.grad(mean, alone)[0], together[k : k + 1])


def test_a_bad_member_does_not_reach_the_others(loss: Loss) -> None:
    outputs, target, hp = example(loss)
    bad = outputs.clone()
    bad[1] = float("nan")
    plain, poisoned = loss.rows(outputs, target, hp), loss.rows(bad, target, hp)
    assert torch.equal(plain[[0, 2]], poisoned[[0, 2]])
    assert torch.isnan(poisoned[1]).all()
