"""An AdaNet of its own subnetworks for a table: from rows to a model file and a table of rounds."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time as clock
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adanet_py.config import SearchConfig, parse_time
from adanet_py.ensemble.links import Link
from adanet_py.ensemble.losses import OTHERS
from adanet_py.ensemble.objective import minimise
from adanet_py.errors import ConfigError, RunError
from adanet_py.export import TOLERANCE
from adanet_py.frames import make_frame, write_csv
from adanet_py.metrics import get_metric, score
from adanet_py.model import MODEL_FILE, Member, Model, load
from adanet_py.outputs import in_own_unit, predictions
from adanet_py.prepare import Prepared, prepare, probe_rows, read
from adanet_py.subnetworks.options import SELECTIONS, GrowthOptions
from adanet_py.subnetworks.rounds import Growing, Problem, Task, grow
from adanet_py.tasks import is_regression
from adanet_py.training.losses import default_loss

TABLE = "adanet.csv"
_KEPT = 0.1  # of the time, at most three seconds: for saving
COLUMNS: dict[str, str] = {
    "round": "round of the growth",
    "name": "the candidate: round and place in it",
    "depth": "its hidden layers",
    "width": "units of each",
    "rate": "learning rate it was trained at",
    "complexity": "its r(h), in units of the mean of the first round",
    "loss": "mean training loss with it in the ensemble, the other weights as they were",
    "penalty": "sum of Gamma_j |w_j| with it",
    "weight": "its weight with which F is least",
    "change": "change of F = loss + penalty on the training rows by it",
    "score": "what the candidates of the round are compared by, the least wins",
    "accepted": "whether it joined",
    "why": "why, or why not",
    "final_weight": "size of its weight in the finished ensemble, 0 if it is not in it",
}


@dataclass(frozen=True)
class Grown:
    """A grown AdaNet: its model, how it came to be, and its scores.

    `scores` has the run's metric on "train", "validation" and "audit" rows (NaN without such), of
    the whole ensemble; `single` the same of its first subnetwork alone.
    """

    model: Model
    growing: Growing
    prepared: Prepared
    scores: Mapping[str, float]
    single: Mapping[str, float]
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
        self.write_table(path.with_name(TABLE))
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

    def write_table(self, path: Path) -> None:
        """Write every candidate of every round."""
        g = self.growing
        sizes = dict(zip([m.name for m in g.members], g.base.weights.sizes().tolist(), strict=True))
        rows = [{**asdict(t), "final_weight": sizes.get(t.name, 0.0)} for t in g.trials]
        write_csv(make_frame(rows, list(COLUMNS)), path)


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
    drop: tuple[str, ...] = (),
    time: str | float | None = None,
    seed: int = 0,
    device: str = "cpu",
    on_round: Callable[[int, Growing], None] = lambda number, growing: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Grown:
    """Grow an AdaNet with subnetworks of its own on a table (Cortes et al. 2017, algorithm 1).

    A part of the rows is held out as in a search with one fold: for the selection by held-out rows,
    and for the score. `time` ("60s", 60) bounds the growth, saving included. Raises ConfigError and
    DataError for what cannot be used.
    """
    began, options = clock.monotonic(), options or GrowthOptions()
    budget = math.inf if time is None else parse_time(time)
    end = began + budget - min(3.0, _KEPT * budget) if math.isfinite(budget) else math.inf
    config = SearchConfig(
        target=target, task=task, metric=metric, loss=loss, quantile=quantile, split=split,
        group=group, weight=weight, time_column=time_column, drop=drop, folds=1, seed=seed,
        candidates=1,
    )  # fmt: skip
    found = read(config, data if y is None else (data, y))
    if found.objective.loss not in (default_loss(found.task).name, *OTHERS):
        raise ConfigError(
            f"Expected a loss that is convex in the outputs ({default_loss(found.task).name}, "
            f"{', '.join(OTHERS)}), found {found.objective.loss}. Use another --loss or --metric."
        )
    with tempfile.TemporaryDirectory(prefix="adanet_py-") as scratch:
        prepared = prepare(found, Path(scratch))
        rows = prepared.source.take(slice(None))  # copies: the folder goes
    for note in prepared.notes:
        on_note(note)
    split_rows = prepared.split
    problem = Problem(
        prepared.source.spec,
        rows[options.scaling],
        rows["category"],
        rows["y"],
        rows.get("weight"),
    )
    [growing] = grow(
        problem,
        [Task(split_rows.train[0], options, seed, split_rows.valid[0])],
        device=device,
        late=lambda: clock.monotonic() > end,
        left=lambda: end - clock.monotonic(),
        on_round=lambda number, live: on_round(number, live[0]),
    )
    if not growing.members:
        raise RunError(
            f"No AdaNet was grown: {growing.stopped}. Give more time, a smaller --lambda or other "
            "learning rates."
        )
    scores, single = _scores(growing, prepared)
    return Grown(
        _model(growing, prepared, scores),
        growing,
        prepared,
        scores,
        single,
        clock.monotonic() - began,
    )


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _scores(growing: Growing, prepared: Prepared) -> tuple[dict[str, float], dict[str, float]]:
    """The metric of the ensemble, and of its first subnetwork with its best weight."""
    split, task = prepared.split, prepared.task
    parts = {"train": split.train[0], "validation": split.valid[0], "audit": split.audit}
    y, weight = growing.problem.y, growing.problem.weight
    (mean, scale), link = prepared.target_scale, Link.of_spec(prepared.source.spec)
    alone = growing.setting.objective(growing.members[:1])
    first = minimise(alone)
    module, _ = growing.network()

    def of(rows: np.ndarray, which: str) -> float:
        if not len(rows):
            return math.nan
        if which == "all":
            z = run(module, growing.problem, rows)
        else:
            z = first.combine(run(growing.modules[0], growing.problem, rows)[None])
        truth = np.asarray(y[rows])
        if is_regression(task):
            truth = in_own_unit(truth, mean, scale)
        each = None if weight is None else np.asarray(weight[rows], np.float64)
        found = predictions(task, link.values(z), 1.0, mean, scale)
        return score(get_metric(prepared.metric), truth, found, each)

    return (
        {name: of(rows, "all") for name, rows in parts.items()},
        {name: of(rows, "first") for name, rows in parts.items()},
    )


def run(module: Any, problem: Problem, rows: np.ndarray) -> np.ndarray:
    """Outputs [n, C] of a grown network, or of a subnetwork that reads no other, on some rows."""
    import torch

    from adanet_py.subnetworks.networks import Subnetwork

    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), 4096):
            at = rows[start : start + 4096]
            numeric = torch.from_numpy(np.array(problem.numeric[at], np.float32))
            inputs = numeric, torch.from_numpy(np.array(problem.category[at]))
            if isinstance(module, Subnetwork):
                nothing = [numeric[:, :0]] * len(module.layers)
                parts.append(module(*inputs, nothing)[1])
            else:
                parts.append(module(*inputs))
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
    )


def _difference(model: Model, grown: Grown) -> float:
    """Of a reloaded model's outputs from those the ensemble was weighed by, relative."""
    growing = grown.growing
    rows = probe_rows(grown.prepared.split)
    known = {int(r): i for i, r in enumerate(growing.rows)}
    link = Link.of_spec(grown.prepared.source.spec)
    expected = link.values(growing.combined()[[known[int(r)] for r in rows]])
    features = {
        growing.options.scaling: np.array(growing.problem.numeric[rows], np.float32),
        "category": np.array(growing.problem.category[rows]),
    }
    found = model.fold_outputs(model.members[0], features)[0]
    size = np.maximum(1.0, np.abs(expected))
    return float((np.abs(found - expected) / size).max(initial=0.0))
