"""The commands of portfolios: build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adanet_py.commands.app import portfolio_app, reported
from adanet_py.console import print_table, say


@portfolio_app.command("build")
@reported
def portfolio_build(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="JSON to write, for search --prior FILE.")
    ] = Path("portfolio.json"),
    size: Annotated[
        int, typer.Option(metavar="N", min=1, help="Configurations for each kind of task.")
    ] = 8,
) -> None:
    """Choose configurations that did well in past runs and together leave few runs without."""
    from adanet_py.portfolio import build_portfolio, write_portfolio

    portfolio = build_portfolio(runs, size)
    write_portfolio(portfolio, out)
    rows = [
        (kind, e.candidate.architecture, e.candidate.optimizer, e.source)
        for kind, entries in portfolio.entries.items()
        for e in entries
    ]
    print_table(rows, ("task", "architecture", "optimizer", "from"))
    say(f"Written: {out}")
