"""Ask a controller for candidates and check what it says: controllers may be given by users."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from adanet_py.controllers import Controller
from adanet_py.controllers.families import has_one_setting, sees_children
from adanet_py.controllers.ledger import ledger_of
from adanet_py.data.spec import DataSpec
from adanet_py.errors import ConfigError, SpaceError, check_known
from adanet_py.memory import TELLING, learn_limits
from adanet_py.own import Own
from adanet_py.plan import Workload
from adanet_py.records import Candidate, History, Result, Status
from adanet_py.refine import find_move
from adanet_py.space import SearchSpace
from adanet_py.training.general import GENERAL
from adanet_py.training.losses import choose_loss
from adanet_py.training.schedules import SCHEDULES

TRIES = 48  # calls of a controller that proposes what cannot fit into memory or breaks a bound


@dataclass(frozen=True)
class Asked:
    """`candidates` of one family, and how many new ones there were besides, of `other` families.

    No candidates: the controller has nothing new, or nothing but what is too large. `too_large`
    says why some were not taken (empty: none).
    """

    candidates: tuple[Candidate, ...]
    other: int = 0
    too_large: str = ""


def ask(
    controller: Controller,
    space: SearchSpace,
    history: History,
    n: int,
    rng: np.random.Generator,
    load: Workload,
) -> Asked:
    """New candidates of one family that may fit into memory, as far as the history tells.

    At most `n`; one where a program has one setting only, for others could not be trained with it.
    What cannot is shown to the controller as pending while it is asked again, up to `TRIES` times.
    Settings that were trained or are in training are not taken again, whatever the seed; it is
    asked again for others.
    Raises ConfigError for what is no candidate, SpaceError for a candidate with unknown names or
    illegal values.
    """
    refines = sees_children(controller)
    n = 1 if n and has_one_setting(space) and not refines else n
    ledger = ledger_of(space, history)
    told = ledger.column("limits", _telling)
    children = any(ledger.column("children", _inheriting))
    limits = learn_limits([r for r in told if r is not None], load)
    seen, too_large = history, ""
    for _ in range(TRIES):
        mixed = children or any(c.inherits for c in seen.pending)
        shown = seen.without_children() if mixed and not refines else seen
        found = _checked(controller(space, shown, n, rng), load)
        new = seen.new(found)
        reasons = {c.id: limits.why_not(c) for c in new}
        fitting = [c for c in new if not reasons[c.id]]
        too_large = too_large or next(filter(None, reasons.values()), "")
        if fitting or not found:
            family = tuple(c for c in fitting if c.family == fitting[0].family)
            return Asked(family, len(fitting) - len(family), too_large)
        seen = replace(seen, pending=(*seen.pending, *new))
    return Asked((), 0, too_large)


def _telling(results: Sequence[Result]) -> list[Result | None]:
    """Those that limits are learned from."""
    return [r if r.status in TELLING else None for r in results]


def _inheriting(results: Sequence[Result]) -> list[bool]:
    return [r.candidate.inherits for r in results]


def with_failures(history: History, candidates: Sequence[Candidate]) -> History:
    """The history as if `candidates`, which cannot be trained, had been tried in vain.

    So whatever learns from it keeps away from their like, not from these alone.
    """
    if not candidates:
        return history
    failed = [Result(c, Status.FAILED, message="not tried: it cannot fit") for c in candidates]
    # As pending too: what was proposed is looked up there, and a history shares its record of that.
    pending = (*history.pending, *candidates)
    return replace(history, results=(*history.results, *failed), pending=pending)


def _checked(proposed: Iterable[Candidate], load: Workload) -> list[Candidate]:
    found = list(proposed)
    for candidate in found:
        if not isinstance(candidate, Candidate):
            raise ConfigError(
                "Expected a list of candidates from the controller, found in it "
                f"{type(candidate).__name__}."
            )
        check_candidate(candidate, load.own, load.spec)
    return found


def check_candidate(candidate: Candidate, own: Own, spec: DataSpec | None = None) -> None:
    """Raise SpaceError unless every name and value of the candidate is known and legal.

    With `spec`, its loss must suit the data too.
    """
    architectures, optimizer = own.all_architectures(), own.optimizer(candidate.optimizer)
    check_known("architecture", candidate.architecture, architectures, SpaceError)
    check_known("schedule", candidate.schedule, SCHEDULES, SpaceError)
    architecture = architectures[candidate.architecture]
    numeric = {
        **architecture.numeric,
        **optimizer.numeric,
        **SCHEDULES[candidate.schedule].numeric,
        **GENERAL,
    }
    for part, values, knobs in (
        ("static", candidate.static, architecture.static),
        ("numeric", candidate.numeric, numeric),
    ):
        for name, value in values.items():
            check_known(f"{part} hyperparameter", name, knobs, SpaceError)
            if not knobs[name].allows(value):
                legal = knobs[name].choices or f"[{knobs[name].low}, {knobs[name].high}]"
                raise SpaceError(f"{name}: expected a value in {legal}, found {value!r}.")
    if candidate.inherits:
        find_move(candidate.move)
        if candidate.parent is None:
            raise SpaceError(f"The move {candidate.move}: expected the id of a parent, found none.")
    if spec is not None:
        choose_loss(candidate.static, spec, own.all_losses())
