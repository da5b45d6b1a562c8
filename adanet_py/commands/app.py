"""The command line's frame: the application, its errors and exit codes, arguments of several."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from adanet_py.console import say
from adanet_py.errors import AdanetError

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
portfolio_app = typer.Typer(
    help="Portfolios of what did well: build.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(portfolio_app, name="portfolio")

_debug = False


def reported(command: Callable[..., None]) -> Callable[..., None]:
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


def process_began() -> float:
    """When this process began, by time.monotonic(); where the system does not tell, now."""
    now = time.monotonic()
    if sys.platform != "linux":
        return now
    try:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rsplit(")", 1)[1].split()[19])  # since the machine was started
    except OSError:  # no /proc here
        return now
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return now - max(0.0, age)


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

# How an ensemble is penalised and weighed.
Lambda = Annotated[
    float,
    typer.Option("--lambda", metavar="L", help="Penalty of a member's weight by complexity."),
]
Beta = Annotated[
    float, typer.Option("--beta", metavar="B", help="Penalty of it whatever the complexity.")
]
Weights = Annotated[
    str, typer.Option(metavar="KIND", help="A member's weights: scalar, vector or matrix.")
]
Complexity = Annotated[
    str, typer.Option(metavar="NAME", help="r(h): depth, capacity, spread or constant.")
]
