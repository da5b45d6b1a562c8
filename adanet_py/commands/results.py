"""The commands that show what a run found: leaderboard, importance, curves, study."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from adanet_py.commands.app import RunFolder, app, reported
from adanet_py.commands.showing import show_importance, show_leaderboard
from adanet_py.console import say


@app.command()
@reported
def leaderboard(
    run: RunFolder,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there, with every column.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first N rows.")
    ] = None,
) -> None:
    """Show the leaderboard of a run, finished or not."""
    from adanet_py.frames import write_csv
    from adanet_py.run import leaderboard as run_leaderboard

    frame = run_leaderboard(run)
    if csv is None:
        show_leaderboard(frame, top)
    else:
        write_csv(frame if top is None else frame.head(top), csv)
        say(f"Written: {csv}")


@app.command()
@reported
def importance(
    run: RunFolder,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there, with every column.")
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="Only the first N decisions.")] = 12,
) -> None:
    """Show what each decision of a search did, and what to change next."""
    from adanet_py.frames import write_csv
    from adanet_py.run import importance as run_importance

    frame = run_importance(run)
    if csv is None:
        show_importance(frame, top)
    else:
        write_csv(frame, csv)
        say(f"Written: {csv}")


@app.command()
@reported
def study(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="To write. [default: study.log in RUN]")
    ] = None,
) -> None:
    """Write a run as a study of Optuna, which optuna-dashboard opens."""
    from adanet_py.run import study as run_study

    path, trials = run_study(run, out)
    print(f"Written: {path}, {trials} trials; open it with: optuna-dashboard {path}")


@app.command()
@reported
def curves(
    run: RunFolder,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PNG, SVG or PDF to write. [default: in the terminal]"),
    ] = None,
    candidate: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this one; may be repeated.")
    ] = None,
    top: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many of the best, worst and diverged.")
    ] = 2,
) -> None:
    """Draw the learning curves of the best, the worst and the diverged candidates."""
    from adanet_py.curves import picture
    from adanet_py.drawing import draw, write_text

    found = picture(run, candidate or (), top)
    if out is None:
        print(write_text(found, sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    else:
        draw(found, out)
        say(f"Written: {out}, curves of {len(found.curves)} candidates")
