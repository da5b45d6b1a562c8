"""The end of a search: the best is saved, the tables are written, the ensemble is grown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from adanet_py.ensembling import (
    HeldOut,
    Options,
    grow_ensemble,
    is_better,
    why_none,
    write_table,
)
from adanet_py.folder import keep_probe, tidy
from adanet_py.records import Result, Status
from adanet_py.reserve import TABLES
from adanet_py.tables import write_tables

if TYPE_CHECKING:
    from adanet_py.loop import Search


def finish(search: Search, reason: str, *, final: bool) -> None:
    """Save the best, write the tables; where the search is `final`, close its journal too."""
    networks, baselines, saver = search.state.finished(), search.state.baselines, search.saver
    told: list[Result | None] = []

    def tables() -> None:
        search.evict()
        told.append(saver.choose(networks, baselines, last=True))
        write_tables(
            search.folder, search.prepared, search.state, space=search.space, chosen=told[-1]
        )

    saver.finish(networks, baselines, meanwhile=tables)
    if told[-1:] != [saver.choose(networks, baselines, last=True)]:  # the last check has failed
        tables()
    _compare_with_baselines(search)
    if final:
        _grow_ensemble(search)
        search.record("stop", {"reason": reason})
        tidy(search.folder)


def _grow_ensemble(search: Search) -> None:
    """Grow an ensemble from the best networks; it is the model where it is better than each."""
    config, refining, held = search.config, search.refining, HeldOut.of(search.prepared)
    held.save(search.folder)
    keep_probe(search.folder)
    if config.ensemble == "none" or (search.state.best is None and config.joining == "networks"):
        return
    if refining is not None and not _has_new(search):
        return
    if refining is not None and refining.objective != "metric":
        search.note("No ensemble: a smaller or quicker network was asked for, which is one.")
        return
    if config.reward.bounds or config.reward.target is not None or config.choose != "best":
        search.note("No ensemble: bounds, targets and simplicity are asked of one network.")
        return
    if why := why_none(held):
        search.note(why)
        return
    kept = sorted(
        search.state.by_id.values(), key=lambda r: (-r.reward, r.parameters, r.candidate.id)
    )
    options = Options(
        config.ensemble, config.adanet_lambda, config.adanet_beta, members=config.joining
    )
    latest = search.deadline - TABLES - 2.0 * search.saver.seconds

    def left() -> float:
        return latest - time.monotonic()

    grown = None if left() <= 0 else grow_ensemble(search.folder, kept, held, options, left)
    if grown is None:
        if left() <= 0:
            search.note("No time was left to grow an ensemble; `ensemble RUN` does it.")
        return
    write_table(grown, search.folder / "ensemble.csv")
    search.record("ensemble", grown.to_json())
    if is_better(grown, search.prepared.metric):
        search.saver.save_ensemble(grown)


def _has_new(search: Search) -> bool:
    """Whether this refinement has accepted anything."""
    first = search.grouper.first or 0
    new = (r for i, rs in search.state.results.items() if i >= first for r in rs)
    return any(r.accepted for r in new)


def _compare_with_baselines(search: Search) -> None:
    """Say so when a baseline did better than every network, which is what is saved."""
    saved, state = search.saver.saved, search.state
    best = saved if saved is not None and saved.stands else state.best
    ahead = max(state.baselines, key=lambda r: r.reward, default=None)
    if best is None and search.config.reward.bounds and state.infeasible:
        search.note(
            "No network within the bounds was trained: the model saved is a baseline, which "
            "has none. Widen them, or give a space with smaller networks."
        )
    if saved is not None and saved.status is Status.BASELINE and best is not None:
        search.note(f"The model saved is the baseline {saved.candidate.architecture}.")
    elif best is not None and ahead is not None and ahead.reward > best.reward:
        search.note(
            f"The baseline {ahead.candidate.architecture} did better "
            f"({ahead.metrics['validation']:.6g}) than the best network "
            f"({best.metrics['validation']:.6g}), which is the model saved. Give more time."
        )
