"""What the script on refinement says of its rows."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import bench_refine  # type: ignore[import-not-found]
import refine_claims  # type: ignore[import-not-found]

from adanet_py.records import Candidate, Result, Status
from adanet_py.refine import MOVES
from adanet_py.state import State


def result(parent=None, seed=0, move="train_on", **values):
    inherits = parent is not None
    candidate = Candidate(
        "mlp", seed=seed, parent=parent and parent.candidate.id, move=move if inherits else None,
        inherits=inherits,
    )  # fmt: skip
    values = {"metrics": {"validation": 1.0}, "parameters": 900, "gain_error": 0.1} | values
    return Result(candidate, Status.COMPLETE, **values)


def test_every_move_is_of_one_way():
    ways = bench_refine.ways()
    moves = [m for named in ways.values() for m in named]
    assert sorted(moves) == sorted(MOVES)
    assert ways["train_on"] == ["train_on"]
    assert "widen" in ways["moves"]


def test_the_gain_is_the_median_of_the_best_of_each_parent_and_move():
    one, two = result(seed=1), result(seed=2)
    children = [
        result(one, 1, gain=0.1), result(one, 2, gain=0.3), result(two, 3, gain=-0.1),
        result(two, 4, "widen", gain=0.2), result(two, 5, gain=math.nan),
    ]  # fmt: skip
    assert bench_refine.gain_of(children) == pytest.approx(2.0)
    assert math.isnan(bench_refine.gain_of([]))


def rows_of(table, seed=0, **errors):
    """Rows of models with these test errors; 0.1 is a standard error, 0.4 that of `single`."""
    return [
        {"table": table, "seed": seed, "model": name, "test": e, "validation": e, "trained": 2.0,
         "worse": e - errors["single"], "doubt": 0.1, "own": 0.4, "parameters": 0.3}
        for name, e in errors.items()
    ]  # fmt: skip


def said_of(*rows):
    frame = pd.DataFrame([r for some in rows for r in some], columns=list(bench_refine.COLUMNS))
    return refine_claims.claims(frame)


def test_the_ensemble_is_ranked_and_held_against_the_best_single_network():
    a = rows_of("a", single=2.0, ensemble=1.0, mean=3.0, saved=1.0)
    b = rows_of("b", single=2.0, ensemble=2.2, mean=3.0, saved=2.05)
    again = rows_of("b", 1, single=2.0, ensemble=1.9, mean=1.8, saved=2.0)
    ranks, ensemble, saved = said_of(a, b, again)
    assert "single 2.00, ensemble 1.67, mean 2.33" in ranks
    assert "in 2 of 3 searches" in ranks
    assert "in 1 of 3 searches, in the mean over seeds on 0 of 2 tables" in ensemble
    assert "in 0 of 3 searches" in saved


def test_refined_networks_are_compared_in_pairs():
    a = rows_of("a", single=0.1, moves_parent=2.0, moves=1.0, train_on=2.0)
    b = rows_of("b", single=2.0, moves_parent=2.0, moves=3.0, train_on=3.0)
    said = said_of(a, b, rows_of("c", single=1.0, moves_parent=1.0, moves=0.5))
    assert "their parents, test rows: better 2, equal 0, worse 1 of 3; median +50.00 %" in said[2]
    assert "training on, test rows: better 1, equal 1, worse 0 of 2" in said[3]
    assert "4 s by moves and 4 s by training on" in said[4]


def test_the_origin_of_a_child_is_where_its_chain_began():
    first = result()
    child = result(first, 1)
    second = result(child, 2)
    state = State(by_id={r.candidate.id: r for r in (first, child, second)})
    assert bench_refine.origin(second, state) is first
    assert bench_refine.origin(first, state) is first


def test_a_third_counts_if_it_is_one_and_costs_no_more_than_a_standard_error():
    near = rows_of("a", single=2.0, size=2.05)
    far = rows_of("b", single=2.0, size=2.3)
    large = rows_of("c", single=2.0, size=1.0)
    large[1]["parameters"] = 0.34
    [said] = said_of(near, far, large)
    assert "reached in 2 of 3 runs" in said
    assert "at most a standard error in 1, " in said
    assert "unpaired, in 2; " in said
    assert said.endswith("on 1 of 3 tables.")


def test_models_are_compared_on_the_rows_they_all_predict():
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 3.0, 5.0]})
    good, bad = Numbers(0.0), Numbers(1.0)
    found = bench_refine.compared({"good": good, "bad": bad}, frame, "y", "rmse")
    assert found["good"]["test"] == pytest.approx(0.5)
    assert found["good"]["worse"] == found["good"]["doubt"] == 0.0
    assert found["bad"]["worse"] == pytest.approx(3**0.5 / 2 - 0.5)
    assert found["bad"]["doubt"] > 0.0


class Numbers:
    """A model of a number that says x and some more."""

    task = "regression"

    def __init__(self, more):
        self.more = more

    def predict(self, frame):
        return frame["x"].to_numpy() + self.more


def test_shares_are_compared_in_pairs():
    import bench_refine_share  # type: ignore[import-not-found]

    rows = [
        {"table": t, "seed": s, "share": share, "validation": v, "alone": v, "ensemble": e}
        for t, s, share, v, e in (
            ("a", 0, "0", 2.0, 1.0), ("a", 0, "auto", 1.0, 1.1), ("a", 1, "0", 1.0, None),
            ("a", 1, "auto", 1.0, 1.0), ("b", 0, "auto", 7.0, 7.0),
        )
    ]  # fmt: skip
    found = bench_refine_share.summary(pd.DataFrame(rows))
    assert found[0].startswith("- validation: auto better 1, worse 0 of 2, median +25.00 %")
    assert found[2].startswith("- ensemble: auto better 0, worse 1 of 1, median -10.00 %")
