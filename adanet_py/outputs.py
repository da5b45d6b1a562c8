"""What each task makes of a network's outputs; numpy only.

======================  ========================  =======================  =====================
task                    encoded target            outputs of a network     predictions
======================  ========================  =======================  =====================
binary                  codes [N]                 logit of class 1 [N, 1]  probabilities [N, 2]
multiclass              codes [N]                 logits [N, C]            probabilities [N, C]
multilabel              codes 0, 1 [N, T]         logits [N, T]            probabilities of the
                                                                           second label [N, T]
regression              standardised [N]          values [N, 1]            numbers [N]
multioutput             standardised [N, T]       values [N, T]            numbers [N, T]
======================  ========================  =======================  =====================
"""

from __future__ import annotations

from typing import Any

import numpy as np

from adanet_py.calibration import label_probabilities, probabilities
from adanet_py.tasks import is_regression

LEAST = 1e-9  # probability whose logarithm is taken


def in_own_unit(encoded: np.ndarray, mean: Any, scale: Any) -> np.ndarray:
    """Undo the standardisation of values [N] or [N, T]; `mean` and `scale` one number or T."""
    return np.asarray(encoded).astype(np.float64) * np.asarray(scale) + np.asarray(mean)


def as_outputs(task: str, predicted: np.ndarray, mean: Any = 0.0, scale: Any = 1.0) -> np.ndarray:
    """The inverse of `predictions`: outputs as a network's, of what any model predicts.

    Logarithms of probabilities, which of several classes are only given up to a number per row;
    those below 1e-9 count as that.
    """
    if is_regression(task):
        value = (predicted - np.asarray(mean)) / np.asarray(scale)
        return np.asarray(value if task == "multioutput" else value[:, None], np.float64)
    p = np.maximum(np.asarray(predicted, np.float64), LEAST)
    if task == "multilabel":
        return np.asarray(np.log(p) - np.log(np.maximum(1.0 - p, LEAST)))
    z = np.log(p)
    if task == "binary":
        return np.asarray(z[:, 1:] - z[:, :1])
    return np.asarray(z - z.mean(axis=1, keepdims=True))


def predictions(
    task: str,
    outputs: np.ndarray,
    temperature: float | np.ndarray = 1.0,
    mean: Any = 0.0,
    scale: Any = 1.0,
) -> np.ndarray:
    """What is predicted from the outputs [N, n_outputs] of a network; see the table above.

    `temperature` divides logits, a number or one per row [N]; `mean` and `scale` undo the
    standardisation of numbers.
    """
    if task == "multilabel":
        return label_probabilities(outputs, temperature)
    if not is_regression(task):
        return probabilities(outputs, temperature)
    return in_own_unit(outputs if task == "multioutput" else outputs[:, 0], mean, scale)
