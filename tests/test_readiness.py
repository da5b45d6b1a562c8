"""When networks train on the engine `native`, and what is said when they do not."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from programs import make_candidates, make_program, make_scorer, make_spec, make_split

from adanet_py.architectures import ARCHITECTURES
from adanet_py.executors.nursery import Nursery, environment
from adanet_py.records import Group
from adanet_py.training.engines import UnsuitedError, make_engine, native
from adanet_py.training.engines.native import Readiness
from adanet_py.training.engines.program import Program
from adanet_py.training.groups import Plan, train
from adanet_py.training.losses import LOSSES

needs_numba = pytest.mark.skipif(not native.is_installed(), reason="needs numba")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, empty; numba seems to be there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "is_installed", lambda: True)
    return native.cache_folder()


def fill(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "work.1.nbc").write_bytes(b"code")
    native.mark_ready()


class Compiling:
    """A compilation that goes on until it is told how it ends."""

    def __init__(self) -> None:
        self.returncode: int | None = None
        self.waited, self.killed, self.closed = 0, False, False
        self.at_wait: Callable[[], None] = lambda: None

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self.waited += 1
        self.at_wait()
        if self.returncode is None:
            raise subprocess.TimeoutExpired("", timeout or 0.0)
        return self.returncode

    def kill(self) -> None:
        self.killed = True

    def close(self) -> None:
        self.closed = True


class Starts:
    """A nursery of compilations."""

    def __init__(self) -> None:
        self.process, self.opened = Compiling(), []

    def open(self, module: str, args: list[str]) -> Compiling:
        self.opened.append(module)
        return self.process


# ------------------------------------------------------------------ where it is kept


def test_the_cache_is_where_the_user_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert native.cache_folder().parent == tmp_path / "x" / "adanet_py"
    for unset in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        monkeypatch.setattr(sys, "platform", "linux")
        assert native.caches() == tmp_path / ".cache"
        monkeypatch.setattr(sys, "platform", "darwin")
        assert native.caches() == tmp_path / "Library" / "Caches"
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
        assert native.caches() == tmp_path / "Local"


def test_without_a_home_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert native.obstacle() == "there is no home folder"
    assert not native.is_ready()
    assert list(tmp_path.iterdir()) == []


def test_ready_is_what_is_there_and_whole(folder: Path) -> None:
    assert not native.is_ready()
    fill(folder)
    assert native.is_ready()
    assert not native.is_ready(double=True)
    (folder / "work.2.nbc").write_bytes(b"for other numbers")
    assert native.is_ready()
    (folder / "work.1.nbc").write_bytes(b"cod")
    assert not native.is_ready()
    (folder / "work.1.nbc").unlink()
    assert not native.is_ready()
    (folder / "ready").write_text("{")
    assert not native.is_ready()
    (folder / "ready").write_text(json.dumps({}))
    assert not native.is_ready()


# ------------------------------------------------------------------ a search and the compiler


def test_what_is_ready_is_used_at_once_and_nothing_is_said(folder: Path) -> None:
    fill(folder)
    starts, notes = Starts(), []
    readiness = Readiness(starts, True, notes.append)
    assert (readiness.engine, readiness.busy, starts.opened, notes) == ("native", False, [], [])
    readiness.close()


def test_a_search_bounded_by_time_goes_on_meanwhile(folder: Path) -> None:
    starts, notes = Starts(), []
    readiness = Readiness(starts, False, notes.append)
    assert (readiness.engine, readiness.busy) == ("stacked", True)
    assert (starts.opened, starts.process.waited) == ([native.COMPILER], 0)
    fill(folder)
    assert readiness.engine == "stacked"  # until the compiler has ended
    starts.process.returncode = 0
    assert not readiness.busy
    assert [readiness.engine for _ in range(3)] == ["native"] * 3
    assert notes == [native.COMPILING]


def test_a_search_bounded_by_candidates_waits(folder: Path) -> None:
    starts, notes = Starts(), []

    def at_wait() -> None:
        if starts.process.waited == 3:
            fill(folder)
            starts.process.returncode = 0

    starts.process.at_wait = at_wait
    readiness = Readiness(starts, True, notes.append)
    assert (readiness.engine, starts.process.waited) == ("native", 3)
    assert notes == [native.WAITING]


def test_an_interrupt_ends_the_waiting_and_the_next_run_begins_anew(folder: Path) -> None:
    starts, notes = Starts(), []
    readiness = Readiness(starts, True, notes.append, lambda: starts.process.waited == 2)
    assert readiness.engine == "stacked"
    readiness.close()
    assert (starts.process.killed, starts.process.closed) == (True, True)
    again = Starts()
    Readiness(again, False, notes.append).close()
    assert again.opened == [native.COMPILER]


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("code", [1, -9, 0])
def test_a_compilation_that_failed_is_told_once(folder: Path, code: int, wait: bool) -> None:
    starts, notes = Starts(), []
    starts.process.returncode = code
    readiness = Readiness(starts, wait, notes.append)
    assert [readiness.engine for _ in range(3)] == ["stacked"] * 3
    assert len(notes) == 2
    assert f"failed (exit code {code})" in notes[1]
    assert "'stacked'" in notes[1]
    readiness.close()


def test_nobody_waits_for_what_cannot_be_kept(folder: Path) -> None:
    folder.parents[1].mkdir()
    folder.parent.write_text("a file where the folder should be")
    starts, notes = Starts(), []
    readiness = Readiness(starts, True, notes.append)
    assert (readiness.engine, starts.opened) == ("stacked", [])
    [note] = notes
    assert str(folder) in note
    assert "XDG_CACHE_HOME" in note


def test_without_numba_a_note_says_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "is_installed", lambda: False)
    starts, notes = Starts(), []
    readiness = Readiness(starts, True, notes.append)
    assert (readiness.engine, starts.opened, notes) == ("stacked", [], [native.MISSING])
    assert not native.is_ready()


def test_a_compiler_of_another_process_is_run_and_its_failure_seen(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_compiler.py").write_text("def main(argv):\n    raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(native, "COMPILER", "broken_compiler")
    notes: list[str] = []
    with Nursery(environment(1), note=notes.append) as nursery:
        readiness = Readiness(nursery, True, notes.append)
        assert readiness.engine == "stacked"
    assert "exit code 3" in notes[-1]


# ------------------------------------------------------------------ compiling


@pytest.fixture
def warm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The compiler, which writes a file instead."""
    if not native.importlib.util.find_spec("numba"):
        pytest.skip("needs numba")
    from adanet_py.training.engines.native import warm

    def load(dtype: torch.dtype = torch.float32) -> None:
        with open(folder / "log", "a") as log:
            log.write(f"{dtype}\n")
        (folder / f"work.{dtype}.nbc").write_bytes(b"code")

    monkeypatch.setattr(warm, "load", load)
    return warm


def test_processes_that_come_together_compile_once(warm: ModuleType, folder: Path) -> None:
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(warm.compile_once())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, False, False, True]
    assert warm.compile_once(double=True)
    assert not warm.compile_once(double=True)
    assert (folder / "log").read_text().split() == ["torch.float32", "torch.float64"]
    assert native.is_ready()
    assert native.is_ready(double=True)


def test_what_is_damaged_is_compiled_anew(warm: ModuleType, folder: Path) -> None:
    warm.compile_once()
    (folder / "work.torch.float32.nbc").write_bytes(b"cod")
    assert warm.compile_once()
    assert (folder / "work.torch.float32.nbc").read_bytes() == b"code"
    assert native.is_ready()


def test_a_compilation_that_left_nothing_is_an_error(
    warm: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "load", lambda dtype: None)
    with pytest.raises(OSError, match="could not be written"):
        warm.compile_once()
    assert not native.is_ready()


def test_the_command_compile(warm: ModuleType, folder: Path) -> None:
    from typer.testing import CliRunner

    from adanet_py.cli import app

    first, second = (CliRunner().invoke(app, ["compile"]) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout.startswith("Compiled in ")
    assert second.stdout.startswith("It was compiled already: ")
    assert first.stdout.rstrip().endswith(str(folder))


@pytest.mark.parametrize("missing", ["numba", "folder"])
def test_the_command_compile_says_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    from typer.testing import CliRunner

    from adanet_py.cli import app

    if missing == "numba":
        monkeypatch.setattr(native, "is_installed", lambda: False)
    else:
        folder.parents[1].write_text("a file where the folder should be")
    found = CliRunner().invoke(app, ["compile"])
    assert found.exit_code == 2
    words = {"numba": "adanet_py[native]", "folder": "XDG_CACHE_HOME"}[missing]
    assert words in found.stderr


@needs_numba
def test_a_damaged_or_read_only_cache_is_compiled_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache of numba itself, with a function that compiles in no time."""
    from adanet_py.training.engines.native.compiling import entry

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def twice(x):
        return 2 * x

    def hits() -> tuple[int, int]:
        function = entry(twice)
        assert function(21) == 42
        stats = function.stats
        return sum(stats.cache_hits.values()), sum(stats.cache_misses.values())

    assert hits() == (0, 1)
    assert hits() == (1, 0)
    for kind in ("nbc", "nbi"):
        [path] = native.cache_folder().glob(f"*.{kind}")
        path.write_bytes(b"\x80nonsense")
        assert hits() == (0, 1)
        assert hits() == (1, 0)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert hits() == (0, 1)


# ------------------------------------------------------------------ what it cannot train


class Foreign(torch.nn.Module):
    """A layer of nobody."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


def with_foreign_layer() -> Program:
    plain = ARCHITECTURES["mlp"]

    def build(*args: Any) -> torch.nn.Module:
        module = plain.build(*args)
        module.body = torch.nn.Sequential(*module.body, Foreign())
        return module

    own = replace(plain, name="own", build=build)
    return program(architecture=own)


def program(architecture: Any = None, **static: Any) -> Program:
    candidates = make_candidates("mlp", [{"lr": 1e-3}, {"lr": 3e-3}], **static)
    if architecture is not None:
        candidates = tuple(replace(c, architecture=architecture.name) for c in candidates)
    return make_program(
        candidates, make_spec(), steps=4, dtype=torch.float32, architecture=architecture
    )


def with_own_loss() -> Program:
    mine = replace(LOSSES["binary_cross_entropy"], name="mine")
    knob = ARCHITECTURES["mlp"].static["loss"]
    knobs = {**ARCHITECTURES["mlp"].static, "loss": replace(knob, choices=("mine",))}
    own = replace(ARCHITECTURES["mlp"], static=knobs)
    made = program()
    chosen = tuple(replace(c, static={**c.static, "loss": "mine"}) for c in made.candidates)
    return replace(made, architecture=own, candidates=chosen, losses={**LOSSES, "mine": mine})


UNSUITED: dict[str, tuple[Callable[[], Program], str]] = {
    "a layer of the user": (with_foreign_layer, "layer Foreign"),
    "a loss of the user": (with_own_loss, "loss mine is not compiled"),
    "half precision": (lambda: program(precision="bfloat16"), "bfloat16"),
}


def trained(made: Program) -> tuple[list[Any], list[str]]:
    group = Group(0, made.candidates, made.steps, evaluate_every=2, engine="native")
    valid = make_split(60, 1).valid
    events: list[dict[str, Any]] = []
    tracks = train(made, Plan(group, valid, make_scorer(made, valid), emit=events.append))
    return tracks, [e["message"] for e in events if e["kind"] == "note"]


@needs_numba
@pytest.mark.parametrize("case", UNSUITED)
def test_what_is_not_compiled_trains_stacked_and_says_why(case: str) -> None:
    make, words = UNSUITED[case]
    with pytest.raises(UnsuitedError, match=words):
        make_engine("native", make())
    tracks, notes = trained(make())
    assert {t.engine for t in tracks} == {"stacked"}
    assert len(notes) == 1
    assert words in notes[0]
    assert "It trains on 'stacked'" in notes[0]


def test_a_group_planned_where_numba_was_trains_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "is_installed", lambda: False)
    tracks, [note] = trained(program())
    assert {t.engine for t in tracks} == {"stacked"}
    assert "numba is not installed" in note


@needs_numba
@pytest.mark.usefixtures("compiled")
def test_an_architecture_of_the_user_made_of_our_layers_is_compiled() -> None:
    def build(*args: Any) -> torch.nn.Module:
        module = ARCHITECTURES["mlp"].build(*args)
        other = ARCHITECTURES["mlp"].build(*args)
        module.body = torch.nn.Sequential(*list(module.body)[:-1], *list(other.body)[2:])
        return module

    own = replace(ARCHITECTURES["mlp"], name="own", build=build)
    made = program(architecture=own, depth=1, width=4)
    tracks, notes = trained(made)
    assert ({t.engine for t in tracks}, notes) == ({"native"}, [])
