"""Every executor keeps the contract; the local one survives what its workers do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from adanet_py.errors import ConfigError, RunError
from adanet_py.executors import EXECUTORS, LocalExecutor

PROBE = """
import ctypes, os, sys, time

def run(job, emit, should_stop):
    what = job["what"]
    if what == "square":
        for i in range(job.get("emits", 0)):
            emit({"i": i})
        return {"square": job["x"] ** 2, "pid": os.getpid()}
    if what == "raise":
        raise ValueError("bad job 7")
    if what == "exit":
        sys.exit(3)
    if what == "not json":
        return {"set": {1, 2}}
    if what == "emit not json":
        emit({"set": {1, 2}})
    if what == "print":
        print('{"event": "done", "job": 0, "data": {"forged": true}}', flush=True)
        os.write(1, b"from C\\n")
        return {"read": sys.stdin.read()}
    if what == "until stopped":
        emit({"pid": os.getpid()})
        while not should_stop():
            time.sleep(0.01)
        return {"stopped": True}
    if what == "hang":
        emit({"pid": os.getpid()})
        while not os.path.exists(job.get("until", "/nowhere")):
            time.sleep(0.01)
        return {}
    if what == "deaf":  # in C, with the interpreter's lock: no thread sees the end of stdin
        emit({"pid": os.getpid()})
        ctypes.PyDLL(None).sleep(60)
    if what == "die":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), job["signal"])
        time.sleep(60)
    if what == "environment":
        return dict(os.environ)
    if what == "big":
        return {"text": "x" * job["size"]}
    raise KeyError(what)
"""


@pytest.fixture(autouse=True)
def _probe(tmp_path, monkeypatch):
    folder = tmp_path / "importable"
    folder.mkdir()
    (folder / "executor_probe.py").write_text(PROBE)
    monkeypatch.syspath_prepend(folder)
    yield
    sys.modules.pop("executor_probe", None)


FUNCTIONS = {"probe": "executor_probe:run"}


@pytest.fixture(params=sorted(EXECUTORS))
def executor(request, tmp_path):
    with EXECUTORS[request.param](workers=1, functions=FUNCTIONS, log=tmp_path) as executor:
        yield executor


@pytest.fixture
def local(tmp_path):
    with LocalExecutor(workers=2, functions=FUNCTIONS, log=tmp_path) as executor:
        yield executor


def submit(executor, what, *, kill_after=None, **job):
    return executor.submit({"what": what, **job}, function="probe", kill_after=kill_after)


def outcomes(executor, *, patience=60.0):
    """Final events by job until nothing is unfinished, and all progress."""
    end = time.monotonic() + patience
    final, progress = {}, []
    while executor.unfinished:
        assert time.monotonic() < end, "jobs did not end"
        for event in executor.poll(1.0):
            if event.kind == "progress":
                progress.append(event)
            else:
                assert event.job not in final
                final[event.job] = event
    return final, progress


def wait_for(condition, *, patience=30.0):
    end = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return value


def first_progress(executor):
    first = wait_for(lambda: executor.poll(0.5))[0]
    assert first.kind == "progress", first
    return first


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ---------------------------------------------------------------- the contract


def test_every_job_gets_its_own_answer(executor):
    jobs = {submit(executor, "square", x=x): x * x for x in range(7)}
    assert executor.unfinished == tuple(jobs)
    final, _ = outcomes(executor)
    assert {n: e.data["square"] for n, e in final.items()} == jobs
    assert {e.kind for e in final.values()} == {"done"}


def test_progress_arrives_in_order_and_before_the_end(executor):
    number = submit(executor, "square", x=1, emits=5)
    seen = []
    while executor.unfinished:
        seen += executor.poll(1.0)
    assert [(e.job, e.kind) for e in seen] == [(number, "progress")] * 5 + [(number, "done")]
    assert [e.data for e in seen[:5]] == [{"i": i} for i in range(5)]


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("raise", "ValueError", "bad job 7"),
        ("exit", "SystemExit", "3"),
        ("not json", "TypeError", "not JSON serializable"),
        ("emit not json", "TypeError", "not JSON serializable"),
    ],
)
def test_a_bad_job_fails_alone(executor, what, error, message):
    bad, good = submit(executor, what), submit(executor, "square", x=3)
    final, _ = outcomes(executor)
    assert (final[bad].kind, final[bad].data["status"]) == ("failed", "failed")
    assert final[bad].data["error"] == error
    assert message in final[bad].data["message"]
    assert "Traceback" in final[bad].data["traceback"]
    assert final[good].data["square"] == 9


def test_asked_to_stop_a_running_job_ends_with_what_it_has(executor):
    number = submit(executor, "until stopped")
    other = submit(executor, "square", x=2)
    first_progress(executor)
    executor.ask_stop(number)
    final, _ = outcomes(executor)
    assert final[number].data == {"stopped": True}
    assert final[other].data["square"] == 4


def test_stop_collects_the_running_and_cancels_the_queued(executor):
    running, queued = submit(executor, "until stopped"), submit(executor, "square", x=1)
    first_progress(executor)
    events = {e.job: e for e in executor.stop(grace=30)}
    assert events[running].data == {"stopped": True}
    assert events[queued].kind == "cancelled"
    assert executor.unfinished == ()


def test_stop_cancels_what_does_not_listen(executor, tmp_path):
    until = tmp_path / "until"  # lets the thread of the serial executor go
    number = submit(executor, "hang", until=str(until))
    first_progress(executor)
    events = executor.stop(grace=0.1)
    until.touch()
    assert [(e.job, e.kind) for e in events] == [(number, "cancelled")]
    assert executor.unfinished == ()


def test_a_killed_job_is_cancelled_whether_it_runs_or_waits(executor):
    running, queued = submit(executor, "until stopped"), submit(executor, "square", x=1)
    first_progress(executor)
    executor.kill(running)
    executor.kill(queued)
    later = submit(executor, "square", x=5)
    final, _ = outcomes(executor)
    assert {n: e.kind for n, e in final.items()} == {
        running: "cancelled",
        queued: "cancelled",
        later: "done",
    }


def test_poll_returns_at_once_when_there_is_nothing_to_wait_for(executor):
    assert executor.poll(1e9) == []
    assert executor.stop(grace=1e9) == []


def test_poll_without_patience_returns_nothing_from_a_quiet_job(executor):
    submit(executor, "until stopped")
    first_progress(executor)
    assert executor.poll(0) == []
    assert executor.poll(-1) == []


def test_an_unknown_function_is_refused(executor):
    with pytest.raises(ConfigError, match="Did you mean 'probe'"):
        executor.submit({}, function="prob")


def test_the_serial_executor_takes_objects():
    def add(job, emit, should_stop):
        return {"sum": job["f"](2)}

    with EXECUTORS["serial"](functions={"add": add}) as executor:
        executor.submit({"f": lambda x: x + 1}, function="add")
        (event,) = executor.poll(60)
    assert event.data == {"sum": 3}
    with pytest.raises(ConfigError, match="serial"):
        LocalExecutor(functions={"add": add})


# ---------------------------------------------------------------- worker processes


def test_what_a_job_prints_does_not_disturb_the_protocol(local, tmp_path):
    number = submit(local, "print")
    final, _ = outcomes(local)
    assert final[number].data == {"read": ""}
    logs = "".join(p.read_text() for p in sorted(tmp_path.glob("worker-*.log")))
    assert "forged" in logs
    assert "from C" in logs


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_dies_takes_only_its_own_job(local, number):
    steady = submit(local, "until stopped")
    first_progress(local)
    before = set(local.pids)
    dying = submit(local, "die", signal=int(number))
    squares = [submit(local, "square", x=x) for x in range(3)]
    final = {}
    while len(final) < 4:
        for event in local.poll(30):
            final[event.job] = event
    assert final[dying].kind == "crash"
    assert final[dying].data["exitcode"] == -number
    assert "last words" in final[dying].data["stderr"]
    assert [final[n].data["square"] for n in squares] == [0, 1, 4]
    assert len(before & set(local.pids)) == 1  # the steady one
    local.ask_stop()
    assert outcomes(local)[0][steady].data == {"stopped": True}


def test_a_job_that_hangs_is_killed_and_replaced(local):
    hanging = submit(local, "hang", kill_after=0.2)
    pid = first_progress(local).data["pid"]
    squares = [submit(local, "square", x=x) for x in range(3)]
    final, _ = outcomes(local)
    assert final[hanging].kind == "crash"
    assert "did not end within 0.2 s" in final[hanging].data["message"]
    assert all(final[n].kind == "done" for n in squares)
    assert not alive(pid)


def test_an_idle_worker_that_dies_costs_no_job(local):
    first = submit(local, "square", x=1)
    assert outcomes(local)[0][first].kind == "done"
    for pid in local.pids:
        os.kill(pid, signal.SIGKILL)
    jobs = [submit(local, "square", x=x) for x in range(4)]
    final, _ = outcomes(local)
    assert [final[n].data["square"] for n in jobs] == [0, 1, 4, 9]


def test_jobs_use_all_workers(local):
    a, b = submit(local, "until stopped"), submit(local, "until stopped")
    pids = {}
    while len(pids) < 2:
        pids |= {e.job: e.data["pid"] for e in local.poll(30)}
    assert pids[a] != pids[b]
    local.ask_stop(b)
    assert [e.job for e in local.poll(30)] == [b]
    assert local.unfinished == (a,)


def test_workers_ignore_an_interrupt(local):
    number = submit(local, "until stopped")
    os.kill(first_progress(local).data["pid"], signal.SIGINT)
    local.ask_stop()
    assert outcomes(local)[0][number].kind == "done"


def test_workers_get_their_threads_and_no_faults(tmp_path, monkeypatch):
    monkeypatch.setenv("ADANET_FAULT", "kill9@1")
    with LocalExecutor(threads=3, functions=FUNCTIONS, env={"ASKED": "yes"}) as executor:
        number = submit(executor, "environment")
        data = outcomes(executor)[0][number].data
    assert (data["OMP_NUM_THREADS"], data["MKL_NUM_THREADS"], data["ASKED"]) == ("3", "3", "yes")
    assert "ADANET_FAULT" not in data


def test_big_jobs_and_answers_fit_through_the_pipe(local):
    numbers = [submit(local, "big", size=3_000_000, ballast="y" * 300_000) for _ in range(3)]
    final, _ = outcomes(local)
    assert [len(final[n].data["text"]) for n in numbers] == [3_000_000] * 3


def test_workers_that_cannot_start_are_an_error_not_a_loop(tmp_path):
    with LocalExecutor(preload=("no_such_module",), functions=FUNCTIONS, log=tmp_path) as executor:
        submit(executor, "square", x=1)
        with pytest.raises(RunError, match=r"(?s)cannot start.*no_such_module"):
            outcomes(executor)


def test_jobs_killed_while_workers_start_are_not_held_against_the_workers(tmp_path):
    (tmp_path / "importable" / "slow_probe.py").write_text("import time; time.sleep(0.3)")
    with LocalExecutor(preload=("slow_probe",), functions=FUNCTIONS) as executor:
        for _ in range(4):
            number = submit(executor, "square", x=1)
            executor.kill(number)
            assert outcomes(executor)[0][number].kind == "cancelled"
        number = submit(executor, "square", x=4)
        assert outcomes(executor)[0][number].data["square"] == 16


def test_closing_leaves_no_process_behind(tmp_path):
    with LocalExecutor(workers=2, functions=FUNCTIONS) as executor:
        submit(executor, "hang")
        first_progress(executor)
        pids = executor.pids
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)


ORPHANS = """
import sys, time
sys.path.insert(0, sys.argv[1])
from adanet_py.executors import LocalExecutor
with LocalExecutor(workers=2, functions={"probe": "executor_probe:run"}) as executor:
    executor.submit({"what": sys.argv[2]}, function="probe")
    executor.poll(60)
    time.sleep(0.2)  # until the job is deaf
    print(*executor.pids, flush=True)
    executor.poll(1e6)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("what", ["hang", "deaf"])
def test_workers_die_with_a_killed_parent(tmp_path, what):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        [sys.executable, "-c", ORPHANS, str(tmp_path / "importable"), what],
        stdout=subprocess.PIPE,
        env=environment,
    ) as parent:
        pids = [int(p) for p in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()
    wait_for(lambda: not any(alive(pid) for pid in pids))
