"""The benchmarks of speed run, report what they promise, and compare equal computations only."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from tables import check_here

from adanet_py import saving
from adanet_py.training.engines.stacked import StackedEngine

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The benchmarks as modules, bound to no core and with the memory settings there are."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_engines
    import bench_throughput
    import bench_time_to_target
    import benching
    import engine_cases
    import peers
    import suites

    for module in (bench_engines, bench_throughput, bench_time_to_target):
        monkeypatch.setattr(module, "settle", lambda cores, device: cores or 1)
    monkeypatch.setattr(bench_time_to_target, "split", made_up)
    named = (bench_throughput, bench_time_to_target, benching, peers, suites)
    named += (bench_engines, engine_cases)
    return {m.__name__: m for m in named}


def made_up(folder: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """A table of two numbers and a word that anything learns, in the place of a shared one."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(900, 2)), columns=["a", "b"])
    frame["word"] = rng.choice(["x", "y", "z"], 900)
    right = frame["a"] + (frame["word"] == "x") > 0
    frame["target"] = np.where(right, "yes", "no")
    return frame[:600], frame[600:], "target"


TINY = ["--configurations", "4", "--members", "2", "--steps", "6", "--rounds", "2"]


def test_throughput_reports_rates_and_ratios_of_all_sides(scripts, tmp_path, capsys):
    stem = tmp_path / "throughput"
    main = scripts["bench_throughput"].main
    report = main([*TINY, "--suite", "small", "--json", "--out", str(stem)])
    assert json.loads(capsys.readouterr().out) == report
    assert json.loads(stem.with_suffix(".json").read_text()) == report
    assert {"command", "machine", "rounds", "suites"} <= report.keys()
    found = report["suites"]["small"]
    assert found["configurations"] == 4
    assert 0.0 <= found["largest_difference"] <= 1e-5
    assert found["rates"].keys() == {"ours", "a", "b"}
    for peer in ("a", "b"):
        for figure in (found["against"][peer][k] for k in ("geometric_mean", "total")):
            assert 0 < figure["min"] <= figure["median"] <= figure["max"]
        assert len(found["against"][peer]["shapes"]) == len(found["shapes"])
    assert {"width", "depth", "batch", "steps", "ours_per_second"} <= found["shapes"][0].keys()
    assert "| width | depth | batch |" in stem.with_suffix(".md").read_text()


def test_scaling_goes_through_powers_of_two(scripts, tmp_path):
    main = scripts["bench_throughput"].main
    report = main([*TINY, "--scaling", "--most", "5", "--out", str(tmp_path / "scaling")])
    assert [e["k"] for e in report["scaling"]["k"]] == [1, 2, 4]
    assert report["scaling"]["k"][0].keys() == {"k", "per_second", "a", "b"}


def test_the_equality_gate_fires_where_losses_differ(scripts, monkeypatch, capsys):
    advance = StackedEngine.advance

    def off(self, start, stop, tick):
        done, loss, norm = advance(self, start, stop, tick)
        return done, loss + (1e-3 if start == 19 else 0.0), norm

    monkeypatch.setattr(StackedEngine, "advance", off)
    with pytest.raises(SystemExit) as ended:
        scripts["bench_throughput"].main(["--suite", "small", "--engine", "stacked", *TINY])
    assert ended.value.code == 1
    assert "found a difference of 0.000" in capsys.readouterr().err  # of losses above one its share


def test_configurations_are_dealt_over_all_shapes_in_groups(scripts):
    for suite in scripts["suites"].SUITES.values():
        dealt = scripts["suites"].deal(suite, 200, 8)
        assert sum(map(len, dealt)) == 200
        assert 4 <= min(map(len, dealt))
        assert max(map(len, dealt)) <= 8
        assert all(len({(s.width, s.depth, s.batch) for s in group}) == 1 for group in dealt)
        shapes = {(g[0].width, g[0].depth, g[0].batch) for g in dealt}
        assert len(shapes) == len(suite.widths) * len(suite.depths) * len(suite.steps)
        assert dealt == scripts["suites"].deal(suite, 200, 8)


def test_the_peers_learn_and_are_scored_as_often_as_we_are(scripts):
    peers = scripts["peers"]
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = np.eye(3)[y] + 0.2 * rng.normal(size=(300, 3))
    x, y = torch.from_numpy(x).float(), torch.from_numpy(y)
    data = peers.Data(x[:200], y[:200], x[200:], y[200:], outputs=3)
    setting = peers.Setting(width=16, depth=1, batch=32, lr=0.02, weight_decay=0.0, seed=0)
    for train in (peers.train_plain, peers.train_strong):
        scores = train(setting, data, 60, 3, torch.device("cpu"))
        assert len(scores) == 3
        assert scores[-1] > 0.9
    assert peers.scored_at(20, 3) == {6, 12, 18, 20}


def test_a_device_that_is_not_there_is_refused(scripts):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit, match="expected a CUDA device, found none"):
        scripts["bench_throughput"].main(["--device", "cuda"])


@pytest.fixture
def engines(scripts, monkeypatch):
    """bench_engines, with two shapes and one other kind, all tiny."""
    bench, case = scripts["bench_engines"], scripts["engine_cases"].Case
    few = [case("mlp", 4, 1, 16), case("mlp", 16, 2, 64)]
    monkeypatch.setattr(bench, "shapes", lambda quick: few)
    monkeypatch.setattr(bench, "kinds", lambda quick: [case("muon", 8, 2, 512, optimizer="muon")])
    return bench


def test_engines_report_speed_memory_and_paces(engines, tmp_path, capsys):
    stem = tmp_path / "engines"
    report = engines.main(["--rounds", "2", "--seconds", "1e-3", "--json", "--out", str(stem)])
    assert json.loads(capsys.readouterr().out) == report
    assert json.loads(stem.with_suffix(".json").read_text()) == report
    assert {"stacked", "separate"} <= set(report["engines"])
    assert report["tables"].keys() == {"shapes", "kinds"}
    for found in report["tables"].values():
        assert 0.0 <= found["largest_difference"] <= 1e-5
        for case in found["cases"]:
            assert case["engines"].keys() == set(report["engines"])
            for each in case["engines"].values():
                assert 0.0 < each["of_peak"] < 2.0
                assert each["bytes"]["state"] == 3 * each["bytes"]["parameters"]
    grown = [e["bytes"]["grown"] for e in report["tables"]["kinds"]["cases"][0]["engines"].values()]
    assert all(g is None or g >= 0 for g in grown)
    assert report["paces"].keys() == set(report["engines"])
    assert "| kind | width | depth | batch |" in stem.with_suffix(".md").read_text()


def test_engines_that_compute_something_else_are_not_compared(engines, monkeypatch, capsys):
    update = StackedEngine._last_step

    def off(self, start, at):
        self._total += 1e-3 * (type(self) is StackedEngine)
        return update(self, start, at)

    monkeypatch.setattr(StackedEngine, "_last_step", off)
    with pytest.raises(SystemExit) as ended:
        engines.main(["--rounds", "1", "--quick"])
    assert ended.value.code == 1
    assert "a difference of 0.00" in capsys.readouterr().err


def test_paces_are_fitted(scripts):
    case = scripts["engine_cases"].Case
    cases = [case("mlp", w, 2, b) for w in (32, 128) for b in (64, 512)]
    flops = [6.0 * c.batch * (54 * c.width + c.width**2 + 7 * c.width) for c in cases]
    each, speed = scripts["bench_engines"].fit_pace(cases, [3e-5 + f / 5e10 for f in flops])
    assert each == pytest.approx(3e-5)
    assert speed == pytest.approx(5e10)


SHORT = ["--only", "phoneme", "--seconds", "1.5"]


def in_this_process(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, **changes: object
) -> None:
    """Have the search train and check its model here, with some options changed."""
    bench = scripts["bench_time_to_target"]
    ours, changes = bench.time_ours, {"workers": 0} | changes
    monkeypatch.setattr(saving, "start_check", check_here)
    monkeypatch.setattr(
        bench, "time_ours", lambda path, c, better: ours(path, c.model_copy(update=changes), better)
    )


def test_time_to_target_ends_the_search_where_it_is_as_good(scripts, tmp_path, capsys, monkeypatch):
    in_this_process(scripts, monkeypatch)
    stem = tmp_path / "time"
    main = scripts["bench_time_to_target"].main
    report = main([*SHORT, "--limit", "30", "--json", "--out", str(stem)])
    assert json.loads(capsys.readouterr().out) == report
    [row] = report["runs"]
    assert row["reached"]
    assert row["ours_best"] is not None
    assert 0.5 < row["target"] <= 1.0
    assert 0 < row["a_seconds"] <= 1.5
    assert row["ratio"] == pytest.approx(row["a_seconds"] / row["ours_seconds"])
    assert row["budget_ratio"] == pytest.approx(1.5 / row["ours_seconds"])
    assert row["largest_difference"] <= 1e-5
    assert report["geometric_mean"]["ratio"]["median"] == pytest.approx(row["ratio"])
    assert "| phoneme | 0 | accuracy |" in stem.with_suffix(".md").read_text()


def test_a_target_that_is_never_reached_gives_bounds(scripts, tmp_path, monkeypatch):
    bench, found = scripts["bench_time_to_target"], scripts["peers"].Found
    monkeypatch.setattr(bench, "search_tables", lambda *_: found(1.1, 1.0, 1, ()))
    report = bench.main([*SHORT, "--limit", "3", "--out", str(tmp_path / "time")])
    [row] = report["runs"]
    assert not row["reached"]
    assert row["ours_seconds"] is None
    assert row["budget_ratio"] == pytest.approx(0.5)
    text = (tmp_path / "time.md").read_text()
    assert "above 3" in text
    assert "at most 0.5" in text
    assert report["geometric_mean"]["reached"] == "0 of 1"


def test_time_to_target_compares_equal_computations_only(scripts, monkeypatch, capsys):
    bench = scripts["bench_time_to_target"]
    monkeypatch.setattr(bench, "largest_difference", lambda *_: float("nan"))
    with pytest.raises(SystemExit) as ended:
        bench.main([*SHORT, "--limit", "20"])
    assert ended.value.code == 1
    assert "Equality gate, phoneme" in capsys.readouterr().err


def test_time_to_target_compares_searches_on_the_same_rows_only(scripts, monkeypatch, capsys):
    bench, found = scripts["bench_time_to_target"], scripts["peers"].Found
    monkeypatch.setattr(bench, "search_tables", lambda *_: found(0.1, 1.0, 1, ()))
    in_this_process(scripts, monkeypatch, seed=7)
    with pytest.raises(SystemExit) as ended:
        bench.main([*SHORT, "--limit", "20"])
    assert ended.value.code == 1
    assert "expected the same validation rows" in capsys.readouterr().err
