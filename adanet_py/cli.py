"""The command line: thin, every command one call. Nothing heavy is imported until it is needed."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer

from adanet_py.console import duration, print_json, print_table, reporter, say
from adanet_py.errors import AdanetError, ConfigError
from adanet_py.tasks import has_several_targets, is_regression

app = typer.Typer(
    name="adanet_py",
    help="Neural architecture and hyperparameter search on PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: half the start-up time, and brackets stay brackets
    context_settings={"help_option_names": ["-h", "--help"]},
)
spaces_app = typer.Typer(
    help="Search spaces: list, show, validate, schema.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(spaces_app, name="spaces")

_debug = False


def main() -> None:
    """Entry point of ``adanet_py`` and ``python -m adanet_py``."""
    app(prog_name="adanet_py")


def _reported(command: Callable[..., None]) -> Callable[..., None]:
    """Turn every error of a command into a short message and an exit code.

    2: the input cannot be used. 1: a defect; the traceback is in a file. 130: interrupted.
    """

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
            sys.stdout.flush()
        except AdanetError as error:
            if _debug:
                traceback.print_exc()
            say(f"Error: {error}")
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            say("Interrupted.")
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of stdout has gone, as in `... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            say(f"Error: {type(error).__name__}: {error}")
            say(_defect())
            raise typer.Exit(1) from None

    return run


def _defect() -> str:
    text = traceback.format_exc()
    if _debug:
        return text
    try:
        handle, path = tempfile.mkstemp(prefix="adanet_py-error-", suffix=".txt")
        with os.fdopen(handle, "w") as file:
            file.write(text)
    except OSError:
        return "This is a defect of adanet_py. Run the command with --debug to see where."
    return f"This is a defect of adanet_py. Where it happened is written in {path}."


def _show_version(value: bool) -> None:
    if value:
        from adanet_py import __version__

        print(f"adanet_py {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Neural architecture and hyperparameter search on PyTorch."""
    global _debug
    _debug = debug


Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
RunOrModel = Annotated[
    Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder or a saved model.")
]
Data = Annotated[str, typer.Argument(metavar="DATA", help="A CSV, Parquet or Feather file.")]


@app.command()
@_reported
def search(
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
    ] = "evolution",
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Last line of stdout: one JSON object.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Search networks for a table and save the best as a model."""
    began = monotonic()  # what is imported now counts as well
    from adanet_py.executors.nursery import THREADS, make_nursery

    for name in THREADS:  # before numpy is imported: the cores are for the workers
        os.environ.setdefault(name, "1")
    with make_nursery(workers) as nursery:  # torch is imported there beside all that follows
        from adanet_py.config import SearchConfig

        targets = target[0] if target and len(target) == 1 else target
        config = SearchConfig(
            data=data, target=targets, task=task, metric=metric, loss=loss,
            quantile=quantile, time=time, candidates=candidates,
            space=space, controller=controller, folds=folds, split=split, group=group,
            time_column=time_column, weight=weight, exposure=exposure, class_weight=class_weight,
            drop=drop or (),
            out=out, seed=seed, device=device, workers=workers, strict=strict,
        )  # fmt: skip
        from adanet_py.run import search as run_search

        with reporter(quiet, config.time, config.candidates) as on_event:
            found = run_search(
                data, config=config, on_event=on_event, started=began, nursery=nursery
            )
    _show_result(found, as_json)


@app.command()
@_reported
def resume(run: RunFolder, as_json: Json = False, quiet: Quiet = False) -> None:
    """Go on with an interrupted search."""
    from adanet_py.run import resume as run_resume

    with reporter(quiet) as on_event:
        found = run_resume(run, on_event=on_event)
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
    _show_leaderboard(found.leaderboard, 10)
    print()
    best = summary["best"]
    if best is None:
        print("Best:   no network was trained to a usable end; the model is a baseline")
    else:
        print(f"Best:   {best['architecture']} {best['id']}, {summary['metric']} "
              f"{summary['validation']:.6g} on validation rows")  # fmt: skip
    print(f"Model:  {summary['model']}")
    print(f"Run:    {summary['run']}, {summary['candidates']} candidates "
          f"in {duration(summary['seconds'])}")  # fmt: skip


_SHOWN = (
    "rank", "id", "architecture", "status", "train", "validation", "audit", "low", "high", "tie",
    "parameters", "seconds", "latency_ms",
)  # fmt: skip


def _show_leaderboard(frame: Any, top: int | None) -> None:
    """The columns that fit a screen; the rest are in leaderboard.csv."""
    shown = frame if top is None else frame.head(top)
    names = [n for n in _SHOWN if n in frame.columns]
    rows = [[None if _missing(v) else v for v in row] for row in shown[names].itertuples(False)]
    print_table(rows, names)
    if len(shown) < len(frame):
        print(f"... and {len(frame) - len(shown)} more")


def _missing(value: Any) -> bool:
    return value is None or value != value or type(value).__name__ == "NAType"


@app.command()
@_reported
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
    from adanet_py.leaderboard import write_csv
    from adanet_py.run import leaderboard as run_leaderboard

    frame = run_leaderboard(run)
    if csv is None:
        _show_leaderboard(frame, top)
    else:
        write_csv(frame if top is None else frame.head(top), csv)
        say(f"Written: {csv}")


@app.command()
@_reported
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
@_reported
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
@_reported
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
@_reported
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


@app.command()
@_reported
def check(run: RunOrModel, as_json: Json = False) -> None:
    """Check that a run or model is whole. Exit code 1 and a line per problem if not."""
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


@app.command("compile")
@_reported
def compile_command() -> None:
    """Compile the engine for networks on a CPU now, for an image of a container say."""
    from adanet_py.training.engines import native

    if not native.is_installed():
        raise ConfigError("numba is not installed: pip install 'adanet_py[native]'.")
    if why := native.obstacle():
        raise ConfigError(
            f"What is compiled cannot be kept ({why}). Let XDG_CACHE_HOME name a folder that can "
            "be written."
        )
    from adanet_py.training.engines.native.warm import compile_once

    began = monotonic()
    new = compile_once()
    how = f"Compiled in {duration(monotonic() - began)}" if new else "It was compiled already"
    print(f"{how}: {native.cache_folder()}")


@app.command("list")
@_reported
def list_command(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="architectures, optimizers, schedules, losses, activations, norms, controllers, "
            "engines or metrics.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """List what there is to choose from."""
    from adanet_py.listing import entries

    found = entries(kind)
    if as_json:
        print_json(found)
    else:
        print_table([(e["name"], e["summary"]) for e in found], ("name", "summary"))


@spaces_app.command("list")
@_reported
def spaces_list(as_json: Json = False) -> None:
    """List the search spaces that come with the package."""
    from adanet_py.space import list_spaces, load_space

    found = [{"name": n, "summary": load_space(n).summary} for n in list_spaces()]
    if as_json:
        print_json(found)
    else:
        print_table([(s["name"], s["summary"]) for s in found], ("name", "summary"))


@spaces_app.command("show")
@_reported
def spaces_show(name: Annotated[str, typer.Argument(metavar="NAME|FILE")]) -> None:
    """Print a search space as YAML: a start for one of your own."""
    from adanet_py.space import load_space

    sys.stdout.write(load_space(name).text.rstrip("\n") + "\n")


@spaces_app.command("validate")
@_reported
def spaces_validate(file: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Check a space file; errors name the line."""
    from adanet_py.space import load_space

    space = load_space(file)
    print(f"{file}: fine, {len(space.decisions)} decisions, {len(space.start)} starting points")
    for decision in space.decisions:
        if decision.prior:
            shares = zip(decision.domain, decision.prior, strict=True)
            print(
                f"{decision.name}: {', '.join(f'{value} {share:.0%}' for value, share in shares)}"
            )


@spaces_app.command("schema")
@_reported
def spaces_schema() -> None:
    """Print the JSON schema of space files, for editors."""
    import json

    from adanet_py.space import json_schema

    print(json.dumps(json_schema(), indent=2))
