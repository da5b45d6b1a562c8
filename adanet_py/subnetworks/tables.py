"""An AdaNet of its own subnetworks for a table: from rows to a model file and a table of rounds."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time as clock
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from adanet_py.config import SearchConfig, parse_time
from adanet_py.ensemble.growth import Ensemble
from adanet_py.ensemble.links import Link, rates
from adanet_py.ensemble.losses import OTHERS
from adanet_py.ensemble.objective import minimise
from adanet_py.errors import ConfigError, RunError
from adanet_py.export import TOLERANCE
from adanet_py.folder import PROBE
from adanet_py.member import Member
from adanet_py.metrics import get_metric, score
from adanet_py.model import Model, load
from adanet_py.model_file import MODEL_FILE
from adanet_py.outputs import in_own_unit, predictions
from adanet_py.prediction_cost import costs
from adanet_py.prepare import Prepared, prepare, probe_rows, read
from adanet_py.subnetworks.folder import write_rounds
from adanet_py.subnetworks.growing import Growing
from adanet_py.subnetworks.options import SELECTIONS, GrowthOptions
from adanet_py.subnetworks.problem import Problem, Task
from adanet_py.subnetworks.rounds import grow
from adanet_py.tasks import has_several_targets, is_regression
from adanet_py.training.losses import default_loss

_KEPT = 0.1  # of the time, at most three seconds: for saving


@dataclass(frozen=True)
class Rows:
    """The rows of a table: `features` as a network reads them, and what they are scored by.

    `y` is encoded, `weight` [N] and `offset`, log exposures [N], None where there are none.
    """

    features: Mapping[str, np.ndarray]
    y: np.ndarray
    weight: np.ndarray | None
    offset: np.ndarray | None

    @classmethod
    def of(cls, prepared: Prepared) -> Rows:
        """Copies: the folder of prepared data goes."""
        taken = prepared.source.take(slice(None))
        exposure = taken.get("exposure")
        offset = None if exposure is None else np.log(exposure.astype(np.float64))
        return cls(taken, taken.pop("y"), taken.pop("weight", None), offset)

    def problem(self, prepared: Prepared, scaling: str) -> Problem:
        """What an AdaNet is grown on: class weights and exposures are weights of rows."""
        spec, y, weight = prepared.source.spec, self.y, self.weight
        if prepared.class_weight is not None:
            factors = np.array(prepared.class_weight, np.float64)[y]
            weight = factors if weight is None else weight * factors
        if self.offset is not None:
            exposure, known = np.exp(self.offset), np.asarray(y, np.float64)
            y, weight = rates(known, weight, exposure, spec.target_ratio, spec.loss)
            y, spec = y.astype(np.float32), replace(spec, exposure=False)
        numeric, category = self.features[scaling], self.features["category"]
        return Problem(spec, numeric, category, y, weight)


@dataclass(frozen=True)
class Grown:
    """A grown AdaNet: its model, how it came to be, and its scores.

    `scores` has the run's metric on "train", "validation" and "audit" rows (NaN without such), of
    the whole ensemble; `single` the same of its first subnetwork alone.
    """

    model: Model
    growing: Growing
    prepared: Prepared
    rows: Rows
    scores: Mapping[str, float]
    single: Mapping[str, float]
    costs: Mapping[str, Mapping[str, float]]
    seconds: float

    @property
    def summary(self) -> dict[str, Any]:
        """Plain values: what `adanet --json` prints, but for where the files are."""
        g, selection = self.growing, self.growing.options.selection
        sizes = g.base.weights.sizes().tolist()
        return {
            "task": self.prepared.task,
            "metric": self.prepared.metric,
            "scores": {k: _plain(v) for k, v in self.scores.items()},
            "single": {k: _plain(v) for k, v in self.single.items()},
            "costs": {name: dict(cost) for name, cost in self.costs.items()},
            "members": [
                {"name": m.name, "widths": list(w), "complexity": m.complexity, "weight": size}
                for m, w, size in zip(g.members, g.widths, sizes, strict=True)
            ],
            "objective": [asdict(step) for step in g.steps],
            "stopped": g.stopped,
            "selection": selection,
            "forfeits": SELECTIONS[selection].forfeits,
            "seconds": self.seconds,
        }

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model, checked, and adanet.csv to a folder; the path of the model.

        Raises RunError where the file does not give back what the model predicts.
        """
        path = Path(folder) / MODEL_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rounds(self.growing, path.parent)
        new = path.with_name(path.name + ".new")
        self.model.save(new)
        difference = _difference(load(new), self)
        if not difference <= TOLERANCE:
            new.unlink()
            raise RunError(
                f"The model was not saved: reloaded, its predictions differ by {difference:.2g}."
            )
        os.replace(new, path)
        return path


def grow_table(
    data: Any,
    *,
    y: Any = None,
    target: str | tuple[str, ...] | None = None,
    options: GrowthOptions | None = None,
    task: str = "auto",
    metric: str | None = None,
    loss: str = "auto",
    quantile: float | None = None,
    split: str | os.PathLike[str] | None = None,
    group: str | None = None,
    time_column: str | None = None,
    weight: str | None = None,
    exposure: str | None = None,
    class_weight: str | Mapping[Any, float] | None = None,
    drop: tuple[str, ...] = (),
    types: Mapping[str, str] | None = None,
    strict: bool = False,
    time: str | float | None = None,
    seed: int = 0,
    device: str = "cpu",
    on_round: Callable[[int, Growing], None] = lambda number, growing: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Grown:
    """Grow an AdaNet with subnetworks of its own on a table (Cortes et al. 2017, algorithm 1).

    A part of the rows is held out as in a search with one fold: for the selection by held-out rows,
    and for the score. The words for the data are those of `search`; class weights are part of the
    loss of every F, and of no score. `time` ("60s", 60) bounds the growth, saving included. Raises
    ConfigError and DataError for what cannot be used.
    """
    began, options = clock.monotonic(), options or GrowthOptions()
    budget = math.inf if time is None else parse_time(time)
    end = began + budget - min(3.0, _KEPT * budget) if math.isfinite(budget) else math.inf
    config = SearchConfig(
        target=target, task=task, metric=metric, loss=loss, quantile=quantile, split=split,
        group=group, weight=weight, time_column=time_column, drop=drop, folds=1, seed=seed,
        exposure=exposure, class_weight=class_weight, strict=strict, device=device, candidates=1,
    )  # fmt: skip
    found = read(config, data if y is None else (data, y), types)
    if found.objective.loss not in (default_loss(found.task).name, *OTHERS):
        raise ConfigError(
            f"Expected a loss that is convex in the outputs ({default_loss(found.task).name}, "
            f"{', '.join(OTHERS)}), found {found.objective.loss}. Use another --loss or --metric."
        )
    if config.class_weight != "none" and has_several_targets(found.task):
        raise ConfigError(
            "--class-weight: expected one target of classes, found several: here it is a weight of "
            "whole rows. Rows can be given weights by --weight."
        )
    with tempfile.TemporaryDirectory(prefix="adanet_py-") as scratch:
        prepared = prepare(found, Path(scratch), config.class_weight)
        rows = Rows.of(prepared)
        frame = pd.read_feather(Path(scratch) / "cache" / PROBE)
    for note in prepared.notes:
        on_note(note)
    split_rows = prepared.split
    [growing] = grow(
        rows.problem(prepared, options.scaling),
        [Task(split_rows.train[0], options, seed, split_rows.valid[0])],
        device=device,
        left=lambda: end - clock.monotonic(),
        on_round=lambda number, live: on_round(number, live[0]),
    )
    if not growing.members:
        raise RunError(
            f"No AdaNet was grown: {growing.stopped}. Give more time, a smaller --lambda or other "
            "learning rates."
        )
    first = _first(growing)
    scores, single = _scores(growing, prepared, rows), _scores(first, prepared, rows)
    model = _model(growing, prepared, scores)
    return Grown(
        model,
        growing,
        prepared,
        rows,
        scores,
        single,
        costs({"ensemble": model, "single": _model(first, prepared, single)}, frame),
        clock.monotonic() - began,
    )


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _first(growing: Growing) -> Growing:
    """Its first subnetwork alone, with the weight that is best for it."""
    members = growing.members[:1]
    objective = growing.setting.objective(members)
    weights = objective.uniform() if growing.options.uniform else minimise(objective)
    return replace(
        growing,
        modules=growing.modules[:1],
        hidden=growing.hidden[:1],
        outputs=growing.outputs[:1],
        members=members,
        base=Ensemble((members[0].name,), weights, objective.value(weights)),
    )


def _scores(growing: Growing, prepared: Prepared, rows: Rows) -> dict[str, float]:
    """The metric of an ensemble on the parts of the rows."""
    split, task = prepared.split, prepared.task
    (mean, scale), link = prepared.target_scale, Link.of_spec(prepared.source.spec)
    module, _ = growing.network()

    def of(at: np.ndarray) -> float:
        if not len(at):
            return math.nan
        truth, weight, offset = rows.y[at], rows.weight, rows.offset
        if is_regression(task):
            truth = in_own_unit(truth, mean, scale)
        each = None if weight is None else np.asarray(weight[at], np.float64)
        z = run(module, growing.problem, at)
        values = link.values(z, None if offset is None else offset[at])
        return score(
            get_metric(prepared.metric), truth, predictions(task, values, 1.0, mean, scale), each
        )

    parts = {"train": split.train[0], "validation": split.valid[0], "audit": split.audit}
    return {name: of(at) for name, at in parts.items()}


def run(module: nn.Module, problem: Problem, rows: np.ndarray) -> np.ndarray:
    """Outputs [n, C] of a grown network on some rows."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), 4096):
            parts.append(module(*problem.inputs(rows[start : start + 4096])))
    return np.asarray(torch.cat(parts).double().numpy())


def _model(growing: Growing, prepared: Prepared, scores: Mapping[str, float]) -> Model:
    module, candidate = growing.network()
    arrays = {f"0/{n}": v.detach().numpy() for n, v in module.state_dict().items()}
    about = {
        "candidate": candidate.id,
        "validation": _plain(scores["validation"]),
        "audit": _plain(scores["audit"]),
        "parameters": sum(p.numel() for p in module.parameters()),
        "selection": growing.options.selection,
        "forfeits": SELECTIONS[growing.options.selection].forfeits,
    }
    return Model(
        prepared.target_name,
        prepared.metric,
        prepared.target,
        prepared.preprocessor,
        prepared.source.spec,
        (Member("network", arrays, candidate),),
        json.loads(json.dumps(about)),
        exposure=prepared.exposure,
    )


def _difference(model: Model, grown: Grown) -> float:
    """Of a reloaded model's outputs from those the ensemble was weighed by, relative."""
    growing = grown.growing
    rows = probe_rows(grown.prepared.split)
    known = {int(r): i for i, r in enumerate(growing.rows)}
    link = Link.of_spec(grown.prepared.source.spec)
    offset = None if grown.rows.offset is None else grown.rows.offset[rows]
    expected = link.values(growing.combined()[[known[int(r)] for r in rows]], offset)
    features = {name: values[rows] for name, values in grown.rows.features.items()}
    found = model.fold_outputs(model.members[0], features)[0]
    size = np.maximum(1.0, np.abs(expected))
    return float((np.abs(found - expected) / size).max(initial=0.0))
