"""Mixtures of controllers: shares follow what was earned, and a mixture is a controller."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from spaces import ZOO

from adanet_py.controllers import CONTROLLERS, mixture
from adanet_py.controllers.mixture import WINDOW, earnings
from adanet_py.errors import ConfigError
from adanet_py.records import History, Result, Status

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from nas_tables import space_of_choices

SPACE = ZOO["all types"]
CELLS = space_of_choices("cells", {f"x{i}": tuple("abcde") for i in range(4)})
EVEN = {name: CONTROLLERS[name] for name in ("random", "evolution", "tpe")}


def past(rewards: dict[str, list[float]], space=SPACE) -> History:
    """Results of each name with these rewards, taken in turns; NaN has failed."""
    rng = np.random.default_rng(0)
    results = []
    for row in zip(*rewards.values(), strict=True):
        for name, reward in zip(rewards, row, strict=True):
            candidate = CONTROLLERS["random"](space, History(tuple(results)), 1, rng)[0]
            failed = np.isnan(reward)
            status = Status.DIVERGED if failed else Status.COMPLETE
            known = {} if failed else {"reward": reward}
            results.append(Result(candidate, status, controller=name, **known))
    return History(tuple(results))


def test_shares_begin_with_the_weights():
    shares = mixture(EVEN, {"random": 1, "evolution": 1, "tpe": 2}).shares(History())
    assert shares["tpe"].share == pytest.approx(2 * shares["random"].share, rel=0.05)
    assert sum(s.share for s in shares.values()) == pytest.approx(1.0)
    assert all(s.quality == 1.0 for s in shares.values())


@pytest.mark.parametrize("floor", [0.0, 0.3, 1.0])
def test_the_floor_is_spread_evenly(floor):
    shares = mixture(EVEN, {"random": 1, "evolution": 1, "tpe": 6}, floor=floor).shares(History())
    assert shares["random"].share == pytest.approx(floor / 3 + (1 - floor) / 8)
    assert shares["tpe"].share == pytest.approx(floor / 3 + (1 - floor) * 6 / 8)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        mixture(EVEN, floor=1.5 + floor)


def test_shares_follow_who_has_the_best_results_and_nobody_is_left_out():
    rewards = {"random": [0.0, 1.0] * 8, "evolution": [5.0, 6.0] * 8, "tpe": [np.nan] * 16}
    shares = mixture(EVEN).shares(past(rewards))
    assert shares["evolution"].share > 0.6
    assert shares["evolution"].quality > 1.0 > shares["random"].quality > shares["tpe"].quality
    assert min(s.share for s in shares.values()) > 0.01
    assert [s.results for s in shares.values()] == [16, 16, 16]


def test_only_the_latest_results_count():
    early = {"random": [9.0] * WINDOW, "evolution": [8.0] * WINDOW, "tpe": [7.0] * WINDOW}
    late = {"random": [1.0] * WINDOW, "evolution": [2.0] * WINDOW, "tpe": [3.0] * WINDOW}
    old, new = past(early), past(late)
    both = History((*old.results, *new.results))
    assert mixture(EVEN).shares(both) == mixture(EVEN).shares(new)
    assert mixture(EVEN).shares(new)["tpe"].share > mixture(EVEN).shares(old)["tpe"].share


def test_neither_the_unit_of_the_reward_nor_an_outlier_matters():
    rng = np.random.default_rng(1)
    rewards = {name: rng.normal(size=10).tolist() for name in EVEN}
    other = {name: [np.exp(5.0 * r) for r in row] for name, row in rewards.items()}
    assert mixture(EVEN).shares(past(rewards)) == mixture(EVEN).shares(past(other))


def test_results_of_others_earn_nothing():
    history = past({"evolution": [1.0, 2.0], "somebody": [9.0, 9.0]})
    assert [s.results for s in mixture(EVEN).shares(history).values()] == [0, 2, 0]


def test_equal_rewards_earn_the_same_and_failures_nothing():
    found = earnings(np.array([1.0, 3.0, 1.0, np.nan]))
    assert found[1] > found[0] == found[2] > found[3] == 0.0
    assert earnings(np.array([])).size == 0


def test_who_proposed_is_written_into_the_candidates():
    found = mixture(EVEN)(CELLS, History(), 12, np.random.default_rng(0))
    assert len({c.experiment for c in found}) == 12
    assert {c.by for c in found} <= set(EVEN)
    assert len({c.by for c in found}) > 1


def test_one_call_for_one_program_asks_one_member():
    found = mixture(EVEN)(SPACE, History(), 8, np.random.default_rng(0))
    assert len({c.by for c in found}) == len({c.family for c in found}) == 1


def test_a_mixture_of_mixtures_credits_the_innermost():
    inner = mixture({"evolution": CONTROLLERS["evolution"], "tpe": CONTROLLERS["tpe"]})
    outer = mixture({"model": inner, "random": CONTROLLERS["random"]})
    assert outer.names() == {"evolution", "tpe", "random"}
    found = outer(CELLS, History(), 30, np.random.default_rng(0))
    assert {c.by for c in found} == outer.names()
    good = {"evolution": [5.0] * 8, "tpe": [6.0] * 8, "random": [1.0] * 8}
    shares = outer.shares(past(good))
    assert shares["model"].share > 0.7
    assert shares["model"].results == 16


def test_a_member_may_end():
    brief = mixture(EVEN, until={"tpe": 6})
    before, after = past({"tpe": [1.0] * 5}), past({"tpe": [1.0] * 6})
    assert brief.shares(before)["tpe"].share > 0.3
    assert brief.shares(after)["tpe"].share == 0.0
    assert sum(s.share for s in brief.shares(after).values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({},), "at least one"),
        ((EVEN, {"random": 1.0}), "positive weight"),
        ((EVEN, dict.fromkeys(EVEN, 0.0)), "positive weight"),
        ((EVEN, None, {"random": 1, "evolution": 1, "tpe": 1}), "not all"),
        ((EVEN, None, {"nobody": 1}), "Expected some of"),
        (({"a": mixture(EVEN), "tpe": CONTROLLERS["tpe"]},), "same name"),
    ],
)
def test_what_cannot_be_mixed_is_said_so(arguments, message):
    with pytest.raises(ConfigError, match=message):
        mixture(*arguments)
