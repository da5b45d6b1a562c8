"""The contract of every loss: the values of torch and scikit-learn, one per member and row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor
from torch.nn import functional as F

from adanet_py.data.spec import DataSpec
from adanet_py.errors import SpaceError
from adanet_py.metrics import METRICS, get_metric
from adanet_py.tasks import TASKS, has_several_targets, part_of
from adanet_py.training.general import GENERAL
from adanet_py.training.losses import KNOBS, LOSSES, Loss, choose_loss, default_loss, loss_name
from adanet_py.training.targets import with_label_weight

K, B, M, C = 3, 7, 2, 4
RATIO, LEVEL = 0.8, 0.9
HP = {
    "label_smoothing": (0.0, 0.1, 0.6),
    "focal_gamma": (0.0, 0.5, 3.0),
    "huber_delta": (0.3, 1.0, 4.0),
}
OUTPUTS = {"binary": 1, "multiclass": C, "regression": 1}


class Case(NamedTuple):
    """A loss on a task it is meant for, and random outputs and targets."""

    loss: Loss
    task: str
    outputs: Tensor  # [K, B, M, C]
    target: Tensor  # [K, B]
    hp: dict[str, Tensor]

    def rows(self, outputs: Tensor | None = None, target: Tensor | None = None) -> Tensor:
        return self.loss.rows(
            self.outputs if outputs is None else outputs,
            self.target if target is None else target,
            self.hp,
        )


CASES = [(n, task) for n, loss in sorted(LOSSES.items()) for task in loss.tasks if task in OUTPUTS]


@pytest.fixture(params=CASES, ids=["-".join(c) for c in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    name, task = request.param
    generator = torch.Generator().manual_seed(0)
    size = OUTPUTS[task]
    spec = DataSpec(task, size, 3, quantile=LEVEL, target_ratio=(RATIO,))
    outputs = torch.randn(K, B, M, size, dtype=torch.float64, generator=generator) * 3
    if task == "regression":
        target = torch.randn(K, B, dtype=torch.float64, generator=generator).abs() - 0.7
    else:
        target = torch.randint(0, max(2, size), (K, B), generator=generator).double()
    hp = {n: torch.tensor(v, dtype=torch.float64).reshape(K, 1) for n, v in HP.items()}
    return Case(choose_loss({"loss": name}, spec), task, outputs, target, hp)


# ------------------------------------------------------------------ references, of one member


def in_means(y: Tensor) -> Tensor:
    """Standardised targets in units of their mean."""
    return 1 + y / RATIO


def torch_binary(z: Tensor, y: Tensor, hp: dict[str, float]) -> Tensor:
    soft = y * (1.0 - hp["label_smoothing"]) + 0.5 * hp["label_smoothing"]
    return F.binary_cross_entropy_with_logits(z[:, 0], soft, reduction="none")


def torch_multiclass(z: Tensor, y: Tensor, hp: dict[str, float]) -> Tensor:
    return F.cross_entropy(z, y.long(), label_smoothing=hp["label_smoothing"], reduction="none")


def plain_focal(z: Tensor, y: Tensor, hp: dict[str, float]) -> Tensor:
    both = torch.cat([torch.zeros_like(z), z], 1) if z.shape[1] == 1 else z
    p = both.softmax(-1)[torch.arange(len(y)), y.long()]
    return -((1 - p) ** hp["focal_gamma"]) * p.log()


def torch_squared(z: Tensor, y: Tensor, hp: dict[str, float]) -> Tensor:
    return F.mse_loss(z[:, 0], y, reduction="none")


def torch_half(z: Tensor, y: Tensor, hp: dict[str, float]) -> Tensor:
    return F.mse_loss(z[:, 0], y, reduction="none") / 2


def torch_absolute(z: Tensor, y: Tensor, hp: dict[str, float]) -> Tensor:
    return F.l1_loss(z[:, 0], y, reduction="none")


def torch_huber(z: Tensor, y: Tensor, hp: dict[str, float]) -> Tensor:
    return F.huber_loss(z[:, 0], y, delta=hp["huber_delta"], reduction="none")


def plain_pinball(z: Tensor, y: Tensor, hp: dict[str, float]) -> Tensor:
    error = y - z[:, 0]
    above = (error > 0).double()
    return error.abs() * (LEVEL * above + (1 - LEVEL) * (1 - above))


def torch_poisson(z: Tensor, y: Tensor, hp: dict[str, float]) -> Tensor:
    u = in_means(y)
    least = torch.xlogy(u, u) - u  # of the Poisson loss, at exp z = u
    return 2 * (F.poisson_nll_loss(z[:, 0], u, log_input=True, reduction="none") + least)


def plain_gamma(z: Tensor, y: Tensor, hp: dict[str, float]) -> Tensor:
    u, mean = in_means(y), z[:, 0].exp()
    return 2 * (torch.log(mean / u) + u / mean - 1)


# A new loss needs its reference here; the test below fails until it has one.
REFERENCES: dict[str, Callable[[Tensor, Tensor, dict[str, float]], Tensor]] = {
    "binary_cross_entropy": torch_binary,
    "cross_entropy": torch_multiclass,
    "focal": plain_focal,
    "mean_squared_error": torch_squared,
    "half_squared_error": torch_half,
    "mean_absolute": torch_absolute,
    "huber": torch_huber,
    "quantile": plain_pinball,
    "poisson": torch_poisson,
    "gamma": plain_gamma,
}

# What scikit-learn computes of predictions in the target's unit (mean RATIO, scale 1).
SKLEARN = {
    "binary_cross_entropy": lambda y, z: metrics.log_loss(y, 1 / (1 + np.exp(-z)), labels=[0, 1]),
    "mean_squared_error": metrics.mean_squared_error,
    "half_squared_error": lambda y, z: metrics.mean_squared_error(y, z) / 2,
    "mean_absolute": metrics.mean_absolute_error,
    "quantile": lambda y, z: metrics.mean_pinball_loss(y, z, alpha=LEVEL),
    "poisson": lambda y, z: metrics.mean_poisson_deviance(y + RATIO, z + RATIO) / RATIO,
    "gamma": lambda y, z: metrics.mean_gamma_deviance(y + RATIO, z + RATIO),
}


def members(case: Case) -> Iterator[tuple[int, dict[str, float]]]:
    for k in range(K):
        yield k, {name: values[k] for name, values in HP.items()}


# ------------------------------------------------------------------ the contract


def test_every_loss_has_a_reference_and_every_task_a_loss() -> None:
    assert set(REFERENCES) == set(LOSSES)
    assert set(HP) == set(KNOBS) <= set(GENERAL)
    for task in TASKS:
        assert task in default_loss(task).tasks
    for loss in LOSSES.values():  # what is for one target is for several
        several = {part_of(task) for task in loss.tasks if has_several_targets(task)}
        assert several == {"binary", "regression"} & set(loss.tasks)
    assert all(LOSSES[name].name == name for name in LOSSES)
    assert {loss.metric for loss in LOSSES.values()} <= {*METRICS, None}


def test_equals_its_reference_for_every_member_row_and_knob(case: Case) -> None:
    rows = case.rows()
    assert rows.shape == (K, B)
    for k, hp in members(case):
        reference = REFERENCES[case.loss.name]
        each = [reference(case.outputs[k, :, m], case.target[k], hp) for m in range(M)]
        torch.testing.assert_close(rows[k], torch.stack(each).mean(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(SKLEARN))
def test_its_mean_is_the_metric_of_scikit_learn(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    task = LOSSES[name].tasks[0]
    loss = LOSSES[name].of(DataSpec(task, 1, 3, quantile=LEVEL, target_ratio=(RATIO,)))
    outputs = torch.randn(1, 50, 1, 1, dtype=torch.float64, generator=generator)
    target = torch.randn(1, 50, dtype=torch.float64, generator=generator).abs() - 0.75
    target = (target > 0).double() if task == "binary" else target
    hp = {n: torch.zeros(1, 1, dtype=torch.float64) for n in HP}
    scored = outputs if loss.link is None else loss.link(outputs)
    mean = float(loss.rows(outputs, target, hp).mean())
    expected = SKLEARN[name](target[0].numpy(), scored[0, :, 0, 0].numpy())
    assert mean == pytest.approx(expected, rel=1e-12)


def test_the_gradient_is_that_of_the_values(case: Case) -> None:
    leaf = case.outputs.clone().requires_grad_()
    assert torch.autograd.gradcheck(case.rows, (leaf,))


def test_a_second_derivative_is_that_of_the_gradient(case: Case) -> None:
    leaf = case.outputs[:, :2].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda z: case.rows(z, case.target[:, :2]), (leaf,))


def test_the_best_constant_is_what_the_loss_says(case: Case) -> None:
    """Its gradient is 0 there, or, of absolute losses, changes sign."""
    if case.task != "regression" or case.loss.name == "huber":
        return
    y = torch.linspace(-0.75, 3.0, 201, dtype=torch.float64)
    y = y.square() - 0.5
    quantile = {"quantile": LEVEL, "mean_absolute": 0.5}.get(case.loss.name)
    best = y.mean() if quantile is None else y.quantile(quantile, interpolation="nearest")
    raw = torch.log(in_means(best)) if case.loss.log_link else best
    hp = {n: v[:1] for n, v in case.hp.items()}

    def mean(z: Tensor) -> float:
        return float(case.loss.rows(z.reshape(1, 1, 1, 1).expand(1, 201, 1, 1), y[None], hp).mean())

    assert mean(raw) < min(mean(raw - 0.03), mean(raw + 0.03))
    if case.loss.link is not None:
        torch.testing.assert_close(case.loss.link(raw), best)


def test_members_may_share_a_target(case: Case) -> None:
    shared = case.rows(target=case.target[:1])
    assert torch.equal(shared, case.rows(target=case.target[:1].expand(K, B)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_values_and_gradients_are_finite_even_for_extreme_outputs(
    case: Case, sign: float, dtype: torch.dtype
) -> None:
    scale = torch.tensor([1.0, 1e4, 1e8], dtype=dtype).reshape(K, 1, 1, 1) * sign
    leaf = (case.outputs.to(dtype) * scale).requires_grad_()
    hp = {n: v.to(dtype) for n, v in case.hp.items()}
    rows = case.loss.rows(leaf, case.target.to(dtype), hp)
    (gradient,) = torch.autograd.grad(rows.sum(), leaf)
    assert torch.isfinite(rows).all()
    assert torch.isfinite(gradient).all()
    assert (gradient.abs().sum((1, 2, 3)) > 0).all()
    if case.loss.link is not None:
        scored = case.loss.link(leaf)
        assert torch.isfinite(scored).all()
        assert (scored > -RATIO).all()  # a mean above 0


def test_the_gradient_of_the_sum_gives_every_member_its_own(case: Case) -> None:
    leaf = case.outputs.clone().requires_grad_()
    (together,) = torch.autograd.grad(case.rows(leaf).mean(-1).sum(), leaf)
    for k in range(K):
        alone = case.outputs[k : k + 1].clone().requires_grad_()
        own = {n: v[k : k + 1] for n, v in case.hp.items()}
        mean = case.loss.rows(alone, case.target[k : k + 1], own).mean()
        torch.testing.assert_close(torch.autograd.grad(mean, alone)[0], together[k : k + 1])


def test_a_bad_member_does_not_reach_the_others(case: Case) -> None:
    bad = case.outputs.clone()
    bad[1] = float("nan")
    plain, poisoned = case.rows(), case.rows(bad)
    assert torch.equal(plain[[0, 2]], poisoned[[0, 2]])
    assert torch.isnan(poisoned[1]).all()


def test_several_targets_are_averaged_over(case: Case) -> None:
    if case.task == "multiclass":
        return
    outputs = torch.cat([case.outputs, -case.outputs], -1)
    target = torch.stack([case.target, case.target.flip(1)], -1)
    each = [case.rows(outputs[..., t : t + 1], target[..., t]) for t in range(2)]
    torch.testing.assert_close(case.rows(outputs, target), (each[0] + each[1]) / 2)
    if case.loss.log_link:  # every target has its own mean
        spec = DataSpec("regression", 2, 3, target_ratio=(RATIO, 2.0))
        loss, other = LOSSES[case.loss.name].of(spec), LOSSES[case.loss.name]
        second = other.of(DataSpec("regression", 1, 3, target_ratio=(2.0,)))
        each[1] = second.rows(outputs[..., 1:], target[..., 1], case.hp)
        both = loss.rows(outputs, target, case.hp)
        torch.testing.assert_close(both, (each[0] + each[1]) / 2)


def test_a_class_weight_is_a_factor_of_every_label_alone(case: Case) -> None:
    if case.task != "binary":
        return
    outputs = torch.cat([case.outputs, -case.outputs], -1)
    target = torch.stack([case.target, case.target.flip(1)], -1)
    weight = torch.tensor([[0.5, 3.0], [2.0, 0.25]], dtype=torch.float64)
    rows = with_label_weight(case.loss, weight).rows(outputs, target, case.hp)
    each = [
        case.rows(outputs[..., t : t + 1], target[..., t]) * weight[t][target[..., t].long()]
        for t in range(2)
    ]
    torch.testing.assert_close(rows, (each[0] + each[1]) / 2)
    shared = with_label_weight(case.loss, weight).rows(outputs, target[:1], case.hp)
    torch.testing.assert_close(shared[0], rows[0])
    ones = with_label_weight(case.loss, torch.ones_like(weight))
    torch.testing.assert_close(ones.rows(outputs, target, case.hp), case.rows(outputs, target))


def test_only_the_knobs_a_loss_names_change_it(case: Case) -> None:
    plain = case.rows()
    for name in KNOBS:
        other = case.hp | {name: case.hp[name] * 0.5 + 0.1}
        same = torch.equal(plain, case.loss.rows(case.outputs, case.target, other))
        used = name in case.loss.knobs
        assert same != used, name


# ------------------------------------------------------------------ which loss


def test_a_candidate_names_its_loss_or_takes_that_of_the_run_or_the_task() -> None:
    plain = DataSpec("regression", 1, 3)
    run = DataSpec("regression", 1, 3, loss="huber")
    assert loss_name({}, plain) == loss_name({"loss": "auto"}, plain) == "mean_squared_error"
    assert loss_name({}, run) == loss_name({"loss": "auto"}, run) == "huber"
    assert loss_name({"loss": "quantile"}, run) == "quantile"
    assert loss_name({}, DataSpec("binary", 1, 3)) == "binary_cross_entropy"


def test_a_loss_of_another_task_or_of_no_name_is_refused() -> None:
    with pytest.raises(
        SpaceError, match=r"for regression and multioutput tasks, but this task is binary\. .*focal"
    ):
        choose_loss({"loss": "huber"}, DataSpec("binary", 1, 3))
    with pytest.raises(SpaceError, match="Did you mean 'huber'"):
        choose_loss({"loss": "hubert"}, DataSpec("regression", 1, 3))


def test_the_metric_of_a_loss_orders_constants_as_the_loss_does() -> None:
    """So that following one from the other, either way, asks for the same thing."""
    y = np.array([0.5, 1.0, 1.0, 2.0, 9.0])
    mean, scale = y.mean(), y.std()
    for loss in LOSSES.values():
        if loss.metric is None or "regression" not in loss.tasks:
            continue
        spec = DataSpec("regression", 1, 3, target_ratio=(mean / scale,))
        metric, of = get_metric(loss.metric), loss.of(spec)
        values = np.array([0.7, 1.1, 2.0, 3.0, 6.0])
        raw = np.log(values / mean) if loss.log_link else (values - mean) / scale
        outputs = torch.tensor(raw).reshape(-1, 1, 1, 1).expand(5, 5, 1, 1)
        target = torch.tensor((y - mean) / scale)[None]
        losses = of.rows(outputs, target, {}).mean(-1).numpy()
        scores = [metric.function(y, np.full(5, v), None) for v in values]
        assert np.array_equal(np.argsort(losses), np.argsort(scores)), loss.name
