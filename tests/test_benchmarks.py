"""The benchmarks of speed run, report what they promise, and compare equal computations only."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from adanet_py.training.engines.stacked import StackedEngine

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The benchmarks as modules, bound to no core and with the memory settings there are."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_throughput
    import benching
    import peers
    import suites

    monkeypatch.setattr(bench_throughput, "settle", lambda cores: None)
    return {m.__name__: m for m in (bench_throughput, benching, peers, suites)}


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
    assert "a difference of 0.001" in capsys.readouterr().err


def test_configurations_are_dealt_over_all_shapes_in_groups(scripts):
    for suite in scripts["suites"].SUITES.values():
        dealt = scripts["suites"].deal(suite, 200, 8)
        assert sum(map(len, dealt)) == 200
        assert max(map(len, dealt)) == 8
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
