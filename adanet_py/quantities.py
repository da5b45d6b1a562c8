"""Counts, sizes and durations as people write them on a command line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from adanet_py.errors import ConfigError

_QUANTITY = re.compile(r"([\d_,]*\.?\d+(?:e[+-]?\d+)?)\s*([a-z]*)", re.IGNORECASE)
_THOUSANDS: Mapping[str, float] = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_BYTES: Mapping[str, float] = {
    "": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30,
    "k": 1e3, "m": 1e6, "g": 1e9,
}  # fmt: skip
_MILLISECONDS: Mapping[str, float] = {"": 1, "us": 1e-3, "ms": 1, "s": 1e3}


def parse_number(value: Any) -> float:
    """A number above zero: 0.5, 50000, "50k", "1.5M". Raises ConfigError."""
    return _parse(value, _THOUSANDS, "a number above zero such as 0.5, 50000 or 1.5M", 0.0)


def parse_count(value: Any) -> int:
    """A whole number above zero: 50000, "50k", "1.5M". Raises ConfigError."""
    return round(_parse(value, _THOUSANDS, "a number above zero such as 50000, 50k or 1.5M", 1.0))


def parse_bytes(value: Any) -> int:
    """A number of bytes above zero: 2000000, "500kB", "2MB", "1MiB". Raises ConfigError."""
    return round(_parse(value, _BYTES, "a size above zero such as 500kB, 2MB or 1MiB", 1.0))


def parse_milliseconds(value: Any) -> float:
    """Milliseconds above zero: 5, "5ms", "800us", "0.1s". Raises ConfigError."""
    return _parse(value, _MILLISECONDS, "milliseconds above zero such as 5, 5ms or 800us", 0.0)


def parse_share(value: Any) -> float:
    """A share above 0 and below 1: 0.33, "1/3", "33%". Raises ConfigError."""
    text = str(value).strip()
    part, _, whole = text.partition("/")
    try:
        number = math.nan if isinstance(value, bool) else float(part.removesuffix("%"))
        number /= 100.0 if text.endswith("%") and not whole else float(whole or 1.0)
    except (ValueError, ZeroDivisionError):
        number = math.nan
    if not 0.0 < number < 1.0:
        raise ConfigError(f"Expected a share below 1 such as 1/3, 0.33 or 33%, found {value!r}.")
    return number


def _parse(value: Any, units: Mapping[str, float], expected: str, least: float) -> float:
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    elif isinstance(value, str) and (match := _QUANTITY.fullmatch(value.strip())):
        digits = match[1].replace("_", "").replace(",", "")
        unit = units.get(match[2].lower())
        if digits and unit is not None:
            number = float(digits) * unit
    if not (math.isfinite(number) and number > 0.0 and number >= least):
        raise ConfigError(f"Expected {expected}, found {value!r}.")
    return number
