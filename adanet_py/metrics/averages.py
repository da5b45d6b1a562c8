"""F1, precision, recall, Jaccard index: ratios of hits, false alarms and misses, and averages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# kind: (what is counted, factor of hits above and below, of false alarms, of misses)
KINDS: dict[str, tuple[str, int, int, int]] = {
    "f1": ("F1", 2, 1, 1),
    "precision": ("precision", 1, 1, 0),
    "recall": ("recall", 1, 0, 1),
    "jaccard": ("hits over hits and misses (Jaccard)", 1, 1, 1),
}


def ratio(kind: str, hits: np.ndarray, alarms: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """The score of each entry, all of one shape; 0 where there is nothing to divide by."""
    _, factor, of_alarms, of_misses = KINDS[kind]
    whole = np.asarray(factor * hits + of_alarms * alarms + of_misses * misses, dtype=float)
    return np.divide(factor * hits, whole, out=np.zeros_like(whole), where=whole > 0)


def averaged(
    kind: str, average: str
) -> Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]:
    """The score of labels of one target: of class 1 ("binary"), or over the classes that occur.

    "micro" counts all decisions together, "macro" is the plain mean over classes, "weighted" that
    by their true rows. 0 where scikit-learn warns of a division by zero.
    """

    def function(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> float:
        n = int(max(y.max(initial=0), label.max(initial=0), 1)) + 1
        true, flagged, hits = (
            np.bincount(codes, weights=None if weight is None else weight[rows], minlength=n)
            for codes, rows in ((y, ...), (label, ...), (y[y == label], y == label))
        )
        alarms, misses = flagged - hits, true - hits
        if average == "micro":
            return float(ratio(kind, hits.sum(), alarms.sum(), misses.sum()))
        scores = ratio(kind, hits, alarms, misses)
        if average == "binary":
            return float(scores[1])
        if average == "weighted":
            return float(np.average(scores, weights=true)) if true.any() else 0.0
        return float(scores[np.union1d(y, label)].mean())

    return function
