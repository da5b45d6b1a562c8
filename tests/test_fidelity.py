"""Who is cut at a rung: every way to choose rungs, what earlier groups had there, and doubt."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from adanet_py import fidelity
from adanet_py.errors import ConfigError
from adanet_py.fidelity import FIDELITIES, Rung, bar, errors_at, staying
from adanet_py.intervals import standard_errors
from adanet_py.metrics import METRICS, get_metric, score
from adanet_py.records import Candidate, Evaluation, Group, Result, Status
from adanet_py.training.scoring import Scorer

NAMES = [f"c{i}" for i in range(10)]


@pytest.mark.parametrize("name", sorted(FIDELITIES))
@pytest.mark.parametrize("epochs", [1e-3, 1.0, 4.0, 12.0, 52.0, 640.0])
def test_rungs_lie_inside_the_training_and_narrow(name: str, epochs: float) -> None:
    for index in range(6):
        rungs = FIDELITIES[name].rungs(epochs, index)
        assert rungs == FIDELITIES[name].rungs(epochs, index)
        shares, stay = [r.share for r in rungs], [r.stay for r in rungs]
        assert all(0.0 < s < 1.0 for s in shares)
        assert shares == sorted(set(shares))
        assert stay == sorted(stay, reverse=True)
        assert all(0.0 < s <= 1.0 for s in stay)
        assert all(0.0 < r.best <= 1.0 for r in rungs)
    assert FIDELITIES[name].summary


def test_an_unknown_fidelity_is_an_error_that_names_the_nearest() -> None:
    from adanet_py.config import SearchConfig

    assert SearchConfig(fidelity="halving").fidelity == "halving"
    with pytest.raises(ConfigError, match="asha"):
        SearchConfig(fidelity="ascha")


def test_more_epochs_mean_more_rungs_that_begin_earlier() -> None:
    ladders = [fidelity.ladder(epochs) for epochs in (1, 4, 8, 30, 100, 1000)]
    assert [len(x) for x in ladders] == sorted(len(x) for x in ladders)
    assert ladders[0] == ()
    for epochs, shares in zip((1, 4, 8, 30, 100, 1000), ladders, strict=True):
        assert all(s * epochs >= fidelity.FEWEST_EPOCHS for s in shares)
        assert all(s > 0.99 * fidelity.EARLIEST for s in shares)


def test_hyperband_has_a_bracket_without_a_cut_and_one_with_every_rung() -> None:
    brackets = [FIDELITIES["hyperband"].rungs(100.0, i) for i in range(8)]
    counts = [len(b) for b in brackets]
    most = len(fidelity.ladder(100.0))
    assert counts == [most - i % (most + 1) for i in range(8)]


def test_nothing_is_cut_without_rungs_and_nobody_compared_across_groups_but_by_asha() -> None:
    assert FIDELITIES["none"].rungs(100.0, 0) == ()
    for name in ("halving", "hyperband"):
        assert all(r.best == 1.0 for i in range(4) for r in FIDELITIES[name].rungs(100.0, i))
    assert all(r.best < 1.0 for r in FIDELITIES["asha"].rungs(100.0, 0))


def test_the_bar_is_the_last_of_the_best_share_of_what_was_seen() -> None:
    rng = np.random.default_rng(0)
    for n in (8, 9, 40):
        errors = rng.normal(size=n)
        for share in (1 / 2, 1 / 3, 1 / 4):
            found = bar([*errors, math.nan, math.inf], share)
            assert np.sum(errors <= found) == math.ceil(share * n)
    assert bar(list(errors), 1.0) == math.inf


def test_there_is_no_bar_before_enough_was_seen() -> None:
    few = [0.1] * (fidelity.ENOUGH - 1)
    assert bar([*few, math.nan], 1 / 3) == math.inf
    assert bar([*few, 0.2], 1 / 3) == 0.1


def test_the_best_stay_as_far_as_they_reach_the_bar() -> None:
    errors = [0.5, 0.2, 0.4, 0.3, math.inf, math.nan]
    assert staying(errors, NAMES, 2, math.inf, 0.0) == {1, 3}
    assert staying(errors, NAMES, 3, 0.3, 0.0) == {1, 3}
    assert staying(errors, NAMES, 2, 0.1, 0.0) == set()
    assert staying(errors, NAMES, 9, math.inf, 0.0) == {0, 1, 2, 3}
    assert staying([math.nan], NAMES, 1, math.inf, 0.1) == set()
    assert staying([], NAMES, 1, math.inf, 0.1) == set()


def test_equal_errors_are_ranked_by_name() -> None:
    assert staying([0.1, 0.1, 0.1], ["b", "a", "c"], 1, math.inf, 0.0) == {1}


def test_who_cannot_be_told_from_the_last_that_stays_does_so_too_within_bounds() -> None:
    errors = [0.10, 0.20, 0.21, 0.22, 0.23, 0.90]
    assert staying(errors, NAMES, 2, math.inf, 0.015) == {0, 1, 2}
    assert staying(errors, NAMES, 2, math.inf, 0.025) == {0, 1, 2, 3}
    assert staying(errors, NAMES, 2, math.inf, 10.0) == {0, 1, 2, 3}  # twice as many, no more
    # The bar too is reached within the doubt only, and the best need not stay.
    assert staying(errors, NAMES, 2, 0.09, 0.015) == {0}
    assert staying(errors, NAMES, 2, 0.08, 0.015) == set()


def test_more_doubt_and_more_places_never_cut_more() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        errors, limit = rng.normal(size=8).tolist(), float(rng.normal())
        for keep in (1, 2, 4):
            stay = [staying(errors, NAMES, keep, limit, d) for d in (0.0, 0.1, 0.5, 2.0)]
            assert all(a <= b for a, b in pairwise(stay))
            wider = staying(errors, NAMES, 2 * keep, limit, 0.1)
            assert staying(errors, NAMES, keep, limit, 0.1) <= wider


def result(values: list[float], status: Status = Status.COMPLETE, **changes: Any) -> Result:
    """One evaluation at every tenth step."""
    curve = tuple(Evaluation(10 * i, i, 0.1, 0.0, v, 1.0) for i, v in enumerate(values, start=1))
    return Result(Candidate("mlp"), status, curve=curve, steps=10 * len(values), **changes)


def test_errors_at_a_rung_are_the_best_so_far_of_who_came_so_far() -> None:
    results = [
        result([0.5, 0.7, 0.8, 0.9]),
        result([0.6, 0.4, 0.3, 0.2]),
        result([0.3], Status.PRUNED),
        result([0.9], Status.CONVERGED),
        result([0.9, 0.9, 0.9], Status.DIVERGED),
        Result(Candidate("mlp"), Status.FAILED),
    ]
    group = Group(0, (), steps=40, evaluate_every=10)
    found = errors_at(1 / 2, group, results, lambda value: 1 - value)
    expected = [0.3, 0.4, math.nan, 0.1, math.nan, math.nan]
    assert found == pytest.approx(expected, nan_ok=True)


def test_a_rung_is_an_evaluation() -> None:
    for steps in (1, 7, 300, 5000):
        every = max(1, steps // 30)
        for share in (1 / 27, 1 / 9, 1 / 3):
            step = fidelity.step_of(share, steps, every)
            assert step % every == 0
            assert step == every or abs(step - share * steps) <= every / 2


# ---------------------------------------------------------------- doubt


def sample(metric: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Truth and the predictions of three models of equal quality."""
    if get_metric(metric).needs == "value":
        amounts = rng.gamma(2.0, 1.0, n)
        return amounts, [np.abs(amounts + rng.normal(0, 0.5, n)) + 0.01 for _ in range(3)]
    y = np.asarray(rng.integers(0, 2, n))
    p = [1 / (1 + np.exp(-(2 * y - 1 + rng.normal(0, 1.5, n)))) for _ in range(3)]
    return y, [np.column_stack([1 - q, q]) for q in p]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "roc_auc", "rmse", "mae", "f1_macro"])
def test_standard_errors_are_the_spread_over_samples(metric: str, weighted: bool) -> None:
    n, repeats = 400, 200
    values, errors = [], []
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        y, found = sample(metric, n, rng)
        weight = rng.uniform(0.5, 2.0, n) if weighted else None
        values.append([score(metric, y, p, weight) for p in found])
        if seed < 20:
            errors.append(standard_errors(get_metric(metric), y, found, weight))
    v = np.array(values)
    true = [v[:, 0].std(), (v[:, 1] - v[:, 0]).std(), (v[:, 2] - v[:, 0]).std()]
    # 5 % is one standard deviation of a deviation of 200; the resampled ones are noisier.
    np.testing.assert_allclose(np.mean(errors, axis=0), true, rtol=0.25)


def test_doubt_is_in_units_of_the_error_and_zero_where_models_are_one() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500)
    logits = (2 * y - 1 + rng.normal(0, 1.5, 500))[:, None]
    scorer = Scorer.make("log_loss", "binary", y, None, (0.0, 1.0))
    other = logits + rng.normal(0, 0.3, (500, 1))
    assert scorer.doubt([logits, logits], [1.0, 1.0]) == 0.0
    paired, alone = scorer.doubt([logits, other], [1.0, 1.0]), scorer.doubt([logits], [1.0])
    assert 0.0 < paired < alone  # rows that are hard for both cancel
    assert scorer.doubt([], []) == 0.0
    regression = Scorer.make("rmse", "regression", y - 0.5, None, (3.0, 10.0))
    near = regression.doubt([logits, other], [1.0, 1.0])
    wide = Scorer.make("rmse", "regression", y - 0.5, None, (3.0, 100.0))
    assert wide.doubt([logits, other], [1.0, 1.0]) == pytest.approx(10 * near)


@pytest.mark.parametrize("name", sorted(n for n, m in METRICS.items() if "binary" in m.tasks))
def test_every_metric_has_a_doubt(name: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    outputs = [(2 * y - 1 + rng.normal(0, 1.0, 120))[:, None] for _ in range(3)]
    doubt = Scorer.make(name, "binary", y, None, (0.0, 1.0)).doubt(outputs, [1.0] * 3)
    assert 0.0 <= doubt < math.inf


def test_a_rung_says_what_it_is() -> None:
    assert Rung(0.5, 0.25).best == 1.0
