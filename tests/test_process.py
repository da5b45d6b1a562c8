"""The Gaussian process and expected improvement, against scikit-learn and numerical integration."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import check_grad
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from adanet_py.controllers import CONTROLLERS, likelihood
from adanet_py.controllers.columns import columns_of
from adanet_py.controllers.features import features_of
from adanet_py.controllers.improvement import log_expected_improvement
from adanet_py.controllers.likelihood import fit, kernel_of
from adanet_py.controllers.points import points_of
from adanet_py.controllers.process import CONSTANT, Kernel, posterior_of
from adanet_py.knob import Knob
from adanet_py.records import Candidate, History, Result, Status

sys.path.insert(0, str(Path(__file__).parent))
from spaces import REGISTRIES, ZOO, Entry

from adanet_py.space import Registries, SearchSpace, load_space

CELL = load_space(
    {
        "name": "cell",
        "architectures": {
            "plain": {
                "depth": {"int": [1, 8]},
                "norm": {"choice": ["none", "batch", "layer"]},
                "dropout": {"float": [0.0, 0.5]},
            },
            "deep": {"depth": {"choice": [4, 8, 16]}, "dropout": {"float": [0.2, 0.4]}},
        },
        "optimizers": {"sgd": {"lr": {"float": [1e-3, 1.0], "log": True}}, "adam": {}},
    },
    REGISTRIES,
)


def data(n=30, width=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)), rng.normal(size=n), rng.normal(size=(20, width))


def anywhere(space, m, seed=0):
    columns = columns_of(space)
    free = np.full(len(columns.decisions), np.nan)
    points = points_of(columns)
    return points.finish(points.draw(m, np.random.default_rng(seed)), free)


def test_the_posterior_is_that_of_scikit_learn():
    x, y, new = data()
    weights = np.array([0.5, 2.0, 0.1, 1.0, 3.0])
    ours = posterior_of(Kernel(weights, (1.7, 0.0), 0.05, 5), x, y).at(new)
    kernel = 1.7 * Matern(1.0 / np.sqrt(weights), nu=2.5) + ConstantKernel(CONSTANT)
    theirs = GaussianProcessRegressor(kernel, alpha=0.05, optimizer=None).fit(x, y)
    mean, deviation = theirs.predict(new, return_std=True)
    assert np.allclose(ours.mean, mean, rtol=0, atol=1e-8)
    assert np.allclose(ours.variance, deviation**2, rtol=0, atol=1e-8)


def test_the_two_parts_of_the_kernel_add_up():
    x, _, _ = data()
    weights = np.array([0.5, 2.0, 0.1, 1.0, 3.0])
    both = Kernel(weights, (1.7, 0.4), 0.0, 3).between(x, x)
    first = 1.7 * Matern(1.0 / np.sqrt(weights[:3]), nu=2.5)(x[:, :3])
    second = 0.4 * Matern(1.0 / np.sqrt(weights[3:]), nu=2.5)(x[:, 3:])
    assert np.allclose(both, CONSTANT + first + second, atol=1e-10)


def test_assumed_points_keep_the_means_and_shrink_the_variances():
    x, y, new = data()
    kernel = Kernel(np.ones(5), (1.0, 0.5), 0.1, 3)
    posterior = posterior_of(kernel, x, y)
    step = posterior.at(new)
    before = step.variance
    step.assume(4)
    step.assume(7)
    whole = posterior.assume(new[[4, 7]]).at(new)
    assert np.allclose(whole.mean, posterior.at(new).mean)
    assert np.allclose(step.variance, whole.variance)
    assert (step.variance <= before + 1e-12).all()
    assert step.variance[4] < 0.11


@pytest.mark.parametrize("counts", [0, 2])
def test_the_gradient_of_the_marginal_likelihood(counts):
    x, y, _ = data()
    factor = np.array([0, 0, 1, 2, 2])
    factors = 3 - (1 if counts else 0)
    middle, width = likelihood._priors(factors, 3 - factors)
    theta = middle + 0.3 * np.random.default_rng(1).normal(size=len(middle))
    rest = (x, y, factor, factors, middle, width)
    assert counts or theta[-2] < -10

    def gap(sign):
        return check_grad(
            lambda t: likelihood._loss(t, *rest)[0],
            lambda t: likelihood._loss(t, *rest)[1],
            sign * theta,
        )

    assert gap(1.0) < 1e-4


def test_hyperparameters_find_the_factor_that_matters_and_the_noise():
    space = CELL
    features = features_of(columns_of(space))
    points = anywhere(space, 150)
    x = features(points)
    rng = np.random.default_rng(2)
    lr = x[:, features.factor == features.factor.max()][:, 0]  # of sgd; 0 for adam
    y = np.sin(6.0 * lr) + 0.1 * rng.normal(size=len(x))
    y = (y - y.mean()) / y.std()
    kernel = kernel_of(features, fit(features, x, y))
    assert np.argmax(kernel.weights) == len(kernel.weights) - 1
    assert kernel.noise == pytest.approx(0.01 / (np.sin(6.0 * lr)).var(), rel=0.6)


def test_without_results_hyperparameters_are_those_of_the_prior():
    features = features_of(columns_of(CELL))
    theta = fit(features, np.empty((0, len(features.factor))), np.empty(0))
    kernel = kernel_of(features, theta)
    assert kernel.weights == pytest.approx(np.e / features.first_count, rel=1e-3)
    assert kernel.scales == (1.0, 0.0)


def test_a_history_of_elsewhere_then_of_this_space_is_fitted():
    from adanet_py.controllers import gp
    from adanet_py.space import sample

    others = [Result(Candidate("linear", optimizer=""), Status.BASELINE, reward=1.0)] * 30
    drawn = [sample(CELL, np.random.default_rng(i)) for i in range(5)]
    here = [Result(c, Status.COMPLETE, reward=float(i)) for i, c in enumerate(drawn)]
    proposed = gp.propose(CELL, History((*others, *here)), 3, np.random.default_rng(0))
    assert len({c.settings for c in proposed}) == 3


def test_knobs_of_one_name_are_one_factor_and_what_is_not_active_is_at_the_origin():
    columns = columns_of(CELL)
    features = features_of(columns)
    # architecture 2, depth 1, norm 3, dropout 1, optimizer 2, lr 1; depth is ordered in both
    assert features.first_count == 6
    assert len(features.factor) == 10
    chosen = {"architectures.deep.depth": 16, "architectures.deep.dropout": 0.3}
    entries = {"architecture": "deep", "optimizer": "adam", "schedule": "constant"}
    point = columns.encode({**entries, **chosen})
    half = 0.5**0.5
    assert np.allclose(np.sort(features(point[None])[0]), [0, 0, 0, 0, 0, 0, 0, 0.5, half, half])


def cell_of(decisions: int) -> SearchSpace:
    """A space of so many decisions between the same three words."""
    words = ("none", "batch", "layer")
    names = [f"op{i}" for i in range(decisions)]
    cell = Entry({name: Knob("none", choices=words) for name in names})
    registries = Registries({"cell": cell}, REGISTRIES.optimizers, REGISTRIES.schedules, {})
    space = {
        "name": "ops",
        "architectures": {"cell": {name: {"choice": [*words]} for name in names}},
        "optimizers": {"adam": {}},
    }
    return load_space(space, registries)


def test_words_of_three_decisions_alike_are_counted():
    assert features_of(columns_of(ZOO["40 dimensions"])).first_count == 40
    space = cell_of(3)
    features = features_of(columns_of(space))
    assert features.first_count == 3
    found = features(anywhere(space, 50))
    ones = found[:, :9] > 0
    assert np.allclose(found[:, 9:].sum(axis=1), ones.sum(axis=1) * 0.5**0.5 / 3**0.5)
    by_hand = ones.reshape(-1, 3, 3).sum(axis=1) * 0.5**0.5 / 3**0.5
    assert np.allclose(np.sort(found[:, 9:]), np.sort(by_hand))


@pytest.mark.parametrize("controller", ["gp", "surrogate"])
def test_the_first_points_choose_each_word_everywhere_and_never_again(controller):
    space, rng = cell_of(9), np.random.default_rng(0)  # of 19,683 cells three

    def everywhere(candidates):
        words = [set(c.static.values()) for c in candidates]
        return sorted(w for found in words if len(found) == 1 for w in found)

    propose = CONTROLLERS[controller]
    assert everywhere(propose(space, History(), 5, rng)) == ["batch", "layer", "none"]
    assert not features_of(columns_of(cell_of(2))).corners
    first = next(c for c in propose(space, History(), 5, rng) if everywhere([c]) == ["batch"])
    tried = History((Result(first, Status.COMPLETE, reward=0.0),))
    for history in (tried, History((), (first,))):
        assert everywhere(propose(space, history, 8, rng)) == ["layer", "none"]


@pytest.mark.parametrize("z", [3.0, 0.5, -0.999, -1.001, -4.0, -20.0])
def test_expected_improvement_is_the_integral(z):
    mean, deviation, best = 1.3, 0.7, 1.3 - 0.7 * z
    # E[max(f - best, 0)] is the integral of the survival function above best, computed as a
    # multiple of its first value so that the far tail does not vanish.
    first = norm.logsf(best, mean, deviation)
    top = best + deviation * 10.0 / max(1.0, abs(z)) if z < 0 else mean + 10.0 * deviation
    share, _ = quad(
        lambda f: np.exp(norm.logsf(f, mean, deviation) - first), best, top, epsabs=0, epsrel=1e-10
    )
    found = log_expected_improvement(np.array([mean]), np.array([deviation**2]), best)[0]
    assert found == pytest.approx(first + np.log(share), abs=2e-5 * max(1.0, abs(z)))


def test_expected_improvement_is_smooth_and_rising_where_it_is_less_than_the_least_number():
    z = -np.geomspace(1e5, 0.1, 4000)
    found = log_expected_improvement(z, np.ones(len(z)), 0.0)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
