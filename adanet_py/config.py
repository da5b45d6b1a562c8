"""The options of a search: checked once, frozen, written into the run. No torch, no pandas."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from adanet_py.baselines.model_text import check_text, is_model, name_models
from adanet_py.class_weight import read_class_weight
from adanet_py.ensemble.ensemblers import ENSEMBLERS
from adanet_py.errors import ConfigError, check_known, nearest
from adanet_py.fidelity import FIDELITIES
from adanet_py.quantities import parse_bytes, parse_count, parse_milliseconds, parse_number
from adanet_py.reward import Bounds, RewardRule

# Options of the choice, the reward and its bounds.
REWARD_OPTIONS = (
    "choose", "complexity", "complexity_weight", "complexity_target", "max_params", "max_latency",
    "max_size",
)  # fmt: skip
AUTO = "auto"  # of a share that follows what is earned
SHRINKING_SHARE = 0.4  # of the budget, its last, for smaller children where the simplest is wanted
DEFAULT_SECONDS = 60.0  # where neither a time nor a number of candidates is given

_UNITS = (3600.0, 60.0, 1.0)  # of the groups of _TIME, in seconds
_NUMBER = r"(\d+(?:\.\d+)?)"
_TIME = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?")


def parse_time(value: str | float | timedelta) -> float:
    """Seconds of a time budget: "90s", "10m", "1h", "1h30m", or a number of seconds.

    Raises ConfigError for zero, a negative number and nonsense.
    """
    seconds = math.nan
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        text = value.strip().lower()
        match = _TIME.fullmatch(text)
        if match and any(match.groups()):
            seconds = sum(
                float(n) * unit for n, unit in zip(match.groups(), _UNITS, strict=True) if n
            )
        else:
            try:
                seconds = float(text)
            except ValueError:
                pass
    if not (math.isfinite(seconds) and seconds > 0):
        raise ConfigError(
            f"Time budget: expected a time above zero such as 90s, 10m or 1h30m, found {value!r}."
        )
    return seconds


def _seconds(value: Any) -> Any:
    return None if value is None else parse_time(value)


def _text(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise PydanticCustomError("empty", "empty")
    return value


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else _text(value)


def _names(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return () if value is None else tuple(value)


def _targets(value: Any) -> Any:
    """A name as it is; several as a tuple, one in a list as a name."""
    if value is None or isinstance(value, str):
        return _text(value)
    if not isinstance(value, Iterable):
        return value
    names = [_text(name) for name in value]
    if not names:
        raise PydanticCustomError("empty", "empty")
    return names[0] if len(names) == 1 else tuple(names)


def _metric(value: Any) -> Any:
    """Whether it suits the task is seen when the data are; an unknown name is seen now."""
    if isinstance(value, str):
        from adanet_py.metrics import check_name

        check_name(value)
    return value


def _fidelity(value: Any) -> Any:
    if isinstance(value, str):
        check_known("fidelity", value, FIDELITIES, ConfigError)
    return value


def _ensemble(value: Any) -> Any:
    if isinstance(value, str):
        check_known("ensemble", value, (*ENSEMBLERS, "none"), ConfigError)
    return value


def _members(value: Any) -> Any:
    """One word as it is; with models of scikit-learn a tuple of texts, `any` the first of them."""
    given = list(value) if isinstance(value, list | tuple) else [value]
    words, models = list[str](), list[str]()
    for one in given or ["networks"]:
        if not isinstance(one, str) or not is_model(one):
            known = ("networks", "any")
            if one not in known:
                raise ConfigError(
                    "--members: expected networks, any or a model of scikit-learn such as "
                    f"SVC(C=3), found {one!r}.{nearest(str(one), known)}"
                )
            words.append(one)
        else:
            models.append(check_text(one))
    word = "any" if "any" in words else "networks"
    if not models:
        return word
    return (word, *models) if word == "any" else tuple(models)


def _level(value: Any) -> Any:
    if value is None:
        return None
    try:
        level = float(value)
    except (TypeError, ValueError):
        level = math.nan
    if isinstance(value, bool) or not 0.0 < level < 1.0:
        raise PydanticCustomError("level", "level")
    return level


def _share(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, str) and value == AUTO:
        return value
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = math.nan
    if isinstance(value, bool) or not 0.0 <= share <= 1.0:
        raise PydanticCustomError("share", "share")
    return share


def _optional(parse: Callable[[Any], Any], option: str) -> BeforeValidator:
    """A validator that lets None pass and names the option in an error."""

    def read(value: Any) -> Any:
        if value is None:
            return None
        try:
            return parse(value)
        except ConfigError as error:
            raise ConfigError(f"{option}: {str(error)[0].lower()}{str(error)[1:]}") from None

    return BeforeValidator(read)


def _factor(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0.0):
        raise ConfigError(f"Expected a number of 0 or more, found {value!r}.")
    return number


PathLike = Annotated[str, BeforeValidator(_path)]
Text = Annotated[str, BeforeValidator(_text)]


class SearchConfig(BaseModel):
    """Every option of a search, in the words of the command line.

    `SearchConfig(...)` raises ConfigError, never pydantic's own error. `time` is in seconds (it is
    given as "90s", "10m", ...); where neither `time` nor `candidates` is given, it is 60.
    `workers` 0 means in this process, None means as many as there are cores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: PathLike | None = None
    target: Annotated[str | tuple[str, ...] | None, BeforeValidator(_targets)] = None
    task: Literal["auto", "binary", "multiclass", "multilabel", "multioutput", "regression"] = (
        "auto"
    )
    metric: Annotated[str | None, BeforeValidator(_metric)] = None
    loss: Text = "auto"
    quantile: Annotated[float | None, BeforeValidator(_level)] = None
    time: Annotated[float | None, BeforeValidator(_seconds)] = None
    candidates: Annotated[int, Field(ge=1)] | None = None
    space: PathLike = "table"
    controller: Text = "auto"
    prior: Annotated[str | None, BeforeValidator(_path)] = None
    fidelity: Annotated[str, BeforeValidator(_fidelity)] = "halving"
    fidelity_by: Literal["steps", "rows"] = "steps"
    batch_order: Literal["shared", "own"] = "shared"
    ensemble: Annotated[str, BeforeValidator(_ensemble)] = "adanet"
    members: Annotated[str | tuple[str, ...], BeforeValidator(_members)] = "networks"
    adanet_lambda: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-2
    adanet_beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-3
    refine_share: Annotated[float | Literal["auto"] | None, BeforeValidator(_share)] = None
    folds: Annotated[int, Field(ge=1)] | None = None
    split: PathLike | None = None
    group: Text | None = None
    time_column: Text | None = None
    weight: Text | None = None
    exposure: Text | None = None
    class_weight: Annotated[str | dict[str, float], BeforeValidator(read_class_weight)] = "none"
    drop: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    out: PathLike | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None
    strict: bool = False
    choose: Literal["best", "simplest"] = "best"
    complexity: Literal["parameters", "multiply_adds", "latency", "layers", "capacity"] = (
        "parameters"
    )
    complexity_weight: Annotated[float | None, _optional(_factor, "--complexity-weight")] = None
    complexity_target: Annotated[float | None, _optional(parse_number, "--complexity-target")] = (
        None
    )
    max_params: Annotated[int | None, _optional(parse_count, "--max-params")] = None
    max_latency: Annotated[float | None, _optional(parse_milliseconds, "--max-latency")] = None
    max_size: Annotated[int | None, _optional(parse_bytes, "--max-size")] = None

    def __init__(self, **options: Any) -> None:
        if options.get("time") is None and options.get("candidates") is None:
            options["time"] = DEFAULT_SECONDS
        try:
            super().__init__(**options)
        except ValidationError as error:
            problem = error.errors()[0]
            raise ConfigError(_words(problem, type(self).model_fields)) from None
        if self.fidelity == "none" and self.fidelity_by == "rows":
            raise ConfigError(
                "--fidelity-by rows: expected a --fidelity with rungs, until which a share of the "
                "rows is seen, found none. Leave one of them out."
            )
        if self.complexity == "capacity" and self.complexity_target is not None:
            raise ConfigError(
                "--complexity-target: expected a --complexity that is known before training "
                "(parameters, multiply_adds, latency, layers), found capacity, which has no unit "
                "to aim at. Leave one of them out."
            )

    @property
    def share_of_children(self) -> float | Literal["auto"]:
        """`refine_share`, where it is not given 0, and `SHRINKING_SHARE` to find the simplest."""
        if self.refine_share is not None:
            return self.refine_share
        return SHRINKING_SHARE if self.choose == "simplest" else 0.0

    @property
    def objective_of_children(self) -> str:
        """What the children of a search must improve, as in refine/acceptance.py: the metric, or
        what makes a network simple."""
        if self.choose != "simplest":
            return "metric"
        return "latency" if self.complexity == "latency" else "size"

    @property
    def reward(self) -> RewardRule:
        """How error and complexity are weighed, and what no network may exceed."""
        bounds = Bounds(self.max_params, self.max_latency, self.max_size)
        return RewardRule(self.complexity, self.complexity_weight, self.complexity_target, bounds)

    @property
    def models(self) -> dict[str, str]:
        """Models of scikit-learn that may be members, as text, by the name each is shown with."""
        given = () if isinstance(self.members, str) else self.members
        return name_models(one for one in given if one != "any")

    @property
    def joining(self) -> str:
        """Who may be a member: "networks", "given" (models of the user's too) or "any"."""
        if isinstance(self.members, str):
            return self.members
        return "any" if "any" in self.members else "given"

    def to_json(self) -> dict[str, Any]:
        """Plain values, every option."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SearchConfig:
        """Inverse of `to_json`."""
        return cls(**value)


_EXPECTED = {
    "greater_than_equal": "a whole number of {ge} or more",
    "less_than_equal": "a whole number of {le} or less",
    "less_than": "a whole number below {lt}",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "literal_error": "{expected}",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "empty": "a value",
    "share": "a share from 0 to 1, or auto",
    "level": "a level between 0 and 1, such as 0.9",
    "string_pattern_mismatch": "auto, cpu, cuda or cuda:0",
}


def _words(problem: Any, fields: Mapping[str, Any]) -> str:
    """One of pydantic's errors as expected, found, what to do."""
    name, kind = str(problem["loc"][0]), problem["type"]
    if kind == "extra_forbidden":
        return f"Unknown option {name!r}.{nearest(name, fields)} Known: {', '.join(fields)}."
    pattern = _EXPECTED.get(kind)
    expected = problem["msg"] if pattern is None else pattern.format(**problem.get("ctx", {}))
    label = name.replace("_", "-")
    hint = " Leave the option out or give one." if kind == "empty" else ""
    if kind == "literal_error" and isinstance(problem["input"], str):
        hint = nearest(problem["input"], re.findall(r"'([^']+)'", expected))
    return f"--{label}: expected {expected}, found {problem['input']!r}.{hint}"
