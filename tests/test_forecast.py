"""What is said early about the time a search needs, on trajectories whose answer is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from adanet_py import forecast
from adanet_py.forecast import FEWEST, TRIED, enough_candidates, expected_best


def errors(n: int, dimensions: float, seed: int) -> np.ndarray:
    """Errors with P(error < e) = e ** dimensions: the best of n is near n ** (-1 / dimensions)."""
    return np.sort(np.random.default_rng(seed).random(n) ** (1.0 / dimensions))


def true_best(n: float, dimensions: float) -> float:
    """The expected least of n such errors: n B(n, 1 + 1 / d)."""
    a = 1.0 + 1.0 / dimensions
    return math.exp(math.lgamma(n + 1.0) + math.lgamma(a) - math.lgamma(n + a))


def truly_enough(doubt: float, dimensions: float) -> float:
    n = 1.0
    while true_best(n, dimensions) - true_best(2 * n, dimensions) >= doubt:
        n *= 1.1
    return n


def test_the_expected_best_is_that_of_draws() -> None:
    known = errors(20, 2.0, 0)
    rng = np.random.default_rng(1)
    for n in (2, 3, 10, 19):
        drawn = rng.permuted(np.tile(known, (20_000, 1)), axis=1)[:, :n].min(axis=1)
        error = drawn.std() / 20_000**0.5
        assert abs(expected_best(known, n) - drawn.mean()) < 5.0 * error
    assert expected_best(known, 1) == pytest.approx(known.mean())
    assert expected_best(known, 20) == pytest.approx(known[0])


@pytest.mark.parametrize("dimensions", [2.0, 4.0])
@pytest.mark.parametrize("doublings", [-2, 0, 2])
def test_what_is_enough_agrees_with_the_truth_of_a_power_law(
    dimensions: float, doublings: int
) -> None:
    """Seen: 128 candidates; enough: a quarter of them, as many, or four times as many."""
    wanted = 128 * 2.0**doublings
    doubt = true_best(wanted, dimensions) - true_best(2 * wanted, dimensions)
    assert truly_enough(doubt, dimensions) == pytest.approx(wanted, rel=0.11)
    found = [enough_candidates(errors(128, dimensions, s), doubt) for s in range(100)]
    # An answer is to a factor of two, and one sample of the best few is noisy.
    assert wanted / 4 <= np.nanmedian(found) <= 4 * wanted
    assert np.mean(np.isnan(found)) < 0.5


def test_more_doubt_never_asks_for_more() -> None:
    for seed in range(20):
        known = errors(64, 3.0, seed)
        found = [enough_candidates(known, d) for d in (0.2, 0.1, 0.05, 0.02, 0.01, 0.001)]
        numbers = [math.inf if math.isnan(f) else f for f in found]
        assert numbers == sorted(numbers)
        assert numbers[0] >= 1.0


def test_no_end_is_seen_while_gains_do_not_fall_and_none_is_needed_where_all_are_equal() -> None:
    # P(error < e) = exp(e): every doubling gains as much.
    found = [
        enough_candidates(np.sort(np.log(np.random.default_rng(s).random(64))), 1e-3)
        for s in range(50)
    ]
    assert np.mean(np.isnan(found)) > 0.4
    assert enough_candidates(np.full(64, 0.3), 1e-3) <= 2.0
    assert math.isnan(enough_candidates(errors(64, 2.0, 0), 0.0))


def test_times_follow_from_the_pace_and_count_failures() -> None:
    scores = [*errors(30, 3.0, 0), *[math.inf, math.nan] * 5]
    found = forecast.forecast(scores, 0.05, seconds=24.0, began=4.0)
    assert found is not None
    assert found.candidates == 40
    assert found.necessary == pytest.approx(4.0 + 0.5 * TRIED)
    assert found.sufficient == pytest.approx(4.0 + 0.5 * found.enough)
    twice = forecast.forecast(scores, 0.05, seconds=44.0, began=4.0)
    assert twice is not None
    assert twice.enough == found.enough
    assert twice.sufficient - 4.0 == pytest.approx(2 * (found.sufficient - 4.0))


def test_nothing_is_said_before_there_is_something_to_go_by() -> None:
    few = [*errors(FEWEST - 1, 2.0, 0), *[math.inf] * 20]
    assert forecast.forecast(few, 0.01, 10.0, 0.0) is None
    assert forecast.forecast([*few, 0.5], 0.01, 10.0, 0.0) is not None


def test_the_words_say_what_and_why() -> None:
    known = errors(100, 2.0, 0)
    told = forecast.forecast(known.tolist(), 0.01, 10.0, 0.0)
    untold = forecast.forecast(known.tolist(), 0.0, 10.0, 0.0)
    assert told is not None
    assert untold is not None
    for found in (told, untold):
        back = forecast.Forecast.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
        assert repr(back) == repr(found)
    assert f"{told.sufficient:.0f} s" in told.words
    assert "nan" not in untold.words
    assert "cannot be told" in untold.words
