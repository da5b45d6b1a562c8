"""Keep a checked model of the best candidate in the run folder, beside the search."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adanet_py.choosing import Choice
from adanet_py.ensembling import Grown, may_join
from adanet_py.errors import RunError
from adanet_py.executors import Nursery
from adanet_py.export import Check, accept, start_check
from adanet_py.own import Own
from adanet_py.plan import best_of
from adanet_py.prepare import Prepared
from adanet_py.records import Result, Status

LONGEST_CHECK = 120.0  # seconds
TRIES = 2  # of a check that gave no number


@dataclass
class Saver:
    """The saved model of a run: which candidate it is, and which one is being checked.

    `journal(kind, data)` records a model that passed; `note(message)` tells of one that did not.
    `pause`: seconds before another network is checked while the search goes on, for that costs it
    time and memory; the last is always checked at the end. Checks are processes of `nursery`.
    `choice` says which network of all it is, `leader` which has the highest reward of all, if that
    is known: it spares looking through them.
    """

    folder: Path
    prepared: Prepared
    own: Own
    journal: Callable[[str, Any], None]
    note: Callable[[str], None]
    pause: float
    nursery: Nursery
    choice: Choice = best_of
    leader: Callable[[], Result | None] = lambda: None
    members: str = "networks"  # who may be the model at the end, see `may_join`
    saved: Result | None = None
    seconds: float = 0.3  # of the longest check; before one has ended a guess
    _check: Check | None = None
    _tries: dict[str, int] = field(default_factory=dict)
    _last: float = field(default_factory=time.monotonic)

    @property
    def checking(self) -> bool:
        """Whether a check runs."""
        return self._check is not None

    def choose(
        self, networks: Sequence[Result], baselines: Sequence[Result], last: bool = False
    ) -> Result | None:
        """The best network; before there is one, the best baseline.

        The `last` time the better of both, of those that may be members.
        """
        refused = {name for name, tries in self._tries.items() if tries >= TRIES}
        best = self.leader() if self.choice is best_of else None
        if best is None or best.candidate.id in refused:
            best = self.choice(networks, refused)
        if best is not None and not last:
            return best
        able = [r for r in (*baselines, best) if r is not None and self._may(r)]
        if best is not None:
            able = [r for r in able if may_join(r, self.members)] or [best]
        return max(able, key=lambda r: r.reward, default=None)

    def step(self, networks: Sequence[Result], baselines: Sequence[Result], late: bool) -> None:
        """Look after the running check and start one if there is something better to save.

        Never waits. `late`: the end is so near that its own check comes soon enough.
        """
        if self._check is not None:
            if not self._check.done():
                return
            self._take(self._check)
        best = self.choose(networks, baselines)
        if best is None or self._is_saved(best):
            return
        # Baselines are checked at once, for a valid model must be there soon, and without torch.
        # So is the first network: then it is known how long a network's check takes, for which time
        # is kept at the end. Each takes the memory of one more worker.
        first = self.saved is None or self.saved.status is Status.BASELINE
        due = first or time.monotonic() - self._last >= self.pause
        if due and not (late and self.saved is not None):
            self._start(best)

    def finish(
        self,
        networks: Sequence[Result],
        baselines: Sequence[Result],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Wait until the model saved is the best there is; `meanwhile` is done in that time."""
        waited = False
        while (best := self.choose(networks, baselines, last=True)) and not self._is_saved(best):
            if self._check is not None and self._check.result.candidate.id != best.candidate.id:
                self.cancel()
            if self._check is None and not self._start(best):
                continue
            assert self._check is not None
            if not waited:
                meanwhile()
                waited = True
            if not self._check.done(LONGEST_CHECK):
                self._check.message = f"it did not answer within {LONGEST_CHECK:.0f} s"
            self._take(self._check)
        self.cancel()
        if not waited:
            meanwhile()

    def save_ensemble(
        self, grown: Grown, until: float, meanwhile: Callable[[], None] = lambda: None
    ) -> bool:
        """Put an ensemble in the place of the model if it passes the check; whether it did.

        `meanwhile` is done in that time; it is waited for until `until`, by time.monotonic().
        """
        if self._check is not None and self._check.done():
            self._take(self._check)
        self.cancel()
        best = grown.members[0]
        single = self.leader()
        check = start_check(self.folder, self.prepared, best, self.own, self.nursery, grown, single)
        meanwhile()
        limit = max(0.0, min(LONGEST_CHECK, until - time.monotonic()))
        if not check.done(limit):
            check.message = f"it did not answer within {time.monotonic() - check.started:.1f} s"
        if check.good:
            self.journal("model", accept(check))
            return True
        check.cancel()
        difference = check.difference
        found = check.message or f"its predictions differ by {difference:.2g}"
        self.note(f"The ensemble was not saved: reloaded, {found}.")
        return False

    def cancel(self) -> None:
        """Give up the running check."""
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _may(self, result: Result) -> bool:
        return self._tries.get(result.candidate.id, 0) < TRIES

    def _is_saved(self, result: Result) -> bool:
        return self.saved is not None and self.saved.candidate.id == result.candidate.id

    def _start(self, best: Result) -> bool:
        self._last = time.monotonic()
        try:
            self._check = start_check(self.folder, self.prepared, best, self.own, self.nursery)
        except RunError:
            raise
        except Exception as error:  # its file is gone or damaged: the others can still be saved
            self._refuse(best, f"{type(error).__name__}: {error}", final=True)
            return False
        return True

    def _take(self, check: Check) -> None:
        """Put a checked model in place, or say why not."""
        self._check = None
        self.seconds = max(self.seconds, check.seconds)
        if check.good:
            self.journal("model", accept(check))
            self.saved = check.result
            return
        check.cancel()
        measured = check.difference is not None
        found = check.message or f"its predictions differ by {check.difference:.2g}"
        self._refuse(check.result, f"reloaded, {found}", final=measured)

    def _refuse(self, result: Result, why: str, final: bool) -> None:
        name = result.candidate.id
        self._tries[name] = TRIES if final else self._tries.get(name, 0) + 1
        self.note(f"Candidate {name} was not saved: {why}.")
