"""Mixture weights for other losses, each against another computation of the same minimum."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog, minimize, minimize_scalar
from sklearn.linear_model import GammaRegressor, PoissonRegressor, QuantileRegressor
from tables import check_here, table

import adanet_py
from adanet_py import saving
from adanet_py.ensemble.growth import Member, Setting, best_weights, grow
from adanet_py.ensemble.kinked import quantile_fit
from adanet_py.ensemble.links import Link
from adanet_py.ensemble.losses import OTHERS
from adanet_py.ensemble.objective import KINDS, Objective, minimise
from adanet_py.ensemble.weights import Weights
from adanet_py.held_out import HeldOut, Rows

pytestmark = pytest.mark.usefixtures("reloaded_here")

RATIO, LEVEL = (0.8,), 0.7


def problem(loss, members=3, rows=300, seed=0, columns=1):
    """Outputs [k, n, C] and the standardised target, y = r (u - 1) for losses with a log link."""
    rng = np.random.default_rng(seed)
    truth = 0.7 * rng.normal(size=(rows, columns))
    noise = np.linspace(0.4, 1.5, members)[:, None, None]
    outputs = truth + noise * rng.normal(size=(members, rows, columns))
    if loss == "poisson":
        u = rng.poisson(np.exp(truth)).astype(float)
    else:
        u = np.exp(truth) * rng.gamma(3.0, 1 / 3.0, truth.shape)
    y = (
        RATIO[0] * (u - 1.0)
        if loss in ("poisson", "gamma")
        else truth + rng.standard_t(3, truth.shape)
    )
    return outputs, y[:, 0] if columns == 1 else y


def phi(loss, columns=1):
    return OTHERS[loss](LEVEL, RATIO * columns)


def members_of(outputs):
    return [Member(f"m{j}", h, 1 + j % 2, 1.0) for j, h in enumerate(outputs)]


@pytest.mark.parametrize("loss", ["poisson", "gamma"])
def test_gradient_and_curvature_are_those_of_differences(loss):
    outputs, y = problem(loss, rows=30)
    z, h = outputs[0], 1e-5
    z[0] = 25.0  # beyond where exp goes on as its tangent
    z[1] = -25.0
    parts, of = phi(loss).parts(z, y), phi(loss).rows
    np.testing.assert_array_equal(parts.rows, of(z, y))
    up, down = of(z + h, y), of(z - h, y)
    np.testing.assert_allclose(parts.gradient[:, 0], (up - down) / (2 * h), rtol=1e-5, atol=1e-7)
    second = (up - 2 * of(z, y) + down) / h**2
    np.testing.assert_allclose(parts.curvature[2:, 0], second[2:], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("loss", ["poisson", "gamma"])
def test_without_a_penalty_it_is_the_regression_of_scikit_learn(loss):
    outputs, y = problem(loss)
    found = minimise(Objective(outputs, y, "regression", np.zeros(3), bias=True, phi=phi(loss)))
    model = {"poisson": PoissonRegressor, "gamma": GammaRegressor}[loss]
    other = model(alpha=0.0, tol=1e-10, max_iter=10_000).fit(outputs[:, :, 0].T, 1 + y / RATIO[0])
    np.testing.assert_allclose(found.mixture, other.coef_, atol=1e-5)
    np.testing.assert_allclose(found.bias, other.intercept_, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_quantiles_are_those_of_scikit_learn(level, alpha):
    outputs, y = problem("quantile", members=4)
    own = OTHERS["quantile"](level, ())
    f = Objective(outputs, y, "regression", np.full(4, alpha), bias=True, phi=own)
    found = minimise(f)
    other = QuantileRegressor(quantile=level, alpha=alpha).fit(outputs[:, :, 0].T, y)
    theirs = Weights(other.coef_, np.array([other.intercept_]))
    assert f.value(found) == pytest.approx(f.value(theirs), abs=1e-9)
    assert ((found.mixture == 0) == (np.abs(other.coef_) < 1e-9)).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_absolute_errors_are_those_of_a_linear_program(kind, weighted):
    outputs, y = problem("mean_absolute", rows=60, columns=2)
    weight = np.random.default_rng(1).uniform(0.1, 3.0, 60) if weighted else None
    gamma = np.array([0.0, 0.02, 0.05])
    f = Objective(outputs, y, "multioutput", gamma, weight, kind, True, phi("mean_absolute", 2))
    found = minimise(f)
    # The columns of the weights, from F itself: z is linear in them.
    zero = Weights(np.zeros_like(found.mixture), np.zeros(2))
    size = found.mixture.size
    design = []
    for i in range(size + 2):
        v = np.eye(size + 2)[i]
        w = Weights(v[:size].reshape(found.mixture.shape), v[size:])
        design.append((w.combine(outputs) - zero.combine(outputs)).reshape(-1))
    x = np.stack(design, 1)
    n = len(x)
    paid = np.append(np.repeat(gamma, size // 3), [0.0, 0.0])
    share = np.repeat(f.share, 2) / 2
    cost = np.concatenate([paid, paid, share, share])
    equal = np.concatenate([x, -x, np.eye(n), -np.eye(n)], 1)
    best = linprog(cost, A_eq=equal, b_eq=y.reshape(-1), bounds=(0, None))
    assert f.value(found) == pytest.approx(best.fun, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", ["poisson", "gamma"])
def test_the_minimum_is_that_of_a_reference_solver(loss, kind):
    outputs, y = problem(loss, columns=2)
    gamma = np.array([0.0, 0.01, 0.3])
    f = Objective(outputs, y, "multioutput", gamma, None, kind, True, phi(loss, 2))
    found = minimise(f)
    shape, size = found.mixture.shape, found.mixture.size

    def value(v):
        w = (v[:size] - v[size : 2 * size]).reshape(shape)
        paid = (v[:size] + v[size : 2 * size]) @ np.repeat(gamma, size // 3)
        return f.data_loss(Weights(w, v[2 * size :])) + paid

    bounds = [(0, None)] * (2 * size) + [(None, None)] * 2
    best = minimize(
        value, np.zeros(len(bounds)), bounds=bounds, method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10**6, "ftol": 1e-16, "gtol": 1e-9},
    )  # fmt: skip
    assert f.value(found) <= best.fun + 1e-8
    assert f.value(found) >= best.fun - 1e-6  # differences limit the reference


def test_copies_of_a_member_change_nothing_where_the_loss_has_no_curvature():
    outputs, y = problem("quantile")
    x = outputs[:, :, 0].T
    each = np.full(len(y), 1 / len(y))
    w = quantile_fit(x, y, each, np.full(3, 0.01), LEVEL)
    twice = quantile_fit(np.c_[x, x[:, :1]], y, each, np.full(4, 0.01), LEVEL)
    assert twice[0] + twice[3] == pytest.approx(w[0], abs=1e-6)


@pytest.mark.parametrize("loss", OTHERS)
def test_the_weight_of_an_offer_is_the_best_of_a_line(loss):
    outputs, y = problem(loss, members=6)
    setting = Setting("regression", y, phi=phi(loss))
    z, gamma = 0.3 * outputs[1], np.array([0.0, 0.01, 0.02, 0.05, 0.3, 30.0])
    share = np.random.default_rng(2).uniform(0.1, 1.0, len(y))
    share /= share.sum()
    u, found = best_weights(setting, z, outputs, gamma, share)
    assert u[-1] == 0.0
    for j, h in enumerate(outputs):

        def line(x, h=h, g=gamma[j]):
            return share @ phi(loss).rows(z + x * h, y) + g * abs(x)

        best = minimize_scalar(line, bounds=(-4, 4), method="bounded", options={"xatol": 1e-12})
        assert found[j] + gamma[j] * abs(u[j]) <= best.fun + 1e-10


@pytest.mark.parametrize("loss", OTHERS)
def test_growth_never_raises_f(loss):
    outputs, y = problem(loss, members=8)
    setting = Setting("regression", y, lambda_=1e-3, beta=1e-3, phi=phi(loss), bias=True)
    values = [grow(replace(setting, most=m), members_of(outputs)).value for m in range(1, 6)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]


# -------------------------------------------------------------------------------- links


def test_logs_of_means_come_back_as_values():
    link = Link.of("gamma", (0.5, 2.0))
    offset = np.array([0.1, -0.3, 0.0])
    values = np.array([[0.2, 3.0], [-0.1, -1.5], [4.0, 0.0]])
    np.testing.assert_allclose(link.values(link.raw(values, offset), offset), values, atol=1e-12)
    assert link.raw(values)[0, 1] == pytest.approx(np.log(1 + 3.0 / 2.0))
    below = link.raw(np.array([[-9.0, -9.0]]))  # a mean below 0 counts as the least there is
    np.testing.assert_allclose(below, np.log(1e-6))
    same = Link.of("quantile", (0.5,))
    assert same.raw(values) is values


@pytest.mark.parametrize("loss", ["poisson", "gamma"])
def test_rows_without_their_exposure_have_the_same_deviance(loss):
    outputs, y = problem(loss)
    z, offset = outputs[0], np.random.default_rng(3).normal(size=len(y))
    held = HeldOut("regression", "rmse", loss, 1.0, 1.0, Rows(y, None, offset), Rows(y[:0], None),
                   0.5, RATIO)  # fmt: skip
    direct = phi(loss).rows(z + offset[:, None], y)
    rows = held.fitted()
    np.testing.assert_allclose(rows.weight * phi(loss).rows(z, rows.y), direct, atol=1e-9)


@pytest.mark.parametrize("loss", ["poisson", "quantile"])
def test_a_search_with_another_loss_ends_with_an_ensemble(loss, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    frame = table("regression", rows=200)
    frame["years"] = np.linspace(0.2, 2.0, 200)
    rate = frame.pop("target") / 100
    frame["target"] = np.random.default_rng(0).poisson(rate * frame["years"])
    own = {"exposure": "years"} if loss == "poisson" else {"quantile": 0.8}
    options = {"candidates": 6, "workers": 0, "space": "tiny", "folds": 2, "adanet_lambda": 1e-4}
    run = adanet_py.search(
        frame, target="target", task="regression", loss=loss, adanet_beta=0.0, out=tmp_path / "r",
        on_note=lambda note: None, **options, **own,
    )  # fmt: skip
    held = HeldOut.load(tmp_path / "r")
    assert held.loss == loss
    assert (held.validation.offset is None) == (loss != "poisson")
    again = HeldOut.load(tmp_path / "r")
    assert json.dumps(again.target_ratio) == json.dumps(held.target_ratio)
    grown = run.summary["ensemble"]
    assert grown is not None
    from adanet_py.ensembling import Options
    from adanet_py.regrow import regrow

    found, path = regrow(tmp_path / "r", Options(lambda_=1e-4, beta=0.0))
    assert found.scores["ensemble"].validation == pytest.approx(grown["validation"], rel=1e-6)
    mean = regrow(tmp_path / "r", Options("mean"), tmp_path / "mean.adanet")[0]
    # A mean is not fitted: cross-fitted it is scored like any other, at the exposures of the rows.
    assert mean.scores["ensemble"].validation == pytest.approx(mean.scores["mean"].validation)
    model = adanet_py.load(path)
    assert model.weights is not None
    assert np.isfinite(model.predict(frame)).all()
    if loss == "poisson":
        double = frame.assign(years=2 * frame["years"])
        np.testing.assert_allclose(model.predict(double), 2 * model.predict(frame), rtol=1e-5)
