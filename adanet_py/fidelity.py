"""Rungs: when candidates are compared, with whom, and who goes on. Pure functions, no clock.

At a rung, a share of the planned steps, only the best of a group go on: successive halving
(Jamieson & Talwalkar 2016). Hyperband (Li et al. 2018) lets groups take turns in how early that
begins, against curves that cross. ASHA (Li et al. 2020), here in its stopping form, compares with
earlier groups too: a member goes on if it is also among the best of all that were seen at this
rung, so that a hopeless group ends early, all of it. What a group is compared with is written into
its record when it is proposed, and nobody waits for anybody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from adanet_py.records import Group, Result, Status

ETA = 3  # of the candidates at a rung of Hyperband, one in so many goes on
HALF = 2  # of those at a rung of ASHA, one in so many of the group: groups are small
BEST = 1 / 4  # share of all seen at a rung that a candidate must be among, where they are compared
FEWEST_EPOCHS = 2.0  # before the first rung: a curve says nothing of its end before
EARLIEST = 1 / 27  # share of the steps, likewise
ENOUGH = 8  # earlier scores at a rung below which nothing is compared with them
TIES = 1.0  # standard errors within which two candidates cannot be told apart


class Rung(NamedTuple):
    """What is cut at a rung: at `share` of the planned steps, in (0, 1).

    At most the best `stay` of the group's first members go on, a share in (0, 1]. They must also
    be as good as the best `best` of those that earlier groups had at this rung; at 1 all are.
    """

    share: float
    stay: float
    best: float = 1.0


Schedule = Callable[[float, int], tuple[Rung, ...]]
Error = Callable[[float], float]


class Fidelity(NamedTuple):
    """A way to spend less on the hopeless.

    `rungs` takes the planned epochs of a group and its index.
    """

    rungs: Schedule
    summary: str


def no_rungs(epochs: float, index: int) -> tuple[Rung, ...]:
    """Everybody is trained to the end, or until it no longer improves."""
    return ()


def halving(epochs: float, index: int) -> tuple[Rung, ...]:
    """Half of a group go on at an eighth of the steps, a quarter at a third.

    Groups are small: fewer and gentler cuts than the one in three of `ETA`.
    """
    return (Rung(1 / 8, 1 / 2), Rung(1 / 3, 1 / 4))


def hyperband(epochs: float, index: int) -> tuple[Rung, ...]:
    """One in `ETA` goes on at each rung; group `index` leaves out so many of the first rungs.

    The brackets of Li et al. (2018), in turn: the most rungs first, none in the last.
    """
    shares = ladder(epochs)
    skipped = index % (len(shares) + 1)
    return tuple(Rung(s, ETA ** -(i + 1.0)) for i, s in enumerate(shares[skipped:]))


def asha(epochs: float, index: int) -> tuple[Rung, ...]:
    """At each rung the better half of a group go on, if among the best quarter seen there.

    Of small groups half is a gentle cut, which hopeless ones need no more than the bar.
    """
    shares = ladder(epochs, HALF)
    return tuple(Rung(s, HALF ** -(i + 1.0), BEST) for i, s in enumerate(shares))


FIDELITIES: dict[str, Fidelity] = {
    "none": Fidelity(no_rungs, "no candidate is cut: each trains until it no longer improves"),
    "halving": Fidelity(halving, "successive halving inside a group (Jamieson & Talwalkar 2016)"),
    "hyperband": Fidelity(hyperband, "groups in turn cut early, late or never (Li et al. 2018)"),
    "asha": Fidelity(asha, "candidates also compete with those of earlier groups (Li et al. 2020)"),
}


def ladder(epochs: float, eta: int = ETA) -> tuple[float, ...]:
    """Shares of the planned steps, 1 / `eta` and its powers, ascending.

    The more epochs the time allows, the more rungs: down to `FEWEST_EPOCHS` and `EARLIEST`.
    """
    shares, share = [], 1.0 / eta
    while share * epochs >= FEWEST_EPOCHS and share >= EARLIEST * (1.0 - 1e-9):
        shares.append(share)
        share /= eta
    return tuple(reversed(shares))


def step_of(share: float, steps: int, every: int) -> int:
    """The step of a rung: the evaluation nearest to `share` of `steps`, the first at least."""
    return max(every, round(share * steps / every) * every)


def errors_at(share: float, group: Group, results: Sequence[Result], error: Error) -> list[float]:
    """The least error of each of the group's results up to the rung at `share` of its steps.

    `error` makes a metric's value lower-is-better. NaN for what did not come so far or diverged;
    what ended because it no longer improved stays what it was.
    """
    step = step_of(share, group.steps, group.evaluate_every)
    out = []
    for result in results:
        came = result.steps >= step or result.status is Status.CONVERGED
        values = [error(e.validation) for e in result.curve if e.step <= step]
        known = came and values and result.status.usable
        out.append(min(values) if known else math.nan)
    return out


def bar(errors: Sequence[float], best: float) -> float:
    """The largest error of the best share of `errors`: what a newcomer must not exceed.

    Infinite, so that everybody goes on, where fewer than `ENOUGH` are finite.
    """
    known = sorted(e for e in errors if math.isfinite(e))
    if best >= 1.0 or len(known) < ENOUGH:
        return math.inf
    return known[math.ceil(best * len(known)) - 1]


@dataclass(frozen=True)
class Seen:
    """What groups had at rungs, computed once.

    `error` makes a metric's value lower-is-better.
    """

    error: Error
    known: dict[tuple[int, float], list[float]] = field(default_factory=dict)

    def bars(
        self,
        groups: Mapping[int, Group],
        results: Mapping[int, Sequence[Result]],
        rungs: Sequence[Rung],
    ) -> list[float]:
        """What error a candidate must not exceed at each of `rungs`, from `results` by group."""
        return [
            bar([e for i in results for e in self._at(share, groups[i], results[i])], best)
            if best < 1.0
            else math.inf
            for share, _, best in rungs
        ]

    def _at(self, share: float, group: Group, results: Sequence[Result]) -> list[float]:
        key = (group.index, share)
        if key not in self.known:
            self.known[key] = errors_at(share, group, results, self.error)
        return self.known[key]


def staying(
    errors: Sequence[float], names: Sequence[str], keep: int, limit: float, doubt: float
) -> set[int]:
    """Places of those that go on: the best `keep`, as far as their error is within `limit`.

    Who cannot be told from the last of them, or from the limit, goes on too: errors differ by no
    more than `doubt`. So many more at most as are kept. Equal errors are ranked by name; an error
    that is not finite never stays.
    """
    ranked = sorted((e, names[i], i) for i, e in enumerate(errors) if math.isfinite(e))
    stay = set()
    for place, (error, _, i) in enumerate(ranked):
        last = ranked[min(place, keep - 1)][0]
        tied = place < keep or (doubt > 0.0 and place < 2 * keep and error <= last + doubt)
        if tied and error <= limit + doubt:
            stay.add(i)
    return stay
