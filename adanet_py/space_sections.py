"""From the sections of a space file to decisions, checked against the registries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from adanet_py.errors import SpaceError, check_known
from adanet_py.knob import Knob
from adanet_py.records import Candidate, Scalar
from adanet_py.space_decision import Decision
from adanet_py.space_file import Domain, Entry, SpaceFile, Start, Where
from adanet_py.space_points import SearchSpace

KINDS = {
    "architectures": "architecture",
    "optimizers": "optimizer",
    "schedules": "schedule",
}


LEAST = 1e-6  # share of a choice: its part of the unit interval must be wide enough to be hit


class HasNumeric(Protocol):
    """An optimizer or schedule, as far as a space must know it."""

    @property
    def numeric(self) -> Mapping[str, Knob]:
        """Numeric knobs."""


class HasKnobs(HasNumeric, Protocol):
    """An architecture, as far as a space must know it."""

    @property
    def static(self) -> Mapping[str, Knob]:
        """Knobs that decide shapes and the graph."""


@dataclass(frozen=True)
class Registries:
    """Everything a space file may name."""

    architectures: Mapping[str, HasKnobs]
    optimizers: Mapping[str, HasNumeric]
    schedules: Mapping[str, HasNumeric]
    general: Mapping[str, Knob]

    def entries(self, section: str) -> Mapping[str, tuple[Mapping[str, Knob], Mapping[str, Knob]]]:
        """Static and numeric knobs of every entry of a section of a space file."""
        if section == "architectures":
            return {k: (v.static, v.numeric) for k, v in self.architectures.items()}
        table = self.optimizers if section == "optimizers" else self.schedules
        return {k: ({}, v.numeric) for k, v in table.items()}


def build_space(file: SpaceFile, where: Where, registries: Registries, text: str) -> SearchSpace:
    """The space of a file whose shape was checked; `text` is its YAML.

    Raises:
        SpaceError: a name or value the registries do not know, with line and nearest name.
    """
    registries = _with_libraries(file, where, registries)
    decisions: list[Decision] = []
    fixed: dict[str, Scalar] = {}
    knobs: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for section, kind in KINDS.items():
        known = registries.entries(section)
        chosen: Mapping[str, Entry] = getattr(file, section)
        prior = _shares(where, (section,), [entry.prior for entry in chosen.values()])
        decisions.append(
            Decision(kind, (kind,), "choice", tuple(chosen), static=kind != "schedule", prior=prior)
        )
        for entry, given in chosen.items():
            _known(where, (section, entry), kind, entry, known)
            static, numeric = known[entry]
            if "prior" in static or "prior" in numeric:
                raise where.error(
                    (section, entry),
                    f"{entry} has a knob called prior, which stands for how often it is drawn; "
                    "rename the knob.",
                )
            knobs[f"{section}.{entry}"] = tuple(static), tuple(numeric)
            condition = (kind, (entry,))
            decisions += _section(
                where, (section, entry), given.domains, static, numeric, fixed, condition
            )
    knobs["general"] = (), tuple(registries.general)
    decisions += _section(where, ("general",), file.general, {}, registries.general, fixed, None)
    _check_clashes(knobs)
    start = tuple(_start(where, index, entry, registries) for index, entry in enumerate(file.start))
    return SearchSpace(file.name, file.summary, tuple(decisions), fixed, knobs, start, text)


def _with_libraries(file: SpaceFile, where: Where, registries: Registries) -> Registries:
    """The registries with the library classes that the file names as optimizers."""
    from adanet_py.training.optimizers.library import by_name, is_library_name

    places: dict[str, tuple[str | int, ...]] = {n: ("optimizers", n) for n in file.optimizers}
    for index, start in enumerate(file.start):
        places.setdefault(start.optimizer, ("start", index, "optimizer"))
    found: dict[str, HasNumeric] = {}
    for name, path in places.items():
        if name not in registries.optimizers and is_library_name(name):
            try:
                found[name] = by_name(name)
            except SpaceError as error:
                raise where.error(path, str(error)) from None
    return replace(registries, optimizers={**registries.optimizers, **found})


def _known(where: Where, path: tuple[str | int, ...], what: str, name: str, known: Any) -> None:
    try:
        check_known(what, name, known, SpaceError)
    except SpaceError as error:
        raise where.error(path, str(error)) from None


def _section(
    where: Where,
    path: tuple[str, ...],
    domains: Mapping[str, Domain],
    static: Mapping[str, Knob],
    numeric: Mapping[str, Knob],
    fixed: dict[str, Scalar],
    condition: tuple[str, tuple[Scalar, ...]] | None,
) -> Iterator[Decision]:
    """The decisions of one entry, conditions first; defaults and fixed values go into `fixed`."""
    prefix = ".".join(path)
    table = {**static, **numeric}
    of = f" of {' '.join(path)}"
    for knob in table:
        fixed[f"{prefix}.{knob}"] = table[knob].default
    made: dict[str, Decision | None] = {}  # None: one value only, or never active

    def make(name: str, chain: tuple[str, ...]) -> None:
        _known(where, (*path, name), f"knob{of}", name, table)
        if name in chain:
            raise where.error(
                (*path, name), f"the conditions go in a circle: {' -> '.join(chain)}."
            )
        domain, knob = domains[name], table[name]
        kind, values = _values(where, (*path, name), name, domain, knob, name in numeric)
        when = [condition] if condition else []
        active = True
        for other, wanted in domain.when.items():
            at = (*path, name, "when", other)
            _known(where, at, f"knob{of}", other, table)
            allowed = tuple(wanted) if isinstance(wanted, list) else (wanted,)
            for value in allowed:
                if not table[other].allows(value):
                    raise where.error(at, f"{other} can never be {value!r}.")
            if other in domains and other not in made:
                make(other, (*chain, name))
            decision = made.get(other)
            if decision is None:
                active &= other not in never and fixed[f"{prefix}.{other}"] in allowed
            elif decision.kind != "choice":
                raise where.error(at, f"conditions need a knob with choices; {other} has a range.")
            else:
                when.append((decision.name, allowed))
        decision = Decision(
            f"{prefix}.{name}", (*path, name), kind, values,
            _is_log(where, (*path, name), domain, knob), tuple(when), name in static,
            _shares(where, (*path, name, "prior"), domain.prior or ()),
        )  # fmt: skip
        if not active:
            never.add(name)
        if decision.size == 1 and active and not domain.when:
            fixed[decision.name] = decision.domain[0]
        made[name] = decision if active and (decision.size > 1 or domain.when) else None

    never: set[str] = set()
    for name in domains:
        if name not in made:
            make(name, ())
    return (decision for decision in made.values() if decision is not None)


def _values(
    where: Where, path: tuple[str, ...], name: str, domain: Domain, knob: Knob, numeric: bool
) -> tuple[str, tuple[Scalar, ...]]:
    """Kind and values of a domain, each in the knob's own type and legal."""
    kind = "choice" if domain.choice is not None else "int" if domain.int_ is not None else "float"
    if knob.choices is not None and kind != "choice":
        raise where.error(
            path, f"{name} takes one of {list(knob.choices)}; give {{choice: [...]}}."
        )
    wanted = "int" if is_integer(knob) else "float"
    if kind not in ("choice", wanted):
        raise where.error(path, f"{name} is {_article(wanted)}; write {wanted} instead of {kind}.")
    values: tuple[Scalar, ...] = tuple(domain.choice or domain.range or ())
    for value in values:
        if not knob.allows(value):
            raise where.error(path, f"{name} cannot be {value!r}; {_legal(knob)}.")
    if knob.choices is None:
        cast = int if wanted == "int" and not numeric else float
        if kind != "int":
            values = tuple(cast(v) for v in values)  # type: ignore[arg-type]
    if kind == "choice" and len(set(map(repr, values))) < len(values):
        raise where.error(path, f"{name} lists a choice twice: {list(values)}.")
    return kind, values


def _shares(where: Where, path: tuple[str, ...], weights: Sequence[float]) -> tuple[float, ...]:
    """The prior that weights stand for; empty where they are all the same."""
    if len(set(weights)) <= 1:
        return ()
    total = sum(weights)
    if min(weights) < LEAST * total:
        raise where.error(
            path,
            f"the prior {min(weights)} is less than a millionth of their sum, {total}: it would "
            "never be drawn; raise it or leave its choice out.",
        )
    return tuple(w / total for w in weights)


def _is_log(where: Where, path: tuple[str, ...], domain: Domain, knob: Knob) -> bool:
    if domain.range is None or domain.log is False or domain.range[0] == domain.range[1]:
        return False
    if (domain.log or knob.log) and domain.range[0] <= 0:
        raise where.error(
            path,
            f"{path[-1]} is searched on a logarithmic scale, which needs a low end above 0, found "
            f"{domain.range[0]}; raise it or write log: false.",
        )
    return bool(domain.log or knob.log)


def _article(wanted: str) -> str:
    return "a whole number" if wanted == "int" else "a real number"


def _legal(knob: Knob) -> str:
    if knob.choices is not None:
        return f"expected one of {list(knob.choices)}"
    number = _article("int" if is_integer(knob) else "float")
    return f"expected {number} from {knob.low} to {knob.high}"


def _check_clashes(knobs: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> None:
    """Numeric knobs share one table in a candidate, so parts used together must not share names."""
    owner: dict[str, str] = {}
    for prefix, (_, numeric) in knobs.items():
        section = prefix.split(".")[0]
        for knob in numeric:
            if owner.setdefault(knob, section) != section:
                raise SpaceError(
                    f"The numeric knob {knob!r} belongs to {owner[knob]} and to {prefix}; "
                    "rename one of them."
                )


def _start(where: Where, index: int, entry: Start, registries: Registries) -> Candidate:
    path = ("start", index)
    for section, kind in KINDS.items():
        _known(where, (*path, kind), kind, getattr(entry, kind), registries.entries(section))
    static, numeric = registries.entries("architectures")[entry.architecture]
    numeric = {
        **numeric,
        **registries.optimizers[entry.optimizer].numeric,
        **registries.schedules[entry.schedule].numeric,
        **registries.general,
    }
    given: list[dict[str, Any]] = []
    for part, table in (("static", static), ("numeric", numeric)):
        values: dict[str, Scalar] = {k: knob.default for k, knob in table.items()}
        for name, value in getattr(entry, part).items():
            _known(where, (*path, part, name), f"{part} knob", name, table)
            if not table[name].allows(value):
                raise where.error(
                    (*path, part, name), f"{name} cannot be {value!r}; {_legal(table[name])}."
                )
            values[name] = value
        given.append(values)
    return Candidate(entry.architecture, given[0], entry.optimizer, entry.schedule, given[1])


def is_integer(knob: Knob) -> bool:
    """Whether the knob takes whole numbers."""
    return isinstance(knob.default, int) and not isinstance(knob.default, bool)
