"""The benchmark of rungs: what it counts as spent, and when something is reached."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from bench_fidelity import (
    Curves,
    Method,
    extrapolation,
    full,
    measure,
    nearest,
    play,
    reached,
    regret_at,
)
from nas_tables import Table, space_of_ranges
from recut_runs import recut

from adanet_py.controllers import CONTROLLERS
from adanet_py.fidelity import FIDELITIES
from adanet_py.records import Candidate, Evaluation, Group, Result, Status
from adanet_py.state import State

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


def test_curves_that_do_not_cross_rank_as_their_end_and_those_that_do_the_other_way() -> None:
    np.testing.assert_allclose(extrapolation(Curves(known()), 20), 1.0)
    np.testing.assert_allclose(extrapolation(Curves(known(crossing=True)), 20), -1.0)


def run_of(values: list[list[float]]) -> State:
    """One group, trained to the end: an error per member and epoch."""
    candidates = tuple(Candidate("mlp", numeric={"lr": 0.1 / (i + 1)}) for i in range(len(values)))
    results = [
        Result(
            c,
            Status.COMPLETE,
            steps=len(row),
            curve=tuple(Evaluation(i, i, 0.1, 0.0, v, 1.0) for i, v in enumerate(row, start=1)),
        )
        for c, row in zip(candidates, values, strict=True)
    ]
    group = Group(0, candidates, steps=len(values[0]))
    return State(groups={0: group}, results={0: results})


def test_a_run_cut_again_saves_epochs_and_loses_what_began_slowly() -> None:
    parallel = [[1.0 + i - 0.01 * e for e in range(24)] for i in range(4)]
    left, rise = recut(run_of(parallel), float, "halving", 0.0)
    # Of four members all go 3 of 24 epochs, two 8, one 24.
    assert left == pytest.approx((2 * 3 + 8 + 24) / (4 * 24))
    assert rise == 0.0
    slow = [*parallel[:3], [9.0] * 20 + [0.1] * 4]
    left, rise = recut(run_of(slow), float, "halving", 0.0)
    assert rise == pytest.approx((1.0 - 0.23) / 0.1 - 1.0)
    assert recut(run_of(slow), float, "none", 0.0) == (1.0, 0.0)
