"""How a sampler of Optuna is asked: trial by trial, or many proposals of one look at the past."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np

from adanet_py.controllers.distributions import distributions_of, drawn_evenly, outward
from adanet_py.records import Scalar
from adanet_py.space import Assignment, SearchSpace
from adanet_py.space_points import is_active

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseGASampler, BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

_INHERITED = 0.9  # of what only some of the past have


Draw = Callable[[str, "BaseDistribution"], Any]  # a value of a decision by name


@runtime_checkable
class SamplesMany(Protocol):
    """A sampler that proposes many at once, the best first."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What all of the past have."""

    def sample_many(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Iterator[Mapping[str, Any]]:
        """Values of everything in the search space; nothing while there are too few trials."""


class Asked:
    """A study and how its sampler is asked for one more assignment."""

    def __init__(
        self, space: SearchSpace, study: Study, rng: np.random.Generator, *, static: bool
    ) -> None:
        self._space, self._study, self._static, self._rng = space, study, static, rng
        self._kinds = distributions_of(space)
        self._waiting: FrozenTrial | None = None  # of a sampler that sees no others
        self._common: dict[str, BaseDistribution] = {}
        self._parents: list[FrozenTrial] = []
        self._many: Iterator[Mapping[str, Any]] = iter(())

    def ask(self, program: Mapping[str, Scalar]) -> Assignment:
        """One more over the decisions of the study's kind; the others come from `program`."""
        sampler = self._study.sampler
        if generation_key(sampler):
            draw = self._of_generation()
        else:
            draw = self._of_many() if isinstance(sampler, SamplesMany) else self._of_trial()
        out: Assignment = {}
        for d in self._space.decisions:
            if (self._static and not d.static) or not is_active(d, out):
                continue
            if d.name in program:
                out[d.name] = program[d.name]
            elif d.size <= 1:
                out[d.name] = d.domain[0]
            else:
                out[d.name] = outward(d, draw(d.name, self._kinds[d.name]))
        return out

    def _of_trial(self) -> Draw:
        """From a trial of its own, which the sampler sees at the next."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        trial = self._study.ask()

        def draw(name: str, kind: Any) -> Any:
            if isinstance(kind, CategoricalDistribution):
                return trial.suggest_categorical(name, kind.choices)
            if isinstance(kind, FloatDistribution):
                return trial.suggest_float(name, kind.low, kind.high, log=kind.log)
            return trial.suggest_int(name, kind.low, kind.high, log=kind.log)

        return draw

    def _of_generation(self) -> Draw:
        """Without a trial, which is most of the cost: siblings do not look at each other."""
        study, sampler = self._study, cast("BaseGASampler", self._study.sampler)
        if self._waiting is None:
            self._waiting = self._one_trial()
            self._common = sampler.infer_relative_search_space(study, self._waiting)
            generation = sampler.get_trial_generation(study, self._waiting)
            self._parents = sampler.get_parent_population(study, generation)
        return self._given(sampler.sample_relative(study, self._waiting, self._common))

    def _of_many(self) -> Draw:
        """The next best of the draws of one trial."""
        study, sampler = self._study, cast("SamplesMany", self._study.sampler)
        if self._waiting is None:
            self._waiting = self._one_trial()
            self._common = sampler.infer_relative_search_space(study, self._waiting)
            done = [t for t in study.get_trials(deepcopy=False) if t.values is not None]
            done.sort(key=lambda t: -cast("list[float]", t.values)[0])  # of equals the first
            self._parents = done[: -(-len(done) // 4)]
            self._many = sampler.sample_many(study, self._waiting, self._common)
        return self._given(next(self._many, {}))

    def _one_trial(self) -> FrozenTrial:
        self._study.ask()
        return self._study.get_trials(deepcopy=False)[-1]

    def _given(self, found: Mapping[str, Any]) -> Draw:
        """What was found; Optuna draws at random what not all of the past have, and here it is
        mostly that of a parent."""
        rng = self._rng

        def draw(name: str, kind: BaseDistribution) -> Any:
            if name in found:
                return found[name]
            having = [] if name in self._common else [t for t in self._parents if name in t.params]
            if having and rng.random() < _INHERITED:
                return having[int(rng.integers(len(having)))].params[name]
            return drawn_evenly(kind, rng)

        return draw


def generation_key(sampler: BaseSampler) -> str | None:
    """Under which name trials of a genetic sampler carry their generation; None for others."""
    key = getattr(sampler, "_get_generation_key", None)
    return None if key is None else str(key())
