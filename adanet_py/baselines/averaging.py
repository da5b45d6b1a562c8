"""scikit-learn's random forests and extremely randomised trees, kept as plain arrays."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.baselines.problem import Baseline, Problem, sample
from adanet_py.baselines.tree_models import columns_of, first_output, new_forest, tree_baseline
from adanet_py.baselines.trees import PROBABILITIES, add_averaged
from adanet_py.tasks import is_regression

if TYPE_CHECKING:
    from adanet_py.data.splits import Split

MOST_TREES = 200
FIRST_TREES = 5  # by which the time of the others is told
MOST_NODES = 4_000_000  # of all folds, for memory: about 20 bytes each
FOREST_CELLS = 4_000_000  # rows times columns


@dataclass(frozen=True)
class Averaging:
    """A forest whose trees are averaged: a class of scikit-learn by name, and its options.

    `number` and `classes` are options where the target is a number, or a class.
    """

    summary: str
    kind: str
    number: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, Any] = field(default_factory=dict)


def averaging_baseline(
    problem: Problem, split: Split, end: float, name: str, how: Averaging
) -> Baseline:
    """A forest of every fold and target, as many trees as time and memory allow.

    A class that no tree expects is half a vote away from impossible: p = (sum + 1/2) / (trees +
    classes / 2), for the logarithm of 0 says nothing.
    """
    start = time.monotonic()
    parts = problem.each()
    folds = len(split.train)
    to_fit, nodes, notes = folds * len(parts), 0, list[str]()
    forest = new_forest(problem, folds)
    numbers = is_regression(problem.task)
    if not numbers:
        forest.link = PROBABILITIES
    counts: list[int] = []
    for fold, train in enumerate(split.train):
        trees = MOST_TREES if not counts else counts[0]
        for t, part in enumerate(parts):
            seconds = (end - time.monotonic()) / to_fit
            share = (MOST_NODES - nodes) // to_fit
            # The targets of a fold share what multiplies their sums, hence the number of trees.
            model, used = _fit(part, train, seconds, share, trees, how, exact=t > 0)
            to_fit -= 1
            trees = len(model.estimators_)
            nodes += sum(e.tree_.node_count for e in model.estimators_)
            if used < len(train) and not notes:
                notes.append(f"fitted on {used:,} of {len(train):,} training rows")
            add_averaged(forest, model, fold, first_output(problem, t))
        counts.append(trees)
        classes = 2 if forest.outputs == 1 or problem.task == "multilabel" else forest.outputs
        smooth = 0.0 if numbers else 0.5
        forest.base[fold] = smooth / (trees + smooth * classes)
        forest.shrink[fold] = 1.0 / (trees + smooth * classes)
    if min(counts) < MOST_TREES:
        notes.append(f"{min(counts)} trees, as time and memory allow")
    return tree_baseline(name, forest, problem, split, start, "; ".join(notes))


def _fit(
    problem: Problem,
    rows: np.ndarray,
    seconds: float,
    nodes: int,
    trees: int,
    how: Averaging,
    exact: bool,
) -> tuple[Any, int]:
    """A forest of at most `trees` trees and `nodes` nodes, and how many rows it saw."""
    import sklearn.ensemble

    used = sample(problem, rows, max(500, FOREST_CELLS // max(problem.width, 1)))
    numbers = problem.task == "regression"
    end = "Regressor" if numbers else "Classifier"
    options = how.number if numbers else how.classes
    first = trees if exact else min(FIRST_TREES, trees)
    model = getattr(sklearn.ensemble, f"{how.kind}{end}")(
        first, warm_start=True, random_state=problem.seed, n_jobs=1, **options
    )
    x, y, w = columns_of(problem.take(used)), problem.y[used], problem.weights(used)
    if not numbers and len(np.unique(y)) < 2:  # its share of votes would have no other side
        other = (y[0] + 1) % problem.n_outputs
        y, x = np.r_[y, other], np.r_[x, x[:1]]
        w = np.r_[np.ones(len(y) - 1) if w is None else w, 1e-9]
    begun = time.monotonic()
    model.fit(x, y, w)
    spent = max(time.monotonic() - begun, 1e-4)
    each = sum(e.tree_.node_count for e in model.estimators_) / first
    more = min(seconds - spent, 1e6) / (1.3 * spent) * first
    wanted = min(trees, int(first + max(0.0, more)), max(first, int(nodes / each)))
    if wanted > first:
        model.set_params(n_estimators=wanted)
        model.fit(x, y, w)
    return model, len(used)
