"""Train the groups of a run again, by counts instead of by the clock, and compare every score."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from adanet_py.data.demo import load_demo
from adanet_py.errors import RunError
from adanet_py.executors import Executor, make_nursery
from adanet_py.folder import Described, candidate_file, check_objects, read_described, same_data
from adanet_py.own import Own
from adanet_py.placement import make_executor, make_job
from adanet_py.prepare import Prepared, prepare, read
from adanet_py.records import Group, Result, Status
from adanet_py.state import State, read_state

OnEvent = Callable[[dict[str, Any]], None]

# What the machine did, not the candidates; and what was not trained.
LOST = (Status.CRASHED, Status.OUT_OF_MEMORY, Status.INFEASIBLE)


def replay(
    run: str | os.PathLike[str],
    *,
    data: Any = None,
    own: Own | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Train every group of a run again, by counts, and compare the scores bit by bit.

    `data` must be given again where the run did not read it from a file. Groups that the deadline
    cut short stop at the same step; those lost to a crash or to want of memory are left out, those
    that broke a bound, and children of any of these. Returns identical, candidates and differences.
    Raises RunError for other data than the run's.
    """
    folder = Path(run)
    described = read_described(folder)
    own = own or Own()
    check_objects(described, own)
    old = read_state(folder)
    results = _repeatable(old)
    if not results:
        raise RunError(f"{folder} has no results to replay.")
    notify = on_event or (lambda event: None)
    if len(results) < len(old.results):
        lost = ", ".join(str(i) for i in old.results if i not in results)
        words = "Not replayed, for the machine ended them or they broke a bound"
        notify({"kind": "note", "message": f"{words}: {lost}."})
    config = described.config
    data = data_again(folder, described, data)
    with tempfile.TemporaryDirectory(prefix="adanet_py-replay-") as scratch:
        copy = Path(scratch)
        with (
            make_nursery(0 if own else config.workers) as nursery,
            make_executor(config.workers, config.device, copy, bool(own), nursery) as executor,
        ):
            nursery.note = lambda message: notify({"kind": "note", "message": message})
            executor.start()
            prepared = prepare(
                read(config, data, described.types, own.all_losses()), copy, config.class_weight
            )
            groups = [_stopped(old.groups[i], r) for i, r in results.items()]
            new = _train(copy, groups, prepared, executor, own, old.device, notify)
    found = []
    for index, before in results.items():
        after = new.get(index, [])
        if len(after) != len(before):
            found.append(f"group {index}: {len(before)} results then, {len(after)} now")
        for a, b in zip(before, after, strict=False):
            found += _compare(a, b)
    count = sum(len(r) for r in results.values())
    return {"identical": not found, "candidates": count, "differences": found}


def _repeatable(state: State) -> dict[int, list[Result]]:
    """The results of groups that can be trained again: nothing was lost, here or of a parent."""
    out: dict[int, list[Result]] = {}
    known: set[str] = set()
    for index, results in sorted(state.results.items()):
        whole = not any(r.status in LOST for r in results)
        if whole and _parents(state.groups[index]) <= known:
            out[index] = results
            known.update(r.candidate.id for r in results)
    return out


def _parents(group: Group) -> set[str]:
    """Of whom the group inherits weights."""
    return {str(c.parent) for c in group.candidates if c.inherits}


def data_again(folder: Path, described: Described, data: Any) -> Any:
    """The data of the run: those given, its file, or the set that comes with scikit-learn."""
    stamp = described.data
    if data is None:
        data = stamp.get("path")
    if data is None:
        demo = load_demo()[0]
        if not same_data(stamp, demo):
            raise RunError(
                f"{folder} is a run on data that were in memory. Give them again (data=...)."
            )
        return demo
    if not same_data(stamp, data):
        name = stamp.get("path") or "a table in memory"
        raise RunError(f"{folder} is a run on {name}, which has changed or is not the data given.")
    return data


def _stopped(group: Group, results: list[Result]) -> Group:
    """The group, to end where the deadline ended it."""
    stops = [r.steps for r in results if r.status is Status.DEADLINE]
    return replace(group, stop_at=max(stops)) if stops else group


def _train(
    folder: Path,
    groups: list[Group],
    prepared: Prepared,
    executor: Executor,
    own: Own,
    device: str,
    notify: OnEvent,
) -> dict[int, list[Result]]:
    """Results of the groups, trained again, parents before their children."""
    new: dict[int, list[Result]] = {}
    waiting = list(groups)
    needed = set().union(*map(_parents, groups))
    open_: set[str] = {c.id for g in groups for c in g.candidates} & needed

    def submit() -> None:
        for group in [g for g in waiting if not _parents(g) & open_]:
            executor.submit(make_job(group, folder, prepared, device, own))
            waiting.remove(group)

    submit()
    while executor.unfinished:
        for event in executor.poll(1.0):
            if event.kind in ("failed", "crash"):
                notify({"kind": "note", "message": str(event.data.get("message"))})
                open_.clear()  # whatever waits for it fails for want of its weights
                submit()
            if event.kind != "done":
                continue
            results = [Result.from_json(r) for r in event.data["results"]]
            new[event.data["group"]] = results
            for name in (r.candidate.id for r in results):
                open_.discard(name)
                if name not in needed:
                    candidate_file(folder, name).unlink(missing_ok=True)
            submit()
            notify(
                {
                    "kind": "progress",
                    "done": sum(len(r) for r in new.values()),
                    "candidates": sum(len(g.candidates) for g in groups),
                }
            )
    return new


def _compare(before: Result, after: Result) -> list[str]:
    """Where two results of one candidate differ, clocks apart."""
    name = before.candidate.id
    if before.candidate.id != after.candidate.id:
        return [f"{name}: found {after.candidate.id} in its place"]
    out = []
    whats = ("status", "step", "steps", "parameters", "metrics", "curve", "difference", "drop",
             "gain", "gain_error")  # fmt: skip
    for what in whats:
        a, b = getattr(before, what), getattr(after, what)
        if repr(a) != repr(b):
            out.append(
                f"{name}: {what} differs" + ("" if what == "curve" else f", {a} then, {b} now")
            )
    return out
