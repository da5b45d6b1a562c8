"""The journal survives torn writes, refuses damage; the lock and atomic files hold."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adanet_py import journal
from adanet_py.errors import ConfigError, RunError
from adanet_py.journal import Journal, Lock, StorageError, faultpoint, read, write_atomic

PACKAGE = str(Path(journal.__file__).parents[1])


class Clock:
    """Seconds that pass when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def write(path, count=4):
    with Journal(path) as log:
        for i in range(count):
            log.append("results", {"i": i, "text": 'é\n\u2028, "crc":'})


# ---------------------------------------------------------------- appending and reading


def test_what_was_appended_is_read_back(path):
    with Journal(path) as log:
        first = log.append("start", {"a": [1, 2.5, None, True, "x"]})
        second = log.append("stop", "why")
        assert log.events == [first, second]
    assert read(path) == [first, second]
    assert [(e.kind, e.data) for e in read(path)] == [
        ("start", {"a": [1, 2.5, None, True, "x"]}),
        ("stop", "why"),
    ]


def test_every_line_is_json_with_the_documented_keys(path):
    write(path)
    for line in path.read_text().splitlines():
        assert list(json.loads(line)) == ["kind", "time", "data", "crc"]


def test_reopening_goes_on(path):
    write(path, 2)
    with Journal(path) as log:
        assert [e.data["i"] for e in log.events] == [0, 1]
        assert log.repaired == ""
        log.append("results", {"i": 2})
    assert [e.data["i"] for e in read(path)] == [0, 1, 2]


def test_the_clock_of_the_run_leaves_pauses_out(path):
    clock = Clock()
    with Journal(path, clock) as log:
        clock.now += 5
        log.append("a", 1)
    clock.now = 3.0  # another boot
    with Journal(path, clock) as log:
        clock.now += 2
        assert log.elapsed == 7
        log.append("b", 2)
    assert [e.time for e in read(path)] == [5, 7]


@pytest.mark.parametrize("bad", [math.nan, math.inf, {1, 2}, b"x"])
def test_what_is_not_strict_json_is_refused_whole(path, bad):
    write(path, 1)
    with Journal(path) as log, pytest.raises((ValueError, TypeError)):
        log.append("results", {"x": bad})
    assert len(read(path)) == 1


def test_a_missing_journal_is_an_error_for_people(path):
    with pytest.raises(RunError, match="not found"):
        read(path)


# ---------------------------------------------------------------- torn and damaged


def test_cut_at_any_byte_of_the_last_lines_the_whole_lines_stay(path):
    write(path, 4)
    raw = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(raw) if byte == ord("\n")]
    for cut in range(ends[0], len(raw) + 1):
        path.write_bytes(raw[:cut])
        # A line is whole once its checksum is there, with or without the newline.
        whole = sum(end - 1 <= cut for end in ends)
        assert [e.data["i"] for e in read(path)] == list(range(whole))
        assert path.stat().st_size == cut  # reading changes nothing
        with Journal(path) as log:
            assert len(log.events) == whole
            assert bool(log.repaired) == (cut not in ends and cut + 1 not in ends)
            log.append("results", {"i": "new"})
        assert [e.data["i"] for e in read(path)] == [*range(whole), "new"]


@pytest.mark.parametrize("garbage", [b"\0" * 512, b"{}\n", b'{"kind":"x"}\n', b"\xff\xfe"])
def test_garbage_at_the_end_is_cut(path, garbage):
    write(path, 2)
    good = path.read_bytes()
    path.write_bytes(good + garbage)
    with Journal(path) as log:
        assert len(log.events) == 2
        assert f"cut {len(garbage)} bytes" in log.repaired
    assert path.read_bytes() == good


def test_a_flipped_bit_before_the_last_line_is_an_error_naming_the_line(path):
    write(path, 3)
    raw = path.read_bytes()
    second = raw.index(b"\n") + 1
    for position in range(second, raw.index(b"\n", second)):
        damaged = bytearray(raw)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"line \d of \d is damaged"):
            read(path)
        with pytest.raises(RunError, match="damaged"):
            Journal(path)
        assert path.read_bytes() == damaged  # nothing is lost by looking


def test_a_full_disk_leaves_whole_lines_and_can_go_on(path):
    write(path, 2)
    size = path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Journal(path) as log:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
            with pytest.raises(StorageError, match="MB are free") as caught:
                log.append("results", {"i": 2})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert caught.value.exit_code == 74
        assert path.stat().st_size == size
        log.append("results", {"i": 3})
    assert [e.data["i"] for e in read(path)] == [0, 1, 3]


# ---------------------------------------------------------------- the lock


def test_a_second_process_is_told_who_holds_the_lock(tmp_path):
    code = "import sys; from adanet_py.journal import Lock; Lock(sys.argv[1]).__enter__()"
    environment = os.environ | {"PYTHONPATH": PACKAGE}
    command = [sys.executable, "-c", code, str(tmp_path)]
    with Lock(tmp_path):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 1
        assert f"in use by process {os.getpid()} on " in done.stderr
        with pytest.raises(RunError, match="--out"), Lock(tmp_path):
            pass
    assert subprocess.run(command, env=environment, check=False).returncode == 0


def test_the_lock_is_free_when_its_holder_was_killed(tmp_path):
    code = (
        "import os, sys; from adanet_py.journal import Lock\n"
        "with Lock(sys.argv[1]): os.kill(os.getpid(), 9)"
    )
    environment = os.environ | {"PYTHONPATH": PACKAGE}
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    with Lock(tmp_path):
        pass


def test_a_missing_folder_cannot_be_locked(tmp_path):
    with pytest.raises(RunError, match="Expected a folder"), Lock(tmp_path / "none"):
        pass


# ---------------------------------------------------------------- atomic files and faults


def test_an_atomic_file_is_replaced_whole(tmp_path):
    target = tmp_path / "a.csv"
    write_atomic(target, "old é")
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_killed_at_every_step_of_a_write_the_file_is_old_or_new(tmp_path):
    code = (
        "import sys; from adanet_py.journal import write_atomic; write_atomic(sys.argv[1], 'new')"
    )
    seen = []
    for step in range(1, 10):
        target = tmp_path / f"{step}.txt"
        target.write_text("old")
        environment = os.environ | {"PYTHONPATH": PACKAGE, "ADANET_FAULT": f"kill9@{step}"}
        command = [sys.executable, "-c", code, str(target)]
        done = subprocess.run(command, env=environment, check=False)
        seen.append(target.read_text())
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert seen == ["old", "old", "new", "new"]
    leftovers = journal.remove_leftovers(tmp_path)
    assert [p.name for p in leftovers] == ["2.txt.tmp"]
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(("fault", "number"), [("enospc", errno.ENOSPC), ("eio", errno.EIO)])
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, fault, number):
    target = tmp_path / "a.txt"
    target.write_text("old")
    monkeypatch.setattr(journal, "_counts", {})
    monkeypatch.setenv("ADANET_FAULT", f"{fault}@2")
    with pytest.raises(StorageError, match=os.strerror(number)):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_fault_fires_once_at_its_step(monkeypatch):
    monkeypatch.setattr(journal, "_counts", {})
    monkeypatch.setenv("ADANET_FAULT", "eio@3")
    faultpoint("a")
    faultpoint("b")
    with pytest.raises(OSError, match="injected, c"):
        faultpoint("c")
    faultpoint("d")


@pytest.mark.parametrize("step", [1, 2])
def test_an_append_that_fails_is_an_error_for_people(path, monkeypatch, step):
    with Journal(path) as log:
        monkeypatch.setattr(journal, "_counts", {})
        monkeypatch.setenv("ADANET_FAULT", f"enospc@{step}")
        with pytest.raises(StorageError):
            log.append("results", 1)
        log.append("results", 2)
    assert [e.data for e in read(path)] == ([2] if step == 1 else [1, 2])


def test_a_misspelt_fault_is_an_error(monkeypatch):
    monkeypatch.setenv("ADANET_FAULT", "kill@x")
    with pytest.raises(ConfigError, match="kill9"):
        faultpoint("a")
