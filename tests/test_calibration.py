"""Temperature scaling against a general optimiser, and what must hold of the cross-fitted form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

from adanet_py.calibration import (
    LOG_RANGE,
    cross_fitted,
    fit_temperature,
    followed_loss,
    probabilities,
)


def _sample(seed, n=500, classes=4, true_temperature=2.5):
    """Logits that are `true_temperature` times too large, and labels drawn from the truth."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, classes))
    y = np.array([rng.choice(classes, p=p) for p in softmax(logits, axis=1)])
    return logits * true_temperature, y, rng.uniform(0.1, 3, n)


def _loss(logits, y, temperature, weight=None):
    p = probabilities(logits, temperature)
    return log_loss(y, p, labels=list(range(p.shape[1])), sample_weight=weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("true_temperature", [0.1, 1.0, 2.5, 15.0])
@pytest.mark.parametrize("classes", [2, 4, 26])
def test_finds_the_minimum_a_general_optimiser_finds(classes, true_temperature, weighted):
    logits, y, weight = _sample(classes, 500, classes, true_temperature)
    w = weight if weighted else None
    found = fit_temperature(logits, y, w)
    best = minimize_scalar(
        lambda s: _loss(logits, y, np.exp(s), w), bounds=LOG_RANGE, method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    assert _loss(logits, y, found, w) <= best.fun + 1e-12
    assert np.log(found) == pytest.approx(best.x, abs=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("start", [0.3, 1.0, 2.4])
@pytest.mark.parametrize("classes", [2, 4, 26])
def test_the_loss_that_is_followed_is_that_of_scikit_learn(classes, start, weighted):
    logits, y, weight = _sample(classes, 500, classes)
    w = weight if weighted else None
    found, t = followed_loss(logits.astype(np.float32), y, w, start)
    assert found == pytest.approx(_loss(logits.astype(np.float32), y, t, w), rel=1e-12)
    least = _loss(logits, y, fit_temperature(logits, y, w), w)
    assert found == pytest.approx(least, rel=1e-7)
    # Far off and sure of it, it is clipped as the metric is.
    worst, t = followed_loss(1e4 * np.eye(classes)[(y + 1) % classes], y, w, start)
    wrong = 1e4 * np.eye(classes)[(y + 1) % classes]
    assert worst == pytest.approx(_loss(wrong, y, t, w), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("classes", [2, 4])
def test_what_does_not_change_has_the_loss_it_had(classes, scale):
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 200)
    logits = scale * rng.normal(size=(200, classes))
    loss, t = followed_loss(logits, y, None, 1.0)
    for _ in range(5):
        again, t = followed_loss(logits, y, None, t)
        assert again == pytest.approx(loss, rel=1e-10)  # well below `ROUNDING`


def test_a_loss_of_nothing_is_not_a_number():
    assert np.isnan(followed_loss(np.zeros((0, 3)), np.zeros(0, int), None, 1.0)[0])
    assert np.isnan(followed_loss(np.zeros((2, 3)), np.zeros(2, int), np.zeros(2), 1.0)[0])


def test_recovers_the_temperature_the_logits_were_multiplied_by():
    logits, y, _ = _sample(0, n=20_000)
    # Fisher information of log T is about 1 per row here: 0.05 is six standard deviations.
    assert fit_temperature(logits, y) == pytest.approx(2.5, rel=0.05)


def test_one_column_means_two_classes():
    logits, y, _ = _sample(1, classes=2)
    column = logits[:, 1:] - logits[:, :1]
    assert fit_temperature(column, y) == pytest.approx(fit_temperature(logits, y), rel=1e-6)
    np.testing.assert_allclose(probabilities(column, 2.0), probabilities(logits, 2.0), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 30.0, 1e4])
def test_the_ends_of_the_range_are_reached(scale):
    right = np.eye(3)[[0, 1, 2] * 10] * scale
    y = np.array([0, 1, 2] * 10)
    low, high = np.exp(LOG_RANGE)
    found = fit_temperature(right, y)  # every row right: the sharper, the better
    assert found == pytest.approx(low, rel=1e-5) or _loss(right, y, found) < 1e-12
    assert fit_temperature(right, (y + 1) % 3) == pytest.approx(high, rel=1e-5)


@pytest.mark.parametrize("start", [0.05, 0.7, 20.0])
def test_the_answer_does_not_depend_on_the_start(start):
    logits, y, w = _sample(2)
    assert fit_temperature(logits, y, w, start) == pytest.approx(
        fit_temperature(logits, y, w), rel=1e-6
    )


def test_nothing_to_learn_from_gives_one():
    y = np.array([0, 1, 1])
    assert fit_temperature(np.zeros((3, 2)), y) == 1
    assert fit_temperature(np.zeros((0, 2)), y[:0]) == 1
    assert fit_temperature(np.array([[0.0], [np.inf], [1.0]]), y) == 1
    assert fit_temperature(np.eye(2)[y], y, np.zeros(3)) == 1


def test_a_row_has_no_say_in_its_own_temperature():
    logits, y, w = _sample(3)
    before = cross_fitted(logits, y, w)
    changed = logits.copy()
    changed[17] *= -100
    after = cross_fitted(changed, y, w)
    assert after[17] == pytest.approx(before[17], rel=1e-6)
    assert not np.allclose(after, before, rtol=1e-3)
    assert np.isfinite(after).all()


def test_folds_are_of_like_size_and_do_not_depend_on_values():
    logits, y, _ = _sample(4, n=1003)
    counts = np.unique(cross_fitted(logits, y), return_counts=True)[1]
    assert len(counts) == 5
    assert counts.max() - counts.min() <= 5


def test_few_rows_are_left_alone():
    logits, y, _ = _sample(5, n=9)
    np.testing.assert_array_equal(cross_fitted(logits, y), np.ones(9))


@pytest.mark.parametrize("shape", [(7, 1), (7, 5), (3, 7, 5)])
def test_probabilities_are_those_of_a_softmax_and_survive_huge_logits(shape):
    rng = np.random.default_rng(6)
    logits = rng.normal(size=shape).astype(np.float32) * 1e4
    t = rng.uniform(0.5, 2, 7)
    p = probabilities(logits, t)
    assert p.shape == (*shape[:-1], max(2, shape[-1]))
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-12)
    if shape[-1] > 1:
        np.testing.assert_allclose(p, softmax(logits.astype(float) / t[:, None], axis=-1))


def test_calibration_never_changes_the_likeliest_class():
    logits, y, _ = _sample(7)
    p = probabilities(logits, cross_fitted(logits, y))
    np.testing.assert_array_equal(p.argmax(1), logits.argmax(1))
