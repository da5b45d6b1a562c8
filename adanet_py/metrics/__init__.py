"""Metrics: every score a run can be judged by, in its natural sign and unit."""

from adanet_py.metrics.metric import (
    CLASSIFICATION,
    REGRESSION,
    Domain,
    Metric,
    weighted_median,
    weighted_quantile,
)
from adanet_py.metrics.names import (
    ALIASES,
    COMMON,
    METRICS,
    check_name,
    check_values,
    check_weighted,
    common,
    default_metric,
    get_metric,
    resolve_metric,
)
from adanet_py.metrics.scoring import inputs, per_row_loss, score, to_error
from adanet_py.metrics.several import for_several

__all__ = [
    "ALIASES",
    "CLASSIFICATION",
    "COMMON",
    "METRICS",
    "REGRESSION",
    "Domain",
    "Metric",
    "check_name",
    "check_values",
    "check_weighted",
    "common",
    "default_metric",
    "for_several",
    "get_metric",
    "inputs",
    "per_row_loss",
    "resolve_metric",
    "score",
    "to_error",
    "weighted_median",
    "weighted_quantile",
]
