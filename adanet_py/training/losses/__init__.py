"""Losses: one value per member and row, so that every member has its own loss; no torch at import.

Shapes: outputs [K, B, M, C] (M implicit members, 1 for most networks), target [K or 1, B],
hyperparameters [K, 1]. The result [K, B] is the mean over implicit members of their losses (not
the loss of their mean), as in Gorishniy et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from adanet_py.data.spec import DataSpec
from adanet_py.errors import SpaceError, check_known
from adanet_py.records import Scalar
from adanet_py.training.losses import classification, regression
from adanet_py.training.losses.loss import Loss

__all__ = ["AUTO", "KNOBS", "LOSSES", "Loss", "choose_loss", "default_loss", "loss_name", "why_not"]

AUTO = "auto"  # the loss of the run, else of the task

LOSSES: dict[str, Loss] = {loss.name: loss for loss in (*classification.LOSSES, *regression.LOSSES)}
KNOBS: frozenset[str] = frozenset(name for loss in LOSSES.values() for name in loss.knobs)


def default_loss(task: str) -> Loss:
    """The loss networks are trained with for `task` unless something else is asked for."""
    return next(loss for loss in LOSSES.values() if task in loss.tasks)


def loss_name(static: Mapping[str, Scalar], spec: DataSpec) -> str:
    """Name of the loss a candidate with these static values is trained with."""
    name = str(static.get("loss", AUTO))
    name = spec.loss if name == AUTO else name
    return default_loss(spec.task).name if name == AUTO else name


def choose_loss(
    static: Mapping[str, Scalar], spec: DataSpec, losses: Mapping[str, Loss] = LOSSES
) -> Loss:
    """The loss of a candidate with these static values, for the data of `spec`.

    Raises SpaceError for an unknown name, or a loss that does not suit the data.
    """
    name = loss_name(static, spec)
    check_known("loss", name, losses, SpaceError)
    why = why_not(losses[name], spec)
    if why is not None:
        fitting = ", ".join(n for n, loss in losses.items() if why_not(loss, spec) is None)
        raise SpaceError(f"Loss {name!r}: {why}. Losses for these data: {fitting or 'none'}.")
    return losses[name].of(spec)


def why_not(loss: Loss, spec: DataSpec) -> str | None:
    """Why the loss does not suit the data of `spec`, or None."""
    if spec.task not in loss.tasks:
        return f"it is for {' and '.join(loss.tasks)} tasks, but this task is {spec.task}"
    low = spec.target_low
    if loss.domain is not None and low is not None and not loss.domain.holds(np.asarray(low)):
        return f"it needs a target of {loss.domain}, but the least here is {low:g}"
    if spec.exposure and not loss.log_link:
        return "rows have an exposure, which needs a loss with a log link"
    return None
