"""Programs that are likely to fail: learned from the history, and drawn again.

A program (out of memory, too slow, no network at all) is kept away from where at most `MAY_DO` of
the `NEAREST` programs tried did anything but fail: the rule of nearest neighbours (Cover and Hart
1967) over the features of programs alone, for what fails by its numbers is in every program. Once
in `1 / AGAIN` such a draw stays, for what failed may have failed by chance. Models of the reward,
which hear of failures as of the worst results, need none of it; samplers that breed from the best
mutate into such regions again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from adanet_py.controllers.columns import columns_of
from adanet_py.controllers.features import features_of
from adanet_py.controllers.ledger import ledger_of
from adanet_py.records import History, Scalar
from adanet_py.space import SearchSpace

NEAREST = 5
MAY_DO = 1  # of these
LATEST = 256  # results looked at
TRIES = 10  # draws of which the last is taken
AGAIN = 0.05

Fails = Callable[[Mapping[str, Scalar]], bool]
T = TypeVar("T")


def likely_failures(space: SearchSpace, history: History) -> Fails | None:
    """Whether an assignment's program is likely to fail; None where nothing is known of any."""
    ledger, columns = ledger_of(space, history), columns_of(space)
    latest = np.flatnonzero(ledger.networks)[-LATEST:]
    failed = np.isnan(ledger.scores[latest])
    if not failed.any():
        return None
    places = ledger.places(space)
    found = [(p.point, bad) for i, bad in zip(latest, failed, strict=True) if (p := places[i])]
    if len(found) < NEAREST:
        return None
    programs = columns.programs()
    points = np.array([point for point, _ in found])[:, programs]
    known: dict[bytes, bool] = {}  # whether all settings of a program failed
    for key, (_, bad) in zip([p.tobytes() for p in points], found, strict=True):
        known[key] = bool(bad) and known.get(key, True)
    if len(known) < NEAREST:
        return None
    features, everything = features_of(columns), np.full(len(columns.decisions), np.nan)
    seen = np.tile(everything, (len(known), 1))
    seen[:, programs] = [np.frombuffer(key) for key in known]
    x, all_failed = features(seen), np.array([*known.values()])

    def fails(assignment: Mapping[str, Scalar]) -> bool:
        point = everything.copy()
        point[programs] = columns.encode(assignment)[programs]
        gaps = ((features(point[None]) - x) ** 2).sum(axis=1)
        nearest = np.argsort(gaps, kind="stable")[:NEAREST]
        return bool((~all_failed[nearest]).sum() <= MAY_DO)

    return fails


def drawn_elsewhere(
    draw: Callable[[], T],
    assignment: Callable[[T], Mapping[str, Scalar]],
    fails: Fails | None,
    rng: np.random.Generator,
) -> T:
    """The first draw whose `assignment` is not likely to fail; see the module."""
    out = draw()
    if fails is not None:
        for _ in range(TRIES - 1):
            if not fails(assignment(out)) or rng.random() < AGAIN:
                break
            out = draw()
    return out
