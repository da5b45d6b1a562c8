"""The tree-structured Parzen estimator of Optuna: milliseconds a proposal, here to compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adanet_py.controllers.samplers import from_sampler

if TYPE_CHECKING:
    from optuna.samplers import TPESampler


def _sampler(seed: int) -> TPESampler:
    from optuna.samplers import TPESampler

    # constant_liar: members of a batch and what is pending count as bad, so that a batch spreads.
    return TPESampler(seed=seed, multivariate=True, constant_liar=True)


propose = from_sampler(_sampler)
propose.__module__ = __name__  # what this module says is what `list controllers` shows
