"""Write the tables of a run from its journal."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from adanet_py import fronts, leaderboard
from adanet_py.advice import IMPORTANCE_COLUMNS, importance_rows
from adanet_py.calibration import cross_fitted
from adanet_py.folder import candidate_file
from adanet_py.frames import make_frame, write_csv
from adanet_py.intervals import standard_errors
from adanet_py.metrics import get_metric, score, to_error
from adanet_py.optimism import Scored
from adanet_py.outputs import in_own_unit, predictions
from adanet_py.prepare import Prepared
from adanet_py.records import Result, Status
from adanet_py.space import SearchSpace
from adanet_py.state import State
from adanet_py.tasks import is_regression

TOP = 20


def write_tables(
    folder: Path,
    prepared: Prepared,
    state: State,
    into: Path | None = None,
    space: SearchSpace | None = None,
    chosen: Result | None = None,
) -> None:
    """Write leaderboard, curves, Pareto front and hypervolume, into the run or another folder.

    With a space, importance of its decisions too. `chosen` is the model, by default the one saved.
    """
    into = into or folder
    results = state.all_results()
    metric = get_metric(prepared.metric)
    target = prepared.target
    y, weight = _truth(prepared)
    stored = {}
    for result in leaderboard.ranked(results)[:TOP]:
        found = stored_predictions(folder, prepared, result, y, weight)
        if found is not None:
            stored[result.candidate.id] = found
    if is_regression(prepared.task):
        y = in_own_unit(y, target.mean, target.scale)
    saved = state.model or {}
    name = chosen.candidate.id if chosen else saved.get("network", saved.get("candidate"))
    audit = _audited(folder, prepared, state.by_id.get(name or ""))
    table = leaderboard.build(
        results, metric, predictions=stored, y=y, weight=weight, top=TOP, model=name,
        audit={} if audit is None else {str(name): audit},
    )  # fmt: skip
    write_csv(table, into / "leaderboard.csv")
    write_csv(leaderboard.curves(results, metric), into / "curves.csv")
    write_csv(fronts.pareto(results, state.when), into / "pareto.csv")
    write_csv(fronts.growth(results, state.when), into / "hypervolume.csv")
    if space is not None:
        decisions = importance_rows(space, state.finished())
        write_csv(make_frame(decisions, list(IMPORTANCE_COLUMNS)), into / "importance.csv")


def standard_error(folder: Path, prepared: Prepared, result: Result) -> float:
    """The standard error of a result's validation error; NaN where its predictions are gone."""
    metric = get_metric(prepared.metric)
    y, weight = _truth(prepared)
    found = stored_predictions(folder, prepared, result, y, weight)
    if found is None:
        return math.nan
    if is_regression(prepared.task):
        y = in_own_unit(y, prepared.target.mean, prepared.target.scale)
    value = score(metric, y, found, weight)
    other = value + float(standard_errors(metric, y, [found], weight)[0])
    return abs(to_error(metric, other) - to_error(metric, value))


def _audited(folder: Path, prepared: Prepared, result: Result | None) -> Scored | None:
    """A network's predictions for the audit rows, as they were scored; None: there are none."""
    from safetensors import safe_open

    rows = prepared.split.audit
    usable = result is not None and result.status.usable
    path = candidate_file(folder, result.candidate.id) if result and usable else None
    if path is None or not len(rows) or not path.is_file():
        return None
    with safe_open(path, framework="np") as file:
        outputs = file.get_tensor("predictions/audit")
        temperature = float(json.loads(file.metadata()["about"])["temperature"])
    source, task, target = prepared.source, prepared.task, prepared.target
    y = np.asarray(source.y[rows])
    if is_regression(task):
        y = in_own_unit(y, target.mean, target.scale)
    found = predictions(task, outputs, temperature, target.mean, target.scale)
    return Scored(y, found, None if source.weight is None else np.asarray(source.weight[rows]))


def _truth(prepared: Prepared) -> tuple[np.ndarray, np.ndarray | None]:
    """Encoded targets and weights of the validation rows, fold after fold."""
    source = prepared.source
    rows = np.concatenate(prepared.split.valid)
    weight = None if source.weight is None else np.asarray(source.weight[rows])
    return np.asarray(source.y[rows]), weight


def stored_predictions(
    folder: Path, prepared: Prepared, result: Result, y: np.ndarray, weight: np.ndarray | None
) -> np.ndarray | None:
    """Validation predictions as they were scored: see outputs.py; or None."""
    from safetensors import safe_open

    path = candidate_file(folder, result.candidate.id)
    if not path.is_file():
        return None
    with safe_open(path, framework="np") as file:
        outputs: np.ndarray = file.get_tensor("predictions/validation")
    if result.status is Status.BASELINE:
        return outputs
    task, target = prepared.task, prepared.target
    temperature = 1.0 if is_regression(task) else cross_fitted(outputs, y, weight)
    return predictions(task, outputs, temperature, target.mean, target.scale)
