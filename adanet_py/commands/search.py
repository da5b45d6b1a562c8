"""The commands that train: search, resume, replay."""

from __future__ import annotations

import os
from time import monotonic
from typing import Annotated, Any

import typer

from adanet_py.commands.app import Json, Quiet, RunFolder, app, reported
from adanet_py.commands.showing import honest, next_steps, show_leaderboard
from adanet_py.console import duration, print_json, reporter


@app.command()
@reported
def search(
    ctx: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="CSV (also .gz), TSV, Parquet or Feather; without it, a set of scikit-learn's.",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="COL", help="Column to predict; several: repeated, or COL,COL."),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            metavar="TASK", help="auto, binary, multiclass, multilabel, multioutput or regression."
        ),
    ] = "auto",
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to search by; see: list metrics.")
    ] = None,
    loss: Annotated[
        str, typer.Option(metavar="NAME", help="Training loss of all networks; see: list losses.")
    ] = "auto",
    quantile: Annotated[
        float | None, typer.Option(metavar="Q", help="Predict this quantile, 0.9 say.")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Budget, all included: 90s, 10m, 1h. [default: 60s]"),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(metavar="N", help="Number of networks to train at most.")
    ] = None,
    space: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="Search space; see: spaces list.")
    ] = "table",
    controller: Annotated[
        str, typer.Option(metavar="NAME", help="Who proposes; see: list controllers.")
    ] = "auto",
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|FILE",
            help="What did well elsewhere is tried first: a run, a portfolio, default or none.",
        ),
    ] = None,
    fidelity: Annotated[
        str,
        typer.Option(metavar="NAME", help="Who is cut before its end; see: list fidelities."),
    ] = "halving",
    fidelity_by: Annotated[
        str,
        typer.Option(
            metavar="steps|rows",
            help="What grows from rung to rung: steps, or the share of the training rows too.",
        ),
    ] = "steps",
    batch_order: Annotated[
        str,
        typer.Option(
            metavar="shared|own",
            help="Whether all networks see the rows in the same order, or each in its own.",
        ),
    ] = "shared",
    ensemble: Annotated[
        str,
        typer.Option(metavar="NAME", help="How the best are combined; see: list ensemblers; none."),
    ] = "adanet",
    members: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHO",
            help='networks; any: baselines may join too; a model of scikit-learn, "SVC(C=3)", '
            "fitted for it; may be repeated. [default: networks]",
        ),
    ] = None,
    adanet_lambda: Annotated[
        float,
        typer.Option(metavar="L", help="Penalty of a member's weight by complexity."),
    ] = 1e-2,
    adanet_beta: Annotated[
        float, typer.Option(metavar="B", help="Penalty of it whatever the complexity.")
    ] = 1e-3,
    refine_share: Annotated[
        str | None,
        typer.Option(metavar="S", help="Share of the budget, its last, for refining; or auto."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(metavar="N", help="Folds of cross-validation; 1: a hold-out.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="COL|FILE", help="Column or file saying train, valid or audit."),
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="COL", help="Rows with one value stay on one side.")
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(metavar="COL", help="Validate on the latest rows by it.")
    ] = None,
    weight: Annotated[str | None, typer.Option(metavar="COL", help="Row weights.")] = None,
    exposure: Annotated[
        str | None,
        typer.Option(metavar="COL", help="For how long or many a count is; with a log link."),
    ] = None,
    class_weight: Annotated[
        str, typer.Option(metavar="HOW", help="balanced, none, or yes=3,no=1.")
    ] = "none",
    drop: Annotated[
        list[str] | None, typer.Option(metavar="COL", help="Not a feature; may be repeated.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Run folder. [default: new, in results/]")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")] = 0,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:0.")
    ] = "auto",
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Worker processes; 0: none, in this process.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Doubtful data are errors, not notes.")
    ] = False,
    choose: Annotated[
        str,
        typer.Option(metavar="HOW", help="The model: best, or simplest within a standard error."),
    ] = "best",
    complexity: Annotated[
        str,
        typer.Option(
            metavar="MEASURE", help="parameters, multiply_adds, latency, layers or capacity."
        ),
    ] = "parameters",
    complexity_weight: Annotated[
        float | None,
        typer.Option(metavar="W", help="Its weight in the reward. [default: 0.01 or 0.1]"),
    ] = None,
    complexity_target: Annotated[
        str | None, typer.Option(metavar="T", help="Aim at this complexity, 50k parameters say.")
    ] = None,
    max_params: Annotated[
        str | None, typer.Option(metavar="N", help="No network with more parameters: 50k, 1M.")
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option(metavar="MS", help="No slower one, in ms for 1,000 rows.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="No larger model file: 500kB, 2MB.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Last line of stdout: one JSON object.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Search networks for a table and save the best as a model."""
    # What has been imported, and is now, counts as well.
    began = ctx.obj or monotonic()
    from adanet_py.executors.nursery import THREADS, make_nursery

    for name in THREADS:  # before numpy is imported: the cores are for the workers
        os.environ.setdefault(name, "1")
    with make_nursery(workers) as nursery:  # torch is imported there beside all that follows
        from adanet_py.config import SearchConfig

        targets = target[0] if target and len(target) == 1 else target
        config = SearchConfig(
            data=data, target=targets, task=task, metric=metric, loss=loss,
            quantile=quantile, time=time, candidates=candidates,
            space=space, controller=controller, prior=prior, fidelity=fidelity,
            fidelity_by=fidelity_by, batch_order=batch_order,
            ensemble=ensemble, members=members or "networks",
            adanet_lambda=adanet_lambda, adanet_beta=adanet_beta, refine_share=refine_share,
            folds=folds, split=split,
            group=group, time_column=time_column, weight=weight, exposure=exposure,
            class_weight=class_weight, drop=drop or (),
            out=out, seed=seed, device=device, workers=workers, strict=strict,
            choose=choose, complexity=complexity, complexity_weight=complexity_weight,
            complexity_target=complexity_target, max_params=max_params, max_latency=max_latency,
            max_size=max_size,
        )  # fmt: skip
        from adanet_py.run import search as run_search

        with reporter(quiet, config.time, config.candidates) as on_event:
            found = run_search(
                data, config=config, on_event=on_event, started=began, nursery=nursery
            )
    _show_result(found, as_json)


@app.command()
@reported
def resume(run: RunFolder, as_json: Json = False, quiet: Quiet = False) -> None:
    """Go on with an interrupted search."""
    from adanet_py.run import resume as run_resume

    with reporter(quiet) as on_event:
        found = run_resume(run, on_event=on_event)
    _show_result(found, as_json)


@app.command()
@reported
def refine(
    run: RunFolder,
    moves: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this move; may be repeated; see: list moves."),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(metavar="WHAT", help="What must improve: metric, latency, size or sparsity."),
    ] = "metric",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="With --objective size: of the parameters at most this share, 1/3 say.",
        ),
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="TIME", help="Budget, all included. [default: 60s]")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(metavar="N", help="Number of children to train at most.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Refine the best networks of a run that has ended by moves that keep their weights."""
    from adanet_py.run import refine_run

    with reporter(quiet) as on_event:
        found = refine_run(
            run, moves=moves or (), objective=objective, size=size, time=time,
            candidates=candidates, on_event=on_event,
        )  # fmt: skip
    _show_result(found, as_json)


def _show_result(found: Any, as_json: bool) -> None:
    """Show what was found; exit code 130 where the user broke it off."""
    summary = found.summary
    if as_json:
        print_json(summary)
    else:
        _show_summary(found, summary)
    if summary.get("stopped") == "interrupted":
        raise typer.Exit(130)


def _show_summary(found: Any, summary: Any) -> None:
    show_leaderboard(found.leaderboard, 10)
    print()
    best = summary["best"]
    if best is None:
        print("Best:   no network was trained to a usable end; the model is a baseline")
    else:
        rows = found.leaderboard
        said = honest(rows[rows["id"] == best["id"]])  # the row chosen may be a baseline's
        if not said and summary["audit"] is not None:
            said = f", {summary['audit']:.6g} on audit rows"
        known = f"{summary['validation']:.6g} on validation rows{said}"
        print(f"Best:   {best['architecture']} {best['id']}, {summary['metric']} {known}")
    if summary.get("forecast") is not None:
        from adanet_py.forecast import Forecast

        print(f"Time:   {Forecast.from_json(summary['forecast']).words}")
    for sentence in next_steps(found.importance, 4):
        print(f"Next:   {sentence}")
    if (grown := summary["ensemble"]) is not None:
        verdict = "the model saved" if grown["saved"] else "no better: the best alone is saved"
        alone = grown["alone"]
        beside = "" if alone is None else f", of one alone {alone:.6g}"
        print(f"AdaNet: {grown['members']} members, {summary['metric']} {grown['validation']:.6g}"
              f"{beside}, both cross-fitted on validation rows; {verdict}")  # fmt: skip
    if costs := summary["costs"]:
        each = (f"{name} {c['predict_ms']:.3g} ms, {c['bytes'] / 1e3:,.0f} kB"
                for name, c in costs.items())  # fmt: skip
        print(f"Cost:   {'; '.join(each)}: 1,000 rows on a core of this machine, and the file")
    print(f"Model:  {summary['model']}")
    print(f"Run:    {summary['run']}, {summary['candidates']} candidates "
          f"in {duration(summary['seconds'])}")  # fmt: skip


@app.command()
@reported
def replay(run: RunFolder, as_json: Json = False, quiet: Quiet = False) -> None:
    """Repeat a run by counts, compare every score. Exit code 1 if one differs."""
    from adanet_py.run import replay as run_replay

    with reporter(quiet) as on_event:
        found = run_replay(run, on_event=on_event)
    if as_json:
        print_json(found)
    else:
        for difference in found["differences"]:
            print(difference)
        verdict = "identical" if found["identical"] else "NOT identical"
        print(f"{found['candidates']} candidates replayed: {verdict}")
    if not found["identical"]:
        raise typer.Exit(1)
