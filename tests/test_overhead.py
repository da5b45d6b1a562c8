"""bench_overhead measures what it says, on small figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def overhead(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_overhead

    return bench_overhead


def test_proposals_are_those_of_the_loop_with_its_journal(overhead):
    found = overhead.proposals("random", 16, 2)
    assert found.keys() == {"alone_ms", "whole_ms"}
    assert 0 < found["whole_ms"]["min"] <= found["whole_ms"]["median"] <= found["whole_ms"]["max"]


def test_the_search_it_times_has_the_results_it_says_and_goes_on_from_them(overhead, tmp_path):
    search = overhead.search_after(40, "evolution", tmp_path)
    assert len(search.state.finished()) == 40
    group = search.grouper.next()
    assert group.index == 5
    assert not {c.id for c in group.candidates} & search.state.by_id.keys()
    search.journal.close()


def test_the_parts_of_a_search_make_up_its_core_seconds(overhead, tmp_path):
    data, target = overhead.write_table(tmp_path)
    found = overhead.lost_in_search(data, target, 8.0, "random")
    assert sum(found["seconds"].values()) == pytest.approx(found["core_s"])
    assert sum(found["shares"].values()) == pytest.approx(1.0)
    assert found["core_s"] == pytest.approx(found["workers"] * found["wall_s"])
    assert found["seconds"]["start"] > 0.0
    report = {
        "command": "c",
        "machine": "m",
        "rounds": 1,
        "starts_s": {"first training step": {"median": 1.0, "min": 1.0, "max": 1.0}},
        "proposals": {},
        "search": found,
    }
    json.dumps(report, allow_nan=False)
    assert "| training and validation |" in "\n".join(overhead.lines_of(report))


def test_the_first_step_of_a_fresh_process_is_timed(overhead):
    assert 0.1 < overhead.first_step() < 120.0
