"""A mixture of controllers whose shares follow who has lately earned most; itself a controller.

Adaptive operator selection by comparisons (Fialho, Schoenauer and Sebag 2010, "Toward
comparison-based adaptive operator selection"): the last `WINDOW` results of the members are ranked
by reward, rank r = 0 for the best earns `DECAY`^(100 r / W), and a member's quality is the mean
earned by its results, drawn towards the mean of all by `PRIOR` imagined ones:

    q_i = (sum of what i earned + PRIOR * mean of all) / (results of i + PRIOR)

Only ranks count, so neither the unit of the reward nor an outlier matters; a failure earns nothing.
Shares are probability matching with a floor (Thierens 2005), sharpened by `SHARPNESS`:

    p_i = floor / k + (1 - floor) * w_i q_i^SHARPNESS / sum_j w_j q_j^SHARPNESS

`w` are the weights given, the shares of the beginning; a member whose cost grows may be given the
number of results `until` which it proposes. Who proposed what is read from the column
`controller` of the results and from `Candidate.by`; nothing else is remembered.

Where a group is one program with many settings, one member proposes the whole of a call; where
programs have one setting each, the members share a call, and each sees what others chose as
pending. A member may be a mixture: its own members get the credit, and it the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from adanet_py.controllers.families import (
    LARGEST,
    Controller,
    has_one_setting,
    sees_children,
)
from adanet_py.errors import ConfigError
from adanet_py.records import Candidate, History, Status
from adanet_py.space import SearchSpace

WINDOW = 100  # latest results that earn
DECAY = 0.9  # of what is earned, per hundredth of the ranks
PRIOR = 4.0  # results that every member is imagined to have
SHARPNESS = 2.0
FLOOR = 0.05  # of all proposals, evenly among the members, if nothing else is said

Floats = npt.NDArray[np.float64]


class Share(NamedTuple):
    """How a member stands: its part of the proposals, its quality and its results in the window."""

    share: float
    quality: float
    results: int


@dataclass(frozen=True, eq=False)
class Mixture:
    """Controllers by name, their weights and how long they propose; made by `mixture`."""

    members: Mapping[str, Controller]
    weights: Mapping[str, float]
    until: Mapping[str, int] = field(default_factory=dict)
    floor: float = FLOOR

    def __call__(
        self, space: SearchSpace, history: History, n: int, rng: np.random.Generator
    ) -> list[Candidate]:
        """`n` candidates of the members, each with its proposer in `by`."""
        if n < 1:
            return []
        names = list(self.members)
        shares = [s.share for s in self.shares(history).values()]
        size = 1 if has_one_setting(space) else LARGEST
        drawn = rng.choice(len(names), size=-(-n // size), p=shares)
        out: list[Candidate] = []
        for index in np.unique(drawn):
            wanted = min(int((drawn == index).sum()) * size, n - len(out))
            name = names[index]
            seen = replace(history, pending=(*history.pending, *out))
            seen = seen if sees_children(self.members[name]) else seen.without_children()
            proposed = self.members[name](space, seen, wanted, rng)
            out += [c if c.by else c.proposed_by(name) for c in proposed]
        return out

    @property
    def sees_children(self) -> bool:
        """Whether any member looks at children."""
        return any(map(sees_children, self.members.values()))

    def names(self) -> set[str]:
        """Of all that propose, those of inner mixtures instead of these."""
        out: set[str] = set()
        for name, member in self.members.items():
            out |= member.names() if isinstance(member, Mixture) else {name}
        return out

    def shares(self, history: History) -> dict[str, Share]:
        """How every member stands after `history`."""
        owners = {
            inner: index
            for index, (name, member) in enumerate(self.members.items())
            for inner in (member.names() if isinstance(member, Mixture) else {name})
        }
        owner, rewards = _latest(history, owners)
        earned, count = np.zeros(len(self.members)), np.zeros(len(self.members))
        np.add.at(earned, owner, earnings(rewards))
        np.add.at(count, owner, 1.0)
        mean = earned.sum() / max(1.0, count.sum()) or 1.0
        quality = (earned + PRIOR * mean) / (count + PRIOR) / mean
        seen = len(history.results)
        active = np.array([seen < self.until.get(name, seen + 1) for name in self.members])
        weights = np.array([self.weights[name] for name in self.members]) * quality**SHARPNESS
        weights *= active
        share = self.floor * active / active.sum() + (1.0 - self.floor) * weights / weights.sum()
        parts = zip(share / share.sum(), quality, count.astype(int), strict=True)
        return {
            name: Share(float(s), float(q), int(c))
            for name, (s, q, c) in zip(self.members, parts, strict=True)
        }


def mixture(
    members: Mapping[str, Controller],
    weights: Mapping[str, float] | None = None,
    until: Mapping[str, int] | None = None,
    floor: float = FLOOR,
) -> Mixture:
    """A controller that mixes `members`, in shares that begin with `weights` (default: equal).

    A member named in `until` proposes nothing more once the history has so many results. The share
    `floor` of all proposals is spread evenly, so that every member can show what it is worth.

    Raises:
        ConfigError: no member, a name of two (of inner mixtures too), weights that are not positive
            or not of these members, nobody left in the end, or a floor that is no share.
    """
    weights = dict.fromkeys(members, 1.0) if weights is None else dict(weights)
    if not members:
        raise ConfigError("A mixture needs at least one controller, found none.")
    if weights.keys() != members.keys() or min(weights.values()) <= 0.0:
        raise ConfigError(
            f"Expected a positive weight for each of {', '.join(members)}, found {weights}."
        )
    until = dict(until or {})
    if until.keys() - members.keys() or until.keys() == members.keys():
        raise ConfigError(
            f"Expected some of {', '.join(members)} to end, but not all; found {', '.join(until)}."
        )
    if not 0.0 <= floor <= 1.0:
        raise ConfigError(f"Expected a floor from 0 to 1, found {floor:g}.")
    out = Mixture(dict(members), weights, until, floor)
    inner = [m.names() if isinstance(m, Mixture) else {name} for name, m in members.items()]
    if len(out.names()) < sum(map(len, inner)):
        raise ConfigError(
            f"Two members of a mixture have the same name among {sorted(map(sorted, inner))}, so "
            "that credit could not be told apart. Rename one."
        )
    return out


def earnings(rewards: Floats) -> Floats:
    """What results with these rewards [n] earn, NaN nothing; ties share the mean of their ranks."""
    usable = ~np.isnan(rewards)
    out = np.zeros(len(rewards))
    found = -rewards[usable]
    _, level, counts = np.unique(found, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts + 1) / 2.0
    out[usable] = DECAY ** (100.0 * ranks[level] / max(1, len(rewards)))
    return out


def _latest(history: History, owners: Mapping[str, int]) -> tuple[npt.NDArray[np.intp], Floats]:
    """Owner and reward of the last results of the members, the newest first."""
    owner: list[int] = []
    rewards: list[float] = []
    for result in reversed(history.results):
        if len(owner) == WINDOW:
            break
        if result.controller in owners and result.status is not Status.BASELINE:
            owner.append(owners[result.controller])
            rewards.append(result.score)
    return np.array(owner, dtype=np.intp), np.array(rewards, dtype=np.float64)
