"""The losses of a search space that suit the data at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from adanet_py.data.spec import DataSpec
from adanet_py.errors import SpaceError
from adanet_py.records import Candidate, Scalar
from adanet_py.space_decision import Decision
from adanet_py.space_points import SearchSpace
from adanet_py.training.general import GENERAL
from adanet_py.training.losses import AUTO, KNOBS, LOSSES, Loss, loss_name, why_not

_KNOB = "loss"


def with_losses(
    space: SearchSpace, spec: DataSpec, losses: Mapping[str, Loss] = LOSSES, *, pinned: bool = False
) -> SearchSpace:
    """`space` with the losses that suit `spec` only, "auto" as what it stands for.

    `pinned`: every candidate has the loss of the run, whatever the space says. Hyperparameters that
    no loss left reads are no longer searched. Raises SpaceError where an architecture has no loss
    left.
    """
    run = loss_name({}, spec)

    def meant(value: Scalar) -> str:
        return run if pinned or value == AUTO else str(value)

    def suits(name: str) -> bool:
        return why_not(losses[name], spec) is None

    def condition(name: str, values: tuple[Scalar, ...]) -> tuple[str, tuple[Scalar, ...]]:
        return name, tuple(run if v == AUTO else v for v in values) if _is_loss(name) else (values)

    decisions, fixed, possible = [], dict(space.fixed), set[str]()
    for decision in space.decisions:
        decision = replace(decision, when=tuple(condition(*w) for w in decision.when))
        if _is_loss(decision.name):
            decision = _narrowed(decision, [meant(v) for v in decision.domain], suits)
            if not decision.domain:
                raise _none_left(decision.name, spec, space, losses)
            possible |= set(map(str, decision.domain))
        decisions.append(decision)
    searched = {d.name for d in decisions}
    for name, value in space.fixed.items():
        if _is_loss(name) and name not in searched:
            fixed[name] = meant(value)
            if not suits(meant(value)):
                raise _none_left(name, spec, space, losses)
            possible.add(meant(value))
    knobs = (static for name, (static, _) in space.knobs.items() if name.startswith("archi"))
    if any(_KNOB not in static for static in knobs):
        possible.add(run)
    idle = KNOBS - {knob for name in possible for knob in losses[name].knobs}
    fixed |= {f"general.{n}": GENERAL[n].default for n in idle if f"general.{n}" in fixed}
    kept = tuple(d for d in decisions if d.name.removeprefix("general.") not in idle)
    start = [_with_loss(c, meant) for c in space.start]
    start = [c for c in start if suits(str(c.static.get(_KNOB, run)))]
    return replace(space, decisions=kept, fixed=fixed, start=tuple(start))


def _is_loss(name: str) -> bool:
    parts = name.split(".")
    return len(parts) == 3 and (parts[0], parts[2]) == ("architectures", _KNOB)


def _narrowed(decision: Decision, names: list[str], suits: Callable[[str], bool]) -> Decision:
    """The decision among those of `names`, one per choice, that suit; shares of equals added."""
    shares: dict[str, float] = {}
    for name, share in zip(names, decision.prior or [1.0] * len(names), strict=True):
        if suits(name):
            shares[name] = shares.get(name, 0.0) + share
    total = sum(shares.values())
    prior = tuple(s / total for s in shares.values()) if decision.prior else ()
    return replace(decision, domain=tuple(shares), prior=prior)


def _with_loss(candidate: Candidate, meant: Callable[[Scalar], str]) -> Candidate:
    if _KNOB not in candidate.static:
        return candidate
    return replace(candidate, static={**candidate.static, _KNOB: meant(candidate.static[_KNOB])})


def _none_left(
    name: str, spec: DataSpec, space: SearchSpace, losses: Mapping[str, Loss]
) -> SpaceError:
    given = next((d.domain for d in space.decisions if d.name == name), (space.fixed.get(name),))
    asked = ", ".join(repr(v) for v in given)
    first = loss_name({}, spec) if given[0] == AUTO else str(given[0])
    fitting = ", ".join(n for n, loss in losses.items() if why_not(loss, spec) is None)
    return SpaceError(
        f"{name}: expected a loss for these data, found {asked} ({first}: "
        f"{why_not(losses[first], spec)}). Losses for them: {fitting or 'none'}."
    )
