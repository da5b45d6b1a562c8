"""Programs that are likely to fail are drawn again (controllers/failures.py)."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from adanet_py.controllers.failures import TRIES, drawn_elsewhere, likely_failures
from adanet_py.records import Candidate, History, Result, Status
from adanet_py.space import fill, sample

sys.path.insert(0, str(Path(__file__).parent))
from spaces import ZOO

SPACE = ZOO["all types"]
NAME = "architecture"


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def result(candidate: Candidate, fails: bool) -> Result:
    if fails:
        return Result(candidate, Status.OUT_OF_MEMORY)
    return Result(candidate, Status.COMPLETE, reward=1.0)


def history(n: int = 60, deep: bool = True, plain: bool = False) -> History:
    """Random candidates, those of an architecture failing or not."""
    fails = {"deep": deep, "plain": plain}
    tried = [sample(SPACE, rng(1, i)) for i in range(n)]
    return History(tuple(result(c, fails[c.architecture]) for c in tried))


def drawn(count: int = 40) -> list[dict[str, object]]:
    return [dict(fill(SPACE, {}, rng(2, i))) for i in range(count)]


def test_programs_among_failures_are_told_from_others() -> None:
    fails = likely_failures(SPACE, history())
    assert fails is not None
    for assignment in drawn():
        assert fails(assignment) == (assignment[NAME] == "deep")


def test_nothing_is_said_without_failures_or_of_too_few_programs() -> None:
    assert likely_failures(SPACE, history(deep=False)) is None
    assert likely_failures(SPACE, history(n=4, plain=True)) is None
    assert likely_failures(SPACE, History()) is None


def test_a_program_that_failed_by_its_numbers_alone_did_not_fail() -> None:
    known = history().results
    others = [replace(r.candidate, seed=1, numeric={**r.candidate.numeric}) for r in known]
    lucky = History((*known, *(result(c, False) for c in others)))
    fails = likely_failures(SPACE, lucky)
    assert fails is not None
    assert not any(fails(assignment) for assignment in drawn())


def test_where_everything_fails_the_last_draw_is_taken() -> None:
    fails = likely_failures(SPACE, history(plain=True))
    count = 0

    def draw() -> dict[str, object]:
        nonlocal count
        count += 1
        return dict(fill(SPACE, {}, rng(3, count)))

    out = drawn_elsewhere(draw, lambda a: a, fails, np.random.default_rng(1))
    assert out[NAME] in ("deep", "plain")
    assert 1 < count <= TRIES


def test_where_nothing_is_known_to_fail_there_is_one_draw_and_no_chance_is_used() -> None:
    chance = rng(5)
    assert drawn_elsewhere(lambda: {"x": 1}, lambda a: a, None, chance) == {"x": 1}
    assert chance.random() == rng(5).random()
