"""New data for a model: members stay as they are, their weights are refitted, one may join.

The new rows are dealt into two parts. On one a network with the settings of the run's best is
trained; on the other, together with the validation rows of the run, F (ensemble/objective.py) is
minimised over the weights of the frozen members, without that network and with it. It joins if F
falls. What is saved is a new file.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adanet_py.calibration import fold_of
from adanet_py.config import SearchConfig
from adanet_py.data.splits import Split
from adanet_py.data.table import read_table
from adanet_py.data.targets import encode
from adanet_py.ensemble.growth import LEAST_FALL, Ensemble, Setting
from adanet_py.ensemble.growth import Member as Voter
from adanet_py.ensemble.pool import read_pool
from adanet_py.ensemble.weights import Weights
from adanet_py.ensembling import FOLDS, Options, make_setting, why_none
from adanet_py.errors import DataError, RunError
from adanet_py.export import ENSEMBLE
from adanet_py.folder import PROBE, candidate_file, read_described
from adanet_py.held_out import HeldOut, Rows
from adanet_py.leaderboard import standing
from adanet_py.member import Member, network_member
from adanet_py.metrics import get_metric, score
from adanet_py.model import Model, load
from adanet_py.outputs import as_outputs, in_own_unit
from adanet_py.records import Result
from adanet_py.regrow import prepare_again, save_checked
from adanet_py.state import State, read_state
from adanet_py.tasks import is_regression

OUT = "updated.adanet"
FEWEST = 20  # new rows
TRAINED = 0.6  # share of them
CHECKED = 64


@dataclass(frozen=True)
class Updated:
    """The new model and how it came to be.

    `objective`: F with the weights as they were, refitted, and with the new network (None: it was
    not trained to a usable end). `before` and `after` are the run's metric on the new rows that
    nothing was trained on, `after` cross-fitted: each row by weights fitted without it.
    """

    model: Model
    path: Path
    objective: dict[str, float | None]
    joined: bool
    before: float
    after: float
    rows: int


def update(
    run: str | os.PathLike[str],
    new: Any,
    out: str | os.PathLike[str] | None = None,
    *,
    data: Any = None,
    options: Options | None = None,
) -> Updated:
    """Update the model of a run that has ended with the rows of a table that has the target.

    The model goes to `out`, by default `updated.adanet` in the run; nothing is overwritten. `data`
    is the run's own table, where that is not the file it read. Raises RunError where there is such
    a file already, or the run's data are gone, DataError for rows that do not suit the model.
    """
    folder = Path(run)
    path = Path(out) if out is not None else folder / OUT
    state, held = _ended(folder, path)
    model = load(folder)
    networks = standing(state.finished())
    if not networks:
        raise RunError("Expected a run with a trained network, found none to add another of.")
    fresh = _dealt(model, new, read_described(folder).config)
    voters = _voters(folder, held, state, model, fresh)
    setting, weights = _setting(held, model, fresh, voters, options or Options())
    found: dict[str, float | None] = {"before": setting.objective(voters).value(weights)}
    best = setting.fit(voters)
    found |= {"refitted": best.value, "with_new": None}
    members = {m.candidate.id: m for m in model.members}
    joined = False
    with tempfile.TemporaryDirectory(prefix="adanet_py-update-") as scratch:
        added = _train(Path(scratch), folder, model, networks[0], fresh)
        if added is not None:
            one, on_new = added
            before = _rows_before(folder, Path(scratch) / "old", data)
            alone = replace(model, members=(one,), weights=None)
            outputs = np.concatenate([alone.member_outputs(one, before), on_new])
            voters.append(Voter(one.candidate.id, outputs, networks[0].layers, 1.0))
            start = best.weights if best.names == tuple(v.name for v in voters[:-1]) else None
            grown = setting.fit(voters, start)
            found["with_new"] = grown.value
            falls = grown.value < best.value - LEAST_FALL * abs(best.value)
            joined = falls and one.candidate.id in grown.names
            if joined:
                best, members = grown, {**members, one.candidate.id: one}
        if not best.names:
            raise RunError("No weight lowers F: every member costs more than it gains here.")
        chosen = tuple(members[name] for name in best.names)
        about = {"candidate": ENSEMBLE, "members": list(best.names), "updated": len(fresh.y)}
        result = replace(model, members=chosen, weights=best.weights, about=about)
        _save(result, path, fresh, Path(scratch))
    used = [v for v in voters if v.name in best.names]
    after = result.finish(_cross_fitted(setting, used, len(fresh.rest)), 1.0)
    values = [fresh.score(held, p) for p in (model.outputs_of(fresh.held_back), after)]
    return Updated(result, path, found, joined, values[0], values[1], len(fresh.y))


@dataclass(frozen=True)
class _Fresh:
    """The new rows: a network is trained on those at `train`, weights fitted on those at `rest`."""

    frame: pd.DataFrame
    features: dict[str, np.ndarray]
    y: np.ndarray
    weight: np.ndarray | None
    train: np.ndarray
    rest: np.ndarray

    @property
    def held_back(self) -> dict[str, np.ndarray]:
        """The features of `rest`."""
        return {name: array[self.rest] for name, array in self.features.items()}

    def score(self, held: HeldOut, predicted: np.ndarray) -> float:
        """The run's metric of predictions for `rest`."""
        truth = self.y[self.rest]
        if is_regression(held.task):
            truth = in_own_unit(truth, held.mean, held.scale)
        weight = None if self.weight is None else self.weight[self.rest]
        return score(get_metric(held.metric), truth, predicted, weight)


def _ended(folder: Path, path: Path) -> tuple[State, HeldOut]:
    """A run that has ended, and its validation rows, where the weights can be fitted again."""
    if path.exists():
        raise RunError(f"{path} exists. Give another --out, or remove it first.")
    read_described(folder)  # says what is wrong with a folder that is no run
    state = read_state(folder)
    if state.stopped is None:
        raise RunError(f"Expected a run that has ended at {folder}. Go on with it by `resume`.")
    held = HeldOut.load(folder)
    if why := why_none(held):
        raise RunError(why)
    if held.phi is not None:
        raise RunError(
            f"Expected a run by cross entropy or the squared error, found one by {held.loss}, "
            "whose weights `update` cannot refit. Search on all rows again."
        )
    return state, held


def _dealt(model: Model, new: Any, config: SearchConfig) -> _Fresh:
    """The new rows as the model reads them, dealt into two parts."""
    table = read_table(new, target=model.target_name, weight=config.weight)
    assert table.target is not None
    y = encode(model.target, table.target)
    if len(y) < FEWEST:
        raise DataError(f"Expected at least {FEWEST} new rows with a target, found {len(y)}.")
    order = np.random.default_rng([config.seed, 0x0D]).permutation(len(y))
    train, rest = np.split(order, [round(TRAINED * len(y))])
    weight = None if table.weight is None else np.asarray(table.weight, np.float64)
    return _Fresh(table.frame, model.features(table.frame), y, weight, train, rest)


def _voters(folder: Path, held: HeldOut, state: State, model: Model, fresh: _Fresh) -> list[Voter]:
    """The members with what they give for the run's validation rows, then for the new ones."""
    old = _stored(folder, held, [state.by_id[m.candidate.id] for m in model.members])
    new = fresh.held_back
    return [
        Voter(m.candidate.id, np.concatenate([o, model.member_outputs(m, new)]), d, 1.0)
        for m, (o, d) in zip(model.members, old, strict=True)
    ]


def _setting(
    held: HeldOut, model: Model, fresh: _Fresh, voters: list[Voter], options: Options
) -> tuple[Setting, Weights]:
    """F over both kinds of rows, for weights of the model's kind; the weights it has."""
    weight = held.validation.weight
    new = fresh.weight if weight is not None else None
    weight = None if new is None else np.concatenate([weight, new[fresh.rest]])
    rows = Rows(np.concatenate([held.validation.y, fresh.y[fresh.rest]]), weight)
    weights = model.weights or Weights(np.ones(1), np.zeros(voters[0].outputs.shape[1]))
    kind = ("scalar", "vector", "matrix")[weights.mixture.ndim - 1]
    setting = make_setting(held.task, rows, options)
    setting = replace(setting, kind=kind, bias=bool(weights.bias.any()))  # type: ignore[arg-type]
    return setting, weights


def _rows_before(folder: Path, scratch: Path, data: Any) -> dict[str, np.ndarray]:
    """The features of the run's validation rows, prepared again."""
    scratch.mkdir()
    prepared = prepare_again(folder, scratch, data)
    at = np.concatenate(prepared.split.valid)
    return {n: np.array(a[at]) for n, a in prepared.source.arrays.items()}


def _save(model: Model, path: Path, fresh: _Fresh, scratch: Path) -> None:
    """Save the model, checked on some of the new rows."""
    first = fresh.frame.iloc[fresh.rest[:CHECKED]].reset_index(drop=True)
    first.to_feather(scratch / PROBE)
    checked = model.features(first)
    expected = [model.fold_outputs(m, checked)[0] for m in model.members]
    fold = np.zeros(len(first), np.int64)
    save_checked(model, path, expected, fold, scratch / PROBE)


def _stored(folder: Path, held: HeldOut, results: list[Result]) -> list[tuple[np.ndarray, int]]:
    """Outputs of members on the run's validation rows, with their layers."""

    def outputs(predicted: np.ndarray) -> np.ndarray:
        return as_outputs(held.task, predicted, held.mean, held.scale)

    pool = read_pool(folder, results, lambda result, outputs: 1.0, outputs)
    if len(pool.members) < len(results):
        raise RunError(
            f"{folder} no longer holds what the members of its model predicted (candidates/)."
        )
    return [(m.outputs, m.depth) for m in pool.members]


def _train(
    scratch: Path,
    folder: Path,
    model: Model,
    best: Result,
    fresh: _Fresh,
) -> tuple[Member, np.ndarray] | None:
    """A network of the best one's settings on the rows `train`, and its outputs on `rest`."""
    import torch
    from safetensors import safe_open

    from adanet_py.data.source import ArraySource, write_arrays
    from adanet_py.own import Own, engine_for
    from adanet_py.training.jobs import run_group
    from adanet_py.training.setting import Setting as Job

    write_arrays(scratch / "cache", fresh.features, fresh.y, fresh.weight, model.spec)
    parts = np.sort(fresh.train), np.sort(fresh.rest)
    split = Split("holdout", (parts[0],), (parts[1],), fresh.rest[:0], "of new rows")
    candidate = replace(best.candidate, seed=best.candidate.seed + 1, parent=None, move=None)
    planned = read_state(folder).groups[best.group]
    before = len(Split.load(folder / "split.npz").train[0])
    steps = max(60, round(planned.steps * len(fresh.train) / before))
    own = Own()
    group = replace(
        planned, candidates=(candidate,), steps=steps, rungs=(), keep=(), bars=(), controllers=(),
        stop_at=None, evaluate_every=max(1, steps // 30), engine=engine_for(candidate, own),
    )  # fmt: skip
    mean, scale = np.asarray(model.target.mean), np.asarray(model.target.scale)
    job = Job(
        scratch, ArraySource.open(scratch / "cache"), split,
        own.all_architectures()[candidate.architecture], model.metric,
        (mean.tolist(), scale.tolist()), None, torch.device("cpu"),
        lambda event: None, lambda: False,
    )  # fmt: skip
    [result] = run_group(group, job)
    if not result.status.usable:
        return None
    path = candidate_file(scratch, candidate.id)
    member = network_member(path)
    with safe_open(path, framework="np") as file:
        outputs = file.get_tensor("predictions/validation").astype(np.float64)
    at = np.argsort(np.argsort(fresh.rest))  # from the order of the split to that of `rest`
    return member, outputs[at] / member.temperature


def _cross_fitted(setting: Setting, voters: list[Voter], new: int) -> np.ndarray:
    """Mixed outputs of the last `new` rows, each by weights fitted without it."""
    total = len(setting.y)
    fold = np.full(total, -1)
    fold[total - new :] = fold_of(new, FOLDS)
    out = np.zeros_like(voters[0].outputs)
    for k in range(FOLDS):
        fit, at = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        part = setting.taken(fit)
        found: Ensemble = part.fit([replace(v, outputs=v.outputs[fit]) for v in voters])
        chosen = [v.outputs[at] for v in voters if v.name in found.names]
        out[at] = found.weights.bias
        if chosen:
            out[at] = found.weights.combine(np.stack(chosen))
    return out[total - new :]
