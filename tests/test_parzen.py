"""The densities of the controller `tpe` against plain loops and against their own samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from spaces import ZOO

from adanet_py.controllers import tpe
from adanet_py.controllers.columns import Columns, columns_of
from adanet_py.controllers.parzen import Parzen, prior
from adanet_py.records import Candidate
from adanet_py.space import Decision, contains, fill, project, sample

RANGE = Decision("x", ("x",), "float", (0.0, 1.0))
WORDS = Decision("w", ("w",), "choice", ("a", "b", "c"), prior=(0.6, 0.3, 0.1))
RISING = Decision("n", ("n",), "choice", (1, 2, 4, 8))
DECISIONS = (RANGE, WORDS, RISING)
NAN = math.nan
COMPONENTS = np.array([[0.02, 0.0, 1.0], [0.5, 2.0, NAN], [NAN, 2.0, 3.0], [0.97, NAN, 0.0]])


def from_prior(count, seed=0):
    rng = np.random.default_rng(seed)
    columns = [rng.random(count)]
    columns += [rng.choice(len(d.domain), size=count, p=prior(d)) for d in (WORDS, RISING)]
    return np.column_stack(columns).astype(float)


def test_a_density_has_the_integral_one_for_every_component_and_the_prior():
    mixture = Parzen(DECISIONS, COMPONENTS)
    mass = np.exp(mixture.log_density(from_prior(400_000))).mean()
    assert mass == pytest.approx(len(COMPONENTS) + 1, rel=0.02)


def test_the_scalar_product_of_features_is_the_product_of_the_kernels():
    mixture = Parzen(DECISIONS, COMPONENTS)
    points = from_prior(50)
    points[::3, 2] = NAN
    whole = np.exp(mixture.log_kernel(points, COMPONENTS))
    product = np.ones_like(whole)
    for j in range(len(DECISIONS)):
        alone = np.full_like(points, NAN)
        alone[:, j] = points[:, j]
        product *= np.exp(mixture.log_kernel(alone, COMPONENTS))
    np.testing.assert_allclose(whole, product)
    assert (np.exp(mixture.log_kernel(np.full((1, 3), NAN), COMPONENTS)) == 1.0).all()
    np.testing.assert_allclose(np.exp(mixture.log_density(points)), 1.0 + whole.sum(axis=1))


def test_points_are_drawn_from_the_density():
    mixture = Parzen(DECISIONS, COMPONENTS)
    drawn = mixture.sample(200_000, np.random.default_rng(1))
    reference = from_prior(400_000)
    weights = np.exp(mixture.log_density(reference)) / (len(COMPONENTS) + 1)
    for measure in (
        lambda x: x[:, 0],
        lambda x: x[:, 0] < 0.1,
        lambda x: x[:, 1] == 2.0,
        lambda x: (x[:, 1] == 2.0) & (x[:, 2] == 3.0),
        lambda x: x[:, 2] * x[:, 0],
    ):
        expected = (measure(reference) * weights).mean()
        assert measure(drawn).mean() == pytest.approx(expected, abs=0.015)


def test_without_components_there_is_the_prior():
    mixture = Parzen(DECISIONS, np.empty((0, 3)))
    assert (mixture.log_density(from_prior(10)) == 0.0).all()
    drawn = mixture.sample(100_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(drawn[:, 1].astype(int)) / 1e5, WORDS.prior, atol=0.01)


def test_a_component_that_is_added_counts_like_one_that_was_there():
    some = Parzen(DECISIONS, COMPONENTS[:3])
    before = np.exp(some.log_density(from_prior(20)))
    more = np.exp(some.log_kernel(from_prior(20), COMPONENTS[3:]))[:, 0]
    some.add(COMPONENTS[3:])
    np.testing.assert_allclose(np.exp(some.log_density(from_prior(20))), before + more)


@pytest.mark.parametrize("name", ZOO)
def test_points_stand_for_assignments(name):
    space = ZOO[name]
    columns = columns_of(space)
    rng = np.random.default_rng(0)
    for _ in range(20):
        candidate = sample(space, rng)
        place = columns.place_of(space, candidate)
        assert place.assignment == project(space, candidate)
        decoded = columns.decode(place.point)
        assert decoded.keys() == place.assignment.keys()
        for key, value in decoded.items():
            known = place.assignment[key]
            exact = isinstance(known, str | bool)
            assert value == (known if exact else pytest.approx(known, rel=1e-4))
        assert columns.place_of(space, candidate) is place
    assert columns.place_of(space, Candidate("unheard of")) is None


@pytest.mark.parametrize("name", ZOO)
def test_the_free_columns_are_those_a_program_leaves_open(name):
    space = ZOO[name]
    columns: Columns = columns_of(space)
    rng = np.random.default_rng(1)
    static = columns.programs()
    for _ in range(20):
        whole = fill(space, {}, rng)
        program = {k: v for k, v in whole.items() if space.by_name[k].static}
        assert set(program) <= {space.decisions[j].name for j in static}
        free = columns.settings(program)
        assert set(whole) - set(program) <= {space.decisions[j].name for j in free}
        # All columns filled, then those that hang on other choices emptied: the same remain.
        point = columns.encode(program)
        for j in free:
            d = space.decisions[j]
            choice = d.kind == "choice"
            value = whole.get(d.name, d.domain[0])
            point[j] = d.domain.index(value) if choice else d.unit(value)
        points = point[None]
        columns.deactivate(points, free)
        assert columns.decode(points[0]).keys() == whole.keys()


def test_a_split_keeps_the_best_and_a_bounded_part_of_the_others():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=5000)
    rewards[-8:] = np.nan
    good, others = tpe.split(rewards)
    assert set(good) == set(np.argsort(-rewards)[: tpe.MOST_GOOD])
    assert len(others) == tpe.MOST_OTHERS
    assert set(range(4992, 5000)) <= set(others)  # what is pending
    assert not set(good) & set(others)
    few = np.array([1.0, np.nan, 3.0, 2.0])
    good, others = tpe.split(few)
    assert list(good) == [2]
    assert list(others) == [0, 1, 3]


def test_a_batch_spreads_though_every_member_is_drawn_from_the_same_density():
    space = ZOO["40 dimensions"]
    assert contains(space, sample(space, np.random.default_rng(0))) is None
    from adanet_py.records import History, Result, Status

    results = []
    for i in range(40):
        candidate = sample(space, np.random.default_rng(i))
        results.append(Result(candidate, Status.COMPLETE, reward=-abs(candidate.numeric["x00"])))
    found = tpe.propose(space, History(tuple(results)), 16, np.random.default_rng(0))
    values = np.array([c.numeric["x00"] for c in found])
    assert len(set(values)) == 16
    assert values.mean() < 0.4
