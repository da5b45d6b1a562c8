"""Losses of numbers; targets are standardised, y = (Y - mean) / scale. No torch at import.

Losses with a log link see counts and amounts in units of their mean: u = Y / mean = 1 + y / r with
r = mean / scale (`DataSpec.target_ratio`). The outputs z of a network are logs of the expected u,
and `exp_link` makes standardised values of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from adanet_py.metrics.metric import Domain
from adanet_py.training.losses.loss import Loss, columns, knob

if TYPE_CHECKING:
    from torch import Tensor

_VALUES = ("regression", "multioutput")
# Means between 1e-6 and 5e8 times the average; beyond, exp goes on as its tangent, so that a wild
# step has a large but finite loss and a way back, and a prediction stays above 0 in float32.
HIGHEST = 20.0
LOWEST = math.log(1e-6)
LEAST = 1e-6  # of the mean; what is below (rounding, for the target is above 0) counts as this


def mean_squared_error(outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> Tensor:
    """(z - y)^2."""
    return (outputs - columns(target)).square().mean((-2, -1))


def half_squared_error(outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> Tensor:
    """(z - y)^2 / 2, whose mean is J = 1/(2m) sum (z - y)^2; its gradient is z - y."""
    return 0.5 * mean_squared_error(outputs, target, hp)


def mean_absolute(outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> Tensor:
    """|z - y|; the best constant is the median."""
    return (outputs - columns(target)).abs().mean((-2, -1))


def huber(outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> Tensor:
    """e^2 / 2 where |e| <= d, else d (|e| - d / 2), e = z - y, d = `huber_delta`.

    d is in standard deviations of the target. Huber 1964, Robust estimation of a location
    parameter; torch.nn.functional.huber_loss.
    """
    delta = knob(hp, "huber_delta")
    size = (outputs - columns(target)).abs()
    near = size.clamp(max=delta)  # near (size - near / 2) is both branches
    return (near * (size - 0.5 * near)).mean((-2, -1))


def pinball(
    outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor], *, quantile: float
) -> Tensor:
    """q (y - z) where y > z, else (1 - q) (z - y), q = `quantile`; the best constant is its value.

    Koenker & Bassett 1978, Regression quantiles.
    """
    error = columns(target) - outputs
    return ((quantile - 1.0) * error).maximum(quantile * error).mean((-2, -1))


def poisson(
    outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor], *, target_ratio: Sequence[float]
) -> Tensor:
    """2 (u log u - u z - u + exp z): the deviance of counts u with the mean exp z, in units of it.

    0 log 0 = 0. McCullagh & Nelder 1989, Generalized linear models, section 2.3.
    """
    u = _in_means(target, target_ratio).clamp(min=0.0)
    return (2.0 * (u.xlogy(u) - u * outputs - u + _exp(outputs))).mean((-2, -1))


def gamma(
    outputs: Tensor, target: Tensor, hp: Mapping[str, Tensor], *, target_ratio: Sequence[float]
) -> Tensor:
    """2 (z - log u + u exp(-z) - 1): the deviance of amounts u > 0 with the mean exp z.

    McCullagh & Nelder 1989, Generalized linear models, section 2.3.
    """
    u = _in_means(target, target_ratio).clamp(min=LEAST)
    return (2.0 * (outputs - u.log() + u * _exp(-outputs) - 1.0)).mean((-2, -1))


def exp_link(outputs: Tensor, *, target_ratio: Sequence[float]) -> Tensor:
    """Logs of means as standardised values: r (exp z - 1)."""
    ratio = _ratio(target_ratio, outputs)
    return ratio * (_exp(outputs.clamp(min=LOWEST)) - 1.0)


def _exp(z: Tensor) -> Tensor:
    """exp z, from `HIGHEST` on its tangent there."""
    return z.clamp(max=HIGHEST).exp() * (1.0 + (z - HIGHEST).clamp(min=0.0))


def _in_means(target: Tensor, target_ratio: Sequence[float]) -> Tensor:
    """Standardised targets in units of their means, as columns [K, B, 1, T]."""
    y = columns(target)
    return 1.0 + y / _ratio(target_ratio, y)


def _ratio(target_ratio: Sequence[float], like: Tensor) -> Tensor | float:
    """mean / scale of the one target or of every one [T]."""
    return target_ratio[0] if len(target_ratio) == 1 else like.new_tensor(target_ratio)


LOSSES: tuple[Loss, ...] = (
    Loss("mean_squared_error", "squared difference", _VALUES, mean_squared_error),
    Loss("half_squared_error", "half the squared difference", _VALUES, half_squared_error),
    Loss("mean_absolute", "absolute difference", _VALUES, mean_absolute, metric="mae"),
    Loss(
        "huber", "squared difference, absolute beyond huber_delta", _VALUES, huber,
        knobs=("huber_delta",),
    ),
    Loss(
        "quantile", "pinball loss of the run's quantile", _VALUES, pinball, metric="pinball",
        needs=("quantile",),
    ),
    Loss(
        "poisson", "Poisson deviance with a log link, for counts", _VALUES, poisson,
        metric="poisson_deviance", link=exp_link, log_link=True, domain=Domain(0, True),
        needs=("target_ratio",),
    ),
    Loss(
        "gamma", "Gamma deviance with a log link, for amounts above 0", _VALUES, gamma,
        metric="gamma_deviance", link=exp_link, log_link=True, domain=Domain(0, False),
        needs=("target_ratio",),
    ),
)  # fmt: skip
