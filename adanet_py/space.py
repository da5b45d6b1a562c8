"""Search spaces: what may vary, from a YAML file, checked against the registries.

A space file names architectures, optimizers and schedules and, for each, the domains of the knobs
to search; a knob that is not named keeps its default.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adanet_py.errors import SpaceError, check_known, nearest
from adanet_py.knob import Knob
from adanet_py.own import Own
from adanet_py.space_decision import Decision
from adanet_py.space_file import MAX_BYTES, SpaceFile, Where, parse, read_yaml
from adanet_py.space_points import (
    Assignment,
    SearchSpace,
    assemble,
    contains,
    decode,
    encode,
    every_assignment,
    fill,
    mutate,
    mutate_assignment,
    project,
    sample,
)
from adanet_py.space_sections import KINDS, Registries, build_space, is_integer
from adanet_py.yaml_text import dump_yaml

__all__ = [
    "Assignment",
    "Decision",
    "Registries",
    "SearchSpace",
    "assemble",
    "contains",
    "decode",
    "default_registries",
    "encode",
    "every_assignment",
    "fill",
    "json_schema",
    "list_spaces",
    "load_space",
    "mutate",
    "mutate_assignment",
    "project",
    "sample",
    "with_own",
]


def default_registries(own: Own | None = None) -> Registries:
    """The package's own registries, with what the user gave added."""
    from adanet_py.training.general import GENERAL
    from adanet_py.training.schedules import SCHEDULES

    own = own or Own()
    return Registries(own.all_architectures(), own.all_optimizers(), SCHEDULES, GENERAL)


def spaces_folder() -> Path:
    """Where the spaces that come with the package are."""
    installed = Path(__file__).parent / "search_spaces"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "search_spaces"


def list_spaces() -> tuple[str, ...]:
    """Names of the spaces that come with the package."""
    return tuple(sorted(p.stem for p in spaces_folder().glob("*.yaml")))


def load_space(
    space: str | Path | Mapping[str, Any] | SearchSpace, registries: Registries | None = None
) -> SearchSpace:
    """Load a space by name, from a file, or from plain values of the same form.

    Raises:
        SpaceError: no such space, or a file that cannot be used; with file, line and nearest key.
    """
    if isinstance(space, SearchSpace):
        return space
    registries = registries or default_registries()
    if isinstance(space, Mapping):
        text = dump_yaml(json.loads(json.dumps(space)))
        where = Where("the space given")
        return build_space(parse(space, where), where, registries, text)
    path, names = Path(space), list_spaces()
    if str(space) in names:
        path = spaces_folder() / f"{space}.yaml"
    elif path.suffix in (".yaml", ".yml") or path.parent != Path(".") or path.exists():
        if not path.is_file():
            raise SpaceError(
                f"Expected a space file at {path}, found {'a folder' if path.is_dir() else 'none'}."
                f"{nearest(path.name, _beside(path))} Give the path of a .yaml file or one of: "
                f"{', '.join(names)}."
            )
    else:
        check_known("search space", str(space), names, SpaceError)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SpaceError(
                f"{path}: expected a space file of at most {MAX_BYTES:,} bytes, "
                f"found {path.stat().st_size:,}."
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(
            f"{path}: cannot be read as text: {error}. Expected a YAML file."
        ) from None
    value, where = read_yaml(text, str(path))
    return build_space(parse(value, where), where, registries, text)


def _beside(path: Path) -> list[str]:
    folder = path.parent
    found = folder.iterdir() if folder.is_dir() else ()
    return [p.name for p in found if p.suffix in (".yaml", ".yml")]


def space_of(space: Any, own: Own) -> SearchSpace:
    """The space that `space` describes, see `load_space`, with what is the user's own."""
    registries = default_registries(own)
    return with_own(load_space(space, registries), own, registries)


def with_own(space: SearchSpace, own: Own, registries: Registries | None = None) -> SearchSpace:
    """`space` with what the user gave and it does not name.

    Every knob of an architecture but its loss is searched over its legal domain, where that has two
    ends or choices; of an optimizer the learning rate, a factor of ten around its default; a loss
    beside that of the run, in every architecture whose loss the space leaves open. The others keep
    their defaults. `registries` must know them.
    """
    value, where = read_yaml(space.text, space.name)
    added = False
    for name, entry in own.architectures.items():
        if f"architectures.{name}" not in space.knobs:
            knobs = {**entry.static, **entry.numeric}
            domains = {k: _legal_domain(knob) for k, knob in knobs.items() if k != "loss"}
            value["architectures"][name] = {k: d for k, d in domains.items() if d is not None}
            added = True
    for name, optimizer in own.optimizers.items():
        if f"optimizers.{name}" not in space.knobs:
            value["optimizers"][name] = {"lr": _around(optimizer.numeric["lr"])}
            added = True
    registries = registries or default_registries(own)
    unnamed = [n for n in own.losses if not _names_loss(value["architectures"].values(), n)]
    for name, domains in value["architectures"].items() if unnamed else ():
        if "loss" in registries.architectures[name].static and "loss" not in (domains or {}):
            choice = {"loss": {"choice": ["auto", *unnamed]}}
            value["architectures"][name] = {**(domains or {}), **choice}
            added = True
    if not added:
        return space
    text = dump_yaml(json.loads(json.dumps(value)))
    return build_space(parse(value, where), where, registries, text)


def _names_loss(entries: Iterable[Any], name: str) -> bool:
    """Whether an architecture of a space file names this loss, alone or as one of a choice."""
    for domains in entries:
        domain = (domains or {}).get("loss")
        choices = domain.get("choice", ()) if isinstance(domain, Mapping) else (domain,)
        if name in choices:
            return True
    return False


def _around(knob: Knob) -> dict[str, Any] | float:
    """A factor of ten both ways, within the legal domain."""
    default = float(knob.default)  # type: ignore[arg-type]
    low = max(default / 10.0, -math.inf if knob.low is None else knob.low)
    high = min(default * 10.0, math.inf if knob.high is None else knob.high)
    return {"float": [low, high], "log": True} if 0.0 < low < high else default


def _legal_domain(knob: Knob) -> dict[str, Any] | None:
    if knob.choices is not None:
        return {"choice": list(knob.choices)}
    if knob.low is None or knob.high is None:
        return None
    log = knob.log and knob.low > 0
    if is_integer(knob):
        return {"int": [int(knob.low), int(knob.high)], "log": log}
    return {"float": [float(knob.low), float(knob.high)], "log": log}


def json_schema(registries: Registries | None = None) -> dict[str, Any]:
    """The JSON schema of a space file, for editors, with the names of all entries and knobs."""
    from adanet_py.training.optimizers.library import MODULES

    registries = registries or default_registries()
    schema = SpaceFile.model_json_schema(by_alias=True)
    scalar = {"type": ["string", "number", "boolean", "null"], "description": "one fixed value"}
    domain = {"anyOf": [{"$ref": "#/$defs/Domain"}, scalar]}

    def closed(properties: dict[str, Any]) -> dict[str, Any]:
        return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}

    def knobs(table: Mapping[str, Knob]) -> dict[str, Any]:
        return closed({k: {**domain, "description": knob.doc} for k, knob in table.items()})

    prior = {"prior": schema["$defs"].pop("Entry")["properties"]["prior"]}
    for section in KINDS:
        tables = {n: knobs({**s, **m}) for n, (s, m) in registries.entries(section).items()}
        for table in tables.values():
            table["properties"] |= prior
        schema["properties"][section] |= {
            "properties": tables,
            "additionalProperties": False,
        }
    libraries = "|".join(re.escape(module) for module in MODULES)
    schema["properties"]["optimizers"]["patternProperties"] = {
        rf"^({libraries})\.\w+$": {"type": ["object", "null"]}
    }
    schema["properties"]["general"] = knobs(registries.general)
    return schema
