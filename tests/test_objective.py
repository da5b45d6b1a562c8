"""Loss and metric of a run: each follows from the other, contradictions are said."""

from __future__ import annotations

import pytest

from adanet_py.config import SearchConfig
from adanet_py.errors import ConfigError
from adanet_py.metrics import METRICS, resolve_metric
from adanet_py.objective import choose_objective, loss_of_metric
from adanet_py.training.losses import LOSSES, default_loss

AUTO = "auto"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        # loss, quantile, metric -> loss, level, metric
        ((AUTO, None, None), ("mean_squared_error", 0.5, "rmse")),
        ((AUTO, None, "mae"), ("mean_absolute", 0.5, "mae")),
        ((AUTO, None, "median_ae"), ("mean_absolute", 0.5, "median_ae")),
        ((AUTO, None, "r2"), ("mean_squared_error", 0.5, "r2")),
        ((AUTO, None, "mean_poisson_deviance"), ("poisson", 0.5, "poisson_deviance")),
        ((AUTO, None, "gamma_deviance"), ("gamma", 0.5, "gamma_deviance")),
        ((AUTO, None, "pinball"), ("quantile", 0.5, "pinball")),
        ((AUTO, None, "pinball:0.9"), ("quantile", 0.9, "pinball:0.9")),
        ((AUTO, 0.9, None), ("quantile", 0.9, "pinball:0.9")),
        ((AUTO, 0.9, "pinball"), ("quantile", 0.9, "pinball:0.9")),
        ((AUTO, 0.9, "mae"), ("quantile", 0.9, "mae")),
        (("quantile", 0.1, None), ("quantile", 0.1, "pinball:0.1")),
        (("quantile", None, None), ("quantile", 0.5, "pinball")),
        (("quantile", None, "pinball:0.2"), ("quantile", 0.2, "pinball:0.2")),
        (("quantile", None, "rmse"), ("quantile", 0.5, "rmse")),
        (("mean_absolute", None, None), ("mean_absolute", 0.5, "mae")),
        (("huber", None, None), ("huber", 0.5, "rmse")),
        (("huber", None, "pinball:0.9"), ("huber", 0.5, "pinball:0.9")),
        (("poisson", None, None), ("poisson", 0.5, "poisson_deviance")),
        (("gamma", None, "mae"), ("gamma", 0.5, "mae")),
    ],
)
def test_what_is_not_given_follows(given, found) -> None:
    objective = choose_objective("regression", *given)
    assert (objective.loss, objective.quantile, objective.metric.name) == found
    # Said where a metric changed the loss; everything else the user said, or is the default.
    follows = given[0] == AUTO and given[1] is None and found[0] != "mean_squared_error"
    assert bool(objective.note) == follows
    assert not follows or found[0] in objective.note


def test_classes_have_their_defaults() -> None:
    binary = choose_objective("binary", AUTO, None, None)
    assert (binary.loss, binary.metric.name) == ("binary_cross_entropy", "log_loss")
    focal = choose_objective("multiclass", "focal", None, "accuracy")
    assert (focal.loss, focal.metric.name) == ("focal", "accuracy")


def test_every_metric_has_a_loss_of_its_task() -> None:
    for name, metric in METRICS.items():
        for task in metric.tasks:
            if task in ("binary", "multiclass", "regression"):
                assert task in LOSSES[loss_of_metric(resolve_metric(name, task), task)].tasks
    assert loss_of_metric(METRICS["accuracy"], "binary") == default_loss("binary").name


@pytest.mark.parametrize(
    ("task", "given", "words"),
    [
        ("regression", ("hubert", None, None), "Did you mean 'huber'"),
        ("regression", ("huber", 0.9, None), "level of the loss quantile, found --loss huber"),
        ("regression", (AUTO, 0.9, "pinball:0.8"), "same level"),
        ("binary", ("huber", None, None), "--loss huber: .* task is binary.*focal"),
        ("binary", (AUTO, 0.9, None), "--quantile: .* task is binary"),
        ("regression", ("focal", None, None), "Losses for it: mean_squared_error"),
    ],
)
def test_contradictions_are_said(task, given, words) -> None:
    with pytest.raises(ConfigError, match=words):
        choose_objective(task, *given)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, "much", True, float("nan")])
def test_a_level_is_between_0_and_1(level) -> None:
    with pytest.raises(ConfigError, match="--quantile: expected a level between 0 and 1"):
        SearchConfig(quantile=level)


def test_options_survive_a_file() -> None:
    config = SearchConfig(loss="quantile", quantile="0.9")
    assert config.quantile == 0.9
    assert SearchConfig.from_json(config.to_json()) == config
