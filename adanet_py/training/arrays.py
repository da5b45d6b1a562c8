"""Train networks on arrays as they are: no table, no split, no scaling, no model file.

For studying networks and methods themselves. What the package does for a table (columns, folds,
standardisation, calibration) is left out, so that trained weights mean what a textbook says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adanet_py.calibration import probabilities
from adanet_py.data.spec import DataSpec
from adanet_py.errors import ConfigError, DataError, check_known
from adanet_py.metrics import default_metric
from adanet_py.own import Own, engine_for
from adanet_py.proposing import check_candidate
from adanet_py.records import Candidate, Evaluation, Group, Status
from adanet_py.training.batches import BatchOrder, rows_per_step
from adanet_py.training.engines.program import Program, Tensors, as_members
from adanet_py.training.finishing import load_members
from adanet_py.training.groups import Plan, train
from adanet_py.training.scoring import Scorer

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_TASKS = ("binary", "multiclass", "regression")
EVALUATIONS = 24


@dataclass(frozen=True)
class Trained:
    """A candidate after its training.

    `module` has the weights of the last step: nothing is held out by which to choose others.
    `curve` has the metric of the training rows (the root of the mean squared error, or the log
    loss) as `validation`.
    """

    candidate: Candidate
    status: Status
    module: nn.Module
    curve: tuple[Evaluation, ...]
    program: Program

    @property
    def loss(self) -> float:
        """The training loss of the last steps, a mean over the rows."""
        return self.curve[-1].train_loss

    @torch.no_grad()
    def predict(self, x: Any) -> np.ndarray:
        """Numbers [N], or probabilities [N, C], for `x` [N, D]."""
        rows = _features(x, self.program.dtype)
        nothing = torch.zeros(len(rows), 0, dtype=torch.int32)
        outputs = self.program.scored(as_members(self.module(rows, nothing), 1)).numpy()
        if self.program.spec.task == "regression":
            return np.asarray(outputs[:, 0], dtype=np.float64)
        return probabilities(outputs)


def train_arrays(
    candidates: Sequence[Candidate],
    x: Any,
    y: Any,
    *,
    task: str,
    steps: int,
    weight: Any = None,
    engine: str = "auto",
    dtype: str = "float32",
    seed: int = 0,
    own: Own | None = None,
) -> list[Trained]:
    """Train candidates on all rows of `x` [N, D] for `steps` optimizer steps, in their order.

    `y` [N] holds numbers (task "regression") or the codes 0 .. C-1 of classes ("binary",
    "multiclass"); `weight` [N] are row weights. What a candidate does not say takes its default;
    those that differ in numbers only are trained as one program. `dtype` is "float32" or "float64",
    `seed` that of the order of the rows, `own` your own architectures, optimizers and losses.

    Raises SpaceError for unknown names or values; ConfigError for what needs a prepared table
    (piecewise-linear embedding, losses of counts and amounts); DataError for unusable arrays.
    """
    check_known("task", task, _TASKS, ConfigError)
    check_known("dtype", dtype, _DTYPES, ConfigError)
    if steps < 1:
        raise ConfigError(f"steps: expected a whole number of 1 or more, found {steps}.")
    own = Own() if own is None else own
    for candidate in candidates:
        check_candidate(candidate, own)
        engine_for(candidate, own, engine)
    data, n_classes = _tensors(x, y, weight, task, _DTYPES[dtype])
    n_outputs = n_classes if task == "multiclass" else 1
    spec = DataSpec(task, n_outputs, data.numeric.shape[1])
    families: dict[str, list[Candidate]] = {}
    for candidate in dict.fromkeys(candidates):
        families.setdefault(candidate.family, []).append(candidate)
    found: dict[str, Trained] = {}
    for family in families.values():
        program = _program(family, spec, data, steps, seed, own)
        for trained in _train(program, engine_for(family[0], own, engine)):
            found[trained.candidate.id] = trained
    return [found[c.id] for c in candidates]


def _program(
    family: Sequence[Candidate],
    spec: DataSpec,
    data: Tensors,
    steps: int,
    seed: int,
    own: Own,
) -> Program:
    architecture = own.all_architectures()[family[0].architecture]
    static = architecture.complete(family[0].static)
    rows = np.arange(len(data.target))
    program = Program(
        architecture,
        own.optimizer(family[0].optimizer),
        tuple(family),
        spec,
        BatchOrder((rows,), rows_per_step(static, len(rows)), seed),
        steps,
        data,
        dtype=data.numeric.dtype,
        losses=own.all_losses(),
    )
    if static.get("embedding") == "piecewise_linear":
        raise ConfigError(
            "embedding piecewise_linear: expected a prepared table, found arrays, which have no "
            "bins. Use adanet_py.train, or another embedding."
        )
    loss = program.losses.get(str(static.get("loss")))
    if loss is not None and "target_ratio" in loss.needs:
        raise ConfigError(
            f"loss {loss.name}: expected a prepared table, found arrays, whose target is "
            "not standardised. Use adanet_py.train, or another loss."
        )
    return program


def _train(program: Program, engine: str) -> list[Trained]:
    data, task = program.data, program.spec.task
    y = data.target.numpy()
    weight = None if data.weight is None else data.weight.numpy()
    codes = y if task == "regression" else y.astype(np.int64)
    plan = Plan(
        group=Group(
            0, program.candidates, program.steps, engine=engine,
            evaluate_every=max(1, program.steps // EVALUATIONS),
        ),
        valid=program.order.rows,
        scorer=Scorer.make(default_metric(task), task, codes, weight, (0.0, 1.0)),
        keep_last=True,
    )  # fmt: skip
    out = []
    for track in train(program, plan):
        if not track.weights:  # diverged before the first evaluation: as it was initialised
            module = program.build(program.candidates.index(track.candidate)).eval()
        else:
            [module] = load_members(track, program)
        status = track.status or Status.FAILED
        out.append(Trained(track.candidate, status, module, tuple(track.curve), program))
    return out


def _tensors(x: Any, y: Any, weight: Any, task: str, dtype: torch.dtype) -> tuple[Tensors, int]:
    """The arrays as tensors, checked, and the number of classes."""
    numeric = _features(x, dtype)
    rows = len(numeric)
    target = _column("y", y, rows)
    n_classes = 0
    if task != "regression":
        codes = np.unique(target)
        n_classes = max(2, int(codes[-1]) + 1)
        if not np.array_equal(codes, np.floor(codes)) or codes[0] < 0:
            raise DataError(f"y: expected codes 0, 1, ... of classes, found {codes[0]:g}.")
        if task == "binary" and n_classes > 2:
            raise DataError(f"y: expected the codes 0 and 1 (task binary), found {codes[-1]:g}.")
    weights = None
    if weight is not None:
        each = _column("weight", weight, rows)
        if (each < 0).any() or not each.any():
            raise DataError("weight: expected numbers of at least 0, one of them above.")
        weights = torch.from_numpy(each / each.mean()).to(dtype)
    nothing = torch.zeros(rows, 0, dtype=torch.int32)
    return Tensors(numeric, nothing, torch.from_numpy(target).to(dtype), weights), n_classes


def _features(x: Any, dtype: torch.dtype) -> Tensor:
    array = np.array(x, dtype=np.float64)  # a copy: nothing of the caller's is shared
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise DataError(
            f"x: expected finite numbers [rows, columns], found the shape {array.shape}"
            f"{'' if np.isfinite(array).all() else ' with values that are not finite'}."
        )
    return torch.from_numpy(array).to(dtype)


def _column(name: str, values: Any, rows: int) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    if array.shape != (rows,) or not np.isfinite(array).all():
        raise DataError(
            f"{name}: expected {rows} finite numbers, one per row, found the shape {array.shape}"
            f"{'' if np.isfinite(array).all() else ' with values that are not finite'}."
        )
    return array
