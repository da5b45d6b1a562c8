"""Optimizers over stacked parameters, composed from small transforms; no torch at import."""

from __future__ import annotations

from adanet_py.training.optimizers.adam import (
    ADAM,
    ADAMAX,
    ADAMW,
    ADAMW_AMSGRAD,
    AMSGRAD,
    NADAM,
    RADAM,
)
from adanet_py.training.optimizers.adaptive import ADADELTA, ADAGRAD, RMSPROP, RMSPROP_CENTERED
from adanet_py.training.optimizers.lion import LION
from adanet_py.training.optimizers.momentum import (
    AVERAGED,
    HEAVY_BALL,
    NESTEROV_MOMENTUM,
    NORM_CLIPPED,
    SGD,
    VALUE_CLIPPED,
)
from adanet_py.training.optimizers.muon import MUON
from adanet_py.training.optimizers.optimizer import Optimizer, Part, Step, Transform, make_parts
from adanet_py.training.optimizers.schedule_free import SCHEDULE_FREE_ADAMW
from adanet_py.training.optimizers.second_order import GAUSS_NEWTON, LBFGS, NEWTON

__all__ = ["OPTIMIZERS", "Optimizer", "Part", "Step", "Transform", "make_parts"]

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD,
    "momentum": HEAVY_BALL,
    "nesterov": NESTEROV_MOMENTUM,
    "averaged_momentum": AVERAGED,
    "value_clipped_momentum": VALUE_CLIPPED,
    "norm_clipped_momentum": NORM_CLIPPED,
    "adagrad": ADAGRAD,
    "adadelta": ADADELTA,
    "rmsprop": RMSPROP,
    "rmsprop_centered": RMSPROP_CENTERED,
    "adam": ADAM,
    "amsgrad": AMSGRAD,
    "adamw": ADAMW,
    "adamw_amsgrad": ADAMW_AMSGRAD,
    "nadam": NADAM,
    "radam": RADAM,
    "adamax": ADAMAX,
    "lion": LION,
    "muon": MUON,
    "schedule_free_adamw": SCHEDULE_FREE_ADAMW,
    "newton": NEWTON,
    "gauss_newton": GAUSS_NEWTON,
    "lbfgs": LBFGS,
}
