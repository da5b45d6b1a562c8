"""Tiny programs for the tests of training: random tables, small networks, runs on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adanet_py.architectures import ARCHITECTURES, Architecture
from adanet_py.data.source import ArraySource, write_arrays
from adanet_py.data.spec import DataSpec
from adanet_py.data.splits import Split
from adanet_py.records import Candidate, Scalar
from adanet_py.tasks import is_regression
from adanet_py.training.batches import BatchOrder, rows_per_step
from adanet_py.training.engines.program import Program, Tensors
from adanet_py.training.optimizers import OPTIMIZERS
from adanet_py.training.scoring import Scorer
from adanet_py.training.setting import Setting

TASKS = {"binary": 1, "multiclass": 3, "multilabel": 2, "multioutput": 2, "regression": 1}
METRICS = {task: "rmse" if is_regression(task) else "log_loss" for task in TASKS}


def small(architecture: Architecture, **static: Scalar) -> dict[str, Scalar]:
    """Static values for a network of a few units: whole numbers at most 4, batches of 16 rows."""
    out: dict[str, Scalar] = {}
    for name, knob in architecture.static.items():
        if isinstance(knob.default, int) and knob.choices is None:
            out[name] = max(min(knob.default, 4), int(knob.low or 0))
    return out | {"batch_size": 16} | static


def lowest(architecture: Architecture) -> dict[str, Scalar]:
    """The smallest network: every number at the low end of its domain."""
    out: dict[str, Scalar] = {}
    for name, knob in architecture.static.items():
        if knob.choices is None and knob.low is not None:
            out[name] = int(knob.low) if isinstance(knob.default, int) else knob.low
    return out


def make_spec(
    task: str = "binary", n_numeric: int = 3, cardinalities: tuple[int, ...] = (4, 12)
) -> DataSpec:
    """Sizes of a random table; the columns have different numbers of bins."""
    edges = tuple(
        tuple(float(v) for v in np.linspace(-1.5 - j / 4, 1.5, 4 + j)) for j in range(n_numeric)
    )
    bins = {"quantile": edges, "robust": tuple(e[:3] for e in edges)}
    return DataSpec(task, TASKS[task], n_numeric, cardinalities, bins)


def make_arrays(spec: DataSpec, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A table with signal in it: quantile, robust, category, y, weight."""
    rng = np.random.default_rng(seed)
    numeric = rng.normal(size=(rows, spec.n_numeric)).astype(np.float32)
    codes = [rng.integers(0, c, rows) for c in spec.cardinalities]
    category = np.array(codes, dtype=np.int32).reshape(len(codes), rows).T
    signal = numeric.sum(1) + 0.5 * (category % 2).sum(1) + 0.3 * rng.normal(size=rows)
    if is_regression(spec.task):
        y = ((signal - signal.mean()) / signal.std()).astype(np.float32)
        if spec.task == "multioutput":
            y = np.stack([y, y[::-1]], axis=1)
    elif spec.task == "multilabel":
        y = np.stack([signal > 0.0, numeric[:, 0] > 0.5], axis=1).astype(np.int64)
    else:
        classes = max(2, spec.n_outputs)
        cuts = np.quantile(signal, np.arange(1, classes) / classes)
        y = np.searchsorted(cuts, signal).astype(np.int64)
    weight = rng.uniform(0.5, 1.5, rows).astype(np.float32)
    return {
        "quantile": numeric,
        "robust": np.tanh(numeric),
        "category": np.ascontiguousarray(category),
        "y": y,
        "weight": weight / weight.mean(),
    }


def make_split(rows: int, folds: int, audit: int = 0) -> Split:
    """Every `folds`-th row validates (every third where there is one fold); the last audit."""
    every = np.arange(rows - audit, dtype=np.int64)
    valid = [every[every % max(3, folds) == f] for f in range(folds)]
    return Split(
        "folds" if folds > 1 else "holdout",
        tuple(np.setdiff1d(every, v) for v in valid),
        tuple(valid),
        np.arange(rows - audit, rows, dtype=np.int64),
        "by position",
    )


def make_candidates(
    architecture: str,
    numeric: Sequence[Mapping[str, float]],
    *,
    optimizer: str = "adamw",
    schedules: Sequence[str] = ("constant",),
    **static: Scalar,
) -> tuple[Candidate, ...]:
    """One family; seeds count up, schedules take turns."""
    values = small(ARCHITECTURES[architecture], **static)
    return tuple(
        Candidate(architecture, values, optimizer, schedules[i % len(schedules)], n, seed=i)
        for i, n in enumerate(numeric)
    )


def make_program(
    candidates: Sequence[Candidate],
    spec: DataSpec,
    *,
    steps: int = 12,
    rows: int = 60,
    folds: int = 1,
    weighted: bool = False,
    dtype: torch.dtype = torch.float64,
    architecture: Architecture | None = None,
) -> Program:
    """A program on a random table."""
    architecture = architecture or ARCHITECTURES[candidates[0].architecture]
    static = architecture.complete(candidates[0].static)
    arrays = make_arrays(spec, rows)
    data = Tensors(
        torch.from_numpy(arrays[str(static["scaling"])]).to(dtype),
        torch.from_numpy(arrays["category"]),
        torch.from_numpy(arrays["y"]).to(dtype),
        torch.from_numpy(arrays["weight"]).to(dtype) if weighted else None,
    )
    train = make_split(rows, folds).train
    order = BatchOrder(train, rows_per_step(static, max(len(r) for r in train)), seed=7)
    return Program(
        architecture,
        OPTIMIZERS[candidates[0].optimizer],
        tuple(candidates),
        spec,
        order,
        steps,
        data,
        dtype=dtype,
    )


def make_scorer(program: Program, valid: Sequence[np.ndarray]) -> Scorer:
    """The default metric of the program's task on the validation rows."""
    y = program.data.target.numpy()[np.concatenate(valid)]
    task = program.spec.task
    y = y if is_regression(task) else y.astype(np.int64)
    return Scorer.make(METRICS[task], task, y, None, (0.0, 1.0))


def make_run(
    folder: Path, spec: DataSpec, *, rows: int = 90, folds: int = 1, audit: int = 0, **setting: Any
) -> Setting:
    """A run folder with prepared data, and the setting of a job in it."""
    arrays = make_arrays(spec, rows)
    write_arrays(folder / "cache", arrays, arrays["y"], None, spec)
    make_split(rows, folds, audit).save(folder / "split.npz")
    values: dict[str, Any] = {
        "run": folder,
        "source": ArraySource.open(folder / "cache"),
        "split": Split.load(folder / "split.npz"),
        "architecture": ARCHITECTURES["mlp"],
        "metric": METRICS[spec.task],
        "target": (0.0, 1.0),
        "class_weight": None,
        "device": torch.device("cpu"),
        "emit": lambda event: None,
        "should_stop": lambda: False,
        "checkpoint_seconds": 1e9,
    }
    return Setting(**(values | setting))
