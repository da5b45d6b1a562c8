"""Families: one program with many settings, many programs where they have one setting each."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from spaces import ZOO

from adanet_py.controllers import CONTROLLERS
from adanet_py.controllers.families import (
    count_settings,
    has_one_setting,
    program_of,
    propose_family_by_family,
)
from adanet_py.records import Candidate, History, Result, Status
from adanet_py.space import fill

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from nas_tables import space_of_choices

CELLS = space_of_choices("cells", {f"x{i}": tuple("abcde") for i in range(4)})


def test_where_programs_have_one_setting_every_proposal_is_drawn_by_the_controller():
    drawn = []

    def draw(program, anchor):
        assert program is None
        drawn.append(fill(CELLS, {}, rng) | {"architectures.cell.x0": "a"})
        return drawn[-1], None, f"draw {len(drawn)}"

    rng = np.random.default_rng(0)
    found = propose_family_by_family(CELLS, History(), 12, rng, draw)
    assert len({c.experiment for c in found}) == 12
    assert all(c.static["x0"] == "a" and c.move for c in found)


def test_a_program_is_left_when_its_settings_are_used_up():
    space = ZOO["twelve options"]  # six programs of two settings
    rng = np.random.default_rng(0)
    programs = []

    def draw(program, anchor):
        if program is None:
            programs.append(program_of(space, fill(space, {}, rng)))
        return fill(space, program or programs[-1], rng), None, "drawn"

    found = propose_family_by_family(space, History(), 6, rng, draw)
    assert len(found) == 6
    assert all(c.move == "drawn" for c in found)
    assert len(programs) >= 3


def test_settings_of_a_program_are_counted():
    assert has_one_setting(CELLS)
    assert not has_one_setting(ZOO["twelve options"])
    space = ZOO["twelve options"]
    program = program_of(space, fill(space, {}, np.random.default_rng(0)))
    assert count_settings(space, program) == 2
    assert count_settings(ZOO["40 dimensions"], {}) == float("inf")


NO_LEARNERS = ("random", "quasi_random", "portfolio")


@pytest.mark.parametrize("name", [n for n in CONTROLLERS if n not in NO_LEARNERS])
def test_a_batch_of_programs_is_better_than_random_ones(name):
    """Mean of a linear score over batches of 16 after 64 random results; 5 standard errors."""
    values = dict(zip("abcde", (0.0, 1.0, 2.0, 3.0, 4.0), strict=True))

    def score(candidate):
        return sum(values[str(v)] * (i + 1) for i, v in enumerate(candidate.static.values()))

    gains = []
    for seed in range(6):
        seen = CONTROLLERS["random"](CELLS, History(), 64, np.random.default_rng([seed, 0]))
        results = tuple(Result(c, Status.COMPLETE, reward=score(c)) for c in seen)
        history = History(results)
        found = CONTROLLERS[name](CELLS, history, 16, np.random.default_rng([seed, 1]))
        gains += [score(c) - 20.0 for c in found]  # 20: the mean of the space
    assert np.mean(gains) > 5.0 * np.std(gains) / len(gains) ** 0.5


def test_who_proposed_is_no_part_of_a_candidate():
    one = finite_candidate()
    other = Candidate(**one.to_json(), by="tpe")
    assert (other.by, other.id, other) == ("tpe", one.id, one)
    assert "by" not in other.to_json()
    assert Candidate.from_json(other.to_json()).by == ""


def finite_candidate() -> Candidate:
    return CONTROLLERS["random"](CELLS, History(), 1, np.random.default_rng(0))[0]
