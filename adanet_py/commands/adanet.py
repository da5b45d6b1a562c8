"""The command that grows an AdaNet of its own subnetworks: adanet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adanet_py.commands.app import (
    Beta,
    Complexity,
    Data,
    Json,
    Lambda,
    Quiet,
    Weights,
    app,
    reported,
)
from adanet_py.console import print_json, print_table, say


@app.command()
@reported
def adanet(
    data: Data,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="COL", help="Column to predict; several: repeated, or COL,COL."),
    ] = None,
    task: Annotated[str, typer.Option(metavar="TASK", help="As of search.")] = "auto",
    metric: Annotated[str | None, typer.Option(metavar="NAME", help="What is shown.")] = None,
    loss: Annotated[str, typer.Option(metavar="NAME", help="Phi; see: list losses.")] = "auto",
    quantile: Annotated[
        float | None, typer.Option(metavar="Q", help="Predict this quantile, 0.9 say.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="TIME", help="Budget, all included: 90s, 10m.")
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Subnetworks at most.")] = 8,
    widths: Annotated[
        str, typer.Option(metavar="N,...", help="Units of a hidden layer: each is tried.")
    ] = "64",
    random_widths: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Draw so many widths a round, between the given."),
    ] = 0,
    learning_rates: Annotated[str, typer.Option(metavar="LR,...", help="Each is tried.")] = "0.003",
    epochs: Annotated[float, typer.Option(metavar="N", help="Of a candidate's training.")] = 20.0,
    adanet_lambda: Lambda = 1e-3,
    adanet_beta: Beta = 1e-4,
    weights: Weights = "scalar",
    complexity: Complexity = "depth",
    select: Annotated[
        str,
        typer.Option(metavar="HOW", help="Best by: training, moving_average or held_out."),
    ] = "training",
    goal: Annotated[
        str, typer.Option(metavar="NAME", help="Trained on the loss of the ensemble, or alone.")
    ] = "ensemble",
    read: Annotated[
        str,
        typer.Option(metavar="WHICH", help="Earlier ones read by a layer: all, previous, none."),
    ] = "all",
    dropout: Annotated[
        float, typer.Option(metavar="P", help="Share of units dropped in training.")
    ] = 0.0,
    variant: Annotated[
        str, typer.Option(metavar="NAME,...", help="Variants of the paper: R, P, D, SD.")
    ] = "",
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
        Path | None,
        typer.Option(metavar="DIR", help="Folder to write. [default: new, in results/]"),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:0.")] = "cpu",
    strict: Annotated[
        bool, typer.Option("--strict", help="Doubtful data are errors, not notes.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Grow an AdaNet: subnetworks trained round by round on what the ensemble lacks."""
    from adanet_py.folder import new_folder
    from adanet_py.subnetworks.folder import TABLE
    from adanet_py.subnetworks.growing import Growing
    from adanet_py.subnetworks.options import GrowthOptions, numbers_of, with_variants
    from adanet_py.subnetworks.tables import grow_table

    options = GrowthOptions(
        rounds=rounds, widths=numbers_of("--widths", widths, int), random_widths=random_widths,
        learning_rates=numbers_of("--learning-rates", learning_rates, float), epochs=epochs,
        lambda_=adanet_lambda, beta=adanet_beta, kind=weights,  # type: ignore[arg-type]
        complexity=complexity, selection=select,
        goal=goal, read=read, dropout=dropout,
    )  # fmt: skip
    options = with_variants(options, [v for v in variant.split(",") if v])

    def on_round(number: int, growing: Growing) -> None:
        if quiet:
            return
        if growing.stopped:
            say(f"Round {number}: {growing.stopped}")
        else:
            step, layers = growing.steps[-1], growing.widths[-1]
            say(f"Round {number}: F {step.value:.6g}, joined by layers of {layers} units")

    targets = tuple(part for text in target or () for part in text.split(","))
    found = grow_table(
        data, target=targets[0] if len(targets) == 1 else targets or None, options=options,
        task=task, metric=metric, loss=loss, quantile=quantile, split=split, group=group,
        time_column=time_column, weight=weight, exposure=exposure, class_weight=class_weight,
        drop=tuple(drop or ()), strict=strict, time=time, seed=seed, device=device,
        on_round=on_round,
        on_note=(lambda note: None) if quiet else (lambda note: say(f"note: {note}")),
    )  # fmt: skip
    path = found.save(new_folder() if out is None else out)
    summary = {**found.summary, "model": str(path)}
    if as_json:
        print_json(summary)
        return
    rows = [
        [m["name"], len(m["widths"]), ",".join(map(str, m["widths"])), m["complexity"], m["weight"]]
        for m in summary["members"]
    ]
    print_table(rows, ("member", "layers", "units", "complexity", "weight"))
    print()
    names = ("train", "validation", "audit")
    table = [
        [label, *(scores[n] for n in names), cost["predict_ms"], int(cost["bytes"])]
        for label, scores, cost in (
            ("ensemble", summary["scores"], summary["costs"]["ensemble"]),
            ("first alone", summary["single"], summary["costs"]["single"]),
        )
    ]
    print_table(table, (summary["metric"], *names, "ms for 1,000 rows", "bytes"))
    print(f"\nSelected by {summary['selection']}; this forfeits {summary['forfeits']}.")
    print(f"Stopped: {summary['stopped']}.   Table: {path.with_name(TABLE)}   Model: {path}")
