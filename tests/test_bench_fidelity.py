"""The benchmark of rungs: what it counts as spent, and when something is reached."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from bench_fidelity import Curves, Method, full, measure, nearest, play, reached, regret_at
from nas_tables import Table, space_of_ranges

from adanet_py.controllers import CONTROLLERS
from adanet_py.fidelity import FIDELITIES
from adanet_py.records import Candidate

EPOCHS = tuple(range(1, 33))


def known(crossing: bool = False) -> Table:
    """Quality rises to `x`; where curves cross, the best begin as the worst."""

    def evaluate(candidate: Candidate, epochs: int) -> tuple[float, float]:
        x = candidate.numeric["x"]
        early = 1.0 - x if crossing else x
        weight = 1.0 if epochs >= 32 else 0.0
        value = weight * x + (1.0 - weight) * 0.1 * early
        return value, value

    space = space_of_ranges("known", {"x": (0.0, 1.0, False, False)})
    return Table("known", space, 1.0, 0.5, evaluate, EPOCHS)


def test_without_rungs_every_candidate_costs_all_epochs() -> None:
    spent, score = play(
        CONTROLLERS["random"], Curves(known()), FIDELITIES["none"].rungs, 10 * 32, 4, 0
    )
    assert spent.tolist() == [128.0, 256.0, 384.0]
    assert (np.diff(score) >= 0.0).all()


@pytest.mark.parametrize("name", sorted(set(FIDELITIES) - {"none"}))
def test_rungs_find_as_much_for_less_where_curves_do_not_cross(name: str) -> None:
    curves = Curves(known())
    whole, with_rungs = (
        measure(Method("random", f, 8), curves, 0.5, 8)[49] for f in ("none", name)
    )
    assert with_rungs < whole


def test_where_curves_cross_cutting_misleads_and_is_counted_so() -> None:
    curves = Curves(known(crossing=True))
    whole, with_rungs = (
        measure(Method("random", f, 8), curves, 0.5, 8)[49] for f in ("none", "asha")
    )
    assert with_rungs > whole


def test_regret_is_that_of_the_incumbent_at_a_budget() -> None:
    curves = Curves(known())
    spent, score = np.array([10.0, 20.0, 30.0]), np.array([math.nan, 0.5, 1.0])
    found = regret_at(curves, spent, score, np.array([5.0, 10.0, 25.0, 99.0]))
    assert found.tolist() == [1.0, 1.0, 1.0, 0.0]
    regrets = np.linspace(1.0, 0.01, 100)
    assert reached(regrets, 0.75, 1.0) == pytest.approx(0.26)
    assert reached(regrets, 0.75, 0.2) == math.inf


def test_rungs_are_the_nearest_epochs_of_a_table() -> None:
    assert [nearest(known(), e) for e in (0.4, 2.0, 3.4, 40.0)] == [1, 2, 3, 32]
    assert full(known()) == 100
