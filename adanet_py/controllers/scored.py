"""The history as a model of rewards sees it: candidates with a number each."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from adanet_py.records import Candidate, History, Scalar, Status

BEST, LATEST = 512, 1024  # results given of a history that is longer


class Scored(NamedTuple):
    """Candidates in order and their rewards [n], NaN while pending."""

    candidates: Sequence[Candidate]
    rewards: npt.NDArray[np.float64]

    def take(self, places: Sequence[int] | npt.NDArray[np.intp]) -> Scored:
        """Those at `places`."""
        chosen = np.asarray(places, dtype=np.intp)
        return Scored([self.candidates[i] for i in chosen], self.rewards[chosen])


def scored(history: History) -> Scored:
    """Every network with its reward, failures included, then what is pending.

    Failures count as somewhat worse than the worst usable result: a model that never hears of them
    proposes the same region again. Of a long history the `BEST` and the `LATEST` are given.
    """
    baseline = Status.BASELINE
    results = [r for r in history.results if r.status is not baseline]
    rewards = np.array([r.score for r in results])
    if len(results) > BEST + LATEST:
        older = rewards[:-LATEST]
        best = np.argsort(-older, kind="stable")[:BEST]  # what failed is last
        kept = np.append(np.sort(best), np.arange(len(older), len(results)))
        results, rewards = [results[i] for i in kept], rewards[kept]
    known = rewards[~np.isnan(rewards)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    rewards[np.isnan(rewards)] = low - 0.1 * (high - low or 1.0)
    candidates = [r.candidate for r in results]
    candidates += history.pending
    return Scored(candidates, np.append(rewards, np.full(len(history.pending), np.nan)))


def of_programs(rows: Scored) -> Scored:
    """One row per program, in order of its first candidate, with its best reward so far."""
    best: dict[str, int] = {}
    rewards = rows.rewards.tolist()
    for i, candidate in enumerate(rows.candidates):
        known = best.setdefault(candidate.family, i)
        if rewards[i] > rewards[known] or (isnan(rewards[known]) and not isnan(rewards[i])):
            best[candidate.family] = i
    return rows.take(list(best.values()))


def of_settings(rows: Scored, architecture: Scalar, optimizer: Scalar, enough: int) -> Scored:
    """Rows that share architecture and optimizer; the optimizer alone where they are not enough."""
    near = [i for i, c in enumerate(rows.candidates) if c.optimizer == optimizer]
    same = [i for i in near if rows.candidates[i].architecture == architecture]
    return rows.take(same if len(same) >= enough else near)
