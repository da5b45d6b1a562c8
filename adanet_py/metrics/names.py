"""Names of metrics, their other spellings, and the metric a run asks for."""

from __future__ import annotations

import numpy as np

from adanet_py.errors import ConfigError, DataError, nearest
from adanet_py.metrics import classification, regression, scorers, several
from adanet_py.metrics.metric import Metric
from adanet_py.tasks import is_regression

# What a model is shown by; the others are computed where they are asked for.
COMMON: tuple[Metric, ...] = tuple(
    several.extended(m) for m in (*classification.METRICS, *regression.METRICS)
)
METRICS: dict[str, Metric] = {
    m.name: several.extended(m) for m in (*COMMON, several.HAMMING_LOSS, *scorers.METRICS)
}

# Other spellings: those of scikit-learn's scorers and functions, and two common short names.
ALIASES: dict[str, str] = {
    "neg_log_loss": "log_loss",
    "roc_auc_ovr": "roc_auc",
    "auc": "roc_auc",
    "f1_binary": "f1",
    "matthews_corrcoef": "matthews",
    "mcc": "matthews",
    "brier_score": "brier",
    "brier_score_loss": "brier",
    "neg_brier_score": "brier",
    "root_mean_squared_error": "rmse",
    "neg_root_mean_squared_error": "rmse",
    "mean_squared_error": "mse",
    "neg_mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "neg_mean_absolute_error": "mae",
    "median_absolute_error": "median_ae",
    "neg_median_absolute_error": "median_ae",
    "mean_absolute_percentage_error": "mape",
    "neg_mean_absolute_percentage_error": "mape",
    "root_mean_squared_log_error": "rmsle",
    "neg_root_mean_squared_log_error": "rmsle",
    "mean_squared_log_error": "msle",
    "neg_mean_squared_log_error": "msle",
    "mean_poisson_deviance": "poisson_deviance",
    "neg_mean_poisson_deviance": "poisson_deviance",
    "mean_gamma_deviance": "gamma_deviance",
    "neg_mean_gamma_deviance": "gamma_deviance",
    "mean_pinball_loss": "pinball",
    "neg_max_error": "max_error",
    "neg_negative_likelihood_ratio": "negative_likelihood_ratio",
}


def default_metric(task: str) -> str:
    """The metric a run is judged by where none is asked for: "rmse" or "log_loss"."""
    return "rmse" if is_regression(task) else "log_loss"


def common(task: str) -> tuple[Metric, ...]:
    """The metrics a model for `task` is shown by."""
    if task == "multilabel":
        return tuple(METRICS[name] for name in several.COMMON)
    return tuple(m for m in COMMON if task in m.tasks)


def get_metric(name: str) -> Metric:
    """The metric called `name` in any of its spellings; "pinball:0.9" is pinball at level 0.9.

    Raises ConfigError where there is none.
    """
    key, _, level = name.strip().lower().replace("-", "_").partition(":")
    key = ALIASES.get(key, key)
    if key == "pinball" and level:
        return several.extended(regression.pinball(_level(level)))
    if level or key not in METRICS:
        raise ConfigError(
            f"Unknown metric {name!r}.{nearest(key, [*METRICS, *ALIASES])} "
            f"Known: {', '.join(METRICS)}."
        )
    return METRICS[key]


def _level(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            "The metric pinball: expected a level between 0 and 1, such as pinball:0.9, found "
            f"{text!r}."
        ) from None


def check_name(name: str) -> None:
    """Raise ConfigError where no metric is called `name`, of whatever task."""
    get_metric(name)


def resolve_metric(name: str | None, task: str) -> Metric:
    """The metric called `name` (or its scikit-learn spelling), or the default of `task`.

    Raises ConfigError where there is none, or where it is not for `task`.
    """
    metric = get_metric(default_metric(task) if name is None else name)
    if task not in metric.tasks:
        fitting = ", ".join(m.name for m in METRICS.values() if task in m.tasks)
        raise ConfigError(
            f"Metric {metric.name!r} is for {_and(metric.tasks)} tasks, "
            f"but this task is {task}. Metrics for it: {fitting}."
        )
    return metric


def _and(words: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def check_weighted(metric: Metric, task: str) -> None:
    """Raise ConfigError where the metric takes no row weights."""
    if task in metric.unweighted:
        raise ConfigError(
            f"Metric {metric.name!r}: it is defined without row weights, found --weight. Leave "
            "--weight out, or use another metric."
        )


def check_values(metric: Metric, y: np.ndarray) -> None:
    """Raise DataError where the metric is not defined for the numbers `y` [N] of a target."""
    if metric.domain is not None and not metric.domain.holds(y).all():
        raise DataError(
            f"Metric {metric.name!r}: expected a target of {metric.domain}, found {y.min():g}. "
            "Use another metric, such as rmse or mae."
        )
