"""Baselines made of trees: what they are fitted to, and what their arrays predict."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from adanet_py.baselines.problem import SCALING, Baseline, Features, Problem, at_exposure
from adanet_py.baselines.trees import LOG, OUTPUTS, PROBABILITIES, Forest, raw_outputs
from adanet_py.outputs import predictions
from adanet_py.tasks import has_several_targets, is_regression

if TYPE_CHECKING:
    from adanet_py.data.splits import Split

_HIGHEST = 20.0  # log of the largest mean in units of the average


def columns_of(features: Features) -> np.ndarray:
    """Numbers, then codes of categories, float32 [N, D]."""
    return np.hstack([features[SCALING], features["category"].astype(np.float32)])


def new_forest(problem: Problem, folds: int, log: bool = False) -> Forest:
    """An empty one, with an output as a network has them."""
    outputs = problem.n_outputs
    if problem.task == "binary":
        outputs = 1
    return Forest(folds, outputs, LOG if log else OUTPUTS)


def first_output(problem: Problem, target: int) -> int:
    """Where the outputs of one of the targets begin."""
    return target if has_several_targets(problem.task) else 0


def tree_baseline(
    name: str, forest: Forest, problem: Problem, split: Split, start: float, message: str
) -> Baseline:
    """The baseline of a finished forest; `start` is when its fitting began."""
    mean, scale = (np.atleast_1d(np.asarray(v, np.float64)) for v in _unit(problem))
    arrays = forest.arrays() | {"offsets": problem.offsets, "mean": mean, "scale": scale}
    valid = [
        predict_fold(arrays, problem.take(rows), problem.task, fold)
        for fold, rows in enumerate(split.valid)
    ]
    leaves = arrays["feature"] < 0
    tree = np.repeat(arrays["fold"], np.diff([*arrays["tree"], len(leaves)]))
    return Baseline(
        name=name,
        predictions_valid=np.concatenate(valid),
        predictions_audit=predict_trees(arrays, problem.take(split.audit), problem.task),
        parameters=int(np.bincount(tree[leaves]).max()),
        seconds=time.monotonic() - start,
        member=arrays,
        message=message,
    )


def _unit(problem: Problem) -> tuple[object, object]:
    """What undoes the standardisation; of a log link nothing is to be undone."""
    if not is_regression(problem.task) or problem.log_link:
        return 0.0, 1.0
    return problem.target.mean, problem.target.scale


def predict_trees(member: Mapping[str, np.ndarray], features: Features, task: str) -> np.ndarray:
    """As `predict_member`, of trees: the mean over the folds."""
    folds = range(len(member["base"]))
    return np.asarray(sum(predict_fold(member, features, task, f) for f in folds) / len(folds))


def predict_fold(
    member: Mapping[str, np.ndarray], features: Features, task: str, fold: int
) -> np.ndarray:
    """What the trees of one fold predict: see outputs.py."""
    codes = features["category"]
    codes = np.where(codes < np.diff(member["offsets"]), codes, 0)
    raw = raw_outputs(member, features[SCALING], codes, fold)
    link = int(member["link"][0])
    if link == PROBABILITIES:
        if task == "binary":
            return np.concatenate([1.0 - raw, raw], axis=1)
        return raw if task == "multilabel" else raw / raw.sum(axis=1, keepdims=True)
    if link == LOG:
        raw = np.exp(np.minimum(raw, member["base"][fold] + _HIGHEST))
    mean, scale = member["mean"], member["scale"]
    if task == "regression":
        mean, scale = mean[0], scale[0]
    return at_exposure(predictions(task, raw, 1.0, mean, scale), features)
