"""A search whose groups compete with earlier ones: counts alone decide, and it can be repeated."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import adanet_py
from adanet_py.records import Status
from adanet_py.state import read_state


def table(n: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3))
    noise = rng.logistic(size=n)
    return pd.DataFrame(x, columns=["a", "b", "c"]).assign(y=x[:, 0] * x[:, 1] + noise > 0)


def search(out: Path, **options: Any) -> Any:
    space = {
        "name": "rungs",
        "architectures": {"mlp": {"width": {"choice": [8, 16]}, "batch_size": 64, "depth": 1}},
        "optimizers": {"adamw": {"lr": {"float": [1e-5, 1e-1], "log": True}}},
    }
    return adanet_py.search(
        table(), target="y", space=space, candidates=48, folds=1, out=out, device="cpu",
        on_note=lambda note: None, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return search(tmp_path_factory.mktemp("rungs") / "run", workers=1, fidelity="asha")


def test_later_groups_are_compared_with_earlier_ones(found: Any) -> None:
    state = read_state(found.run)
    groups = [state.groups[i] for i in sorted(state.groups)]
    assert all(b == math.inf for b in groups[0].bars)  # nothing was seen yet
    assert any(b < math.inf for b in groups[-1].bars)
    cut = [
        r
        for group in groups
        for r in state.results[group.index]
        if r.status is Status.PRUNED and any(b < math.inf for b in group.bars)
    ]
    assert cut
    for result in cut:
        group = groups[result.group]
        assert result.steps in group.rungs
        assert "other candidates" in result.message


def test_the_number_of_workers_changes_nothing(found: Any, tmp_path: Path) -> None:
    other = search(tmp_path / "two", workers=2, fidelity="asha")
    mine, theirs = read_state(found.run), read_state(other.run)
    assert mine.groups == theirs.groups
    clocks = {"seconds": 0.0, "latency_ms": 0.0}
    for index, results in mine.results.items():
        for a, b in zip(results, theirs.results[index], strict=True):
            assert repr(a.replace(**clocks)) == repr(b.replace(**clocks))


def test_a_search_with_bars_is_replayed_exactly(found: Any) -> None:
    replayed = adanet_py.run.replay(found.run, data=table())
    assert replayed["identical"], replayed["differences"]


def test_the_forecast_is_in_the_journal_and_the_summary_and_decides_nothing(found: Any) -> None:
    lines = [json.loads(line) for line in (found.run / "journal.jsonl").read_text().splitlines()]
    told = [line["data"] for line in lines if line["kind"] == "forecast"]
    assert len(told) == 2  # early, and at the end
    assert told[0]["candidates"] < told[1]["candidates"] == 48
    assert found.summary["forecast"] == told[1]
    assert told[1]["necessary"] > 0.0
    assert told[1]["doubt"] > 0.0
