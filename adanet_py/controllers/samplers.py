"""Any Optuna sampler as a controller.

Two studies are rebuilt in memory from a bounded part of the history at every call: one of programs
(each with the best reward of its settings, so that a program is judged by what it can do) and one
of settings for the chosen architecture and optimizer. Nothing is kept between calls, so a
controller stays a pure function; no database sits in the loop.

Samplers that keep their state in a study are given it: genetic ones hold the past for their first
generation and breed its elite, CMA-ES starts from it (the "warm start" of Nomura et al. 2021).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.controllers.asking import Asked, generation_key
from adanet_py.controllers.columns import columns_of
from adanet_py.controllers.distributions import distributions_of, inward
from adanet_py.controllers.failures import drawn_elsewhere, likely_failures
from adanet_py.controllers.families import Controller, Proposal, propose_family_by_family
from adanet_py.controllers.scored import Scored, of_programs, of_settings, scored
from adanet_py.records import Candidate, History, Result, Scalar
from adanet_py.space import SearchSpace

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

REMEMBERED = 60  # results a study is rebuilt from: the best quarter and the latest of the rest
_EPOCH = datetime(2000, 1, 1)  # trials need a time; a fixed one keeps everything repeatable
_SOURCES = 10  # finished trials needed to start CMA-ES from
_ENOUGH = 10  # results of an architecture and optimizer needed to look at them alone


Objectives = Callable[[Result], tuple[float, ...]]  # of a usable result, lower is better


def from_sampler(
    sampler: BaseSampler | Callable[[int], BaseSampler],
    remembered: int = REMEMBERED,
    objectives: Objectives | None = None,
) -> Controller:
    """A controller that asks `sampler`: an Optuna sampler, or a function from a seed to one.

    A sampler given as an object is copied at every call and the copy's random states are seeded
    from `rng`; the object itself never changes. Samplers that keep their place in the study (grid,
    quasi-random) start anew at each call, and what was proposed before is skipped. Failed results
    count as somewhat worse than the worst usable one, and programs where all fail are skipped too
    (failures.py). At most `remembered` results enter a study.
    The sampler maximises the reward, or minimises the `objectives`, in which a failure is the worst
    of all results.
    """

    def controller(
        space: SearchSpace, history: History, n: int, rng: np.random.Generator
    ) -> list[Candidate]:
        program_seed, settings_seed = (int(s) for s in rng.integers(2**31, size=2))
        rows, fails = scored(space, history), likely_failures(space, history)

        def values(found: Sequence[Result | None]) -> list[list[float]]:
            assert objectives is not None
            return _values(
                [None if r is None or math.isnan(r.score) else objectives(r) for r in found]
            )

        studies: dict[tuple[Scalar, Scalar] | None, Asked] = {}

        def study(key: tuple[Scalar, Scalar] | None) -> Asked:
            if key not in studies:
                near = of_programs(rows) if key is None else of_settings(rows, *key, _ENOUGH)
                made = _seeded(sampler, program_seed if key is None else settings_seed)
                told = values if objectives else None
                static = key is None
                past = _study(space, near, made, told, static=static, remembered=remembered)
                studies[key] = Asked(space, past, rng, static=static)
            return studies[key]

        def draw(
            program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None
        ) -> Proposal:
            if program is None:
                program = drawn_elsewhere(lambda: study(None).ask({}), dict, fails, rng)
            key = program["architecture"], program["optimizer"]
            return study(key).ask(program), None, None

        with _quiet():
            return propose_family_by_family(space, history, n, rng, draw)

    made_of = getattr(sampler, "__name__", type(sampler).__name__)
    controller.__name__ = made_of.lstrip("_")
    return controller


def _values(found: Sequence[tuple[float, ...] | None]) -> list[list[float]]:
    """The objectives of each; of failures (None) the worst there is, [] where all are failures."""
    usable = [v for v in found if v is not None]
    worst = np.max(usable, axis=0).tolist() if usable else []
    return [worst if v is None else list(v) for v in found]


@contextmanager
def trusted() -> Iterator[None]:
    """Optuna warns at making what it calls experimental, years after it came."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna reports every new study and every value it draws at random: hundreds at each call."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
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
    values: Callable[[Sequence[Result | None]], list[list[float]]] | None,
    *,
    static: bool,
    remembered: int,
) -> Study:
    import optuna

    columns, rewards = columns_of(space), rows.rewards.tolist()
    unknown = np.isnan(rows.rewards)
    done = np.flatnonzero(~unknown).tolist()
    by_reward = sorted(done, key=lambda i: (-rewards[i], i))
    kept = set(by_reward[: remembered // 4])
    kept.update([i for i in done if i not in kept][len(kept) - remembered :])
    kept.update(np.flatnonzero(unknown).tolist()[-remembered // 4 :])
    names = {d.name: d for d in space.decisions if d.static == static and d.size > 1}
    distributions = distributions_of(space)
    told = {i: [rewards[i]] for i in kept if not math.isnan(rewards[i])}
    if values is None:
        study = optuna.create_study(direction="maximize", sampler=sampler)
    else:
        told = dict(zip(told, values([rows.results[i] for i in told]), strict=True))
        several = max(map(len, told.values()), default=1)
        study = optuna.create_study(directions=["minimize"] * max(several, 1), sampler=sampler)
    # Genetic samplers sort trials by a generation each carries; new ones count as the next.
    key = generation_key(sampler)
    marks = {} if key is None else {key: 0}
    past: list[FrozenTrial] = []
    for i in sorted(kept):
        candidate = rows.candidates[i]
        place = columns.place_of(space, candidate)
        if place is None:
            continue
        used = [name for name in names if name in place.assignment]
        params = {name: inward(names[name], place.assignment[name], candidate) for name in used}
        kinds = {name: distributions[name] for name in used}
        past.append(_past(params, kinds, told.get(i) or None, marks))
    study.add_trials(past)
    if hasattr(sampler, "_source_trials") and sampler._source_trials is None:
        sampler._source_trials = _sources(past)
    return study


def _sources(past: Sequence[FrozenTrial]) -> list[FrozenTrial] | None:
    """Finished trials with the numbers that all of them have: what CMA-ES can start from.

    None where they are too few: the best tenth is what counts.
    """
    from optuna.distributions import CategoricalDistribution

    done = [t for t in past if t.values is not None]
    if len(done) < _SOURCES:
        return None
    common = set.intersection(*(set(t.params) for t in done))
    kinds = {k: v for t in done for k, v in t.distributions.items() if k in common}
    kinds = {k: v for k, v in kinds.items() if not isinstance(v, CategoricalDistribution)}
    return [_past({k: t.params[k] for k in kinds}, kinds, t.values, {}) for t in done]


def _past(
    params: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    values: list[float] | None,
    marks: Mapping[str, Any],
) -> FrozenTrial:
    """A finished trial, or a running one without values, that is cheap to add to a study."""
    from optuna.trial import FrozenTrial, TrialState

    class Past(FrozenTrial):
        # Storages copy what is added deeply, which took a third of all time. Nobody else holds
        # the parts of these trials, so a shallow copy is as safe.
        def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
            return copy.copy(self)

    return Past(
        number=-1,
        trial_id=-1,
        state=TrialState.RUNNING if values is None else TrialState.COMPLETE,
        value=None,
        values=values,
        datetime_start=_EPOCH,
        datetime_complete=None if values is None else _EPOCH,
        params=params,
        distributions=distributions,
        user_attrs={},
        system_attrs=dict(marks),
        intermediate_values={},
    )
