"""AdaNet's objective, its exact minimum and the growth of ensembles, against other computations."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from sklearn.linear_model import LogisticRegression

from adanet_py.ensemble import objective as solver
from adanet_py.ensemble.ensemblers import ENSEMBLERS
from adanet_py.ensemble.growth import STRATEGIES, Member, Setting, best_weights, grow
from adanet_py.ensemble.losses import LOSSES
from adanet_py.ensemble.objective import KINDS, Objective, minimise
from adanet_py.ensemble.weights import Weights
from adanet_py.errors import ConfigError

WIDTHS = {"binary": 1, "multiclass": 3, "multilabel": 2, "regression": 1, "multioutput": 2}


def problem(task, members=5, rows=300, seed=0, noise=1.0):
    """Outputs [k, n, C] of members that see the truth through noise, and the target."""
    rng = np.random.default_rng(seed)
    truth = 1.5 * rng.normal(size=(rows, WIDTHS[task]))
    level = noise * np.linspace(0.5, 2.0, members)
    outputs = truth + level[:, None, None] * rng.normal(size=(members, *truth.shape))
    if task == "multiclass":
        odds = np.exp(truth) / np.exp(truth).sum(1, keepdims=True)
        y = np.array([rng.choice(len(p), p=p) for p in odds])
    elif task in ("binary", "multilabel"):
        y = (rng.random(truth.shape) < 1 / (1 + np.exp(-truth))).astype(float)
    else:
        y = truth + 0.3 * rng.normal(size=truth.shape)
    return outputs, y[:, 0] if task in ("binary", "regression") else y


def members_of(outputs, complexity=1.0):
    return [Member(f"m{j}", h, 1 + j % 2, complexity) for j, h in enumerate(outputs)]


# -------------------------------------------------------------------------------- F by hand


def test_f_of_three_members_by_hand():
    # Two rows, a logit each; y = 1, 0.
    outputs = np.array([[[1.0], [2.0]], [[0.0], [-1.0]], [[3.0], [1.0]]])
    gamma = np.array([0.1, 0.2, 0.3])
    f = Objective(outputs, np.array([1.0, 0.0]), "binary", gamma)
    w = Weights(np.array([0.5, 1.0, -0.25]), np.zeros(1))
    # z = 0.5 - 0.75 = -0.25 and 1 - 1 - 0.25 = -0.25
    loss = (math.log1p(math.exp(0.25)) + math.log1p(math.exp(-0.25))) / 2
    assert f.value(w) == pytest.approx(loss + 0.05 + 0.2 + 0.075, abs=1e-15)
    with_bias = replace(w, bias=np.array([0.25]))
    assert f.value(with_bias) == pytest.approx(math.log(2) + 0.325, abs=1e-15)


def test_f_with_vectors_and_matrices_by_hand():
    outputs = np.array([[[1.0, 2.0]], [[0.5, -1.0]], [[0.0, 1.0]]])
    gamma = np.array([0.1, 0.2, 0.3])
    f = Objective(outputs, np.array([1]), "multiclass", gamma, kind="vector")
    w = Weights(np.array([[1.0, 0.5], [2.0, -1.0], [0.0, 3.0]]), np.zeros(2))
    # z = (1 + 1 + 0, 1 + 1 + 3) = (2, 5)
    assert f.value(w) == pytest.approx(math.log1p(math.exp(-3)) + 0.15 + 0.6 + 0.9, abs=1e-15)
    f = replace(f, kind="matrix")
    w = Weights(np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], np.zeros((2, 2))]),
                np.array([0.0, 0.5]))  # fmt: skip
    # z = (1 - 1, 2 + 0.5 + 0.5) = (0, 3)
    assert f.value(w) == pytest.approx(math.log1p(math.exp(-3)) + 0.2 + 0.4, abs=1e-15)


def test_two_heads_share_the_mean_of_their_losses():
    outputs = np.array([[[1.0, -1.0]], [[0.0, 2.0]], [[1.0, 1.0]]])
    w = Weights(np.array([1.0, 0.5, 0.0]), np.zeros(2))  # z = (1, 0)
    labels = Objective(outputs, np.array([[1.0, 0.0]]), "multilabel", np.zeros(3))
    assert labels.value(w) == pytest.approx((math.log1p(math.exp(-1)) + math.log(2)) / 2, abs=1e-15)
    numbers = Objective(outputs, np.array([[3.0, 1.0]]), "multioutput", np.zeros(3))
    assert numbers.value(w) == pytest.approx((4.0 + 1.0) / 2, abs=1e-15)


# -------------------------------------------------------------------------------- the minimum


@pytest.mark.parametrize("task", WIDTHS)
def test_gradient_and_curvature_are_those_of_differences(task):
    outputs, y = problem(task, rows=20)
    z, loss, h = outputs[0], LOSSES[task], 1e-5
    parts = loss.parts(z, y)
    np.testing.assert_allclose(parts.rows, loss.rows(z, y), rtol=1e-12)
    for c in range(z.shape[1]):
        e = h * np.eye(z.shape[1])[c]
        up, down = loss.rows(z + e, y), loss.rows(z - e, y)
        np.testing.assert_allclose(parts.gradient[:, c], (up - down) / (2 * h), atol=1e-8)
        p = parts.curvature[:, c]
        second = p - p**2 if loss.coupled else p
        np.testing.assert_allclose(second, (up - 2 * loss.rows(z, y) + down) / h**2, atol=2e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", WIDTHS)
def test_the_minimum_is_that_of_a_reference_solver(task, kind, bias, weighted):
    outputs, y = problem(task, members=3)
    weight = np.random.default_rng(1).uniform(0.1, 3.0, len(y)) if weighted else None
    gamma = np.array([0.0, 0.01, 0.05])
    f = Objective(outputs, y, task, gamma, weight, kind, bias)
    found = minimise(f)
    # |w| by two numbers of 0 or more, so that a smooth solver with bounds can be asked.
    shape = found.mixture.shape
    size = int(np.prod(shape))

    def value(v):
        w = (v[:size] - v[size : 2 * size]).reshape(shape)
        b = v[2 * size :] if bias else np.zeros(outputs.shape[2])
        paid = (v[:size] + v[size : 2 * size]) @ np.repeat(gamma, size // 3)
        return f.data_loss(Weights(w, b)) + paid

    bounds = [(0, None)] * (2 * size) + [(None, None)] * (outputs.shape[2] * bias)
    best = minimize(
        value, np.zeros(len(bounds)), bounds=bounds, method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10**6, "ftol": 1e-16, "gtol": 1e-9},
    )  # fmt: skip
    assert f.value(found) <= best.fun + 1e-8
    assert f.value(found) >= best.fun - 1e-6  # differences limit the reference


@pytest.mark.parametrize("task", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_newton_and_gradient_steps_find_the_same_minimum(task, kind, monkeypatch):
    outputs, y = problem(task, members=4)
    f = Objective(outputs, y, task, np.array([0.001, 0.003, 0.02, 0.2]), kind=kind, bias=True)
    newton = minimise(f)
    monkeypatch.setattr(solver, "_NEWTON", 0)
    gradient = minimise(f)
    assert f.value(newton) == pytest.approx(f.value(gradient), abs=1e-9)
    np.testing.assert_allclose(newton.mixture, gradient.mixture, atol=1e-4)


def test_without_a_penalty_it_is_logistic_regression():
    outputs, y = problem("binary", members=4)
    found = minimise(Objective(outputs, y, "binary", np.zeros(4), bias=True))
    x = outputs[:, :, 0].T
    other = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(found.mixture, other.coef_[0], atol=1e-5)
    np.testing.assert_allclose(found.bias, other.intercept_, atol=1e-5)


def test_a_useless_member_gets_no_weight_at_all():
    outputs, y = problem("multiclass", members=3)
    outputs[1] = np.random.default_rng(5).normal(size=outputs[1].shape)
    found = minimise(Objective(outputs, y, "multiclass", np.full(3, 0.05)))
    assert found.mixture[1] == 0.0
    assert found.mixture[0] > 0.0


def test_a_copy_of_a_member_changes_nothing():
    outputs, y = problem("binary", members=3)
    gamma = np.full(3, 0.01)
    f = Objective(outputs, y, "binary", gamma)
    twice = np.concatenate([outputs, outputs[:1]])
    g = Objective(twice, y, "binary", np.append(gamma, 0.01))
    assert g.value(minimise(g)) == pytest.approx(f.value(minimise(f)), abs=1e-10)
    w = minimise(g).mixture
    assert w[0] + w[3] == pytest.approx(minimise(f).mixture[0], abs=1e-6)


def test_a_start_at_the_minimum_stays_there():
    outputs, y = problem("regression")
    f = Objective(outputs, y, "regression", np.full(5, 0.01))
    found = minimise(f)
    np.testing.assert_array_equal(minimise(f, found).mixture, found.mixture)


def test_no_line_search_is_made_where_f_is_too_flat_to_show_a_fall(monkeypatch):
    looks, plain = [], solver._Flat.value

    def value(flat, v):
        looks.append(1)
        return plain(flat, v)

    monkeypatch.setattr(solver._Flat, "value", value)
    for seed in range(12):  # in some of them rounding ends the descent before the tolerance
        y = (np.random.default_rng(seed).random(4000) < 0.3).astype(int)
        minimise(Objective(np.zeros((1, 4000, 1)), y, "binary", np.zeros(1), bias=True))
    assert len(looks) < 12 * 10


@pytest.mark.parametrize("gamma", [[-1.0, 0.0, 0.0], [0.0]])
def test_a_penalty_that_is_none_is_refused(gamma):
    outputs, y = problem("binary", members=3)
    with pytest.raises(ConfigError, match="penalty of 0 or more for each of 3 members"):
        Objective(outputs, y, "binary", np.array(gamma))


def test_weights_come_back_from_json():
    w = Weights(np.random.default_rng(0).normal(size=(3, 2, 2)), np.array([0.1, -1e-17]))
    again = Weights.from_json(w.to_json())
    np.testing.assert_array_equal(again.mixture, w.mixture)
    np.testing.assert_array_equal(again.bias, w.bias)


# -------------------------------------------------------------------------------- growth


@pytest.mark.parametrize("task", WIDTHS)
def test_the_weight_of_an_offer_is_the_best_of_a_line(task):
    outputs, y = problem(task, members=6)
    setting = Setting(task, y)
    z, gamma = 0.3 * outputs[1], np.array([0.0, 0.01, 0.02, 0.05, 0.3, 30.0])
    share = np.full(len(y), 1.0 / len(y))
    u, loss = best_weights(setting, z, outputs, gamma, share)
    assert u[-1] == 0.0
    for j, h in enumerate(outputs):

        def line(x, h=h, g=gamma[j]):
            return LOSSES[task].rows(z + x * h, y).mean() + g * abs(x)

        best = minimize_scalar(line, bounds=(-4, 4), method="bounded", options={"xatol": 1e-12})
        assert loss[j] + gamma[j] * abs(u[j]) <= best.fun + 1e-12
        assert u[j] == pytest.approx(best.x, abs=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("task", WIDTHS)
def test_growth_never_raises_f(task, strategy):
    outputs, y = problem(task, members=8)
    setting = Setting(task, y, lambda_=1e-3, beta=1e-3, strategy=strategy)
    before = math.inf
    for most in range(1, 7):
        found = grow(replace(setting, most=most), members_of(outputs))
        assert found.value <= before + 1e-12
        before = found.value
        objective = setting.objective([m for m in members_of(outputs) if m.name in found.names])
        order = [m.name for m in members_of(outputs) if m.name in found.names]
        mixture = found.weights.mixture[[found.names.index(n) for n in order]]
        again = objective.value(Weights(mixture, found.weights.bias))
        assert again == pytest.approx(found.value, abs=1e-12)
    accepted = {o.name for o in found.offers if o.accepted}
    assert set(found.names) <= accepted
    assert all(o.change < 0 for o in found.offers if o.accepted and strategy != "all")
    assert all(o.why for o in found.offers)


def test_offers_are_as_deep_as_the_deepest_and_one_step_more():
    outputs, y = problem("binary", members=6)
    depths = [4, 2, 1, 2, 4, 1]
    pool = [Member(f"m{j}", h, depths[j], 1.0) for j, h in enumerate(outputs)]
    found = grow(Setting("binary", y, most=4), pool)
    deepest = 0
    for number in range(1, 1 + max(o.round for o in found.offers)):
        offered = [o for o in found.offers if o.round == number]
        limit = {0: 1, 1: 2, 2: 4, 4: 4}[deepest]
        assert max(o.depth for o in offered) <= limit
        deepest = max([deepest, *(o.depth for o in offered if o.accepted)])
    assert deepest == 4


def test_a_larger_penalty_leaves_fewer_members_and_in_the_end_none():
    outputs, y = problem("multiclass", members=10)
    sizes = [
        len(grow(Setting("multiclass", y, lambda_=v), members_of(outputs)).names)
        for v in (0.0, 0.02, 0.1, 10.0)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2] >= sizes[-1] == 0


def test_a_complex_member_must_earn_more():
    outputs, y = problem("binary", members=2, noise=0.5)
    outputs[1] = outputs[0]
    pool = [Member("deep", outputs[0], 1, 4.0), Member("flat", outputs[1], 1, 1.0)]
    found = grow(Setting("binary", y, lambda_=0.01), pool)
    assert found.names == ("flat",)


def test_members_are_left_as_they_are():
    outputs, y = problem("binary")
    before = outputs.copy()
    pool = members_of(outputs)
    for ensembler in ENSEMBLERS.values():
        ensembler.build(Setting("binary", y, lambda_=1e-3), pool)
    np.testing.assert_array_equal(outputs, before)


# -------------------------------------------------------------------------------- the others


def test_the_mean_is_the_mean():
    outputs, y = problem("multiclass")
    found = ENSEMBLERS["mean"].build(Setting("multiclass", y), members_of(outputs))
    np.testing.assert_allclose(found.weights.combine(outputs), outputs.mean(0), atol=1e-14)
    for kind in KINDS:
        each = ENSEMBLERS["mean"].build(Setting("multiclass", y, kind=kind), members_of(outputs))
        np.testing.assert_allclose(each.weights.combine(outputs), outputs.mean(0), atol=1e-14)


def test_greedy_selection_is_the_best_mean_on_its_way_by_hand():
    # Squared error of one row with target 1: 0.4 alone is best, then with 1.4 it is 0.9, with both
    # 0.4 and 1.4 once more it is 1.0667 and 0.7333.
    outputs = np.array([[[0.4]], [[1.4]], [[9.0]]])
    setting = Setting("regression", np.array([1.0]))
    found = ENSEMBLERS["greedy"].build(setting, members_of(outputs))
    z = found.weights.combine(outputs[:2])
    assert found.names == ("m0", "m1")
    assert found.value == pytest.approx(0.0, abs=1e-12)  # 0.4 twice and 1.4 thrice
    assert z[0, 0] == pytest.approx(1.0)
    np.testing.assert_allclose(found.weights.mixture, [0.4, 0.6], atol=1e-12)


def test_stacking_has_the_least_loss_of_all_on_its_rows():
    outputs, y = problem("binary")
    setting = Setting("binary", y, lambda_=0.01)
    pool = members_of(outputs)
    losses = {}
    for name, ensembler in ENSEMBLERS.items():
        found = ensembler.build(setting, pool)
        chosen = [m for m in pool if m.name in found.names]
        order = [found.names.index(m.name) for m in chosen]
        w = Weights(found.weights.mixture[order], found.weights.bias)
        losses[name] = setting.objective(chosen).data_loss(w)
    assert min(losses, key=losses.get) == "stacking"
