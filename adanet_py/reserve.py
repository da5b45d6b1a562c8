"""How much of a time budget is kept for its end: what the last groups, check and tables will take.

Nothing is guessed that this run has measured: the machine may be slow or busy, the table large.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

TABLES = 0.9  # seconds to write the tables of results and to end, at least
ENDING = 0.3  # of these, to end
GROUP = 0.5  # seconds to end a group, before one has ended
MOST = 0.6  # of the budget
ENSEMBLE_SHARE = 0.035  # of the budget, to grow the ensemble, at least
ENSEMBLE_SECONDS = 4.0  # but no more than this, where growing it does not take longer
ENSEMBLE_MOST = 0.15  # of the budget
ENSEMBLE_TIMES = 2.0  # what it takes to grow it: once on all rows, and on half of them twice
ROUNDS = 16  # of a growth, at most
CELL = 1.5e-7  # seconds to weigh an offer, for each validation row and output, before one was


@dataclass
class Reserve:
    """Seconds kept of `budget`, the seconds of a run (None: there is no limit).

    `group`: seconds from a group's last evaluation to its results, the longest so far.
    """

    budget: float | None
    group: float = 0.0
    weighing: float = 0.0  # seconds it took to weigh
    weighed: int = 0  # so many offers
    _heard: dict[int, float] = field(default_factory=dict)

    def seconds(self, check: float) -> float:
        """What to keep, where a check of the model takes `check` seconds.

        0.9 + 2 group + 3 check, twice and three times for what else the machine may do then.
        """
        if self.budget is None:
            return 0.0
        return min(TABLES + 2.0 * (self.group or GROUP) + 3.0 * check, MOST * self.budget)

    def for_ensemble(self, cells: int, offers: int) -> float:
        """Seconds to keep for growing an ensemble of `offers` members on `cells` numbers of each.

        Twice what it takes to grow it, which is at most

            a (o + (o - 1) + ... + (o - R + 1)),  R = min(o, 16)

        with a the seconds that it took to weigh an offer here, on average.
        """
        if self.budget is None:
            return 0.0
        each = self.weighing / self.weighed if self.weighed else CELL * cells
        rounds = min(offers, ROUNDS)
        grown = each * rounds * (offers - 0.5 * (rounds - 1))
        least = min(ENSEMBLE_SECONDS, ENSEMBLE_SHARE * self.budget)
        return max(least, min(ENSEMBLE_TIMES * grown, ENSEMBLE_MOST * self.budget))

    def has_weighed(self, seconds: float) -> None:
        """An offer has been weighed on all rows, in so many seconds."""
        self.weighing, self.weighed = self.weighing + seconds, self.weighed + 1

    def heard(self, job: int) -> None:
        """A job has said something."""
        self._heard[job] = time.monotonic()

    def ended(self, job: int) -> None:
        """A job has ended."""
        if job in self._heard:
            self.group = max(self.group, time.monotonic() - self._heard.pop(job))
