"""What `adanet_py list` shows: every registry as name, summary and hyperparameters. No torch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from adanet_py.errors import ConfigError, check_known
from adanet_py.knob import Knob

# kind: module and attribute of its registry
REGISTRIES: dict[str, tuple[str, str]] = {
    "architectures": ("adanet_py.architectures", "ARCHITECTURES"),
    "optimizers": ("adanet_py.training.optimizers", "OPTIMIZERS"),
    "schedules": ("adanet_py.training.schedules", "SCHEDULES"),
    "losses": ("adanet_py.training.losses", "LOSSES"),
    "activations": ("adanet_py.architectures.names", "ACTIVATIONS"),
    "norms": ("adanet_py.architectures.names", "NORMS"),
    "inits": ("adanet_py.architectures.names", "INITS"),
    "controllers": ("adanet_py.controllers", "CONTROLLERS"),
    "fidelities": ("adanet_py.fidelity", "FIDELITIES"),
    "moves": ("adanet_py.refine", "MOVES"),
    "ensemblers": ("adanet_py.ensemble.ensemblers", "ENSEMBLERS"),
    "engines": ("adanet_py.training.engines", "ENGINES"),
    "metrics": ("adanet_py.metrics", "METRICS"),
}


def entries(kind: str) -> list[dict[str, Any]]:
    """The entries of a registry: name, summary, and tasks or knobs where it has them.

    Raises ConfigError for an unknown kind.
    """
    check_known("kind of thing to list", kind, REGISTRIES, ConfigError)
    module, attribute = REGISTRIES[kind]
    registry: Mapping[str, Any] = getattr(import_module(module), attribute)
    return [{"name": name, **_describe(entry)} for name, entry in registry.items()]


def _describe(entry: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"summary": _summary(entry)}
    if hasattr(entry, "tasks"):
        out["tasks"] = list(entry.tasks)
    if hasattr(entry, "greater_is_better"):
        out["greater_is_better"] = entry.greater_is_better
    for field in ("static", "numeric"):
        knobs = getattr(entry, field, None)
        if isinstance(knobs, Mapping) and knobs:
            out[field] = {name: _knob(knob) for name, knob in knobs.items()}
    return out


def _summary(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, tuple):  # (where it is, what it is)
        return str(entry[-1])
    if hasattr(entry, "summary"):
        return str(entry.summary)
    # A function: its module tells people what it is, its own docstring tells callers.
    about = inspect.cleandoc(import_module(entry.__module__).__doc__ or "")
    return " ".join(about.partition("\n\n")[0].split())


def _knob(knob: Knob) -> dict[str, Any]:
    if knob.choices is not None:
        domain: dict[str, Any] = {"choices": list(knob.choices)}
    else:
        domain = {"low": knob.low, "high": knob.high, "log": knob.log}
    return {"default": knob.default, **domain, "doc": knob.doc}
