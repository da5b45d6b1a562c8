"""Quasi-random search: a scrambled Sobol sequence over the unit cube of the space.

The tuning playbook's advice for exploration (Godbole et al. 2023): as simple and parallel as random
search, without its holes. Programs follow one sequence, settings another.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from adanet_py.controllers.families import Proposal, program_of, propose_family_by_family
from adanet_py.records import Candidate, History, Scalar, Status
from adanet_py.space import SearchSpace
from adanet_py.space_points import decode_assignment, is_active

if TYPE_CHECKING:
    from scipy.stats.qmc import Sobol

_AHEAD = 64  # points made at a time


def propose(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """The next points of a sequence that depends on the space alone; `rng` gives the seeds only.

    A sequence must go on where the last call ended, so its place is counted from the history and
    its scrambling taken from the content of the space.
    """
    if n < 1:
        return []
    baseline = Status.BASELINE
    done = sum([r.status is not baseline for r in history.results]) + len(history.pending)
    programs = _Sequence(space, "programs", done // n)
    points = _Sequence(space, "settings", done)

    def draw(program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None) -> Proposal:
        if program is None:
            program = program_of(space, decode_assignment(space, programs.next()))
        drawn = points.next()
        out: dict[str, Scalar] = {}
        for decision, u in zip(space.decisions, drawn, strict=True):
            if is_active(decision, out):
                given = decision.name in program
                out[decision.name] = program[decision.name] if given else decision.at(float(u))
        return out, None, None

    return propose_family_by_family(space, history, n, rng, draw)


class _Sequence:
    """Points [D] of a scrambled Sobol sequence, from the one at `start` on."""

    def __init__(self, space: SearchSpace, purpose: str, start: int) -> None:
        self._sobol = copy.deepcopy(_scrambled(space, purpose))
        if start:
            self._sobol.fast_forward(start)
        self._ready: list[npt.NDArray[np.float64]] = []

    def next(self) -> npt.NDArray[np.float64]:
        """The next point: [D]."""
        if not self._ready:
            self._ready = list(self._sobol.random(_AHEAD))[::-1]
        return self._ready.pop()


@lru_cache(maxsize=8)  # scrambling takes milliseconds
def _scrambled(space: SearchSpace, purpose: str) -> Sobol:
    from scipy.stats import qmc

    names = repr([(d.name, d.domain) for d in space.decisions])
    seed = int.from_bytes(hashlib.sha256((names + purpose).encode()).digest()[:8], "little")
    return qmc.Sobol(len(space.decisions), scramble=True, rng=seed)
