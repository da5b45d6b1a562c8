"""The ensemble of a run that has ended, grown anew with other options: nothing is trained."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.data.splits import Split
from adanet_py.ensembling import Grown, Options, grow_ensemble, why_none, write_table
from adanet_py.errors import RunError
from adanet_py.export import ENSEMBLE, TOLERANCE, expect, stored_member, write_expected
from adanet_py.folder import PROBE, read_described
from adanet_py.held_out import HeldOut
from adanet_py.leaderboard import ranked, standing
from adanet_py.model import Model, load
from adanet_py.prediction_cost import costs
from adanet_py.records import Result
from adanet_py.state import read_state

if TYPE_CHECKING:
    from adanet_py.prepare import Prepared

OUT = "ensemble.adanet"


def regrow(
    run: str | os.PathLike[str],
    options: Options,
    out: str | os.PathLike[str] | None = None,
    *,
    single: bool = False,
) -> tuple[Grown, Path]:
    """Grow the ensemble of a run from its stored predictions; its model, checked, goes to `out`.

    `out` is by default `ensemble.adanet` in the run, beside ensemble.csv; `single`: the model is
    that of the best network instead. Raises RunError for a run that has not ended, or whose
    networks cannot be weighed.
    """
    folder = Path(run)
    _, grown = grow_again(folder, options)
    networks = standing(read_state(folder).finished())
    if single and not networks:
        raise RunError("--single: expected a run with a trained network, found none.")
    path = Path(out) if out is not None else folder / OUT
    write_table(grown, folder / "ensemble.csv")
    model = model_of(folder, networks[0] if single else None, grown)
    expected, fold = expect(folder, Split.load(folder / "split.npz"), model)
    save_checked(model, path, expected, fold, folder / PROBE)
    return grown, path


def grow_again(folder: Path, options: Options) -> tuple[HeldOut, Grown]:
    """The held-out rows of a run that has ended, and its ensemble with these options.

    Raises RunError as `regrow`.
    """
    described = read_described(folder)
    state = read_state(folder)
    if state.stopped is None:
        raise RunError(f"Expected a run that has ended at {folder}. Go on with it by `resume`.")
    held = HeldOut.load(folder)
    if why := why_none(held):
        raise RunError(why)
    if any(described.objects.get(kind) for kind in ("architectures", "optimizers", "losses")):
        raise RunError(
            "The run uses objects of Python, which a model of it must be given again: ensembles of "
            "such runs are grown by their search only."
        )
    grown = grow_ensemble(folder, ranked(state.all_results()), held, options)
    if grown is None:
        raise RunError(
            "No ensemble: fewer than two members of the run are stored, or none is worth its "
            "penalty. Give smaller --lambda and --beta."
        )
    return held, grown


def prepare_again(folder: Path, scratch: Path, data: Any = None) -> Prepared:
    """The data of a run, prepared as they were, under `scratch`.

    Raises RunError where they are gone or not the same.
    """
    from adanet_py.prepare import prepare, read
    from adanet_py.replay import data_again

    described = read_described(folder)
    given = data_again(folder, described, data)
    prepared = prepare(
        read(described.config, given, described.types), scratch, described.config.class_weight
    )
    before, now = Split.load(folder / "split.npz"), prepared.split
    parts = zip((*before.train, *before.valid), (*now.train, *now.valid), strict=True)
    if not all(np.array_equal(a, b) for a, b in parts):
        raise RunError(f"The rows of {folder} are split otherwise by this version of the program.")
    return prepared


def model_of(folder: Path, single: Result | None, grown: Grown) -> Model:
    """The saved model of the run with other members."""
    results = grown.members if single is None else (single,)
    scores = grown.scores["ensemble" if single is None else "single"]
    about = {
        "candidate": ENSEMBLE if single is None else single.candidate.id,
        "validation": scores.validation,
        "audit": None if np.isnan(scores.audit) else scores.audit,
        "parameters": sum(r.parameters for r in results),
    }
    if single is None:
        about["members"] = [r.candidate.id for r in results]
    return replace(
        load(folder),
        members=tuple(stored_member(folder, r) for r in results),
        weights=grown.weights if single is None else None,
        about=about,
    )


def compared(
    run: str | os.PathLike[str], grown: Grown, others: Mapping[str, Model] | None = None
) -> dict[str, dict[str, float]]:
    """The `costs` of the ensemble, of the best single network and of other models, by name."""
    import pandas as pd

    folder = Path(run)
    networks = standing(read_state(folder).finished())
    models = {"ensemble": model_of(folder, None, grown)}
    if networks:
        models["single"] = model_of(folder, networks[0], grown)
    return costs({**models, **(others or {})}, pd.read_feather(folder / PROBE))


def save_checked(
    model: Model, path: Path, expected: Sequence[np.ndarray], fold: np.ndarray, frame: Path
) -> None:
    """Write a model once another process predicts with it what is `expected`, see `export.verify`.

    `frame` is the Feather file of the rows.
    """
    new = path.with_name(path.name + ".new")
    model.save(new)
    with tempfile.TemporaryDirectory() as scratch:
        write_expected(Path(scratch), expected, fold)
        shutil.copyfile(frame, Path(scratch) / PROBE)
        said, errors = reload_apart(new, Path(scratch))
    try:
        difference = float(json.loads(said)["difference"])
    except (ValueError, KeyError):
        lines = errors.strip().splitlines()
        new.unlink(missing_ok=True)
        raise RunError(
            f"The model was not saved: reloaded, {lines[-1] if lines else 'it says nothing'}."
        ) from None
    if not difference <= TOLERANCE:
        new.unlink(missing_ok=True)
        raise RunError(
            f"The model was not saved: reloaded, its predictions differ by {difference:.2g}."
        )
    os.replace(new, path)


def reload_apart(model: Path, cache: Path) -> tuple[str, str]:
    """Check a model file in a process of its own: what it wrote to stdout and stderr.

    `cache` holds the rows and what is expected of them; stdout is JSON, see `export.main`.
    """
    command = [sys.executable, "-m", "adanet_py.export", str(model), str(cache)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.stdout, ended.stderr
