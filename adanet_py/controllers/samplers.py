"""Any Optuna sampler as a controller.

Two studies are rebuilt in memory from a bounded part of the history at every call: one of programs
(each with the best reward of its settings, so that a program is judged by what it can do) and one
of settings for the chosen architecture and optimizer. Nothing is kept between calls, so a
controller stays a pure function; no database sits in the loop.

Optuna has no weighted choices, so a prior is put into what the sampler draws from: rising numbers
become their parts of the unit interval, words as many equal slots as their weight asks for. What a
sampler draws evenly (its start, its exploration, a mutation) then follows the prior, while what it
learns is its own. A past value lies in the middle of its part, or in one slot of its word, chosen
by the candidate's identity so that results spread over them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.controllers.families import Controller, Proposal, propose_family_by_family
from adanet_py.controllers.scored import Scored, of_programs, of_settings, scored
from adanet_py.records import Candidate, History, Scalar
from adanet_py.space import Assignment, Decision, SearchSpace, project
from adanet_py.space_points import is_active

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

REMEMBERED = 60  # results a study is rebuilt from: the best quarter and the latest of the rest
_EPOCH = datetime(2000, 1, 1)  # trials need a time; a fixed one keeps everything repeatable
_SLOTS = 64  # of a weighted choice between words, if whole multiples of the least need no fewer
_ENOUGH = 10  # results of an architecture and optimizer needed to look at them alone


def from_sampler(
    sampler: BaseSampler | Callable[[int], BaseSampler], remembered: int = REMEMBERED
) -> Controller:
    """A controller that asks `sampler`: an Optuna sampler, or a function from a seed to one.

    A sampler given as an object is copied at every call and the copy's random states are seeded
    from `rng`; the object itself never changes. Samplers that keep their place in the study (grid,
    quasi-random) start anew at each call, and what was proposed before is skipped. Failed results
    count as somewhat worse than the worst usable one. At most `remembered` results enter a study.
    """

    def controller(
        space: SearchSpace, history: History, n: int, rng: np.random.Generator
    ) -> list[Candidate]:
        program_seed, settings_seed = (int(s) for s in rng.integers(2**31, size=2))
        rows = scored(history)
        studies: dict[tuple[Scalar, Scalar] | None, Study] = {}

        def study(key: tuple[Scalar, Scalar] | None) -> Study:
            if key not in studies:
                near = of_programs(rows) if key is None else of_settings(rows, *key, _ENOUGH)
                made = _seeded(sampler, program_seed if key is None else settings_seed)
                studies[key] = _study(space, near, made, static=key is None, remembered=remembered)
            return studies[key]

        def draw(
            program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None
        ) -> Proposal:
            if program is None:
                program = _ask(space, study(None), {}, static=True)
            key = program["architecture"], program["optimizer"]
            return _ask(space, study(key), program, static=False), None, None

        with _quiet():
            return propose_family_by_family(space, history, n, rng, draw)

    return controller


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna reports every new study; there are two at each call."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _seeded(sampler: Any, seed: int) -> BaseSampler:
    from optuna.samplers import BaseSampler

    if not isinstance(sampler, BaseSampler):
        made: BaseSampler = sampler(seed)
        return made
    copied = copy.deepcopy(sampler)
    for index, state in enumerate(_random_states(copied, set())):
        state.seed(np.random.SeedSequence([seed, index]).generate_state(4))
    return copied


def _random_states(owner: Any, seen: set[int]) -> Iterator[np.random.RandomState]:
    """The random states of a sampler, of samplers inside it and of their helpers."""
    for value in vars(owner).values():
        # A LazyRandomState makes its state when `rng` is first read; hence the attribute first.
        value = getattr(value, "rng", value)
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, np.random.RandomState):
            yield value
        elif type(value).__module__.startswith("optuna.samplers") and hasattr(value, "__dict__"):
            yield from _random_states(value, seen)


def _study(
    space: SearchSpace,
    rows: Scored,
    sampler: BaseSampler,
    *,
    static: bool,
    remembered: int,
) -> Study:
    import optuna

    rewards = rows.rewards.tolist()
    done = [i for i, reward in enumerate(rewards) if not math.isnan(reward)]
    by_reward = sorted(done, key=lambda i: (-rewards[i], i))
    kept = set(by_reward[: remembered // 4])
    kept.update([i for i in done if i not in kept][len(kept) - remembered :])
    kept.update([i for i, reward in enumerate(rewards) if math.isnan(reward)][-remembered // 4 :])
    names = {d.name: d for d in space.decisions if d.static == static and d.size > 1}
    distributions = {name: _distribution(d) for name, d in names.items()}
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for i in sorted(kept):
        candidate, reward = rows.candidates[i], rewards[i]
        assignment = project(space, candidate)
        if assignment is None:
            continue
        used = [name for name in names if name in assignment]
        params = {name: _inward(names[name], assignment[name], candidate) for name in used}
        known = None if math.isnan(reward) else reward
        study.add_trial(_past(params, {name: distributions[name] for name in used}, known))
    return study


def _past(
    params: dict[str, Any], distributions: dict[str, BaseDistribution], reward: float | None
) -> FrozenTrial:
    """A finished trial, or a running one without reward, that is cheap to add to a study."""
    from optuna.trial import FrozenTrial, TrialState

    class Past(FrozenTrial):
        # Storages copy what is added deeply, which took a third of all time. Nobody else holds
        # the parts of these trials, so a shallow copy is as safe.
        def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
            return copy.copy(self)

    return Past(
        number=-1,
        trial_id=-1,
        state=TrialState.RUNNING if reward is None else TrialState.COMPLETE,
        value=reward,
        datetime_start=_EPOCH,
        datetime_complete=None if reward is None else _EPOCH,
        params=params,
        distributions=distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def _ask(
    space: SearchSpace, study: Study, program: Mapping[str, Scalar], *, static: bool
) -> Assignment:
    """One trial of `study` over the decisions of its kind; the others come from `program`."""
    trial = study.ask()
    out: Assignment = {}
    for d in space.decisions:
        if (static and not d.static) or not is_active(d, out):
            continue
        if d.name in program:
            out[d.name] = program[d.name]
        elif d.size <= 1:
            out[d.name] = d.domain[0]
        elif d.prior and d.ordered:
            out[d.name] = d.at(trial.suggest_float(d.name, 0.0, 1.0))
        elif d.prior:
            slots = _slots(d)
            slot = trial.suggest_categorical(d.name, tuple(range(len(slots))))
            out[d.name] = d.domain[slots[slot]]
        elif d.kind == "choice" and not d.ordered:
            out[d.name] = d.domain[trial.suggest_categorical(d.name, tuple(range(len(d.domain))))]
        elif d.kind == "choice":
            out[d.name] = d.domain[trial.suggest_int(d.name, 0, len(d.domain) - 1)]
        elif d.kind == "int":
            low, high = d.ends
            out[d.name] = trial.suggest_int(d.name, int(low), int(high), log=d.log)
        else:
            out[d.name] = d.tidy(trial.suggest_float(d.name, *d.ends, log=d.log))
    return out


def _distribution(d: Decision) -> BaseDistribution:
    """What `_ask` suggests from, for a trial of the past."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if d.prior:
        slots = range(len(_slots(d)))
        return FloatDistribution(0.0, 1.0) if d.ordered else CategoricalDistribution(slots)
    if d.kind == "choice":
        # By position: words have none, rising numbers have neighbours.
        last = len(d.domain) - 1
        return IntDistribution(0, last) if d.ordered else CategoricalDistribution(range(last + 1))
    low, high = d.ends
    if d.kind == "int":
        return IntDistribution(int(low), int(high), log=d.log)
    return FloatDistribution(low, high, log=d.log)


def _slots(d: Decision) -> list[int]:
    """The position of the choice that owns each slot: slots in proportion to the prior."""
    counts = [round(share / min(d.prior)) for share in d.prior]
    if sum(counts) > _SLOTS:
        counts = [max(1, round(share * _SLOTS)) for share in d.prior]
    return [i for i, count in enumerate(counts) for _ in range(count)]


def _inward(d: Decision, value: Scalar, candidate: Candidate) -> Any:
    """The value a trial holds for `value` of a candidate."""
    if d.prior and d.ordered:
        return d.unit(value)
    if d.prior:
        mine = [s for s, i in enumerate(_slots(d)) if d.domain[i] == value]
        return mine[int(candidate.id, 16) % len(mine)]
    return d.domain.index(value) if d.kind == "choice" else value
