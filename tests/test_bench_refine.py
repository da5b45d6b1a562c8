"""What the script on refinement says of its rows."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import bench_refine  # type: ignore[import-not-found]

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


def state_of(*results):
    return State(by_id={r.candidate.id: r for r in results})


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


def test_a_third_counts_if_the_chain_lost_no_more_than_its_standard_error():
    first = result()
    half = result(first, 1, parameters=450, metrics={"validation": 1.05})

    def third(**values):
        small = result(half, 2, parameters=300, **values)
        return bench_refine.third_of(first, state_of(first, half, small), [half, small], "rmse")

    assert third(metrics={"validation": 1.13}) is True  # 0.1 and 0.1 make 0.141
    assert third(metrics={"validation": 1.15}) is False
    assert bench_refine.third_of(first, state_of(first, half), [half], "rmse") is None


def test_the_summary_counts_who_was_better():
    rows = [
        {"table": t, "seed": 0, "metric": "rmse", "way": way, "third": third,
         **{f"{p}{k}": v for p in ("validation", "audit", "test")
            for k, v in (("", 2.0), ("_after", after))}}
        for t, gained in (("a", 1.0), ("b", 3.0))
        for way, after, third in (("moves", gained, None), ("train_on", 2.0, None),
                                  ("size", 2.0, t == "a"))
    ]  # fmt: skip
    rows[0]["audit_after"] = None
    said = bench_refine.summary(pd.DataFrame(rows, columns=list(bench_refine.COLUMNS)))
    assert "- validation: refined by moves against before: better 1, worse 1 of 2" in said[0]
    assert "against train_on" in said[1]
    assert "audit: refined by moves against before: better 0, worse 1 of 1" in said[2]
    assert "standard error: 1 of 2 runs" in said[-1]


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
