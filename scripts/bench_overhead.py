#!/usr/bin/env python3
"""What a search costs beside training: starts, proposals, and seconds lost in a search of 60 s.

    python scripts/bench_overhead.py [--data table.csv --target column] [--quick] [--json]

Four parts, each in fresh processes where a start is meant:

- **Starts**: `python -m adanet_py --help`, `import adanet_py`, `import adanet_py.run`, and `python
  -c pass` for the interpreter alone; wall seconds of the whole process.
- **First step**: from the start of a process to the end of its first training step (a group of one
  small network on a made-up table of 256 rows), by the monotonic clock both processes share.
- **Proposals**: milliseconds per candidate at 100, 1,000 and 5,000 results, on the space `table`:
  of the controller alone, and of all the search loop does for a group but train it: the history,
  the controller, the checks, the plan, two journal entries on disk with learning curves of 30
  points, the weights that are deleted.
- **Search**: `python -m adanet_py search` with a time budget. Core seconds are workers times the
  wall seconds of the whole command, interpreter and imports included. Of these
    - *training and validation*: what the results say (`Result.seconds`): steps, evaluations, and
      the scores of what was kept on validation, audit and training rows;
    - *baselines*: what the baselines took, which a core is kept free for;
    - *beside training*: a worker has a group, from the entry of the group in the journal to that
      of its results, but does not train: arrays, initial weights, checkpoints, files;
    - *start*: before the first group: interpreter, imports, reading and preparing the data;
    - *end*: after the last results: the last check of the model, tables;
    - *idle*: the rest, between groups.

Reported: median (least to greatest) over the rounds; the search is run once.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from benching import command, deliver, machine, shown, spread, table

from adanet_py.config import SearchConfig
from adanet_py.controllers import CONTROLLERS
from adanet_py.executors import Event, make_nursery
from adanet_py.journal import Journal, read
from adanet_py.loop import Search
from adanet_py.own import Own
from adanet_py.placement import Device, count_cores
from adanet_py.prepare import prepare
from adanet_py.prepare import read as read_data
from adanet_py.records import Candidate, Evaluation, Group, History, Result, Status
from adanet_py.space import load_space
from adanet_py.state import State

STARTS: dict[str, list[str]] = {
    "python -c pass": ["-c", "pass"],
    "--help": ["-m", "adanet_py", "--help"],
    "import adanet_py": ["-c", "import adanet_py"],
    "import adanet_py.run": ["-c", "import adanet_py.run"],
}
FIRST_STEP = """
import sys, time
import numpy as np
import adanet_py
rng = np.random.default_rng(0)
x = rng.normal(size=(256, 4))
candidate = adanet_py.Candidate("mlp", {"width": 16, "batch_size": 128}, numeric={"lr": 0.01})
from adanet_py.training import groups
steps = []
def first(plan, tracks, alive, step, seconds):
    steps.append(time.monotonic())
groups._report = first
adanet_py.train([candidate], x, y=(x[:, 0] > 0).astype(int), epochs=0.01, folds=1)
print(steps[0])
"""
GROUP = 8


def seconds_of(arguments: Sequence[str]) -> float:
    """Wall seconds of a fresh interpreter."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def first_step() -> float:
    """Seconds from the start of a process to the end of its first training step."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", FIRST_STEP], check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout.split()[-1]) - begun


# ------------------------------------------------------------------------------- proposals


class Nobody:
    """An executor that takes a group and trains nothing."""

    capacity = 1
    unfinished: tuple[int, ...] = ()

    def submit(self, job: Any, **options: Any) -> int:
        """See `Executor`."""
        return 0


def made_up_result(candidate: Candidate, group: int) -> Result:
    """A result with a curve of 30 points, as training would give it."""
    score = int(candidate.id[:6], 16) / 16**6
    curve = tuple(Evaluation(i, i / 7, 0.01 / (i + 1), score, score, 1 / 3) for i in range(30))
    return Result(
        candidate,
        Status.COMPLETE,
        metrics={"train": score, "validation": score},
        curve=curve,
        steps=1000,
        seconds=0.5 + score,
        parameters=1000,
        multiply_adds=1000,
        latency_ms=1.0,
        reward=-score,
        group=group,
    )


def search_after(results: int, name: str, folder: Path) -> Search:
    """A search whose journal so far would hold so many results of random candidates."""
    config = SearchConfig(time=3600.0, out=str(folder), folds=1, target="target")
    prepared = prepare(read_data(config, made_up_table()), folder)
    space = load_space("table")
    state = State()
    constant = Result(
        Candidate("constant", optimizer="", schedule=""),
        Status.BASELINE,
        metrics={"validation": 0.7},
        reward=-1.0,
    )
    state.apply("baseline", constant.to_json())
    rng = np.random.default_rng(0)
    for index in range(results // GROUP):
        proposed = CONTROLLERS["random"](space, History(), GROUP, rng)
        group = Group(index, tuple(proposed), steps=1000)
        found = [made_up_result(c, index).to_json() for c in proposed]
        state.apply("group", group.to_json())
        state.apply("results", {"group": index, "results": found})
    search = Search(
        folder, config, prepared, space, CONTROLLERS[name], Journal(folder / "journal.jsonl"),
        state, Device("cpu"), Nobody(), make_nursery(0), lambda event: None,
        time.monotonic() + 3600.0, Own(),
    )  # fmt: skip
    # What is best is checked once a minute by a process of its own: not here, where none has files.
    search.saver.saved, search.saver.pause = state.best, math.inf
    return search


def made_up_table() -> pd.DataFrame:
    """Four numbers and whether the first two have a positive sum."""
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 4)), columns=list("abcd"))
    return frame.assign(target=frame["a"] + frame["b"] > 0)


def proposals(name: str, results: int, rounds: int) -> dict[str, Any]:
    """Milliseconds per candidate of a controller alone and of the loop around it."""
    alone, whole = [], []
    with tempfile.TemporaryDirectory() as scratch:
        search = search_after(results, name, Path(scratch))
        (Path(scratch) / "candidates").mkdir()
        for round_ in range(rounds + 1):  # the first warms up: what is read once is read there
            history = search.state.history()
            rng = np.random.default_rng(round_)
            begun = time.perf_counter()
            proposed = CONTROLLERS[name](search.space, history, GROUP, rng)
            alone.append((time.perf_counter() - begun) / len(proposed) * 1e3)
            begun = time.perf_counter()
            group = search.grouper.next()
            assert group is not None
            search.record("group", group.to_json())
            search._submit(group)
            taken = time.perf_counter() - begun
            found = [made_up_result(c, group.index).to_json() for c in group.candidates]
            begun = time.perf_counter()
            search._handle(Event(0, "done", {"results": found}))
            search._save_best()
            taken += time.perf_counter() - begun
            whole.append(taken / len(group.candidates) * 1e3)
        search.journal.close()
    return {"alone_ms": spread(alone[1:]), "whole_ms": spread(whole[1:])}


# ---------------------------------------------------------------------------------- search


def lost_in_search(data: Path, target: str, seconds: float, controller: str) -> dict[str, Any]:
    """Where the core seconds of a search went; see the module."""
    workers = count_cores()
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        arguments = ["-m", "adanet_py", "search", str(data), "--target", target, "--quiet"]
        arguments += ["--time", f"{seconds:g}s", "--controller", controller, "--out", str(run)]
        wall = seconds_of([*arguments, "--workers", str(workers), "--json"])
        events = read(run / "journal.jsonl")
        state = State.replayed(events)
    begun = {e.data["index"]: e.time for e in events if e.kind == "group"}
    ended = {e.data["group"]: e.time for e in events if e.kind == "results"}
    # The clock of the journal begins when it is opened, and its last event is the end of the run.
    before = wall - state.elapsed
    busy = sum(ended[i] - begun[i] for i in ended)
    training = sum(r.seconds for r in state.finished())
    baselines = sum(r.seconds for r in state.baselines)
    first = min(begun.values(), default=state.elapsed)
    last = max(ended.values(), default=state.elapsed)
    core = workers * wall
    parts = {
        "training and validation": training,
        "baselines": baselines,
        "beside training": busy - training,
        "start": workers * (before + first),
        "end": workers * (state.elapsed - last),
    }
    parts["idle"] = core - sum(parts.values())
    return {
        "wall_s": wall,
        "workers": workers,
        "controller": controller,
        "core_s": core,
        "groups": len(ended),
        "candidates": len(state.finished()),
        "seconds": parts,
        "shares": {name: part / core for name, part in parts.items()},
    }


def write_table(folder: Path) -> tuple[Path, str]:
    """A made-up table of 20,000 rows, numbers and words, and the name of its target."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(20_000, 20)), columns=[f"x{i}" for i in range(20)])
    frame["word"] = rng.choice(list("abcdefgh"), len(frame))
    signal = np.sin(2 * frame["x0"]) + frame["x1"] * frame["x2"] + (frame["word"] < "d")
    frame["target"] = np.where(signal + 0.5 * rng.normal(size=len(frame)) > 0.4, "yes", "no")
    path = folder / "table.csv"
    frame.to_csv(path, index=False)
    return path, "target"


# ---------------------------------------------------------------------------------- report


def measured(rounds: int, what: Callable[[], float]) -> dict[str, float]:
    """Seconds over the rounds, after one that fills the caches of the disk."""
    what()
    return spread([what() for _ in range(rounds)])


def make_report(args: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    rounds, sizes = args.rounds, args.results
    starts = {
        name: measured(rounds, lambda a=arguments: seconds_of(a))  # type: ignore[misc]
        for name, arguments in STARTS.items()
    }
    starts["first training step"] = measured(rounds, first_step)
    found = {
        name: {str(size): proposals(name, size, max(rounds, 10)) for size in sizes}
        for name in args.controllers
    }
    with tempfile.TemporaryDirectory() as scratch:
        data, target = args.data, args.target
        if data is None:
            data, target = write_table(Path(scratch))
        search = lost_in_search(data, target, args.seconds, args.controller)
    return {
        "command": command(__file__),
        "machine": machine(torch.device("cpu"), count_cores()),
        "rounds": rounds,
        "starts_s": starts,
        "proposals": found,
        "search": search,
    }


def lines_of(report: dict[str, Any]) -> list[str]:
    """The report as Markdown."""
    search = report["search"]
    lines = [
        f"Made by `{report['command']}` on {report['machine']}, {report['rounds']} rounds.",
        "",
    ]
    lines += ["Seconds, median (least to greatest); what each means: `scripts/bench_overhead.py`."]
    lines += [
        "",
        *table(["start", "seconds"], ((k, shown(v)) for k, v in report["starts_s"].items())),
    ]
    lines += ["", "Milliseconds per proposed candidate."]
    rows = [
        (name, size, shown(found["alone_ms"]), shown(found["whole_ms"]))
        for name, sizes in report["proposals"].items()
        for size, found in sizes.items()
    ]
    lines += [
        "",
        *table(["controller", "results", "controller alone", "with loop and journal"], rows),
    ]
    lines += [
        "",
        f"A search of {search['wall_s']:.1f} s with {search['workers']} workers and "
        f"`{search['controller']}`: {search['groups']} groups, {search['candidates']} candidates, "
        f"{search['core_s']:.1f} core seconds.",
        "",
    ]
    parts = search["seconds"].items()
    rows = [(n, f"{s:.2f}", f"{100 * search['shares'][n]:.1f} %") for n, s in parts]
    return lines + table(["core seconds", "seconds", "share"], rows)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="table to search on (a made-up one)")
    parser.add_argument("--target", default="target", help="its column to predict")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument(
        "--controllers", nargs="+", choices=list(CONTROLLERS), default=list(CONTROLLERS)
    )
    parser.add_argument("--controller", default="evolution", help="of the search")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the search")
    parser.add_argument("--quick", action="store_true", help="2 rounds, a search of 20 s, no files")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="stem of the files to write (--quick: none)")
    args = parser.parse_args(argv)
    stem = args.out or Path(__file__).parents[1] / "results" / "overhead"
    if args.quick:
        args.rounds, args.seconds = 2, min(args.seconds, 20.0)
        stem = args.out
    report = make_report(args)
    deliver(report, lines_of(report), stem, args.json)
    return report


if __name__ == "__main__":
    main()
