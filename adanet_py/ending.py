"""The end of a search: the ensemble is grown, the best is saved, the tables are written.

The ensemble comes first, for where it becomes the model no other has to be checked.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from adanet_py.ensemble.growth import Ensemble, Member, Setting, weigh
from adanet_py.ensemble.weights import Weights
from adanet_py.ensembling import (
    Grown,
    Options,
    grow_ensemble,
    is_better,
    why_none,
    write_table,
)
from adanet_py.folder import keep_probe, tidy
from adanet_py.held_out import HeldOut
from adanet_py.metrics import to_error
from adanet_py.outputs import as_outputs
from adanet_py.records import Result, Status
from adanet_py.reserve import ENDING, TABLES
from adanet_py.tables import write_tables

if TYPE_CHECKING:
    from adanet_py.loop import Search


def finish(search: Search, reason: str, *, final: bool) -> None:
    """Save the best, write the tables; where the search is `final`, close its journal too."""
    networks, baselines, saver = search.state.finished(), search.state.baselines, search.saver
    told: list[Result | None] = []

    def tables() -> None:
        told.append(saver.choose(networks, baselines, last=True))
        write_tables(
            search.folder, search.prepared, search.state, space=search.space, chosen=told[-1]
        )

    search.evict()
    if saver.saved is None:  # a valid model first of all
        saver.finish(networks, baselines, meanwhile=tables)
    grown = _grow_ensemble(search) if final else None
    if grown is None or not saver.save_ensemble(grown, search.deadline - ENDING, meanwhile=tables):
        saver.finish(networks, baselines, meanwhile=lambda: None if told else tables())
        if told[-1:] != [saver.choose(networks, baselines, last=True)]:  # the last check failed
            tables()
        grown = None
    _compare_with_baselines(search, grown)
    _tell_size(search)
    if final:
        search.record("stop", {"reason": reason})
        tidy(search.folder)


def time_an_offer(search: Search, found: np.ndarray) -> None:
    """Measure how long it takes to weigh a member, here one that predicts `found`.

    How long it will take to grow an ensemble follows from that.
    """
    held = HeldOut.of(search.prepared)
    if search.config.time is None or search.config.ensemble == "none" or why_none(held):
        return
    outputs = held.link.raw(
        as_outputs(held.task, found, held.mean, held.scale), held.validation.offset
    )
    rows = held.fitted()
    setting = Setting(held.task, rows.y, rows.weight, phi=held.phi)
    nothing = Ensemble((), Weights(np.zeros(0), np.zeros(outputs.shape[1])), 0.0)
    began = time.monotonic()
    weigh(setting, 1, [Member("", outputs, 1, 0.0)], (), nothing, 0.0)
    search.kept.has_weighed(time.monotonic() - began)


def _grow_ensemble(search: Search) -> Grown | None:
    """Grow an ensemble from the best networks; None unless it is better than each."""
    config, refining, held = search.config, search.refining, HeldOut.of(search.prepared)
    held.save(search.folder)
    keep_probe(search.folder)
    if config.ensemble == "none" or (search.state.best is None and config.joining == "networks"):
        return None
    if refining is not None and not _has_new(search):
        return None
    if refining is not None and refining.objective != "metric":
        search.note("No ensemble: a smaller or quicker network was asked for, which is one.")
        return None
    if config.reward.bounds or config.reward.target is not None or config.choose != "best":
        search.note("No ensemble: bounds, targets and simplicity are asked of one network.")
        return None
    if why := why_none(held):
        search.note(why)
        return None
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
        return None
    write_table(grown, search.folder / "ensemble.csv")
    search.record("ensemble", grown.to_json())
    return grown if is_better(grown, search.prepared.metric) else None


def _has_new(search: Search) -> bool:
    """Whether this refinement has accepted anything."""
    first = search.grouper.first or 0
    new = (r for i, rs in search.state.results.items() if i >= first for r in rs)
    return any(r.accepted for r in new)


def _tell_size(search: Search) -> None:
    """Say so where a refinement did not come to the size that it was for."""
    saved, size = search.saver.saved, search.refining.size if search.refining is not None else None
    if saved is None or size is None:
        return
    first = saved
    while first.accepted and first.objective == "size":
        first = search.state.by_id[str(first.candidate.parent)]
    found, wanted = saved.parameters / max(1, first.parameters), size * first.parameters
    if found <= size:
        return
    small = [r for r in search.state.finished() if r.candidate.inherits and r.parameters <= wanted]
    best = max(small, key=lambda r: r.reward, default=None)
    why = "none was trained to a usable end" if best is None else f"the best was {best.verdict}"
    search.note(
        f"No network of at most {100.0 * size:.0f} % of the parameters was accepted, but one of "
        f"{100.0 * found:.0f} %; of those that are so small, {why}. Give more time."
    )


def _compare_with_baselines(search: Search, grown: Grown | None) -> None:
    """Say so when a baseline did better than what is saved: the ensemble `grown` or one model."""
    saved, state = search.saver.saved, search.state
    best = saved if saved is not None and saved.stands else state.best
    ahead = max(state.baselines, key=lambda r: r.reward, default=None)
    if grown is not None:
        _compare_ensemble(search, grown, ahead)
        return
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


def _compare_ensemble(search: Search, grown: Grown, ahead: Result | None) -> None:
    ours = grown.scores["ensemble"].validation
    if ahead is None:
        return
    theirs = ahead.metrics["validation"]
    if to_error(search.metric, theirs) < to_error(search.metric, ours):
        search.note(
            f"The baseline {ahead.candidate.architecture} did better ({theirs:.6g}) than the "
            f"ensemble ({ours:.6g}), which is the model saved. Give more time, or --members any."
        )
