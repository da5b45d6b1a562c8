"""The policy as a sampler for any Optuna study: `optuna.create_study(sampler=ReinforceSampler())`.

A parameter is decided when the objective asks for it, given what the trial has decided before, so
spaces may be dynamic and conditional: a parameter is known by its name and its choices, a range by
the relative place within it, and one that was never seen is drawn evenly. What a trial did not ask
for takes no part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from adanet_py.controllers.policy import PARTS, Codes, Head, Heads, conditional
from adanet_py.controllers.policy_gradient import (
    Learner,
    beginner,
    clipped_step,
    natural_step,
    remember,
    window,
)
from adanet_py.controllers.policy_replay import BLOCK, Step, rewards_of

_Key = tuple[Any, ...]  # of a head: name, and its choices or the number of its cells


class _Memory(NamedTuple):
    """What was learned from the finished trials of a study, known by their numbers."""

    study: Any
    seen: frozenset[int]
    heads: Mapping[_Key, int]
    learner: Learner
    scores: tuple[float, ...]


class ReinforceSampler(BaseSampler):
    """Policy gradient as a sampler; see the module and `policy_gradient`.

    It learns from complete and failed trials (the worst), from pruned ones by their last value. It
    keeps its policy between trials and can be pickled; studies with several objectives are refused
    with a ValueError.
    """

    _step: Step = staticmethod(natural_step)

    def __init__(self, seed: int | None = None) -> None:
        self._random = np.random.RandomState(seed)
        self._memory: _Memory | None = None

    def reseed_rng(self) -> None:
        """Another stream of random numbers, for a copy in another process."""
        self._random.seed()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing: every parameter is decided when it is asked for."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A value for each of `search_space`, one after another."""
        self._raise_error_if_multi_objective(study)
        asked: dict[str, tuple[BaseDistribution, Any]] = {}
        for name, distribution in search_space.items():
            value = self._draw(study, trial, name, distribution, asked)
            asked[name] = distribution, value
        return {name: value for name, (_, value) in asked.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """A value given what the trial has decided before."""
        self._raise_error_if_multi_objective(study)
        return self._draw(study, trial, param_name, param_distribution, {})

    def _draw(
        self,
        study: Study,
        trial: FrozenTrial,
        name: str,
        distribution: BaseDistribution,
        asked: Mapping[str, tuple[BaseDistribution, Any]],
    ) -> Any:
        memory = self._learn(study)
        count = _cells(distribution)
        shares = np.full(count, 1.0 / count)
        j = memory.heads.get(_key(name, distribution))
        if j is not None:
            decided = {n: (trial.distributions[n], v) for n, v in trial.params.items()}
            point = _point({**decided, **asked}, memory.heads)
            shares = conditional(memory.learner.policy, j, point)
        cell = int(self._random.choice(count, p=shares))
        return _value(distribution, cell, (cell + self._random.random_sample()) / count)

    def _learn(self, study: Study) -> _Memory:
        """Take in what has finished since the last call."""
        identity = study.study_name
        memory = self._memory
        if memory is None or memory.study != identity:
            memory = _Memory(identity, frozenset(), {}, beginner(Heads([])), ())
        states = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
        finished = study.get_trials(deepcopy=False, states=states)
        new = [t for t in finished if t.number not in memory.seen and t.params]
        if any(_key(n, d) not in memory.heads for t in new for n, d in t.distributions.items()):
            # A parameter never seen: from the beginning, with a place for it.
            new = [t for t in finished if t.params]
            keys = dict.fromkeys(_key(n, d) for t in new for n, d in t.distributions.items())
            heads = {key: j for j, key in enumerate(keys)}
            learner = beginner(Heads([_head(key) for key in keys]))
            memory = _Memory(identity, frozenset(), heads, learner, ())
        sign = -1.0 if study.direction == StudyDirection.MINIMIZE else 1.0
        for first in range(0, len(new), BLOCK):
            memory = self._advance(memory, new[first : first + BLOCK], sign)
        self._memory = memory
        return memory

    def _advance(self, memory: _Memory, trials: Sequence[FrozenTrial], sign: float) -> _Memory:
        points = [
            _point({n: (t.distributions[n], v) for n, v in t.params.items()}, memory.heads)
            for t in trials
        ]
        policy = memory.learner.policy
        learner = remember(memory.learner, np.array(points), policy)
        scores = (*memory.scores, *(sign * _result(t) for t in trials))[-window(policy.heads) :]
        learner = self._step(learner, rewards_of(scores), len(trials) / BLOCK)
        seen = memory.seen | {t.number for t in trials}
        return memory._replace(seen=seen, learner=learner, scores=scores)


class PPOSampler(ReinforceSampler):
    """As `ReinforceSampler`, trained by the clipped objective."""

    _step: Step = staticmethod(clipped_step)


def _result(trial: FrozenTrial) -> float:
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return float(trial.value)
    if trial.state == TrialState.PRUNED and trial.last_step is not None:
        return float(trial.intermediate_values[trial.last_step])
    return math.nan


def _size(distribution: BaseDistribution) -> float:
    """Number of values."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    if not isinstance(distribution, FloatDistribution):
        raise ValueError(f"Expected a float, int or categorical parameter: {distribution}.")
    if distribution.step is not None:
        return round((distribution.high - distribution.low) / distribution.step) + 1
    return math.inf if distribution.high > distribution.low else 1


def _cells(distribution: BaseDistribution) -> int:
    size = _size(distribution)
    return int(size if isinstance(distribution, CategoricalDistribution) else min(size, PARTS))


def _key(name: str, distribution: BaseDistribution) -> _Key:
    if isinstance(distribution, CategoricalDistribution):
        return (name, "choice", len(distribution.choices), repr(distribution.choices))
    return (name, "range", _cells(distribution))


def _head(key: _Key) -> Head:
    count = key[2]
    return Head(np.full(count, -math.log(count)), ordered=key[1] == "range")


def _point(params: Mapping[str, tuple[BaseDistribution, Any]], heads: Mapping[_Key, int]) -> Codes:
    """The cells of parameters, -1 of heads that they do not have: [D]."""
    out = np.full(len(heads), -1, dtype=np.intp)
    for name, (distribution, value) in params.items():
        j = heads.get(_key(name, distribution))
        if j is not None:
            out[j] = _cell(distribution, value)
    return out


def _ends(distribution: IntDistribution | FloatDistribution) -> tuple[float, float]:
    """Of the scale on which cells are equally wide."""
    low, high = float(distribution.low), float(distribution.high)
    if isinstance(distribution, IntDistribution):
        half = 0.5 * distribution.step
        low, high = low - half, high + half
    elif distribution.step is not None:
        low, high = low - 0.5 * distribution.step, high + 0.5 * distribution.step
    return (math.log(low), math.log(high)) if distribution.log else (low, high)


def _cell(distribution: Any, value: Any) -> int:
    count = _cells(distribution)
    if isinstance(distribution, CategoricalDistribution):
        return int(distribution.to_internal_repr(value))
    if count == 1:
        return 0
    low, high = _ends(distribution)
    x = math.log(value) if distribution.log else float(value)
    return min(max(int((x - low) / (high - low) * count), 0), count - 1)


def _value(distribution: Any, cell: int, place: float) -> Any:
    """The value of a choice, or at `place` in [0, 1) of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[cell]
    if _size(distribution) == 1:
        return distribution.low
    low, high = _ends(distribution)
    x = low + place * (high - low)
    x = math.exp(x) if distribution.log else x
    if distribution.step is not None:
        steps = round((x - distribution.low) / distribution.step)
        steps = min(max(steps, 0), int(_size(distribution)) - 1)
        x = distribution.low + steps * distribution.step
    x = min(max(x, distribution.low), distribution.high)
    return int(x) if isinstance(distribution, IntDistribution) else float(x)
