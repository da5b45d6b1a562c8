"""The history as a model of rewards sees it: candidates with a number each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from adanet_py.controllers.columns import Floats
from adanet_py.controllers.ledger import ledger_of
from adanet_py.records import Candidate, History, Result, Scalar
from adanet_py.space import SearchSpace

BEST, LATEST = 256, 512  # results given of a history that is longer


class Scored(NamedTuple):
    """Candidates in order and their rewards [n], NaN while pending; their results, None then."""

    candidates: Sequence[Candidate]
    rewards: Floats
    results: Sequence[Result | None]

    def take(self, places: Sequence[int] | npt.NDArray[np.intp]) -> Scored:
        """Those at `places`."""
        at = np.asarray(places, dtype=np.intp)
        listed = at.tolist()
        candidates = [self.candidates[i] for i in listed]
        return Scored(candidates, self.rewards[at], [self.results[i] for i in listed])


def scored(space: SearchSpace, history: History) -> Scored:
    """Every network with its reward, failures included, then what is pending.

    Failures count as somewhat worse than the worst usable result: a model that never hears of them
    proposes the same region again. Of a long history the `BEST` and the `LATEST` are given.
    """
    ledger = ledger_of(space, history)
    networks = np.flatnonzero(ledger.networks)
    rewards = ledger.scores[networks]
    if len(networks) > BEST + LATEST:
        older = rewards[:-LATEST]
        best = np.argsort(-older, kind="stable")[:BEST]  # what failed is last
        kept = np.append(np.sort(best), np.arange(len(older), len(networks)))
        networks, rewards = networks[kept], rewards[kept]
    known = rewards[~np.isnan(rewards)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    rewards[np.isnan(rewards)] = low - 0.1 * (high - low or 1.0)
    results: list[Result | None] = [ledger.results[i] for i in networks.tolist()]
    candidates = [r.candidate for r in results if r is not None]
    candidates += history.pending
    waiting = len(history.pending)
    return Scored(
        candidates, np.append(rewards, np.full(waiting, np.nan)), results + [None] * waiting
    )


def of_programs(rows: Scored) -> Scored:
    """One row per program, in order of its first candidate, with its best reward so far."""
    families = [c.family for c in rows.candidates]
    # Rank by rank from the worst to the best, so that the last entry stands: of equals the first.
    ranked = np.lexsort((-np.arange(len(families)), np.nan_to_num(rows.rewards, nan=-np.inf)))
    best: dict[str, int] = dict.fromkeys(families, 0)  # in order of the first candidates
    best.update([(families[i], i) for i in ranked.tolist()])
    return rows.take(list(best.values()))


def of_settings(rows: Scored, architecture: Scalar, optimizer: Scalar, enough: int) -> Scored:
    """Rows that share architecture and optimizer; the optimizer alone where they are not enough."""
    near = [i for i, c in enumerate(rows.candidates) if c.optimizer == optimizer]
    same = [i for i in near if rows.candidates[i].architecture == architecture]
    return rows.take(same if len(same) >= enough else near)
