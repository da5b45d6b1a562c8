"""What can be done with a run: search, resume, replay, check, show its leaderboard."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adanet_py.config import SearchConfig
from adanet_py.controllers import find_controller
from adanet_py.data.demo import load_demo
from adanet_py.errors import AdanetError, ConfigError, RunError
from adanet_py.executors import Executor
from adanet_py.folder import (
    CONFIG,
    JOURNAL,
    State,
    begin,
    data_stamp,
    differences,
    is_run,
    new_folder,
    open_folder,
    read_config,
    read_state,
)
from adanet_py.journal import Journal, Lock, remove_leftovers
from adanet_py.loop import Search, make_executor
from adanet_py.metrics import METRICS
from adanet_py.model import MODEL_FILE, Model, load
from adanet_py.plan import best_of
from adanet_py.prepare import Prepared, load_prepared, prepare, read
from adanet_py.records import Result, Status
from adanet_py.space import SearchSpace, default_registries, load_space, with_architectures

if TYPE_CHECKING:
    import pandas as pd

    from adanet_py.architectures import Architecture

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found: `.leaderboard`, `.best`, `.model`, `.predict`, `.run`, `.summary`."""

    run: Path
    state: State
    summary: Mapping[str, Any]
    architectures: Mapping[str, Architecture]

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """One row per candidate and baseline, best first."""
        return leaderboard(self.run)

    @property
    def best(self) -> Result | None:
        """The best network, None if none was trained to a usable end."""
        return best_of(self.state.finished())

    @cached_property
    def model(self) -> Model:
        """The saved model."""
        return load(self.run, architectures=self.architectures)

    def predict(self, data: Any) -> Any:
        """See `Model.predict`."""
        return self.model.predict(data)

    def predict_proba(self, data: Any) -> Any:
        """See `Model.predict_proba`."""
        return self.model.predict_proba(data)


def search(
    data: Any = None,
    *,
    y: Any = None,
    config: SearchConfig | None = None,
    space: SearchSpace | Mapping[str, Any] | None = None,
    controller: Any = None,
    architectures: Mapping[str, Architecture] | None = None,
    types: Mapping[str, str] | None = None,
    on_event: OnEvent | None = None,
) -> SearchResult:
    """Search networks for a table; the best is saved as a model in the run folder.

    `data` is a path, a DataFrame or features to go with `y`; without any, a data set that comes
    with scikit-learn. `config` holds the options. A space, controller (function or Optuna
    sampler), architectures and column types may be given as objects. If `config.out` is a run
    with the same options, that run goes on. Raises AdanetError before any training.
    """
    started = time.monotonic()
    config = config or SearchConfig()
    own = dict(architectures or {})
    notify = on_event or (lambda event: None)
    chosen = find_controller(controller if controller is not None else config.controller)
    searched = _space(space if space is not None else config.space, own)
    folder = Path(config.out) if config.out else new_folder()
    given = data if y is None else (data, y)
    if given is None:
        given, config = _demo(config, notify)
    if is_run(folder):
        _check_same(folder, config, given)
    open_folder(folder)
    with Lock(folder):
        remove_leftovers(folder)
        if (folder / JOURNAL).exists() and read_state(folder).stopped:
            return _result(folder, own)
        with _started(config, folder, bool(own)) as executor:
            prepared = _prepared(folder, config, given, types, searched, notify)
            return _go_on(
                folder, config, prepared, searched, chosen, executor, notify, own, started
            )


def resume(
    run: str | os.PathLike[str],
    *,
    data: Any = None,
    controller: Any = None,
    architectures: Mapping[str, Architecture] | None = None,
    on_event: OnEvent | None = None,
) -> SearchResult:
    """Go on with an interrupted run; a finished one is only loaded.

    Objects given to `search` must be given again.
    """
    folder = Path(run)
    config, stamp = read_config(folder)
    if read_state(folder).stopped:
        return _result(folder, dict(architectures or {}))
    if data is None and not (folder / "prepared.json").exists():
        data = stamp.get("path")
    return search(
        data,
        config=config.model_copy(update={"out": str(folder)}),
        space=_space(folder / "space.yaml", dict(architectures or {})),
        controller=controller,
        architectures=architectures,
        on_event=on_event,
    )


def _space(space: Any, architectures: Mapping[str, Architecture]) -> SearchSpace:
    found = load_space(space, default_registries(architectures))
    missing = {
        n: a for n, a in architectures.items() if f"architectures.{n}" not in found.knobs
    }
    return with_architectures(found, missing) if missing else found


def _demo(config: SearchConfig, notify: OnEvent) -> tuple[Any, SearchConfig]:
    if config.target is not None:
        raise ConfigError("--target was given without data. Give the path of a table first.")
    frame, target, words = load_demo()
    notify({"kind": "note", "message": words})
    return frame, config.model_copy(update={"target": target})


def _check_same(folder: Path, config: SearchConfig, data: Any) -> None:
    """A folder that holds a run only takes the same run."""
    old, stamp = read_config(folder)
    different = differences(old, config)
    if different:
        raise RunError(
            f"{folder} holds a run with other options ({'; '.join(different)}). Choose another "
            "--out, or repeat the options to go on with it."
        )
    if stamp.get("path") and data is not None and data_stamp(data) != dict(stamp):
        raise RunError(
            f"{folder} holds a run on {stamp['path']}, which has changed or is not the data given. "
            "Choose another --out."
        )


def _started(config: SearchConfig, folder: Path, live: bool) -> Executor:
    """Start the workers at once: they import torch while the data are read."""
    executor = make_executor(config.workers, config.device, folder, live)
    executor.start()
    return executor


def _prepared(
    folder: Path,
    config: SearchConfig,
    data: Any,
    types: Mapping[str, str] | None,
    space: SearchSpace,
    notify: OnEvent,
) -> Prepared:
    """Read, check and prepare the data, or load what an interrupted run prepared."""
    if is_run(folder) and (folder / "prepared.json").exists() and (folder / "cache").exists():
        return load_prepared(folder)
    found = read(config, data, types)
    prepared = prepare(found, folder, config.class_weight)
    for note in prepared.notes:
        notify({"kind": "note", "message": note})
    begin(folder, config, space, data_stamp(data))
    return prepared


def _device(config: SearchConfig, executor: Executor, notify: OnEvent) -> str:
    """The device to train on; ConfigError if CUDA was asked for and is not there."""
    hinted = os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/dxg")
    if config.device == "cpu" or (config.device == "auto" and not hinted):
        return "cpu"
    job = executor.submit({}, function="describe_devices")
    found: list[str] = []
    while executor.unfinished:
        for event in executor.poll(1.0):
            if event.job == job and event.kind == "done":
                found = list(event.data["cuda"])
    if config.device == "auto":
        return "cuda" if found else "cpu"
    index = int(config.device.partition(":")[2] or 0)
    if index >= len(found):
        listed = ", ".join(f"cuda:{i} ({n})" for i, n in enumerate(found)) or "none"
        raise ConfigError(
            f"--device {config.device}: expected a CUDA device, found {listed}. Use --device cpu, "
            "or install a build of torch with CUDA and its driver."
        )
    notify({"kind": "note", "message": f"Training on {found[index]}."})
    return config.device


def _go_on(
    folder: Path,
    config: SearchConfig,
    prepared: Prepared,
    space: SearchSpace,
    controller: Any,
    executor: Executor,
    notify: OnEvent,
    architectures: Mapping[str, Architecture],
    started: float,
) -> SearchResult:
    device = _device(config, executor, notify)
    with Journal(folder / JOURNAL) as journal:
        state = State.replayed(journal.events)
        if journal.repaired:
            notify({"kind": "note", "message": journal.repaired})
        deadline = math.inf
        if config.time is not None:
            deadline = started + config.time - state.elapsed
        journal.append("resume" if journal.events else "start", {"device": device})
        notify({"kind": "start", "run": str(folder), "task": prepared.task, "metric": prepared.metric})
        session = Search(
            folder, config, prepared, space, controller, journal, state, device, executor,
            notify, deadline, architectures,
        )  # fmt: skip
        session.run()
    notify({"kind": "done", "run": str(folder)})
    return _result(folder, architectures)


def _result(folder: Path, architectures: Mapping[str, Architecture]) -> SearchResult:
    state = read_state(folder)
    prepared = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
    best = best_of(state.finished())
    about = None
    if best is not None:
        about = {
            "id": best.candidate.id,
            "architecture": best.candidate.architecture,
            "optimizer": best.candidate.optimizer,
            "schedule": best.candidate.schedule,
            "n_params": best.parameters,
        }
    model = folder / MODEL_FILE
    metric = METRICS[prepared["metric"]]
    summary = {
        "run": str(folder),
        "model": str(model) if model.exists() else None,
        "task": prepared["task"],
        "metric": metric.name,
        "direction": "maximize" if metric.greater_is_better else "minimize",
        "validation": best.metrics.get("validation") if best else None,
        "audit": best.metrics.get("audit") if best else None,
        "seconds": round(state.elapsed, 3),
        "candidates": len(state.finished()),
        "best": about,
        "stopped": state.stopped or "interrupted",
    }
    return SearchResult(folder, state, summary, architectures)


def leaderboard(run: str | os.PathLike[str]) -> pd.DataFrame:
    """The leaderboard of a run: the file of a finished one, built from the journal of others."""
    import pandas as pd

    from adanet_py.tables import write_tables

    folder = Path(run)
    read_config(folder)
    state = read_state(folder)
    path = folder / "leaderboard.csv"
    if not path.exists() or state.stopped is None:
        if not (folder / "cache").exists():
            raise RunError(f"{folder} has no results yet.")
        with tempfile.TemporaryDirectory() as scratch:
            write_tables(folder, load_prepared(folder), state, Path(scratch))
            return pd.read_csv(Path(scratch) / "leaderboard.csv")
    return pd.read_csv(path)


def replay(
    run: str | os.PathLike[str],
    *,
    data: Any = None,
    architectures: Mapping[str, Architecture] | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Train every group of a run again, by counts, and compare the scores bit by bit.

    `data` must be given again where the run did not read it from a file. Groups that the deadline
    cut short stop at the same step. Returns identical, candidates and differences.
    """
    folder = Path(run)
    config, stamp = read_config(folder)
    old = read_state(folder)
    if not old.results:
        raise RunError(f"{folder} has no results to replay.")
    notify = on_event or (lambda event: None)
    if data is None:
        data = stamp.get("path") or (load_demo()[0] if config.data is None else None)
    own = dict(architectures or {})
    with tempfile.TemporaryDirectory(prefix="adanet_py-replay-") as scratch:
        copy = Path(scratch)
        with _started(config, copy, bool(own)) as executor:
            prepared = prepare(read(config, data), copy, config.class_weight)
            new = _retrain(copy, old, prepared, config, executor, own, notify)
    found = []
    for index, results in sorted(old.results.items()):
        for before, after in zip(results, new.get(index, []), strict=False):
            found += _compare(before, after)
        if len(new.get(index, [])) != len(results):
            found.append(f"group {index}: {len(results)} results then, {len(new.get(index, []))} now")
    count = sum(len(r) for r in old.results.values())
    return {"identical": not found, "candidates": count, "differences": found}


def _retrain(
    folder: Path,
    old: State,
    prepared: Prepared,
    config: SearchConfig,
    executor: Executor,
    architectures: Mapping[str, Architecture],
    notify: OnEvent,
) -> dict[int, list[Result]]:
    """Results of the recorded groups, trained again."""
    device = _device(config, executor, notify)
    for index, results in sorted(old.results.items()):
        stops = [r.steps for r in results if r.status is Status.DEADLINE]
        group = old.groups[index]
        if stops:
            group = replace(group, stop_at=max(stops))
        job: dict[str, Any] = {
            "group": group.to_json(),
            "run": str(folder.resolve()),
            "metric": prepared.metric,
            "target": list(prepared.target_scale),
            "class_weight": prepared.class_weight,
            "device": device,
        }
        if architectures:
            job["architectures"] = dict(architectures)
        executor.submit(job)
    new: dict[int, list[Result]] = {}
    while executor.unfinished:
        for event in executor.poll(1.0):
            if event.kind == "done":
                new[event.data["group"]] = [Result.from_json(r) for r in event.data["results"]]
                shutil.rmtree(folder / "candidates", ignore_errors=True)
                notify(
                    {
                        "kind": "progress",
                        "done": sum(len(r) for r in new.values()),
                        "candidates": sum(len(r) for r in old.results.values()),
                    }
                )
    return new


def _compare(before: Result, after: Result) -> list[str]:
    """Where two results of one candidate differ, clocks apart."""
    name = before.candidate.id
    if before.candidate.id != after.candidate.id:
        return [f"{name}: found {after.candidate.id} in its place"]
    out = []
    for what in ("status", "step", "steps", "parameters", "metrics", "curve"):
        a, b = getattr(before, what), getattr(after, what)
        if repr(a) != repr(b):
            out.append(f"{name}: {what} differs" + ("" if what == "curve" else f", {a} then, {b} now"))
    return out


def check(path: str | os.PathLike[str]) -> list[str]:
    """Problems of a run folder or model file, in words; empty if it is whole."""
    found = Path(path)
    problems: list[str] = []
    if not found.is_dir():
        load(found)
        return []
    read_config(found)
    for name in (JOURNAL, "prepared.json", "split.npz", "space.yaml"):
        if not (found / name).exists():
            problems.append(f"{name} is missing")
    state = State()
    try:
        state = read_state(found)
    except AdanetError as error:
        problems.append(str(error))
    if (found / MODEL_FILE).exists():
        try:
            load(found)
        except AdanetError as error:
            problems.append(str(error))
    elif state.stopped:
        problems.append(f"{MODEL_FILE} is missing although the run has ended")
    leftovers = [p.name for p in found.rglob("*.tmp")]
    problems += [f"{name} is a leftover of an interrupted write" for name in leftovers]
    unfinished = sorted(set(state.groups) - set(state.results))
    if state.stopped is None:
        problems.append(f"the run has not ended ({len(unfinished)} groups open); `resume` goes on")
    return problems


__all__ = ["CONFIG", "SearchResult", "check", "leaderboard", "replay", "resume", "search"]
