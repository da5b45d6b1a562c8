"""The text of a search space: strict YAML in, checked plain values with line numbers out.

Only what JSON can say is accepted (no aliases, tags, second document), so that a space file can
neither run code nor grow when it is read. Knob names are checked in `space.py`, because they depend
on the registries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from adanet_py.errors import SpaceError, nearest
from adanet_py.records import Scalar
from adanet_py.yaml_text import LOADER

MAX_BYTES = 1_000_000
_MAX_DEPTH = 12  # a space needs six
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Scalar] = {"": None, "~": None, "null": None, "true": True, "false": False}

Path = tuple[str | int, ...]
Value = StrictBool | StrictInt | StrictFloat | StrictStr | None
Condition = Value | list[Value]


class Where:
    """Turns a path inside a space into ``file:line`` for messages."""

    def __init__(self, file: str, lines: Mapping[Path, int] | None = None) -> None:
        self.file = file
        self.lines = dict(lines or {})

    def at(self, path: Path) -> str:
        """``file:line`` of `path`, or of the nearest ancestor that has a line."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.file}:{self.lines[path]}" if path in self.lines else self.file

    def error(self, path: Path, message: str) -> SpaceError:
        """The error to raise about `path`."""
        return SpaceError(f"{self.at(path)}: {message}")


def _domain(value: Any) -> Any:
    # A plain value is the domain of that one value.
    if isinstance(value, Mapping | Domain):
        return value
    if isinstance(value, list):
        raise ValueError(
            "expected {int: [low, high]}, {float: [low, high]}, {choice: [...]} or one fixed "
            f"value, found the list {value!r}; write {{choice: {value!r}}} for these values"
        )
    return {"choice": [value]}


def _empty(value: Any) -> Any:
    return {} if value is None else value


def _weight(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(
            f"expected a weight above 0, found {value!r}; to offer something never, leave it out"
        )
    return value


Weight = Annotated[
    float, BeforeValidator(_weight), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})
]


class Domain(BaseModel):
    """The values a knob may take: an integer or real range, or a list of choices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    int_: tuple[StrictInt, StrictInt] | None = Field(None, alias="int")
    float_: tuple[StrictInt | StrictFloat, StrictInt | StrictFloat] | None = Field(
        None, alias="float"
    )
    choice: list[Value] | None = Field(None, min_length=1)
    prior: list[Weight] | None = Field(
        None, description="how often each choice is drawn, in proportion; default: all equally"
    )
    log: StrictBool | None = Field(None, description="logarithmic range; default: the knob's")
    when: dict[str, Condition] = Field(
        default_factory=dict,
        description="values of other knobs of the same section for which this one matters",
    )

    @model_validator(mode="after")
    def _check(self) -> Domain:
        given = [v for v in (self.int_, self.float_, self.choice) if v is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of int, float, choice, found {len(given)}")
        numbers = [v for v in (self.range or self.choice or ()) if isinstance(v, float)]
        if not all(math.isfinite(v) for v in numbers):
            raise ValueError("expected finite numbers")
        if self.range is not None:
            low, high = self.range
            if low > high:
                raise ValueError(f"the low end {low} is above the high end {high}")
            if self.log and low <= 0:
                raise ValueError(f"a logarithmic range needs a low end above 0, found {low}")
        elif self.log is not None:
            raise ValueError("log belongs to int or float, not to choice")
        if self.prior is not None and self.choice is None:
            raise ValueError("prior belongs to choice, not to int or float")
        if self.prior is not None and len(self.prior) != len(self.choice or ()):
            raise ValueError(
                f"expected one weight in prior for each of the {len(self.choice or ())} choices, "
                f"found {len(self.prior)}"
            )
        return self

    @property
    def range(self) -> tuple[float, float] | None:
        """Low and high end, or None for choices."""
        return self.int_ if self.int_ is not None else self.float_


AnyDomain = Annotated[Domain, BeforeValidator(_domain)]
Domains = Annotated[dict[str, AnyDomain], BeforeValidator(_empty)]


class Entry(BaseModel):
    """An architecture, optimizer or schedule: the domains of its knobs, and how often it is drawn.

    `prior` is the one key that is no knob.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, AnyDomain]

    prior: Weight = Field(1.0, description="how often it is drawn, in proportion to the others")

    @property
    def domains(self) -> Mapping[str, Domain]:
        """Knob -> domain."""
        return self.__pydantic_extra__


Entries = Annotated[dict[str, Annotated[Entry, BeforeValidator(_empty)]], Field(min_length=1)]


class Start(BaseModel):
    """A candidate to try first; what is not given takes the knob's default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: StrictStr
    static: Annotated[dict[str, Value], BeforeValidator(_empty)] = Field(default_factory=dict)
    optimizer: StrictStr
    schedule: StrictStr = "constant"
    numeric: Annotated[dict[str, StrictInt | StrictFloat], BeforeValidator(_empty)] = Field(
        default_factory=dict
    )


class SpaceFile(BaseModel):
    """A whole space file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: StrictStr
    summary: StrictStr = ""
    architectures: Entries
    optimizers: Entries
    schedules: Entries = Field(default_factory=lambda: {"constant": Entry()})
    general: Domains = Field(default_factory=dict)
    start: list[Start] = Field(default_factory=list)


def read_yaml(text: str, file: str) -> tuple[Any, Where]:
    """Plain values of a YAML text and the line of every key and list item.

    Raises:
        SpaceError: not YAML, or YAML beyond what JSON can say; with file and line.
    """
    if len(text.encode()) > MAX_BYTES:
        raise SpaceError(
            f"{file}: expected a space file of at most {MAX_BYTES:,} bytes, "
            f"found {len(text.encode()):,}."
        )
    where = Where(file)
    try:
        events = iter(yaml.parse(text, Loader=LOADER))
        value = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if where.lines:
                    raise SpaceError(
                        f"{file}:{_line(event.start_mark)}: expected one document, found another."
                    )
                value = _read(next(events), events, (), where)
    except yaml.MarkedYAMLError as error:
        line = _line(error.problem_mark)
        raise SpaceError(f"{file}:{line}: not valid YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise SpaceError(f"{file}: not valid YAML: {' '.join(str(error).split())}.") from None
    return value, where


def _line(mark: Any) -> int:
    return int(mark.line) + 1 if mark is not None else 1


def _read(event: yaml.Event, events: Iterator[yaml.Event], path: Path, where: Where) -> Any:
    line = _line(event.start_mark)
    where.lines.setdefault(path, line)
    at = f"{where.file}:{line}: "
    if isinstance(event, yaml.AliasEvent):
        raise SpaceError(f"{at}aliases (*{event.anchor}) are not accepted; write the value out.")
    if isinstance(event, yaml.NodeEvent) and event.anchor:
        raise SpaceError(f"{at}anchors (&{event.anchor}) are not accepted; remove it.")
    if getattr(event, "tag", None) is not None:
        raise SpaceError(f"{at}tags ({event.tag}) are not accepted; write a plain value.")  # type: ignore[attr-defined]
    if len(path) > _MAX_DEPTH:
        raise SpaceError(f"{at}nested more than {_MAX_DEPTH} levels deep.")
    if isinstance(event, yaml.ScalarEvent):
        return _plain(event.value) if event.implicit[0] else event.value
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Any] = []
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            items.append(_read(item, events, (*path, len(items)), where))
        return items
    mapping: dict[str, Any] = {}
    while not isinstance(key := next(events), yaml.MappingEndEvent):
        line = _line(key.start_mark)
        if not isinstance(key, yaml.ScalarEvent):
            raise SpaceError(f"{where.file}:{line}: expected a word as key.")
        if key.value in mapping:
            raise SpaceError(f"{where.file}:{line}: the key {key.value!r} stands here twice.")
        where.lines[(*path, key.value)] = line
        mapping[key.value] = _read(next(events), events, (*path, key.value), where)
    return mapping


def _plain(text: str) -> Scalar:
    # The core schema of YAML 1.2: unlike YAML 1.1, 1e-6 is a number and no, on, off are words.
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def parse(value: Any, where: Where) -> SpaceFile:
    """Check the shape of a space file.

    Raises:
        SpaceError: a key or value that is not expected, with line and the nearest known key.
    """
    if not isinstance(value, Mapping):
        found = "nothing" if value is None else repr(value)
        found = found if len(found) <= 80 else found[:77] + "..."
        raise where.error(
            (),
            f"expected a mapping with {_listed(SpaceFile)}, found {found}. "
            "`spaces show tiny` prints one to start from.",
        )
    try:
        return SpaceFile.model_validate(dict(value))
    except ValidationError as error:
        # A misspelt key is also a missing one; the unknown key says more.
        problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        problem = problems[0]
        path: Path = tuple(problem["loc"])
        raise where.error(path, _words(path, problem)) from None


def _words(path: Path, problem: Any) -> str:
    name = ".".join(str(p) for p in path if p not in ("int_", "float_")) or "the file"
    if problem["type"] == "extra_forbidden":
        model = SpaceFile if len(path) == 1 else Start if path[0] == "start" else Domain
        close = nearest(str(path[-1]), _keys(model))
        return f"unknown key {str(path[-1])!r}.{close} Known: {_listed(model)}."
    if problem["type"] == "missing":
        return f"the key {str(path[-1])!r} is missing ({name})."
    if problem["type"] == "value_error":
        return f"{name}: {problem['ctx']['error']}."
    found = repr(problem["input"])
    found = found if len(found) <= 80 else found[:77] + "..."
    return f"{name}: {problem['msg'][0].lower()}{problem['msg'][1:]}, found {found}."


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _listed(model: type[BaseModel]) -> str:
    return ", ".join(_keys(model))
