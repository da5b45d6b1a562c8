"""The other scorers of scikit-learn: metrics that scikit-learn computes, and some in numpy.

scikit-learn is loaded when such a metric is first computed, not before. The value is that of the
scorer's function with the scorer's options, in its natural sign: `max_error` is what the scorer
`neg_max_error` is minus of. What scikit-learn warns of (a class without rows, say) has the value it
then gives.
"""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from adanet_py.errors import ConfigError
from adanet_py.metrics.averages import averaged
from adanet_py.metrics.classification import (
    explained_share,
    roc_auc_by_size,
    roc_auc_of_pairs,
    row_brier,
    row_log_loss,
)
from adanet_py.metrics.metric import CLASSIFICATION, REGRESSION, Metric

_MULTILABEL, _MULTIOUTPUT = ("multilabel",), ("multioutput",)


@functools.cache
def _scorer(name: str) -> tuple[Callable[..., float], dict[str, Any], frozenset[str]]:
    """A scorer's function, its options, and the names of all parameters it takes."""
    import sklearn
    from sklearn.metrics import get_scorer

    try:
        scorer = get_scorer(name)
    except ValueError:
        raise ConfigError(
            f"Metric {name!r}: expected a scikit-learn that has this scorer, found version "
            f"{sklearn.__version__}. Install a newer one, or use another metric."
        ) from None
    function = scorer._score_func
    return function, scorer._kwargs, frozenset(inspect.signature(function).parameters)


def _make(
    name: str,
    greater_is_better: bool,
    needs: str,
    tasks: tuple[str, ...],
    summary: str,
    *,
    unweighted: tuple[str, ...] = (),
    **fields: Any,
) -> Metric:
    """The metric that the scorer `name`, or `neg_` and `name`, computes."""

    def function(y: np.ndarray, prediction: np.ndarray, weight: np.ndarray | None) -> float:
        call, options, accepted = _scorer(name if greater_is_better else f"neg_{name}")
        options = dict(options)
        if weight is not None:
            options["sample_weight"] = weight
        if name.endswith("likelihood_ratio") and len(np.union1d(y, prediction)) < 2:
            return math.nan  # scikit-learn: an error
        if needs == "proba" and y.ndim == 1:
            if "labels" in accepted:  # there may be classes that occur in no row
                options["labels"] = np.arange(prediction.shape[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return float(call(y, prediction, **options))

    return Metric(
        name, greater_is_better, needs, tasks, summary, function, unweighted=unweighted, slow=True,
        **fields,
    )  # fmt: skip


def _label(name: str, tasks: tuple[str, ...], summary: str, **fields: Any) -> Metric:
    return _make(name, True, "label", tasks, summary, **fields)


def _proba(name: str, tasks: tuple[str, ...], summary: str, **fields: Any) -> Metric:
    return _make(name, True, "proba", tasks, summary, **fields)


def _value(name: str, greater_is_better: bool, summary: str, **fields: Any) -> Metric:
    tasks = fields.pop("tasks", (*REGRESSION, *_MULTIOUTPUT))
    return _make(name, greater_is_better, "value", tasks, summary, **fields)


def _partition(name: str, summary: str, **fields: Any) -> Metric:
    """A score of clusterings: it compares which rows are together, whatever the labels are."""
    return _label(
        name, CLASSIFICATION, f"{summary}, whatever the classes are called",
        unweighted=CLASSIFICATION, **fields,
    )  # fmt: skip


def _averaged(kind: str, average: str, summary: str) -> Metric:
    binary = average == "binary"
    name, tasks = (kind, _BINARY) if binary else (f"{kind}_{average}", CLASSIFICATION)
    return Metric(name, True, "label", tasks, summary, averaged(kind, average))


_BINARY, _MULTICLASS = ("binary",), ("multiclass",)
_C = CLASSIFICATION

METRICS: tuple[Metric, ...] = (
    _averaged("f1", "micro", "F1 of all decisions together"),
    _label("f1_samples", _MULTILABEL, "mean F1 of the rows"),
    _averaged("precision", "macro", "mean precision of the classes"),
    _averaged("precision", "micro", "precision of all decisions together"),
    _averaged("precision", "weighted", "precision weighted by class size"),
    _label("precision_samples", _MULTILABEL, "mean precision of the rows"),
    _averaged("recall", "macro", "mean recall of the classes"),
    _averaged("recall", "micro", "recall of all decisions together"),
    _averaged("recall", "weighted", "recall weighted by class size"),
    _label("recall_samples", _MULTILABEL, "mean recall of the rows"),
    _averaged("jaccard", "binary", "Jaccard index of the second class"),
    _averaged("jaccard", "macro", "mean Jaccard index of the classes"),
    _averaged("jaccard", "micro", "Jaccard index of all decisions together"),
    _averaged("jaccard", "weighted", "Jaccard index weighted by class size"),
    _label("jaccard_samples", _MULTILABEL, "mean Jaccard index of the rows"),
    # At least 0, 1 for chance, no upper end; scikit-learn has both 1 where they divide by zero, as
    # the first does where no row of the first class is called positive.
    _label(
        "positive_likelihood_ratio", _BINARY,
        "positive calls in the second class over those in the first; 1 where the first has none",
        unweighted=_BINARY, error=lambda value: 1 / value if value > 0 else math.inf,
    ),
    _make(
        "negative_likelihood_ratio", False, "label", _BINARY,
        "negative calls in the second class over those in the first; 1 where the first has none",
        unweighted=_BINARY,
    ),
    Metric(
        "roc_auc_ovr_weighted", True, "proba", _C,
        "area under the ROC curve, one vs rest, by class size", roc_auc_by_size,
    ),
    Metric(
        "roc_auc_ovo", True, "proba", _C, "area under the ROC curve, mean of all pairs of classes",
        roc_auc_of_pairs, unweighted=_MULTICLASS,
    ),
    Metric(
        "roc_auc_ovo_weighted", True, "proba", _C,
        "area under the ROC curve, mean of all pairs of classes by size",
        functools.partial(roc_auc_of_pairs, by_size=True), unweighted=_MULTICLASS,
    ),
    _proba("top_k_accuracy", _MULTICLASS, "share of rows whose class is among the likeliest two"),
    Metric(
        "d2_log_loss_score", True, "proba", _C,
        "share of the log loss of class shares that is explained",
        explained_share(row_log_loss), calibrated=True,
    ),
    Metric(
        "d2_brier_score", True, "proba", _C,
        "share of the Brier score of class shares that is explained",
        explained_share(row_brier), calibrated=True,
    ),
    _partition("rand_score", "share of pairs of rows rightly together or apart"),
    _partition("adjusted_rand_score", "the Rand score, 0 for chance"),
    # At least 0; its upper end is the entropy of the classes.
    _partition("mutual_info_score", "information about the class, in nats",
               error=lambda value: math.exp(-value)),
    _partition("normalized_mutual_info_score", "information about the class as a share"),
    _partition("adjusted_mutual_info_score", "information about the class, 0 for chance"),
    _partition("homogeneity_score", "how much a predicted class holds of one class only"),
    _partition("completeness_score", "how much a class is predicted as one class only"),
    _partition("v_measure_score", "harmonic mean of homogeneity and completeness"),
    _partition("fowlkes_mallows_score", "precision and recall of pairs, geometric mean"),
    _value("explained_variance", True, "share of variance explained, whatever the mean error"),
    _value("d2_absolute_error_score", True, "share of absolute error explained", quantile=0.5),
    _value("max_error", False, "largest absolute error", tasks=REGRESSION, unweighted=REGRESSION),
)  # fmt: skip
