"""Processes forked from a server are fresh, die with the run, and survive what happens to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from tables import table

import adanet_py
from adanet_py import export, saving
from adanet_py.executors import LocalExecutor, Nursery
from adanet_py.executors import nursery as nursery_module
from adanet_py.executors.nursery import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")

PROBE = """
import argparse, ctypes, os, signal, sys, time

LOADED = os.getpid()
SEEN = []

def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("what")
    parser.add_argument("--parent", type=int)
    what = parser.parse_args(argv).what
    if what == "who":
        SEEN.append(1)
        print(LOADED, os.getpid(), os.getppid(), os.getpgid(0), len(SEEN))
    elif what == "descriptors":
        print(*sorted(int(n) for n in os.listdir("/proc/self/fd")))
    elif what == "exit":
        sys.exit(7)
    elif what == "raise":
        raise ValueError("bad luck 5")
    elif what == "words":
        sys.exit("no more to say")
    elif what.startswith("signal"):
        os.kill(os.getpid(), int(what[6:]))
    elif what == "deaf":
        print("deaf", flush=True)
        ctypes.PyDLL(None).sleep(60)
    elif what == "echo":
        print(sys.stdin.read()[::-1], end="")
    elif what == "environment":
        print(os.environ["MALLOC_TRIM_THRESHOLD_"], os.environ["OMP_NUM_THREADS"])

def run(job, emit, should_stop):
    emit({"pid": os.getpid()})
    while job.get("wait") and not should_stop():
        time.sleep(0.01)
    if job.get("lbfgs"):
        return lbfgs()
    if "rows" not in job:
        return {}
    import torch
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 64)
    x = torch.randn(job["rows"], 64)
    for _ in range(5):
        layer(x).square().mean().backward()
    return {"threads": torch.get_num_threads(), "sum": float(layer.weight.grad.double().sum())}

def lbfgs():
    import torch
    p = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = torch.optim.LBFGS([p], line_search_fn="strong_wolfe")
    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss
    optimizer.step(closure)
    optimizer.load_state_dict(optimizer.state_dict())
    return {"p": p.tolist(), "compiler": "torch._dynamo" in sys.modules}

if __name__ == "__main__":
    main()
"""

FUNCTIONS = {"probe": "nursery_probe:run"}


@pytest.fixture(autouse=True)
def _probe(tmp_path, monkeypatch):
    (tmp_path / "nursery_probe.py").write_text(PROBE)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture(params=["forked", "fresh"])
def nursery(request, _probe):
    env = environment(1) | nursery_module.WORKER_ENV
    with Nursery(env, fork=request.param == "forked", note=pytest.fail) as nursery:
        yield nursery


@pytest.fixture
def told():
    return []


@pytest.fixture
def forking(_probe, told):
    with Nursery(environment(1), note=told.append) as nursery:
        yield nursery


@contextmanager
def running(nursery, what, module="nursery_probe", **options):
    process = nursery.open(module, [what], **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)
        process.close()


@contextmanager
def deaf(nursery):
    """A process that does not listen, not even to its own threads."""
    with running(nursery, "deaf") as process:
        assert process.stdout.read(4) == b"deaf"
        yield process


def said(nursery, what, **options):
    with running(nursery, what, **options) as process:
        process.wait(60)
        return process, process.stdout.read().decode()


def gone(pid, *, patience=30.0):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


# ---------------------------------------------------------------- as fresh processes


def test_a_process_has_its_own_id_and_group(nursery):
    process, out = said(nursery, "who")
    _, pid, parent, group, seen = map(int, out.split())
    assert (process.pid, process.returncode, seen) == (pid, 0, 1)
    assert group == pid != os.getpid()
    assert parent == (nursery.server or os.getpid())


@pytest.mark.parametrize(
    ("what", "code", "error"),
    [
        ("exit", 7, ""),
        ("raise", 1, "ValueError: bad luck 5"),
        ("words", 1, "no more to say"),
        ("signal9", -9, ""),
        ("signal11", -11, ""),
        ("nothing", 0, ""),
    ],
)
def test_how_a_process_ended_is_known(nursery, tmp_path, what, code, error):
    with (tmp_path / "errors").open("wb") as errors:
        process, _ = said(nursery, what, stderr=errors)
    assert (process.poll(), process.wait(), process.lost) == (code, code, False)
    assert error in (tmp_path / "errors").read_text()


def test_the_end_of_each_of_two_killed_at_once_is_told(forking):
    # The second ends while the server turns from the first back to its requests.
    for _ in range(300):
        pair = [forking.open("nursery_probe", ["deaf"]) for _ in range(2)]
        pids = [process.pid for process in pair]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for process in pair:
            process.wait(20)
            process.close()


def test_a_module_that_is_not_there_is_an_error_of_the_process(nursery, tmp_path):
    with (tmp_path / "errors").open("wb") as errors:
        options = {"stderr": errors, "preload": ["no_such_thing"]}
        with running(nursery, "who", "no_such_thing", **options) as process:
            assert process.wait(60) == 1
    assert "no_such_thing" in (tmp_path / "errors").read_text()


def test_a_process_has_no_descriptors_but_its_own(nursery):
    with deaf(nursery):
        found = said(nursery, "descriptors")[1].split()
    assert found[:3] == ["0", "1", "2"]
    assert len(found) <= 4  # and the folder it looks into


def test_input_is_a_pipe_or_empty(nursery):
    assert said(nursery, "echo")[1] == ""
    with running(nursery, "echo", stdin=True) as process:
        process.stdin.write(b"abc")
        process.stdin.close()
        assert process.stdout.read() == b"cba"
        assert process.wait(60) == 0


def test_the_environment_was_there_before_the_process(nursery):
    trim = nursery_module.WORKER_ENV["MALLOC_TRIM_THRESHOLD_"]
    assert said(nursery, "environment")[1].split() == [trim, "1"]


def test_waiting_has_an_end(nursery):
    with deaf(nursery) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        assert process.poll() is None
        process.kill()
        assert process.wait(60) == -signal.SIGKILL


# ---------------------------------------------------------------- what forking adds


def test_modules_are_imported_once_and_their_state_is_not_shared(forking):
    found = [said(forking, "who", preload=["nursery_probe"])[1].split() for _ in range(3)]
    assert {int(f[0]) for f in found} == {forking.server}
    assert len({f[1] for f in found}) == 3
    assert [f[4] for f in found] == ["1"] * 3  # what one did is unknown to the next


def test_a_process_nobody_waits_for_is_not_forked(forking, tmp_path):
    (tmp_path / "nursery_slow.py").write_text("import time; time.sleep(0.3)")
    with running(forking, "deaf", preload=["nursery_slow"]) as process:
        process.kill()
        assert (process.wait(), process.pid) == (-signal.SIGKILL, 0)
    _, out = said(forking, "who")  # the server has seen to it by now
    children = f"/proc/{forking.server}/task/{forking.server}/children"
    end = time.monotonic() + 30
    while Path(children).read_text().split():
        assert time.monotonic() < end, "it was forked and lives"
    assert out


def test_closing_ends_what_was_forked():
    with Nursery(environment(1)) as nursery:
        with deaf(nursery) as process:
            pids = [process.pid, nursery.server]
            nursery.close()
            assert all(gone(pid) for pid in pids)
            assert process.wait(60) == -signal.SIGKILL


PARENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from adanet_py.executors import Nursery
from adanet_py.executors.nursery import environment
nursery = Nursery(environment(1))
process = nursery.open("nursery_probe", ["deaf"])
process.stdout.read(4)
print(nursery.server, process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_all_die_with_the_main_process(tmp_path, how):
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as parent:
        pids = [int(p) for p in parent.stdout.readline().split()]
        parent.send_signal(how)
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_a_server_outlives_processes_that_end_at_the_same_moment(forking, told):
    """Its signal handler may be interrupted by the next signal."""
    server = None
    for _ in range(15):
        found = [
            forking.open("nursery_probe", ["signal9"], preload=["nursery_probe"]) for _ in range(16)
        ]
        codes = [process.wait(60) for process in found]
        lost = [process.lost for process in found]
        for process in found:
            process.close()
        server = server or forking.server
        assert (set(codes), set(lost)) == ({-9}, {False})
    assert forking.server == server
    assert told == []


# ---------------------------------------------------------------- the server dies


def test_a_dead_server_takes_its_processes_along_and_is_replaced(forking, told):
    with deaf(forking) as process:
        server, pid = forking.server, process.pid
        os.kill(server, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
        assert process.lost
        assert gone(pid)
    assert gone(server)
    assert said(forking, "who")[0].returncode == 0
    assert forking.server != server
    assert len(told) == 1
    assert "signal 9" in told[0]


def test_servers_that_keep_dying_are_given_up(forking, told):
    for _ in range(nursery_module.MOST_DEATHS):
        assert said(forking, "who")[0].returncode == 0
        os.kill(forking.server, signal.SIGKILL)
        assert gone(forking.server)
    process, out = said(forking, "who")
    assert forking.server is None
    assert (process.returncode, int(out.split()[2])) == (0, os.getpid())
    assert len(told) == nursery_module.MOST_DEATHS
    assert "without one" in told[-1]


def test_a_job_whose_server_dies_is_told_and_the_next_ones_run(forking, told, tmp_path):
    with LocalExecutor(2, functions=FUNCTIONS, log=tmp_path, nursery=forking) as executor:
        lost = executor.submit({"wait": True}, function="probe")
        while not executor.poll(1.0):
            pass
        os.kill(forking.server, signal.SIGKILL)
        events = []
        while not events:
            events = executor.poll(1.0)
        assert [(e.job, e.kind) for e in events] == [(lost, "crash")]
        assert "forked from" in events[0].data["message"]
        numbers = [executor.submit({}, function="probe") for _ in range(4)]
        done = []
        while executor.unfinished:
            done += [e.job for e in executor.poll(1.0) if e.kind == "done"]
    assert sorted(done) == numbers
    assert len(told) == 1


# ---------------------------------------------------------------- torch in forks


@pytest.mark.parametrize("threads", [1, 2])
def test_torch_works_in_one_fork_after_another(threads):
    """Also beside and after forks that used threads; none may be in the server."""
    found = []
    env = environment(threads)
    with Nursery(env) as nursery:
        nursery.start(["adanet_py.training.jobs"])
        for _ in range(3):
            with LocalExecutor(2, functions=FUNCTIONS, nursery=nursery) as executor:
                for _ in range(4):
                    executor.submit({"rows": 2_000, "threads": threads}, function="probe")
                while executor.unfinished:
                    found += [e.data for e in executor.poll(1.0) if e.kind != "progress"]
        assert len(os.listdir(f"/proc/{nursery.server}/task")) == 1
    assert len(found) == 12
    assert {json.dumps(f) for f in found} == {json.dumps(found[0])}
    assert found[0]["threads"] == threads


def test_an_optimizer_of_torch_does_not_load_its_compiler_in_a_worker():
    with LocalExecutor(functions=FUNCTIONS, preload=["torch.optim"]) as executor:
        executor.submit({"lbfgs": True}, function="probe")
        while executor.unfinished:
            events = executor.poll(1.0)
    assert events[-1].data["p"] == pytest.approx([0.0, 0.0], abs=1e-5)
    assert not events[-1].data["compiler"]


# ---------------------------------------------------------------- the check of a model


def test_a_model_is_checked_in_a_fork_by_what_is_in_its_file(tmp_path, monkeypatch):
    real, checks = export.start_check, []

    def start_check(folder, prepared, result, own, nursery):
        for damage in (False, True, False):
            check = real(folder, prepared, result, own, nursery)
            if damage:
                check.path.write_bytes(check.path.read_bytes()[:-200])
            assert check.process.pid != os.getpid()
            assert check.done(60)
            checks.append((check, nursery.server))
        return check

    monkeypatch.setattr(saving, "start_check", start_check)
    adanet_py.search(
        table(rows=60), target="target", candidates=1, workers=0, space="tiny", folds=1,
        out=tmp_path / "run", on_note=lambda note: None,
    )  # fmt: skip
    for good, bad, again in zip(checks[::3], checks[1::3], checks[2::3], strict=True):
        assert good[0].good
        assert bad[0].difference is None
        assert "model" in bad[0].message
        assert again[0].good
    assert len({server for _, server in checks}) == 1
    assert (tmp_path / "run" / "model.adanet").exists()
