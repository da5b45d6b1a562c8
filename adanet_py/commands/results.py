"""The commands that show what a run found: leaderboard, importance, curves, study."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from adanet_py.commands.app import (
    Beta,
    Complexity,
    Json,
    Lambda,
    RunFolder,
    Weights,
    app,
    reported,
)
from adanet_py.commands.showing import show_importance, show_leaderboard
from adanet_py.console import print_json, print_table, say
from adanet_py.errors import ConfigError


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
def explain(
    run: RunFolder,
    candidate: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="A network, or how its identifier begins; the model."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show why a network stands where it stands: chain of moves, rivals, decisions, ensemble."""
    from adanet_py.explain import explain as explain_run
    from adanet_py.explain import lines

    found = explain_run(run, candidate)
    if as_json:
        print_json(found)
        return
    for line in lines(found):
        print(line)


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


@app.command()
@reported
def ensemble(
    run: RunFolder,
    adanet_lambda: Lambda = 1e-2,
    adanet_beta: Beta = 1e-3,
    ensembler: Annotated[
        str, typer.Option(metavar="NAME", help="How members are weighed; see: list ensemblers.")
    ] = "adanet",
    strategy: Annotated[
        str, typer.Option(metavar="NAME", help="What a round does: grow, solo or all.")
    ] = "grow",
    weights: Weights = "scalar",
    bias: Annotated[bool, typer.Option("--bias", help="Fit a bias too.")] = False,
    complexity: Complexity = "depth",
    members: Annotated[
        str | None,
        typer.Option(
            metavar="WHO",
            help="networks; given: models given to the search too; any: baselines too. "
            "[default: as in the search]",
        ),
    ] = None,
    most: Annotated[int, typer.Option(metavar="N", min=1, help="Members at most.")] = 16,
    single: Annotated[
        bool, typer.Option("--single", help="Save the best single network instead.")
    ] = False,
    distil: Annotated[
        bool, typer.Option("--distil", help="Train and save one network that learns from it.")
    ] = False,
    teacher: Annotated[
        str, typer.Option(metavar="WHO", help="Of --distil: ensemble, or single (born again).")
    ] = "ensemble",
    alpha: Annotated[
        float | None,
        typer.Option(metavar="A", help="Weight of the teacher. [default: by how right it is]"),
    ] = None,
    temperature: Annotated[
        float, typer.Option(metavar="T", help="Divides the logits of teacher and student.")
    ] = 2.0,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The run's table, if it has moved.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Model to write. [default: ensemble.adanet or distilled.adanet in the run]",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Grow the ensemble of a run that has ended anew; nothing is trained but with --distil."""
    from adanet_py.ensembling import Options
    from adanet_py.folder import read_described
    from adanet_py.regrow import compared, regrow

    members = members or read_described(run).config.joining
    options = Options(
        ensembler, adanet_lambda, adanet_beta, weights, bias, strategy, complexity, most, members,  # type: ignore[arg-type]
    )  # fmt: skip
    others, scores = {}, {}
    if distil:
        from adanet_py.distilling import Distilling
        from adanet_py.distilling import distil as run_distil

        if single:
            raise ConfigError("--distil and --single each save another model: leave one out.")
        found = run_distil(run, options, Distilling(teacher, alpha, temperature), out, data=data)
        grown, path = found.grown, found.path
        others, scores = {"distilled": found.model}, {"distilled": found.scores}
    else:
        grown, path = regrow(run, options, out, single=single)
    scores = {**grown.scores, **scores}
    cost = compared(run, grown, others)
    if as_json:
        told = grown.to_json()
        told["scores"] = {name: s.to_json() for name, s in scores.items()}
        print_json({**told, "costs": cost, "model": str(path)})
        return
    sizes = grown.weights.sizes().tolist()
    listed = [
        [r.candidate.id, r.candidate.architecture, r.layers, r.parameters, size]
        for r, size in zip(grown.members, sizes, strict=True)
    ]
    print_table(listed, ("member", "architecture", "layers", "parameters", "weight"))
    print()
    rows = [
        [name, s.validation, s.audit, *(cost.get(name, {}).get(k) for k in ("predict_ms", "bytes"))]
        for name, s in scores.items()
    ]
    print_table(rows, ("", "validation", "audit", "ms for 1,000 rows", "bytes"))
    print(f"\nF: {grown.ensemble.value:.6g}   Table: {Path(run) / 'ensemble.csv'}   Model: {path}")


@app.command()
@reported
def update(
    run: RunFolder,
    new: Annotated[
        Path, typer.Argument(metavar="NEWDATA", help="A table with the same columns and target.")
    ],
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The run's table, if it has moved.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Model to write. [default: updated.adanet in the run]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Refit the weights of a model's frozen members with new rows; one network may join."""
    from adanet_py.updating import update as run_update

    found = run_update(run, new, out, data=data)
    told = {
        "model": str(found.path),
        "rows": found.rows,
        "F": found.objective,
        "joined": found.joined,
        "before": found.before,
        "after": found.after,
    }
    if as_json:
        print_json(told)
        return
    print_table(list(found.objective.items()), ("F", "value"))
    verdict = "joined: F falls" if found.joined else "did not join: F does not fall"
    print(f"\nThe network trained on the new rows {verdict}.")
    print(f"New rows: {found.before:.6g} before, {found.after:.6g} after (cross-fitted)")
    print(f"Model:    {found.path}")
