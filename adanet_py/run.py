"""What can be done with a run: search, resume, replay, check, show its leaderboard."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adanet_py.checks import check
from adanet_py.config import SearchConfig
from adanet_py.controllers import find_controller
from adanet_py.data.demo import load_demo
from adanet_py.errors import ConfigError, RunError, check_known
from adanet_py.executors import Executor, Nursery, make_nursery
from adanet_py.folder import (
    CONFIG,
    Described,
    begin,
    candidate_file,
    check_objects,
    data_stamp,
    describe_objects,
    differences,
    discard,
    is_run,
    new_folder,
    open_folder,
    read_described,
    same_data,
    tidy,
)
from adanet_py.journal import Journal, Lock, remove_leftovers
from adanet_py.loop import Refining, Search
from adanet_py.member_fits import check_members, try_members
from adanet_py.outcome import SearchResult, importance, leaderboard, outcome_of, study
from adanet_py.own import Own
from adanet_py.placement import Device, find_device, make_executor
from adanet_py.portfolio import PRIOR, find_prior, read_portfolio, with_prior, write_portfolio
from adanet_py.prepare import Prepared, has_prepared, load_prepared, prepare, read
from adanet_py.quantities import parse_share
from adanet_py.refine import find_moves
from adanet_py.refine.acceptance import MARGIN, OBJECTIVES
from adanet_py.replay import data_again, replay
from adanet_py.space import SearchSpace, space_of
from adanet_py.state import JOURNAL, State, read_state

if TYPE_CHECKING:
    pass


OnEvent = Callable[[dict[str, Any]], None]


def search(
    data: Any = None,
    *,
    y: Any = None,
    config: SearchConfig | None = None,
    space: SearchSpace | Mapping[str, Any] | None = None,
    controller: Any = None,
    own: Own | None = None,
    types: Mapping[str, str] | None = None,
    on_event: OnEvent | None = None,
    started: float | None = None,
    nursery: Nursery | None = None,
) -> SearchResult:
    """Search networks for a table; the best is saved as a model in the run folder.

    `data` is a path, a DataFrame or features to go with `y`; without any, a data set that comes
    with scikit-learn. `config` holds the options. A space, controller (function or Optuna
    sampler), column types and what `own` holds may be given as objects. If `config.out` is a run
    with the same options, that run goes on. The time budget begins at `started`, a reading of
    time.monotonic(), now by default. Processes come from `nursery`, by default one of this run.
    Raises AdanetError before any training.
    """
    started = time.monotonic() if started is None else started
    config = config or SearchConfig()
    own = own or Own()
    notify = on_event or (lambda event: None)
    chosen = find_controller(controller if controller is not None else config.controller)
    searched = space_of(space if space is not None else config.space, own)
    name = config.controller if controller is None else ""
    folder = Path(config.out) if config.out else new_folder()
    given = data if y is None else (data, y)
    objects = describe_objects(controller, own)
    if is_run(folder):
        described = read_described(folder)
        # A refinement asks the run's controller for nothing.
        check_objects(described, own, None if read_state(folder).refining else objects)
        given, config = _demo(given, config, notify, described)
        _check_same(folder, described, config, given, searched)
    else:
        given, config = _demo(given, config, notify)
    prior = None if is_run(folder) else find_prior(config.prior, name)
    made = open_folder(folder)
    with Lock(folder):
        remove_leftovers(folder)
        if not is_run(folder):
            (folder / PRIOR).unlink(missing_ok=True)
            if prior is not None:
                write_portfolio(prior, folder / PRIOR)
        if read_state(folder).stopped:
            tidy(folder)
            return outcome_of(folder, own)
        try:
            with (
                (
                    nullcontext(nursery) if nursery else make_nursery(0 if own else config.workers)
                ) as nursery,
                make_executor(
                    config.workers, config.device, folder, bool(own), nursery
                ) as executor,
            ):
                nursery.note = lambda message: notify({"kind": "note", "message": message})
                executor.start()  # torch is imported while the data are read
                about = Described(config, {}, objects, types or {})
                prepared, device = _prepared(folder, about, given, searched, own, executor, notify)
                return _go_on(
                    folder, config, prepared, searched, chosen, device, executor, nursery, notify,
                    own, started,
                )  # fmt: skip
        finally:
            if not is_run(folder):
                discard(folder, made)


def resume(
    run: str | os.PathLike[str],
    *,
    data: Any = None,
    controller: Any = None,
    own: Own | None = None,
    on_event: OnEvent | None = None,
) -> SearchResult:
    """Go on with an interrupted run; a finished one is only loaded.

    Objects given to `search` must be given again. `data` is only needed where the run's own copy
    is gone and it did not read a file.
    """
    folder = Path(run)
    described = read_described(folder)
    if read_state(folder).stopped:
        return outcome_of(folder, own or Own())
    if data is None and not has_prepared(folder):
        data = described.data.get("path")
    return search(
        data,
        config=described.config.model_copy(update={"out": str(folder)}),
        space=space_of(folder / "space.yaml", own or Own()),
        controller=controller,
        own=own,
        on_event=on_event,
    )


def refine_run(
    run: str | os.PathLike[str],
    *,
    moves: Sequence[str] = (),
    objective: str = "metric",
    size: float | str | None = None,
    time: str | float | None = None,
    candidates: int | None = None,
    data: Any = None,
    own: Own | None = None,
    on_event: OnEvent | None = None,
) -> SearchResult:
    """Train children of the best networks of a run that has ended; see refine/.

    The run's journal and leaderboard go on, and what is interrupted goes on by `resume`. The model
    is a child only where one was accepted. `moves` are names, or what stands before the colon of
    several; none: all. `size`, for the objective size, is the share of the best network's
    parameters to come to, such as "1/3" or 0.33; none: as few as come. `candidates` bounds the
    children, `time` everything (default: 60 s where neither is given). `data` must be given again
    where the run did not read them from a file.
    Raises SpaceError for an unknown move, ConfigError for an unknown objective, RunError for a run
    that cannot be refined.
    """
    folder = Path(run)
    described, own = read_described(folder), own or Own()
    check_objects(described, own)
    bounds = SearchConfig(time=time, candidates=candidates)
    check_known("objective", objective, OBJECTIVES, ConfigError)
    share = None if size is None else _share_of_size(size, objective)
    names = [name for given in moves for name in find_moves(given)]
    with Lock(folder):
        state = read_state(folder)
        if state.stopped is None:
            raise RunError(f"Expected a run that has ended at {folder}. Go on with it by `resume`.")
        if not any(candidate_file(folder, r.candidate.id).is_file() for r in state.finished()):
            raise RunError(f"{folder} has no network whose weights are stored: nothing to refine.")
        given = data_again(folder, described, data)
        wanted = bounds.candidates
        about = {
            "moves": list(dict.fromkeys(names)),
            "objective": objective,
            "size": share,
            "time": bounds.time,
            "candidates": None if wanted is None else wanted + state.proposed(),
            "first": len(state.groups),
            "began": state.elapsed,
        }
        with Journal(folder / JOURNAL) as journal:
            journal.append("refine", about)
    return resume(folder, data=given, own=own, on_event=on_event)


def _share_of_size(size: float | str, objective: str) -> float:
    """The share of the parameters as a number; ConfigError where there is nothing to ask it of."""
    if objective != "size":
        raise ConfigError(
            f"--size: expected the objective size with it, found {objective}. Add --objective size."
        )
    share = parse_share(size)
    if share > 1.0 - MARGIN:
        raise ConfigError(
            f"--size: expected a share of at most {1.0 - MARGIN:g}, for nothing is accepted that "
            f"is not a tenth smaller, found {size!r}. Give 1/3, say."
        )
    return share


def _demo(
    data: Any, config: SearchConfig, notify: OnEvent, described: Described | None = None
) -> tuple[Any, SearchConfig]:
    """The data and options, of the set that comes with scikit-learn where no data are given."""
    if data is not None or (described is not None and config == _as_begun(described, config)):
        return data, config
    if config.target is not None:
        raise ConfigError("--target was given without data. Give the path of a table first.")
    frame, target, words = load_demo()
    if described is None:
        notify({"kind": "note", "message": words})
    return frame, config.model_copy(update={"target": target})


def _as_begun(described: Described, config: SearchConfig) -> SearchConfig:
    """The run's options with the folder of `config`: equal to it when it is the run resumed."""
    return described.config.model_copy(update={"out": config.out})


def _check_same(
    folder: Path, described: Described, config: SearchConfig, data: Any, space: SearchSpace
) -> None:
    """A folder that holds a run only takes the same run."""
    different = differences(described.config, config)
    try:
        if (folder / "space.yaml").read_text(encoding="utf-8") != space.text:
            different.append("--space: its content is not the same")
    except OSError as error:
        raise RunError(f"{folder / 'space.yaml'} cannot be read: {error.strerror}.") from None
    if different:
        raise RunError(
            f"{folder} holds a run with other options ({'; '.join(different)}). Choose another "
            "--out, or repeat the options to go on with it."
        )
    if data is not None and not same_data(described.data, data):
        name = described.data.get("path") or "a table in memory"
        raise RunError(
            f"{folder} holds a run on {name}, which has changed or is not the data given. "
            "Choose another --out."
        )


def _prepared(
    folder: Path,
    about: Described,
    data: Any,
    space: SearchSpace,
    own: Own,
    executor: Executor,
    notify: OnEvent,
) -> tuple[Prepared, Device]:
    """Read, check and prepare the data, or load what an interrupted run prepared; the device too.

    What can be wrong with the input is found before the first file that makes the folder a run.
    """
    begun = is_run(folder)
    config = about.config
    check_members(config)
    if begun and has_prepared(folder):
        return load_prepared(folder), find_device(config, executor, notify)
    if begun:
        about = read_described(folder)
        if data is None:
            raise RunError(f"{folder} has lost its prepared data. Give the data again.")
    found = read(config, data, about.types, own.all_losses())
    device = find_device(config, executor, notify)
    prepared = prepare(found, folder, config.class_weight)
    for note in (*prepared.notes, *try_members(config, folder)):
        notify({"kind": "note", "message": note})
    if not begun:
        begin(folder, replace(about, data=data_stamp(data)), space)
    return prepared, device


def _go_on(
    folder: Path,
    config: SearchConfig,
    prepared: Prepared,
    space: SearchSpace,
    controller: Any,
    device: Device,
    executor: Executor,
    nursery: Nursery,
    notify: OnEvent,
    own: Own,
    started: float,
) -> SearchResult:
    with Journal(folder / JOURNAL) as journal:
        state = State.replayed(journal.events)
        if journal.repaired:
            notify({"kind": "note", "message": journal.repaired})
        deadline, refining = math.inf, state.refining
        if refining is not None:
            changes = {name: refining[name] for name in ("time", "candidates")}
            config = config.model_copy(update=changes)
        if config.time is not None:
            began = refining["began"] if refining is not None else 0.0
            deadline = started + config.time - (state.elapsed - began)
        journal.append("resume" if journal.events else "start", {"device": device.name})
        notify(
            {"kind": "start", "run": str(folder), "task": prepared.task, "metric": prepared.metric}
        )
        space = _after_prior(space, folder, config, prepared.task, notify)
        session = Search(
            folder, config, prepared, space, controller, journal, state, device, executor,
            nursery, notify, deadline, own,
            refining=None if refining is None
            else Refining(tuple(refining["moves"]), refining["objective"], refining.get("size")),
        )  # fmt: skip
        session.run()
    notify({"kind": "done", "run": str(folder)})
    return outcome_of(folder, own)


def _after_prior(
    space: SearchSpace, folder: Path, config: SearchConfig, task: str, notify: OnEvent
) -> SearchSpace:
    """The space with the run's prior, if it has one, among its starts; first if asked for."""
    if not (folder / PRIOR).exists():
        return space
    prior, asked = read_portfolio(folder / PRIOR), config.prior is not None
    given = len(prior.of_task(task))
    space, taken = with_prior(space, prior, task, first=asked)
    if asked and taken < max(given, 1):
        words = (
            f"Of the prior's {given} configurations for {task} {taken} have a place in the space."
        )
        notify({"kind": "note", "message": words})
    return space


__all__ = [
    "CONFIG",
    "SearchResult",
    "check",
    "importance",
    "leaderboard",
    "refine_run",
    "replay",
    "resume",
    "search",
    "study",
]
