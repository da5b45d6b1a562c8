"""Samplers of Optuna by name: "CmaEsSampler", "optuna.samplers.TPESampler(multivariate=True)"."""

from __future__ import annotations

import ast
import inspect
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from adanet_py.controllers.families import Controller
from adanet_py.controllers.samplers import from_sampler, trusted
from adanet_py.errors import ConfigError, check_known

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

_PREFIX = "optuna.samplers."


def is_sampler(text: str) -> bool:
    """Whether a controller's name is meant for a sampler of Optuna."""
    name = text.partition("(")[0].strip()
    return name.startswith(_PREFIX) or name.endswith("Sampler")


@lru_cache(maxsize=16)  # the same name is the same controller
def sampler_of_name(text: str) -> Controller:
    """The controller that asks the sampler of this name, with the arguments in parentheses.

    These are keywords with plain values of Python. A seed comes from the search and is not given.
    Raises ConfigError for what is no sampler, or cannot be made.
    """
    import optuna.samplers

    name, arguments = _read(text)
    known = [
        n
        for n in optuna.samplers.__all__
        if isinstance(kind := getattr(optuna.samplers, n), type)
        and issubclass(kind, optuna.samplers.BaseSampler)
        and not inspect.isabstract(kind)
    ]
    check_known("sampler of Optuna", name, known, ConfigError)
    if name == "CmaEsSampler" and find_spec("cmaes") is None:
        raise ConfigError(
            f"The controller {text!r} needs the package cmaes, which is not installed. Install it "
            '(pip install "adanet_py[cmaes]") or choose another --controller.'
        )
    kind = getattr(optuna.samplers, name)
    seeded = "seed" in inspect.signature(kind).parameters

    def make(seed: int) -> BaseSampler:
        with trusted():
            made: BaseSampler = kind(**arguments, seed=seed) if seeded else kind(**arguments)
        return made

    try:
        make(0)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The controller {text!r} cannot be made: {error}.") from None
    controller = from_sampler(make)
    controller.__name__ = text
    return controller


def _read(text: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments."""
    expected = f"Expected a sampler of Optuna such as TPESampler(multivariate=True), found {text!r}"
    try:
        call = ast.parse(text.strip().removeprefix(_PREFIX), mode="eval").body
        if isinstance(call, ast.Name):
            return call.id, {}
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ConfigError(f"{expected}. Arguments are keywords with plain values.")
        arguments = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords if k.arg}
    except (SyntaxError, ValueError):
        raise ConfigError(f"{expected}. Arguments are keywords with plain values.") from None
    if "seed" in arguments or len(arguments) < len(call.keywords):
        raise ConfigError(f"{expected}. Leave out the seed, which is that of the search (--seed).")
    return call.func.id, arguments
