"""The commands that list or prepare: compile, list, spaces."""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from adanet_py.commands.app import Json, app, reported, spaces_app
from adanet_py.console import duration, print_json, print_table
from adanet_py.errors import ConfigError


@app.command("compile")
@reported
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
@reported
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
@reported
def spaces_list(as_json: Json = False) -> None:
    """List the search spaces that come with the package."""
    from adanet_py.space import list_spaces, load_space

    found = [{"name": n, "summary": load_space(n).summary} for n in list_spaces()]
    if as_json:
        print_json(found)
    else:
        print_table([(s["name"], s["summary"]) for s in found], ("name", "summary"))


@spaces_app.command("show")
@reported
def spaces_show(name: Annotated[str, typer.Argument(metavar="NAME|FILE")]) -> None:
    """Print a search space as YAML: a start for one of your own."""
    from adanet_py.space import load_space

    sys.stdout.write(load_space(name).text.rstrip("\n") + "\n")


@spaces_app.command("validate")
@reported
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
@reported
def spaces_schema() -> None:
    """Print the JSON schema of space files, for editors."""
    import json

    from adanet_py.space import json_schema

    print(json.dumps(json_schema(), indent=2))
