"""What a run minimises: its training loss, the level of a quantile, and the metric that judges.

Each follows from the other where only one is given. A run judged by a metric that is itself a
training loss (mae, pinball, a deviance) is trained with it; one with such a loss is judged by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adanet_py.errors import ConfigError, check_known
from adanet_py.metrics import Metric, get_metric, resolve_metric
from adanet_py.training.losses import AUTO, LOSSES, Loss, default_loss

_PINBALL, _QUANTILE = "pinball", "quantile"
MEDIAN = 0.5  # level of a quantile where none is given


@dataclass(frozen=True)
class Objective:
    """Names of the loss and of the metric, and the level of a quantile; `note` is for people."""

    loss: str
    quantile: float
    metric: Metric
    note: str = ""


def check_loss(loss: str, quantile: float | None, losses: Mapping[str, Loss]) -> None:
    """Raise ConfigError for an unknown loss, or a level for a loss that has none."""
    check_known("loss", loss, (AUTO, *losses), ConfigError)
    if quantile is not None and loss not in (AUTO, _QUANTILE):
        raise ConfigError(
            f"--quantile: it is the level of the loss quantile, found --loss {loss}. Use "
            "--loss quantile, or leave --quantile out."
        )


def choose_objective(
    task: str,
    loss: str,
    quantile: float | None,
    metric: str | None,
    losses: Mapping[str, Loss] = LOSSES,
) -> Objective:
    """The objective of a run on `task`, from its options; AUTO and None are what is not given.

    A level alone asks for the loss quantile. Raises ConfigError for options that contradict each
    other or do not suit the task.
    """
    check_loss(loss, quantile, losses)
    if quantile is not None:
        loss = _QUANTILE
    if loss != AUTO and task not in losses[loss].tasks:
        fitting = ", ".join(n for n, each in losses.items() if task in each.tasks)
        option = "--quantile" if quantile is not None else f"--loss {loss}"
        raise ConfigError(
            f"{option}: the loss {loss} is for {' and '.join(losses[loss].tasks)} tasks, but this "
            f"task is {task}. Losses for it: {fitting}."
        )
    asked = metric
    if metric is None and loss != AUTO:
        metric = losses[loss].metric
    level = quantile
    judge = resolve_metric(metric, task)
    if judge.name == _PINBALL and level not in (None, MEDIAN):
        judge = get_metric(f"{_PINBALL}:{level!r}")
    elif _is_pinball(judge) and loss in (AUTO, _QUANTILE):
        if level is not None and level != judge.quantile:
            raise ConfigError(
                f"--quantile {level:g} with --metric {judge.name}: expected the same level, found "
                "two. Leave one of them out."
            )
        level = judge.quantile
    level = MEDIAN if level is None else level
    if loss != AUTO:
        return Objective(loss, level, judge)
    loss = loss_of_metric(judge, task)
    note = ""
    if asked is not None and loss != default_loss(task).name:
        note = f"Loss {loss}, for the metric is {judge.name}; --loss chooses another."
    return Objective(loss, level, judge, note)


def loss_of_metric(metric: Metric, task: str) -> str:
    """The loss networks are trained with where `metric` judges them and nothing else is said."""
    default = default_loss(task).name
    name = default
    if _is_pinball(metric):
        name = _QUANTILE
    elif metric.quantile == MEDIAN:
        name = "mean_absolute"
    else:
        name = next((n for n, loss in LOSSES.items() if loss.metric == metric.name), default)
    return name if task in LOSSES[name].tasks else default


def _is_pinball(metric: Metric) -> bool:
    return metric.name.partition(":")[0] == _PINBALL
