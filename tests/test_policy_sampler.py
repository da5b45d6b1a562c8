"""The policy as an Optuna sampler: Optuna's own suite for samplers, and that it learns."""

from __future__ import annotations

import pickle

import numpy as np
import optuna
import pytest
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from adanet_py.controllers import PPOSampler, ReinforceSampler, find_controller


@pytest.fixture(autouse=True)
def quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


class TestReinforce(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return ReinforceSampler


class TestPPO(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return PPOSampler


def objective(trial):
    """Least where kind is "b" and x near 0.3; "a" has a parameter of its own."""
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    if kind == "a":
        return 1.0 + trial.suggest_float("only_a", 1e-5, 1.0, log=True)
    x = trial.suggest_float("x", 0.0, 1.0)
    layers = trial.suggest_int("layers", 1, 4 if kind == "b" else 8)
    return {"b": 0.0, "c": 0.5}[kind] + abs(x - 0.3) + 0.1 * layers


def late_mean(sampler, objective, direction="minimize"):
    study = optuna.create_study(sampler=sampler, direction=direction)
    study.optimize(objective, n_trials=80)
    return np.mean([t.value for t in study.trials[-20:]])


@pytest.mark.parametrize("sampler", [ReinforceSampler, PPOSampler])
def test_it_learns_in_a_space_that_depends_on_what_was_decided(sampler):
    # Random trials have a mean of 1.0 with standard deviation 0.3, so of twenty one of 0.07.
    assert late_mean(sampler(seed=0), objective) < 0.7
    assert late_mean(sampler(seed=0), lambda t: -objective(t), "maximize") > -0.7


def test_the_same_seed_gives_the_same_trials_and_a_copy_goes_on_alike():
    def run(sampler):
        study = optuna.create_study(sampler=sampler)
        study.optimize(objective, n_trials=20)
        copied = pickle.loads(pickle.dumps(study.sampler))
        return [t.params for t in study.trials], [s._random.randint(99) for s in (sampler, copied)]

    first, (a, b) = run(ReinforceSampler(seed=3))
    assert first == run(ReinforceSampler(seed=3))[0]
    assert a == b


def test_an_object_of_it_is_a_controller():
    assert callable(find_controller(ReinforceSampler(seed=0)))
