"""Class weights: factors of the training loss by class, given by label or balanced.

A class c has the weight w_c, so that a row counts w_c times its own weight in the training loss;
metrics, calibration and intervals do not know of it. "balanced" is w_c = W / (C W_c), with W_c the
weight of the training rows of class c and W that of all (King & Zeng 2001): every class counts the
same. The loss divides by the mean weight, so that only ratios matter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adanet_py.errors import ConfigError, nearest
from adanet_py.tasks import has_several_targets

_EXPECTED = "--class-weight: expected balanced, none, or weights such as yes=3,no=1"

ClassWeight = str | dict[str, float]  # "none", "balanced" or label: weight


def read_class_weight(value: Any) -> ClassWeight:
    """What is meant by "none", None, "balanced", "yes=3,no=1", a JSON object or a mapping.

    Labels may be of any type and are kept as text; of several = in one the last counts. Raises
    ConfigError for anything else, a label that comes twice, and weights that are not above 0.
    """
    if value is None or value == "none":
        return "none"
    if isinstance(value, str):
        text = value.strip()
        if text in ("none", "balanced"):
            return text
        if text.startswith("{"):
            try:
                pairs = list(json.loads(text, object_pairs_hook=list))
            except ValueError as error:
                raise ConfigError(f"{_EXPECTED}, found {text!r}, no JSON: {error}.") from None
        elif "=" in text:
            pairs = [_pair(piece, text) for piece in text.split(",")]
        else:
            hint = nearest(text, ("balanced", "none"))
            raise ConfigError(f"{_EXPECTED}, found {value!r}.{hint}")
    elif isinstance(value, Mapping) and value:
        pairs = list(value.items())
    else:
        raise ConfigError(f"{_EXPECTED}, found {value!r}.")
    out: dict[str, float] = {}
    for label, weight in pairs:
        name = str(label).strip()
        if name in out:
            raise ConfigError(f"{_EXPECTED}, found the class {name!r} twice. Leave one out.")
        out[name] = _number(weight, name)
    return out


def _pair(piece: str, text: str) -> tuple[str, str]:
    label, equals, weight = piece.rpartition("=")
    if not (equals and label.strip()):
        raise ConfigError(
            f"{_EXPECTED}, found {piece!r} in {text!r}. Labels with a comma can be given as JSON, "
            'such as {"a, b": 3}.'
        )
    return label, weight


def _number(weight: Any, label: str) -> float:
    try:
        number = math.nan if isinstance(weight, bool) else float(weight)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ConfigError(
            f"{_EXPECTED}, found {weight!r} for the class {label!r}. Give a number above 0; to "
            "leave a class out, leave out its rows."
        )
    return number


def check_class_weight(given: ClassWeight, task: str, classes: Sequence[Any]) -> None:
    """Raise ConfigError for a task without classes, and for a label that is none of `classes`."""
    if given == "none":
        return
    if not classes:
        raise ConfigError(
            f"--class-weight: expected a target of classes, found the task {task}. Leave it out; "
            "rows can be given weights by --weight."
        )
    if isinstance(given, str):
        return
    if has_several_targets(task):
        raise ConfigError(
            "--class-weight: expected balanced or none with several targets, found weights by "
            "label. Rows can be given weights by --weight."
        )
    from adanet_py.data.cells import key

    known = {key(label): label for label in classes}
    named: dict[str, str] = {}
    for label in given:
        if key(label) not in known:
            listed = ", ".join(map(str, classes[:10])) + (" ..." if len(classes) > 10 else "")
            raise ConfigError(
                f"--class-weight: the target has no class {label!r}."
                f"{nearest(label, known)} Classes: {listed}."
            )
        if key(label) in named:
            raise ConfigError(
                f"--class-weight: {named[key(label)]!r} and {label!r} are the same class. Leave "
                "one out."
            )
        named[key(label)] = label


def class_weights(
    given: ClassWeight, classes: Sequence[Any], codes: np.ndarray, weight: np.ndarray | None = None
) -> tuple[Any, ...] | None:
    """The weight of each of `classes` [C], or None where all are 1.

    With several targets, `classes` and `codes` [N, T] of each, one such tuple for each.

    `codes` [N] are those of the training rows, `weight` [N] their weights. A class that is not
    named has the weight 1, as has, when balanced, one without rows.
    """
    if given == "none":
        return None
    if codes.ndim == 2:
        columns = zip(classes, codes.T, strict=True)
        return tuple(class_weights(given, own, column, weight) for own, column in columns)
    if isinstance(given, str):
        size = np.bincount(codes, weights=weight, minlength=len(classes)).astype(np.float64)
        even = size.sum() / len(classes)
        return tuple(float(even / s) if s > 0 else 1.0 for s in size)
    from adanet_py.data.cells import key

    by_key = {key(label): factor for label, factor in given.items()}
    return tuple(by_key.get(key(label), 1.0) for label in classes)
