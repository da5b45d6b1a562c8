"""The command line: thin, every command one call. Nothing heavy is imported until it is needed."""

from __future__ import annotations

# isort: off
from adanet_py.commands import (
    search,
    results,
    adanet,
    models,
    portfolio,
    lists,
)  # in the order of --help
from adanet_py.commands.app import app
# isort: on

__all__ = ["adanet", "app", "lists", "main", "models", "portfolio", "results", "search"]


def main() -> None:
    """Entry point of ``adanet_py`` and ``python -m adanet_py``."""
    app(prog_name="adanet_py")
