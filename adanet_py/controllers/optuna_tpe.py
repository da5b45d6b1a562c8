"""The tree-structured Parzen estimator of Optuna, here to compare with.

A batch is drawn from one look at the past: of `DRAWN` draws from the density of the good ones those
with the largest ratio, the best first. Asked one by one, as Optuna does it, each would take several
milliseconds. What is pending counts as bad, so that a batch keeps away from it (`constant_liar`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.controllers.samplers import from_sampler, trusted

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import TPESampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

DRAWN = 96  # draws a batch is chosen from


def _sampler(seed: int) -> TPESampler:
    with trusted():
        made: TPESampler = _kind()(
            seed=seed, multivariate=True, constant_liar=True, n_ei_candidates=DRAWN
        )
    return made


@cache
def _kind() -> Any:
    """Made late: importing Optuna takes time."""
    from optuna.samplers import TPESampler

    class ManyTPESampler(TPESampler):
        """Gives all draws that it weighed, not the best alone."""

        def _compute_acquisition_func(self, samples: Any, *densities: Any) -> Any:
            values = super()._compute_acquisition_func(samples, *densities)
            self._weighed = samples, values
            return values

        def sample_many(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> Iterator[Mapping[str, Any]]:
            """See `asking.SamplesMany`."""
            if not self.sample_relative(study, trial, search_space):
                return
            samples, values = self._weighed
            for place in np.argsort(-values, kind="stable"):
                yield {
                    name: kind.to_external_repr(samples[name][place])
                    for name, kind in search_space.items()
                }

    return ManyTPESampler


propose = from_sampler(_sampler)
propose.__module__ = __name__  # what this module says is what `list controllers` shows
