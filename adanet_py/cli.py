"""The command line: thin, every command one call. Nothing heavy is imported until it is needed."""

from __future__ import annotations

import gc

# isort: off
from adanet_py.commands import (
    search,
    results,
    adanet,
    models,
    portfolio,
    lists,
)  # in the order of --help
from adanet_py.commands.app import app, process_began
# isort: on

__all__ = ["adanet", "app", "lists", "main", "models", "portfolio", "results", "search"]


def main() -> None:
    """Entry point of ``adanet_py`` and ``python -m adanet_py``."""
    try:
        app(prog_name="adanet_py", obj=process_began())
    finally:
        gc.freeze()  # or the last collections look through all that was imported, for .3 to 1 s
