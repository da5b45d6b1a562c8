"""NSGA-II (Deb et al. 2002, "A Fast and Elitist Multiobjective Genetic Algorithm") by Optuna.

It minimises error and complexity at once and asks for no weight between them: parents are the
elite of what is remembered, front by front and the less crowded first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adanet_py.controllers.samplers import from_sampler, trusted
from adanet_py.records import Result

if TYPE_CHECKING:
    from optuna.samplers import NSGAIISampler

POPULATION = 6  # parents; so many programs, and settings of each kind, are random
REMEMBERED = 20  # results the elite is chosen from


def _sampler(seed: int) -> NSGAIISampler:
    from optuna.samplers import NSGAIISampler
    from optuna.samplers.nsgaii import BLXAlphaCrossover

    # Numbers between and beyond the parents', for few generations fit into a search.
    with trusted():
        return NSGAIISampler(population_size=POPULATION, crossover=BLXAlphaCrossover(), seed=seed)


def objectives(result: Result) -> tuple[float, float]:
    """Error and complexity; where a result has no error of its own, minus its reward and 0."""
    if math.isnan(result.error):
        return -result.reward, 0.0
    return result.error, 0.0 if math.isnan(result.complexity) else result.complexity


propose = from_sampler(_sampler, REMEMBERED, objectives)
propose.__module__ = __name__  # what this module says is what `list controllers` shows
