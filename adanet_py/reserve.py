"""How much of a time budget is kept for its end: what the last groups, check and tables will take.

Nothing is guessed that this run has measured: the machine may be slow or busy, the table large.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

TABLES = 0.9  # seconds to write the tables of results and to end, at least
GROUP = 0.5  # seconds to end a group, before one has ended
MOST = 0.6  # of the budget
ENSEMBLE_SHARE = 0.035  # of the budget, to grow the ensemble and to check it
ENSEMBLE_SECONDS = 4.0  # at most, but where there are many outputs:
ENSEMBLE_CELL = 3e-4  # seconds for each validation row and output
ENSEMBLE_MOST = 0.15  # of the budget


@dataclass
class Reserve:
    """Seconds kept of `budget`, the seconds of a run (None: there is no limit).

    `group`: seconds from a group's last evaluation to its results, the longest so far.
    """

    budget: float | None
    group: float = 0.0
    _heard: dict[int, float] = field(default_factory=dict)

    def seconds(self, check: float) -> float:
        """What to keep, where a check of the model takes `check` seconds.

        0.9 + 2 group + 3 check, twice and three times for what else the machine may do then.
        """
        if self.budget is None:
            return 0.0
        return min(TABLES + 2.0 * (self.group or GROUP) + 3.0 * check, MOST * self.budget)

    def for_ensemble(self, cells: int) -> float:
        """Seconds to keep for an ensemble of networks with `cells` validation rows x outputs."""
        if self.budget is None:
            return 0.0
        least = min(ENSEMBLE_SECONDS, ENSEMBLE_SHARE * self.budget)
        return max(least, min(ENSEMBLE_CELL * cells, ENSEMBLE_MOST * self.budget))

    def heard(self, job: int) -> None:
        """A job has said something."""
        self._heard[job] = time.monotonic()

    def ended(self, job: int) -> None:
        """A job has ended."""
        if job in self._heard:
            self.group = max(self.group, time.monotonic() - self._heard.pop(job))
