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

from adanet_py.calibration import fold_of
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
from adanet_py.state import read_state
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
    if path.exists():
        raise RunError(f"{path} exists. Give another --out, or remove it first.")
    described, state = read_described(folder), read_state(folder)
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
    model = load(folder)
    networks = standing(state.finished())
    if not networks:
        raise RunError("Expected a run with a trained network, found none to add another of.")
    table = read_table(new, target=model.target_name, weight=described.config.weight)
    assert table.target is not None
    y = encode(model.target, table.target)
    if len(y) < FEWEST:
        raise DataError(f"Expected at least {FEWEST} new rows with a target, found {len(y)}.")
    order = np.random.default_rng([described.config.seed, 0x0D]).permutation(len(y))
    train, rest = np.split(order, [round(TRAINED * len(y))])
    features = model.features(table.frame)
    weight = None if table.weight is None else np.asarray(table.weight, np.float64)
    fresh = {name: array[rest] for name, array in features.items()}
    old = _stored(folder, held, [state.by_id[m.candidate.id] for m in model.members])
    voters = [
        Voter(m.candidate.id, np.concatenate([o, model.member_outputs(m, fresh)]), d, 1.0)
        for m, (o, d) in zip(model.members, old, strict=True)
    ]
    parts = None if weight is None or held.validation.weight is None else weight[rest]
    known = None if parts is None else np.concatenate([held.validation.weight, parts])
    rows = Rows(np.concatenate([held.validation.y, y[rest]]), known)
    setting = make_setting(held.task, rows, options or Options())
    weights = model.weights or Weights(np.ones(1), np.zeros(voters[0].outputs.shape[1]))
    kind = ("scalar", "vector", "matrix")[weights.mixture.ndim - 1]
    setting = replace(setting, kind=kind, bias=bool(weights.bias.any()))  # type: ignore[arg-type]
    found: dict[str, float | None] = {"before": setting.objective(voters).value(weights)}
    best = setting.fit(voters)
    found["refitted"] = best.value
    members = {m.candidate.id: m for m in model.members}
    joined = False
    with tempfile.TemporaryDirectory(prefix="adanet_py-update-") as scratch:
        added = _train(Path(scratch), folder, model, networks[0], features, y, weight, train, rest)
        found["with_new"] = None
        if added is not None:
            one, on_new = added
            (Path(scratch) / "old").mkdir()
            prepared = prepare_again(folder, Path(scratch) / "old", data)
            at = np.concatenate(prepared.split.valid)
            before = {n: np.array(a[at]) for n, a in prepared.source.arrays.items()}
            alone = replace(model, members=(one,), weights=None)
            outputs = np.concatenate([alone.member_outputs(one, before), on_new])
            voter = Voter(one.candidate.id, outputs, networks[0].layers, 1.0)
            grown = setting.fit(
                [*voters, voter],
                best.weights if best.names == tuple(v.name for v in voters) else None,
            )
            found["with_new"] = grown.value
            falls = grown.value < best.value - LEAST_FALL * abs(best.value)
            joined = falls and voter.name in grown.names
            if joined:
                best, members = grown, {**members, voter.name: one}
                voters = [*voters, voter]
        if not best.names:
            raise RunError("No weight lowers F: every member costs more than it gains here.")
        chosen = tuple(members[name] for name in best.names)
        about = {"candidate": ENSEMBLE, "members": list(best.names), "updated": len(y)}
        result = replace(model, members=chosen, weights=best.weights, about=about)
        first = table.frame.iloc[rest[:CHECKED]].reset_index(drop=True)
        first.to_feather(Path(scratch) / PROBE)
        checked = result.features(first)
        expected = [result.fold_outputs(m, checked)[0] for m in chosen]
        fold = np.zeros(len(first), np.int64)
        save_checked(result, path, expected, fold, Path(scratch) / PROBE)
    used = [v for v in voters if v.name in best.names]
    after = _cross_fitted(setting, used, len(rest))
    truth = y[rest]
    if is_regression(held.task):
        truth = in_own_unit(truth, held.mean, held.scale)
    metric = get_metric(held.metric)
    scored = [
        score(metric, truth, p, None if weight is None else weight[rest])
        for p in (model.outputs_of(fresh), result.finish(after, 1.0))
    ]
    return Updated(result, path, found, joined, scored[0], scored[1], len(y))


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
    features: dict[str, np.ndarray],
    y: np.ndarray,
    weight: np.ndarray | None,
    train: np.ndarray,
    rest: np.ndarray,
) -> tuple[Member, np.ndarray] | None:
    """A network of the best one's settings on the rows `train`, and its outputs on `rest`."""
    import torch
    from safetensors import safe_open

    from adanet_py.data.source import ArraySource, write_arrays
    from adanet_py.own import Own, engine_for
    from adanet_py.training.jobs import Setting as Job
    from adanet_py.training.jobs import run_group

    write_arrays(scratch / "cache", features, y, weight, model.spec)
    parts = np.sort(train), np.sort(rest)
    split = Split("holdout", (parts[0],), (parts[1],), rest[:0], "of new rows")
    candidate = replace(best.candidate, seed=best.candidate.seed + 1, parent=None, move=None)
    planned = read_state(folder).groups[best.group]
    before = len(Split.load(folder / "split.npz").train[0])
    steps = max(60, round(planned.steps * len(train) / before))
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
    at = np.argsort(np.argsort(rest))  # from the order of the split to that of `rest`
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
