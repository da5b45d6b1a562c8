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
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import numpy as np

from adanet_py.controllers.columns import columns_of
from adanet_py.controllers.failures import drawn_elsewhere, likely_failures
from adanet_py.controllers.families import Controller, Proposal, propose_family_by_family
from adanet_py.controllers.scored import Scored, of_programs, of_settings, scored
from adanet_py.records import Candidate, History, Result, Scalar
from adanet_py.space import Assignment, Decision, SearchSpace
from adanet_py.space_points import is_active

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseGASampler, BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

REMEMBERED = 60  # results a study is rebuilt from: the best quarter and the latest of the rest
_EPOCH = datetime(2000, 1, 1)  # trials need a time; a fixed one keeps everything repeatable
_SLOTS = 64  # of a weighted choice between words, if whole multiples of the least need no fewer
_SOURCES = 10  # finished trials needed to start CMA-ES from
_INHERITED = 0.9  # of what only some of the past have
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

        studies: dict[tuple[Scalar, Scalar] | None, _Asked] = {}

        def study(key: tuple[Scalar, Scalar] | None) -> _Asked:
            if key not in studies:
                near = of_programs(rows) if key is None else of_settings(rows, *key, _ENOUGH)
                made = _seeded(sampler, program_seed if key is None else settings_seed)
                told = values if objectives else None
                static = key is None
                past = _study(space, near, made, told, static=static, remembered=remembered)
                studies[key] = _Asked(space, past, rng, static=static)
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
    done = [i for i, reward in enumerate(rewards) if not math.isnan(reward)]
    by_reward = sorted(done, key=lambda i: (-rewards[i], i))
    kept = set(by_reward[: remembered // 4])
    kept.update([i for i in done if i not in kept][len(kept) - remembered :])
    kept.update([i for i, reward in enumerate(rewards) if math.isnan(reward)][-remembered // 4 :])
    names = {d.name: d for d in space.decisions if d.static == static and d.size > 1}
    distributions = _distributions(space)
    told = {i: [rewards[i]] for i in kept if not math.isnan(rewards[i])}
    if values is None:
        study = optuna.create_study(direction="maximize", sampler=sampler)
    else:
        told = dict(zip(told, values([rows.results[i] for i in told]), strict=True))
        several = max(map(len, told.values()), default=1)
        study = optuna.create_study(directions=["minimize"] * max(several, 1), sampler=sampler)
    # Genetic samplers sort trials by a generation each carries; new ones count as the next.
    key = _generation_key(sampler)
    marks = {} if key is None else {key: 0}
    past: list[FrozenTrial] = []
    for i in sorted(kept):
        candidate = rows.candidates[i]
        place = columns.place_of(space, candidate)
        if place is None:
            continue
        used = [name for name in names if name in place.assignment]
        params = {name: _inward(names[name], place.assignment[name], candidate) for name in used}
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


class _Asked:
    """A study and how its sampler is asked for one more assignment."""

    def __init__(
        self, space: SearchSpace, study: Study, rng: np.random.Generator, *, static: bool
    ) -> None:
        self._space, self._study, self._static, self._rng = space, study, static, rng
        self._kinds = _distributions(space)
        self._waiting: FrozenTrial | None = None  # of a sampler that needs to see no others
        self._common: dict[str, BaseDistribution] = {}
        self._parents: list[FrozenTrial] = []

    def ask(self, program: Mapping[str, Scalar]) -> Assignment:
        """One more over the decisions of the study's kind; the others come from `program`."""
        draw = self._of_generation() if _generation_key(self._study.sampler) else self._of_trial()
        out: Assignment = {}
        for d in self._space.decisions:
            if (self._static and not d.static) or not is_active(d, out):
                continue
            if d.name in program:
                out[d.name] = program[d.name]
            elif d.size <= 1:
                out[d.name] = d.domain[0]
            else:
                out[d.name] = _outward(d, draw(d.name, self._kinds[d.name]))
        return out

    def _of_trial(self) -> Callable[[str, BaseDistribution], Any]:
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

    def _of_generation(self) -> Callable[[str, BaseDistribution], Any]:
        """Without a trial, which is most of the cost: siblings do not look at each other.

        Optuna draws at random what not all of the past have. Here it is mostly that of a parent.
        """
        study, sampler, rng = self._study, cast("BaseGASampler", self._study.sampler), self._rng
        if self._waiting is None:
            study.ask()
            self._waiting = study.get_trials(deepcopy=False)[-1]
            self._common = sampler.infer_relative_search_space(study, self._waiting)
            generation = sampler.get_trial_generation(study, self._waiting)
            self._parents = sampler.get_parent_population(study, generation)
        waiting, parents = self._waiting, self._parents
        bred = sampler.sample_relative(study, waiting, self._common)

        def draw(name: str, kind: BaseDistribution) -> Any:
            if name in bred:
                return bred[name]
            having = [] if name in self._common else [t for t in parents if name in t.params]
            if having and rng.random() < _INHERITED:
                return having[int(rng.integers(len(having)))].params[name]
            return _drawn(kind, rng)

        return draw


def _generation_key(sampler: BaseSampler) -> str | None:
    """Under which name trials of a genetic sampler carry their generation; None for others."""
    key = getattr(sampler, "_get_generation_key", None)
    return None if key is None else str(key())


_DISTRIBUTIONS: WeakKeyDictionary[SearchSpace, Mapping[str, BaseDistribution]] = WeakKeyDictionary()


def _distributions(space: SearchSpace) -> Mapping[str, BaseDistribution]:
    """What a trial draws each open decision of a space from, made once."""
    if space not in _DISTRIBUTIONS:
        open_ones = [d for d in space.decisions if d.size > 1]
        _DISTRIBUTIONS[space] = {d.name: _distribution(d) for d in open_ones}
    return _DISTRIBUTIONS[space]


def _distribution(d: Decision) -> BaseDistribution:
    """What a trial draws a decision from."""
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


def _drawn(kind: Any, rng: np.random.Generator) -> Any:
    """A value drawn evenly from a distribution, on its scale; a tenth of the time Optuna takes."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(kind, CategoricalDistribution):
        return kind.choices[int(rng.integers(len(kind.choices)))]
    whole = isinstance(kind, IntDistribution)
    low, high = (kind.low - 0.5, kind.high + 0.5) if whole else (kind.low, kind.high)
    value = rng.uniform(low, high)
    if kind.log:
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
    value = min(max(value, kind.low), kind.high)
    return round(value) if whole else float(value)


def _slots(d: Decision) -> list[int]:
    """The position of the choice that owns each slot: slots in proportion to the prior."""
    counts = [round(share / min(d.prior)) for share in d.prior]
    if sum(counts) > _SLOTS:
        counts = [max(1, round(share * _SLOTS)) for share in d.prior]
    return [i for i, count in enumerate(counts) for _ in range(count)]


def _outward(d: Decision, drawn: Any) -> Scalar:
    """The value of a decision for what was drawn from its distribution."""
    if d.prior and d.ordered:
        return d.at(drawn)
    if d.kind == "choice":
        return d.domain[_slots(d)[drawn] if d.prior else drawn]
    return int(drawn) if d.kind == "int" else d.tidy(drawn)


def _inward(d: Decision, value: Scalar, candidate: Candidate) -> Any:
    """The value a trial holds for `value` of a candidate."""
    if d.prior and d.ordered:
        return d.unit(value)
    if d.prior:
        mine = [s for s, i in enumerate(_slots(d)) if d.domain[i] == value]
        return mine[int(candidate.id, 16) % len(mine)]
    return d.domain.index(value) if d.kind == "choice" else value
