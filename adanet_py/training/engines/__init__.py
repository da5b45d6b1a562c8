"""Engines: ways to advance a group of candidates; importing this package loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from adanet_py.training.engines import native

if TYPE_CHECKING:
    from adanet_py.training.engines.program import Program

ENGINES: dict[str, tuple[str, str]] = {
    "stacked": (
        "adanet_py.training.engines.stacked:StackedEngine",
        "all members of a group as one program, stacked along a leading axis",
    ),
    "native": (
        "adanet_py.training.engines.native.engine:NativeEngine",
        "compiled loops over one member at a time, on a CPU (needs numba)",
    ),
    "separate": (
        "adanet_py.training.engines.separate:SeparateEngine",
        "plain PyTorch, one candidate at a time",
    ),
}


class UnsuitedError(Exception):
    """Why an engine cannot run a program."""


def make_engine(name: str, program: Program) -> Any:
    """Build the engine called `name`; loads torch.

    Raises UnsuitedError if it cannot run the program.
    """
    if name == "native" and not native.is_installed():
        raise UnsuitedError("numba is not installed (pip install 'adanet_py[native]')")
    module, _, attribute = ENGINES[name][0].partition(":")
    engine: Callable[[Program], Any] = getattr(import_module(module), attribute)
    return engine(program)
