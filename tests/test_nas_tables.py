"""Tables with known results are read as described and played honestly."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from adanet_py.controllers import CONTROLLERS

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def nas_tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import nas_tables

    return nas_tables


def made_up(nas_tables: ModuleType, seed: int = 0):
    """64 rows whose signal rises with every choice; the score is another number."""
    rng = np.random.default_rng(seed)
    keys = list(itertools.product("abcd", repeat=3))
    signal = np.array([sum(map(ord, key)) for key in keys], dtype=float)
    score = signal + rng.normal(size=len(keys))
    space = nas_tables.space_of_choices("made_up", {f"x{i}": tuple("abcd") for i in range(3)})
    rows = {key: i for i, key in enumerate(keys)}
    return nas_tables.table_of_rows("made_up", space, rows, signal, score)


@pytest.mark.parametrize("batch", [1, 7])
def test_the_incumbent_is_chosen_by_the_signal_and_reported_by_the_score(nas_tables, batch):
    table = made_up(nas_tables)
    found = nas_tables.play(CONTROLLERS["random"], table, 64, batch, 0)
    assert len(found.test) == 64
    assert len(found.seconds) == -(-64 // batch)
    assert (np.diff(found.validation) >= 0).all()
    signal, score = table.rows
    assert found.validation[-1] == signal.max()
    assert found.test[-1] == score[np.argmax(signal)]
    assert table.regret(table.best) == 0.0
    assert table.regret(table.median) == 1.0


def test_what_has_no_row_fails_and_is_no_incumbent(nas_tables):
    table = made_up(nas_tables)
    space = nas_tables.space_of_choices("gaps", {f"x{i}": tuple("abcdefgh") for i in range(3)})
    keys = {key: i for i, key in enumerate(itertools.product("abcd", repeat=3))}
    gaps = nas_tables.table_of_rows("gaps", space, keys, *table.rows)
    found = nas_tables.play(CONTROLLERS["tpe"], gaps, 96, 16, 1)
    assert not np.isnan(found.test[-1])


def test_a_controller_that_repeats_itself_ends_the_game(nas_tables):
    table = made_up(nas_tables)

    def stubborn(space, history, n, rng):
        return CONTROLLERS["random"](space, type(history)(), n, np.random.default_rng(0))

    with pytest.raises(ValueError, match="new candidates"):
        nas_tables.play(stubborn, table, 4, 1, 0)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        # An identity may stand anywhere in a path, at its end too.
        (("0123", "skip", "gat", "skip", "gcn"), ("0123", "gat", "gcn", "skip", "skip"), True),
        # Operations on the same input may be exchanged.
        (("0000", "gat", "gcn", "fc", "gin"), ("0000", "gin", "fc", "gcn", "gat"), True),
        (("0012", "gat", "gcn", "fc", "gin"), ("0012", "gcn", "gat", "gin", "fc"), True),
        (("0012", "gat", "gcn", "fc", "gin"), ("0012", "gcn", "gat", "fc", "gin"), False),
        # An identity beside another operation adds its input to the output.
        (("0122", "gat", "gcn", "fc", "skip"), ("0123", "skip", "gat", "gcn", "fc"), False),
    ],
)
def test_graphs_that_compute_the_same_are_the_same(nas_tables, one, other, equal):
    assert (nas_tables.graph_key(one) == nas_tables.graph_key(other)) == equal


def test_a_file_is_read_by_its_columns(nas_tables, tmp_path):
    (tmp_path / "nasbench201_12epochs.csv.gz").touch()
    chains = ["".join(c) for c in itertools.product("012", repeat=8)]
    lines = [f"{c},{c.count('2')},{c.count('1')},3" for c in chains]
    with gzip.open(tmp_path / "nasbench_macro_cifar10.csv.gz", "wt") as file:
        file.write("\n".join(["arch,acc_0,acc_1,acc_2", *lines]) + "\n")
    nas_tables._read.cache_clear()
    table = nas_tables._nasbench_macro(tmp_path, "nasbench_macro")
    found = nas_tables.play(CONTROLLERS["random"], table, 8, 8, 0)
    candidates = CONTROLLERS["random"](
        table.space, nas_tables.History(), 1, np.random.default_rng()
    )
    layers = list(candidates[0].static.values())
    expected = (layers.count("mb6_k5"), (layers.count("mb3_k3") + 3) / 2)
    assert table.look_up(candidates[0]) == expected
    assert table.best == 5.5
    assert found.validation[-1] <= 8


def test_a_missing_folder_is_said_so(nas_tables, tmp_path):
    with pytest.raises(SystemExit, match="nasbench201_12epochs"):
        nas_tables.find_folder(tmp_path)


@pytest.mark.parametrize("name", ["ref_random", "ref_evolution", "ref_local_search", "ref_gp"])
@pytest.mark.parametrize("batch", [1, 16])
def test_references_play_on_choices_and_ranges(nas_tables, name, batch):
    from reference_controllers import REFERENCES

    table = made_up(nas_tables)
    found = nas_tables.play(REFERENCES[name](table.space), table, 40, batch, 0)
    assert len(found.test) == 40
    ranges = nas_tables.space_of_ranges(
        "bowl", {"x": (1e-3, 1.0, False, True), "k": (1, 9, True, False)}
    )

    def bowl(candidate, epochs):
        value = -((np.log10(candidate.numeric["x"]) + 1) ** 2) - (candidate.numeric["k"] - 3) ** 2
        return value, value

    table = nas_tables.Table("bowl", ranges, 0.0, -9.0, bowl)
    found = nas_tables.play(REFERENCES[name](ranges), table, 40, batch, 0)
    assert found.validation[-1] > -2.0


def test_the_benchmark_reports_medians_and_ranks(nas_tables, monkeypatch, tmp_path, capsys):
    import bench_controllers

    class Here:
        """Runs at once, in this process."""

        def __init__(self, workers):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def submit(self, function, *arguments):
            return Here.Done(function(*arguments))

        class Done:
            def __init__(self, value):
                self.result = lambda: value

    monkeypatch.setattr(bench_controllers, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(bench_controllers, "QUERIES", (4, 12))
    monkeypatch.setattr(bench_controllers, "LISTED", ("made_up",))
    monkeypatch.setattr(bench_controllers, "RESULTS", tmp_path / "controllers_nas")
    monkeypatch.setattr(
        bench_controllers, "load_tables", lambda data, names: [made_up(nas_tables, 1)]
    )
    arguments = ["--data", "nowhere", "--tables", "made_up", "--seeds", "3", "--batches", "4"]
    bench_controllers.main([*arguments, "--json", "--controllers", "tpe"])
    bench_controllers.main([*arguments, "--json", "--add", "--controllers", "random"])
    import json

    import pandas as pd

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[0] == "{"]
    assert [r["controller"] for r in rows] == ["tpe", "random"]
    record = pd.read_csv(tmp_path / "controllers_nas.csv")
    assert set(record.controller) == {"tpe", "random"}
    ranks = [r["rank_12"] for r in bench_controllers.summary(rows, ["made_up"])]
    assert sorted(ranks) in ([1.0, 2.0], [1.5, 1.5])
    assert "nowhere" not in (tmp_path / "controllers_nas.md").read_text()
