"""The policy and its training, against finite differences, enumeration and the papers' formulas."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from adanet_py.controllers import CONTROLLERS, policy_replay
from adanet_py.controllers.policy import (
    Head,
    Heads,
    Policy,
    conditional,
    draw,
    log_probability,
    scores,
    untrained,
)
from adanet_py.controllers.policy_gradient import (
    CLIP,
    LEAST,
    MOST,
    Learner,
    advantages,
    clipped_slope,
    clipped_step,
    importance,
    natural_step,
    remember,
)
from adanet_py.controllers.reinforce import shares
from adanet_py.records import History, Result, Status
from adanet_py.space import load_space, sample

STEPS = {"reinforce": natural_step, "ppo": clipped_step}
YES = np.array([False, True])


def even(count, **options):
    return Head(np.full(count, -math.log(count)), **options)


# The second decision of two options switches the third on; the fourth is a range.
HEADS = Heads(
    [Head(np.log([0.5, 0.3, 0.2])), even(2), even(3, parents=((1, YES),)), even(5, ordered=True)]
)
EVERY = np.array(
    [
        (a, b, c, d)
        for a, b, d in itertools.product(range(3), range(2), range(5))
        for c in (range(3) if b else [-1])
    ]
)


def random_policy(n=7, seed=0):
    rng = np.random.default_rng(seed)
    points = draw(untrained(HEADS), np.empty(0, dtype=np.intp), n, rng)
    return Policy(HEADS, points, 0.5 * rng.normal(size=(n, HEADS.borders[-1])))


def test_probabilities_of_all_points_sum_to_one_and_draws_follow_them():
    policy = random_policy()
    p = np.exp(log_probability(policy, EVERY))
    assert p.sum() == pytest.approx(1.0)
    assert p.std() > 0.01
    drawn = draw(policy, np.empty(0, dtype=np.intp), 20_000, np.random.default_rng(1))
    index = {tuple(x): i for i, x in enumerate(EVERY)}
    counts = np.bincount([index[tuple(x)] for x in drawn], minlength=len(EVERY))
    deviations = (counts - 20_000 * p) / np.sqrt(20_000 * p * (1.0 - p))
    assert np.abs(deviations).max() < 4.5


def test_a_conditional_is_a_factor_of_the_probability():
    policy = random_policy()
    x = EVERY[-1]
    logs = [np.log(conditional(policy, j, x)[x[j]]) for j in range(4)]
    assert sum(logs) == pytest.approx(log_probability(policy, x[None])[0])


def test_the_gradient_is_that_of_finite_differences_and_zero_where_nothing_is_decided():
    policy = random_policy()
    points = policy.points
    found = scores(policy)
    np.testing.assert_allclose(
        found.log_probabilities.sum(axis=1), log_probability(policy, points), atol=1e-12
    )
    step = 1e-6
    for i, cell in itertools.product(range(len(points)), range(HEADS.borders[-1])):
        moved = policy.coefficients.copy()
        moved[i, cell] += step
        up = log_probability(Policy(HEADS, points, moved), points)
        moved[i, cell] -= 2 * step
        down = log_probability(Policy(HEADS, points, moved), points)
        # k_j(x, x_i) e_j(x) G_j, the kernel being what the products of two scores have beside e.
        j = np.searchsorted(HEADS.borders, cell, side="right") - 1
        part = HEADS.cells(j)
        e = found.residuals[:, part] @ HEADS.all[j].likeness
        shared = _kernel(points, points[i], j)
        expected = shared * e[:, cell - HEADS.borders[j]]
        np.testing.assert_allclose((up - down) / (2 * step), expected, atol=1e-7)
    off = points[:, 2] < 0
    assert 0 < off.sum() < len(off)
    assert not found.residuals[off, HEADS.cells(2)].any()
    assert not found.log_probabilities[off, 2].any()


def _kernel(points, centre, j):
    """1 + SHARING s_j / D, from the definition."""
    from adanet_py.controllers.policy import SHARING

    out = np.ones(len(points))
    for k in range(j):
        both = (points[:, k] >= 0) & (centre[k] >= 0)
        out += SHARING / HEADS.depth * both * HEADS.all[k].likeness[points[:, k], centre[k]]
    return out


def test_products_of_scores_are_those_of_the_definition():
    policy = random_policy()
    found = scores(policy)
    expected = np.zeros_like(found.products)
    for j, (a, b) in itertools.product(range(4), itertools.product(range(7), repeat=2)):
        e = found.residuals[:, HEADS.cells(j)]
        kernel = _kernel(policy.points[a][None], policy.points[b], j)[0]
        expected[a, b] += kernel * e[a] @ HEADS.all[j].likeness @ e[b]
    np.testing.assert_allclose(found.products, expected, atol=1e-12)
    assert np.linalg.eigvalsh(found.products).min() > -1e-9


def test_importance_weights_make_the_mean_under_another_policy_right():
    # Enumerated: E_old[w f] = E_new[f] wherever no weight is truncated.
    old, new = random_policy(seed=0), random_policy(seed=0)
    new = Policy(HEADS, new.points, 0.8 * new.coefficients)
    then, now = log_probability(old, EVERY), log_probability(new, EVERY)
    weights = importance(now, then)
    assert LEAST < weights.min() < weights.max() < MOST
    f = np.random.default_rng(2).normal(size=len(EVERY))
    assert np.exp(then) @ (weights * f) == pytest.approx(np.exp(now) @ f)
    assert np.exp(then) @ f != pytest.approx(np.exp(now) @ f)
    np.testing.assert_allclose(importance(np.array([9.0, -9.0]), np.zeros(2)), [MOST, LEAST])


def test_advantages_are_exponential_scores_that_only_depend_on_order():
    rewards = np.array([3.0, 1.0, 2.0, -math.inf, 2.0])
    found = advantages(rewards)
    np.testing.assert_allclose(found, advantages(np.exp(rewards)))
    shares = np.array([0.9, 0.3, 0.6, 0.1, 0.6])
    np.testing.assert_allclose(found, -np.log(1.0 - shares) - 1.0)


def test_clipping_is_that_of_equation_7():
    ratios = np.array([0.5, 1 - CLIP - 0.01, 0.95, 1.05, 1 + CLIP + 0.01, 2.0])
    for advantage in (-1.3, 0.7):

        def surrogate(log_r, a=advantage):
            r = np.exp(log_r)
            return np.minimum(r * a, np.clip(r, 1 - CLIP, 1 + CLIP) * a)

        step = 1e-6
        numeric = (surrogate(np.log(ratios) + step) - surrogate(np.log(ratios) - step)) / (2 * step)
        found = clipped_slope(ratios, np.full(len(ratios), advantage))
        np.testing.assert_allclose(found, numeric, atol=1e-6)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_the_policy_concentrates_on_the_best_arm_of_a_bandit(step):
    heads = Heads([even(6)])
    learner = Learner(untrained(heads), np.empty(0))
    rewards, rng = np.empty(0), np.random.default_rng(0)
    for _ in range(30):
        arms = draw(learner.policy, np.empty(0, dtype=np.intp), 8, rng)
        rewards = np.append(rewards, (arms[:, 0] == 4) + 0.5 * rng.normal(size=8))
        learner = remember(learner, arms, learner.policy)
        learner = step(learner, rewards[-len(learner.behaviour) :], 1.0)
    p = conditional(learner.policy, 0, np.array([0]))
    assert p.argmax() == 4
    assert p[4] > 0.6


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_dependence_between_decisions_is_learned(step):
    # Equal is good: no decision alone says anything.
    heads = Heads([even(2), even(2)])
    learner = Learner(untrained(heads), np.empty(0))
    points = np.array(list(itertools.product(range(2), repeat=2)) * 8)
    learner = remember(learner, points, learner.policy)
    for _ in range(5):
        learner = step(learner, (points[:, 0] == points[:, 1]).astype(float), 1.0)
    for first in range(2):
        assert conditional(learner.policy, 1, np.array([first, 0]))[first] > 0.6
    np.testing.assert_allclose(conditional(learner.policy, 0, np.zeros(2, dtype=np.intp)), 0.5)


def test_without_differences_in_reward_the_policy_stays_the_prior():
    learner = remember(Learner(untrained(HEADS), np.empty(0)), EVERY[:10], untrained(HEADS))
    for step in STEPS.values():
        learner = step(learner, np.ones(10), 1.0)
    np.testing.assert_allclose(
        log_probability(learner.policy, EVERY), log_probability(untrained(HEADS), EVERY), atol=0.2
    )


# Replay

TINY = load_space("tiny")


def history(n, pending=0, seed=0):
    candidates = [sample(TINY, np.random.default_rng([seed, i])) for i in range(n + pending)]
    results = [Result(c, Status.COMPLETE, reward=-c.numeric.get("lr", 1.0)) for c in candidates[:n]]
    return History(tuple(results), tuple(candidates[n:]))


def forget():
    policy_replay._KEPT.clear()


def same(a, b):
    return all(np.array_equal(x.coefficients, y.coefficients) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("pending", [0, 20])
def test_a_replay_from_nothing_equals_one_that_goes_on(step, pending):
    whole = history(61, pending)
    found = []
    for n in (5, 8, 30, 30, 61):
        seen = History(whole.results[:n], whole.pending)
        found.append(policy_replay.train(TINY, seen, step))
    for n, warm in zip((5, 8, 30, 30, 61), found, strict=True):
        forget()
        cold = policy_replay.train(TINY, History(whole.results[:n], whole.pending), step)
        assert same(warm, cold)
    assert not same(found[1], found[2])


def test_a_result_that_comes_in_between_is_learned_from():
    late = history(60)
    early = History((*late.results[:40], *late.results[48:]))
    policy_replay.train(TINY, early, natural_step)
    warm = policy_replay.train(TINY, late, natural_step)
    forget()
    assert same(warm, policy_replay.train(TINY, late, natural_step))


def test_a_long_history_is_replayed_from_a_fixed_place_on(monkeypatch):
    monkeypatch.setattr(policy_replay, "SEGMENT", 6)
    monkeypatch.setattr(policy_replay, "OVERLAP", 2)
    whole = history(13 * policy_replay.BLOCK)
    for n in range(0, len(whole.results), 20):  # on the way
        policy_replay.train(TINY, History(whole.results[:n]), natural_step)
    warm = policy_replay.train(TINY, whole, natural_step)
    forget()
    assert same(warm, policy_replay.train(TINY, whole, natural_step))
    other = history(8 * policy_replay.BLOCK, seed=1).results  # before that place
    forget()
    changed = History((*other, *whole.results[8 * policy_replay.BLOCK :]))
    assert same(warm, policy_replay.train(TINY, changed, natural_step))


def test_what_is_pending_makes_the_weights_refer_to_an_older_policy():
    old = policy_replay.train(TINY, history(64), natural_step)
    late = policy_replay.train(TINY, history(64, pending=24), natural_step)
    assert not same(old, late)


@pytest.mark.parametrize("name", STEPS)
def test_proposals_are_the_same_whether_anything_is_remembered_or_not(name):
    seen = history(40)
    warm = CONTROLLERS[name](TINY, seen, 6, np.random.default_rng(0))
    forget()
    assert warm == CONTROLLERS[name](TINY, seen, 6, np.random.default_rng(0))


def test_what_the_policy_prefers_can_be_read():
    rng = np.random.default_rng(0)
    candidates = [sample(TINY, rng) for _ in range(64)]
    before = shares(TINY, History())
    good = [float(c.static["activation"] == "tanh") for c in candidates]
    results = [Result(c, Status.COMPLETE, reward=r) for c, r in zip(candidates, good, strict=True)]
    found = shares(TINY, History(tuple(results)))
    name = "architectures.mlp.activation"
    assert found.keys() == {d.name for d in TINY.decisions}
    assert sum(found[name].values()) == pytest.approx(1.0)
    assert found[name]["tanh"] > 0.9 > before[name]["tanh"]
    adam = found["optimizer"]["adam"]
    assert sum(found["optimizers.adam.lr"].values()) == pytest.approx(adam)
