"""The commands that use a saved model: predict, evaluate, check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from adanet_py.commands.app import Data, Json, RunOrModel, app, reported
from adanet_py.console import print_json, print_table, say
from adanet_py.errors import ConfigError
from adanet_py.tasks import has_several_targets, is_regression


@app.command()
@reported
def predict(
    model: RunOrModel,
    data: Data,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV to write. [default: stdout]")
    ] = None,
    proba: Annotated[
        bool,
        typer.Option(
            "--proba",
            help="Add a column probability_<class> per class, or probability_<target> per label.",
        ),
    ] = False,
) -> None:
    """Predict each row of a table, in order, as CSV."""
    from adanet_py.model import load

    loaded = load(model)
    if proba and is_regression(loaded.task):
        raise ConfigError("--proba: expected a classification model, found one for regression.")
    import pandas as pd

    from adanet_py.data.table import read_table

    features = read_table(data, require_target=False).frame
    several = has_several_targets(loaded.task)
    names = [f"_{name}" for name in loaded.target_name] if several else [""]
    columns = [f"prediction{name}" for name in names]
    frame = pd.DataFrame(loaded.predict(features), columns=columns)
    for note in loaded.preprocessor.doubts(features):
        say(f"note: {note}")
    if proba:
        ends = names if several else [f"_{c}" for c in loaded.classes]
        columns = [f"probability{end}" for end in ends]
        frame = frame.join(pd.DataFrame(loaded.predict_proba(features), columns=columns))
    if out is None:
        frame.to_csv(sys.stdout, index=False)
    else:
        from adanet_py.journal import write_atomic

        write_atomic(out, frame.to_csv(index=False))
        say(f"Written: {out}, {len(frame):,} rows")


@app.command()
@reported
def evaluate(
    model: RunOrModel,
    data: Data,
    metric: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A metric to show first. [default: the run's]"),
    ] = None,
    weight: Annotated[str | None, typer.Option(metavar="COL", help="Row weights.")] = None,
    as_json: Json = False,
) -> None:
    """Score a model on a table with the target, by the usual metrics of its task.

    With several targets also each of them alone.
    """
    from adanet_py.model import load

    loaded = load(model)
    if not has_several_targets(loaded.task):
        scores = loaded.evaluate(data, on_note=say, metric=metric, weight=weight)
        if as_json:
            print_json(scores)
        else:
            print_table(list(scores.items()), ("metric", "value"))
        return
    whole, each = loaded.evaluate_targets(data, on_note=say, metric=metric, weight=weight)
    if as_json:
        print_json({**whole, "targets": each})
        return
    parts = [whole, *each.values()]
    metrics = dict.fromkeys(name for scores in parts for name in scores)
    rows = [[name, *(scores.get(name) for scores in parts)] for name in metrics]
    print_table(rows, ("metric", "all", *each))


@app.command()
@reported
def check(run: RunOrModel, as_json: Json = False) -> None:
    """Check that a run, a grown AdaNet or a model is whole: a line per problem, exit code 1."""
    from adanet_py.run import check as run_check

    problems = run_check(run)
    if as_json:
        print_json({"ok": not problems, "problems": problems})
    else:
        for problem in problems:
            print(problem)
        print(f"{run}: {'fine' if not problems else f'{len(problems)} problems'}")
    if problems:
        raise typer.Exit(1)
