"""The command `curves`: which candidates it draws, of finished and running runs, no torch."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adanet_py.cli import app
from adanet_py.config import SearchConfig
from adanet_py.curves import broken, picture, points
from adanet_py.folder import Described, begin
from adanet_py.journal import Journal
from adanet_py.records import Candidate, Evaluation, Result, Status
from adanet_py.space import load_space

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason='needs the extra "plot": matplotlib'
)
needs_plotext = pytest.mark.skipif(
    importlib.util.find_spec("plotext") is None, reason='needs the extra "plot": plotext'
)
NAN = math.nan


def network(seed: int, validation: float | None = None, *, points: int = 6) -> Result:
    """A network that reached `validation`, or diverged at its last evaluation."""
    candidate = Candidate("mlp", {"depth": 2}, numeric={"lr": 0.01}, seed=seed)
    end = 0.5 if validation is None else validation
    curve = [
        Evaluation(10 * i, float(i), 0.01 / i, 1 / i + end, end + 0.1 / i, 2.0 / i)
        for i in range(1, points + 1)
    ]
    if validation is None:
        last = curve[-1]
        curve[-1] = Evaluation(last.step, last.epoch, last.lr, NAN, math.inf, NAN)
        return Result(candidate, Status.DIVERGED, curve=tuple(curve), group=0)
    return Result(
        candidate, Status.COMPLETE, {"validation": end}, tuple(curve), reward=-end, group=0
    )


def make_run(folder: Path, results: list[Result], *, ended: bool = True) -> Path:
    folder.mkdir()
    data = {"path": None, "rows": 1, "crc32": 0}
    begin(folder, Described(SearchConfig(target="y"), data, {}, {}), load_space("tiny"))
    (folder / "prepared.json").write_text(json.dumps({"metric": "log_loss"}))
    with Journal(folder / "journal.jsonl") as journal:
        journal.append("start", {"device": "cpu"})
        if results:
            journal.append("results", {"group": 0, "results": [r.to_json() for r in results]})
        if ended:
            journal.append("stop", {"reason": "done"})
    return folder


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["curves", *(str(a) for a in arguments)])


SOME = [network(0, 0.4), network(1, 0.1), network(2, 0.3), network(3), network(4, 0.2), network(5)]


def chosen(run: Path, **options: Any) -> list[tuple[str, int]]:
    return [(c.kind, c.result.candidate.seed) for c in picture(run, **options).curves]


@pytest.mark.parametrize("ended", [True, False])
def test_the_best_the_worst_and_the_diverged_are_drawn(tmp_path: Path, ended: bool) -> None:
    run = make_run(tmp_path / "run", SOME, ended=ended)
    both = [("best", 1), ("best", 4), ("worst", 2), ("worst", 0), ("diverged", 3), ("diverged", 5)]
    assert chosen(run) == both
    assert chosen(run, top=1) == [("best", 1), ("worst", 0), ("diverged", 3)]
    assert chosen(run, top=3)[:4] == [("best", 1), ("best", 4), ("best", 2), ("worst", 0)]
    found = picture(run)
    assert "run" in found.title
    assert "log_loss" in found.title
    assert [p.field for p in found.panels] == ["train_loss", "validation", "lr", "grad_norm"]
    assert found.curves[0].label.startswith("best: mlp ")
    assert found.curves[-1].label.endswith("diverged by step 60")


def test_candidates_can_be_named_by_the_beginning_of_their_identifier(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SOME)
    ids = [r.candidate.id for r in SOME]
    assert chosen(run, chosen=[ids[2], ids[3][:8], ids[2]]) == [("chosen", 2), ("chosen", 3)]
    wrong = ids[0][:-1] + ("0" if ids[0][-1] != "0" else "1")
    done = call(run, "--candidate", wrong)
    assert done.exit_code == 2
    assert f"Did you mean {ids[0]!r}" in done.stderr
    done = call(run, "--candidate", "")
    assert done.exit_code == 2
    assert "found 6 that begin with ''" in done.stderr


def test_what_is_not_finite_breaks_the_line_and_is_marked(tmp_path: Path) -> None:
    found = picture(make_run(tmp_path / "run", SOME))
    diverged = found.curves[-1]
    epochs, values = points(diverged, found.panels[0])
    assert epochs == [1, 2, 3, 4, 5, 6]
    assert [math.isfinite(v) for v in values] == [True] * 5 + [False]
    assert broken(diverged) == 6
    assert broken(found.curves[0]) is None


def test_what_diverged_does_not_flatten_the_others(tmp_path: Path) -> None:
    wild = network(7)
    huge = Evaluation(50, 5.0, 0.01, 1e30, 1e25, 1e28)
    wild = wild.replace(curve=(*wild.curve[:4], huge, wild.curve[5]))
    found = picture(make_run(tmp_path / "run", [network(0, 0.1), wild]))
    for panel in found.panels[:2]:
        _, values = points(found.curves[1], panel)
        assert math.isnan(values[4])
        assert math.isfinite(values[3])
    alone = picture(make_run(tmp_path / "alone", [wild]))
    assert points(alone.curves[0], alone.panels[0])[1][4] == 1e30
    assert alone.panels[0].log


def test_scales_are_logarithmic_where_values_span_more_than_a_decade(tmp_path: Path) -> None:
    def panel(**columns: float) -> Any:
        one = network(0, 0.1)
        rows = [(e, i) for i, e in enumerate(one.curve)]
        curve = tuple(
            Evaluation(
                e.step, e.epoch, 0.1, e.train_loss, e.validation, columns["start"] * columns["q"]**i
            )
            for e, i in rows
        )  # fmt: skip
        name = f"run-{len(list(tmp_path.iterdir()))}"
        return picture(make_run(tmp_path / name, [one.replace(curve=curve)])).panels

    assert not panel(start=1.0, q=0.9)[3].log
    assert panel(start=1.0, q=0.1)[3].log
    assert not panel(start=1.0, q=0.1)[2].log


SHAPES = {
    "some": SOME,
    "all diverged": [network(0), network(1)],
    "diverged at once": [network(0, points=1), network(1, points=1)],
    "one evaluation": [network(0, 0.2, points=1)],
}


@needs_matplotlib
@pytest.mark.parametrize("ending", [".png", ".svg", ".PDF"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_picture_is_written(tmp_path: Path, shape: str, ending: str) -> None:
    run = make_run(tmp_path / "run", SHAPES[shape])
    out = tmp_path / f"picture{ending}"
    done = call(run, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.startswith(f"Written: {out}, curves of ")
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[ending.lower()]
    assert out.read_bytes().startswith(start)


@needs_matplotlib
def test_a_picture_says_what_it_shows(tmp_path: Path) -> None:
    import matplotlib as mpl

    run = make_run(tmp_path / "run", SOME)
    with mpl.rc_context({"svg.fonttype": "none"}):
        call(run, "--out", tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    for words in (
        "learning curves, log_loss", "training loss", "validation log_loss, lower is better",
        "learning rate", "gradient norm", "from here on no finite number", *[
            f"{c.kind if c.kind != 'diverged' else 'mlp'}" for c in picture(run).curves
        ], *[c.result.candidate.id for c in picture(run).curves],
    ):  # fmt: skip
        assert words in text


@needs_plotext
@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_file_it_is_drawn_in_the_terminal(tmp_path: Path, shape: str) -> None:
    run = make_run(tmp_path / "run", SHAPES[shape])
    for _ in range(2):  # the library keeps a figure between calls
        done = call(run)
        assert done.exit_code == 0, done.stderr
        assert "\x1b" not in done.stdout  # no terminal: no colours
        lines = done.stdout.splitlines()
        assert lines[0] == f"{run}: learning curves, log_loss"
        assert "training loss" in lines[1]
        assert len([x for x in lines if "┌" in x]) == 2
        for i, curve in enumerate(picture(run).curves, start=1):
            assert f"{i}  {curve.label}" in lines


@needs_plotext
def test_a_terminal_gets_colours(tmp_path: Path) -> None:
    from adanet_py.drawing import write_text

    assert "\x1b[" in write_text(picture(make_run(tmp_path / "run", SOME)), coloured=True)


@pytest.mark.parametrize(
    ("results", "ended", "words"),
    [
        ([], False, "found none yet. They appear"),
        ([], True, "none in a search that has ended"),
        ([Result(Candidate("mlp"), Status.CRASHED)], False, "found none yet"),
    ],
)
def test_a_run_without_networks_is_an_error(
    tmp_path: Path, results: list[Result], ended: bool, words: str
) -> None:
    done = call(make_run(tmp_path / "run", results, ended=ended), "--out", tmp_path / "p.png")
    assert done.exit_code == 2
    assert words in done.stderr
    assert not (tmp_path / "p.png").exists()


def test_what_is_no_run_is_an_error(tmp_path: Path) -> None:
    done = call(tmp_path / "nothing")
    assert done.exit_code == 2
    assert "Expected a run folder" in done.stderr


def test_another_kind_of_file_is_an_error(tmp_path: Path) -> None:
    done = call(make_run(tmp_path / "run", SOME), "--out", tmp_path / "picture.gif")
    assert done.exit_code == 2
    assert "ends in .png, .svg, .pdf" in done.stderr


@needs_matplotlib
def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    done = call(make_run(tmp_path / "run", SOME), "--out", tmp_path / "none" / "picture.png")
    assert done.exit_code == 2
    assert "Cannot write" in done.stderr


def hide(monkeypatch: pytest.MonkeyPatch, *libraries: str) -> None:
    """As if some libraries were not installed."""
    find = importlib.util.find_spec
    for name in [*libraries, *(n for n in sys.modules if n.partition(".")[0] in libraries)]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n in libraries else find(n, *a)
    )


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", SOME)
    hide(monkeypatch, "matplotlib", "plotext")
    for arguments, needed in (([], "plotext"), (["--out", tmp_path / "p.png"], "matplotlib")):
        done = call(run, *arguments)
        assert done.exit_code == 2
        assert f"needs {needed}, which is not installed" in done.stderr
        assert "pip install 'adanet_py[plot]'" in done.stderr
        assert "curves.csv" in done.stderr
        assert "--out FILE.png" not in done.stderr


@needs_matplotlib
def test_without_plotext_it_points_to_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", SOME)
    hide(monkeypatch, "plotext")
    assert "--out FILE.png draws a picture" in call(run).stderr


@needs_matplotlib
def test_neither_torch_nor_a_window_is_needed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SOME)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from adanet_py.curves import picture\n"
        "from adanet_py.drawing import draw\n"
        f"draw(picture(Path({str(run)!r})), Path({str(tmp_path / 'p.png')!r}))\n"
        "print([m for m in ('torch', 'sklearn', 'matplotlib.pyplot') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
