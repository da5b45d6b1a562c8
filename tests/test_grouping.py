"""What is trained next: what a long search remembers is what looking through all would say."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from adanet_py.grouping import LAG, Grouper
from adanet_py.records import Candidate, Group, History, Result, Status
from adanet_py.refine.refiner import Refiner
from adanet_py.state import State


def grouper_of(state: State, refiner: Refiner, counted: bool, first: int | None) -> Grouper:
    """One that is asked for nothing but what it remembers."""
    config = SimpleNamespace(share_of_children=0.3, candidates=10_000 if counted else None)
    rest = dict.fromkeys(
        ("space", "controller", "load", "seen", "left", "dense", "journal", "note")
    )
    return Grouper(config=config, state=state, refiner=refiner, first=first, **rest)


def plainly_needed(state: State, refiner: Refiner, counted: bool, first: int | None) -> set[str]:
    """As `Grouper.needed`, by looking through everything."""
    waiting = [g for i, g in state.groups.items() if i not in state.results]
    out = {c.parent for g in waiting for c in g.candidates if c.inherits}
    last = len(state.groups)
    ends = range(max(first or 0, last - LAG + 1), last + 1) if counted else (last,)
    for end in ends:
        known = [r for i in sorted(state.results) if i < end for r in state.results[i]]
        out |= {r.candidate.id for r in refiner.parents(known)}
    return out


def random_result(rng: np.random.Generator, seed: int, known: list[Result]) -> Result:
    """Of few families, some failed, some children that were accepted or not."""
    static = {"width": int(rng.integers(4, 12))}
    reward = -float(rng.integers(0, 40)) / 8.0  # ties
    others = (Status.FAILED, Status.INFEASIBLE)
    status = Status.COMPLETE if rng.random() < 0.8 else others[int(rng.integers(2))]
    values = {"reward": reward, "parameters": int(rng.integers(1, 3))}
    if not known or rng.random() < 0.6:
        return Result(Candidate("mlp", static, seed=seed), status, **values)
    parent = known[int(rng.integers(len(known)))].candidate.id
    child = Candidate("mlp", static, seed=seed, parent=parent, move="train_on", inherits=True)
    judged = {"accepted": bool(rng.random() < 0.5), "objective": "size", "gain": 0.1}
    return Result(child, status, **values, **judged)


@pytest.mark.parametrize("objective", ["metric", "size"])
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("first", [None, 3])
@pytest.mark.parametrize("seed", range(4))
def test_the_parents_kept_are_those_of_the_whole_history(objective, counted, first, seed):
    rng, state = np.random.default_rng(seed), State()
    refiner = Refiner((), objective)
    grouper = grouper_of(state, refiner, counted, first)
    waiting: list[tuple[int, list[Result]]] = []
    for index in range(30):
        results = [random_result(rng, 10 * index + i, state.finished()) for i in range(3)]
        group = Group(index, tuple(r.candidate for r in results), steps=1)
        state.apply("group", group.to_json())
        waiting.append((index, results))
        while waiting and (len(waiting) > 3 or rng.random() < 0.5):  # in any order
            done, found = waiting.pop(int(rng.integers(len(waiting))))
            data = {"group": done, "results": [r.to_json() for r in found]}
            state.apply("results", data)
            assert grouper.needed() == plainly_needed(state, refiner, counted, first)
        assert grouper.needed() == plainly_needed(state, refiner, counted, first)
        assert [g.index for g in state.waiting()] == sorted(i for i, _ in waiting)
        broken = {i: sum(r.status is Status.INFEASIBLE for r in rs)
                  for i, rs in state.results.items()}  # fmt: skip
        for before in range(index + 2):
            told = sum(n for i, n in broken.items() if i < before)
            assert state.proposed(before) == 3 * (index + 1) - told
            below = state.history(before)
            assert below.results == tuple(
                r for i in sorted(state.results) if i < before for r in state.results[i]
            )
            open_ones = [i for i in state.groups if i >= before or i not in state.results]
            candidates = [c for i in open_ones for c in state.groups[i].candidates]
            assert list(below.pending) == candidates
        assert state.proposed() == 3 * (index + 1) - sum(broken.values())


def test_a_refiner_asked_after_other_histories_answers_the_same():
    rng, refiner = np.random.default_rng(0), Refiner(("train_on", "widen"))
    from adanet_py.space import load_space

    results: list[Result] = []
    for seed in range(40):
        results.append(random_result(rng, seed, results))
    space, other = load_space("tiny"), load_space("tiny")
    for count in (10, 30, 20, 40, 39):
        history = History(tuple(results[:count]))
        first = refiner(space, history, 4, np.random.default_rng(1))
        fresh = refiner(other if count == 10 else load_space("tiny"), history, 4,
                        np.random.default_rng(1))  # fmt: skip
        assert first == fresh


@pytest.mark.parametrize(("left", "fits", "expected"), [
    (50.0, True, "candidates"), (20.0, True, "children"), (30.0, False, "children"),
])  # fmt: skip
def test_children_begin_before_their_time_if_nothing_else_fits(monkeypatch, left, fits, expected):
    def candidates(self, *_):
        self.late = not fits
        return "candidates" if fits else None

    def children(self, index, before, rng):
        return "children" if self._share_of_children(index, before, History(())) else None

    monkeypatch.setattr(Grouper, "_candidates", candidates)
    monkeypatch.setattr(Grouper, "_children", children)
    monkeypatch.setattr("adanet_py.grouping.replace", lambda load, **_: load)
    config = SimpleNamespace(share_of_children=0.4, candidates=None, time=60.0, seed=0)
    rest = dict.fromkeys(("space", "controller", "refiner", "load", "seen", "journal", "note"))
    grouper = Grouper(config, State(), left=lambda: left, dense=lambda: "stacked", **rest)
    child = Candidate("mlp", parent="a", move="train_on", inherits=True)
    assert grouper.left_for(Group(0, (child,), steps=1)) == left
    assert grouper.left_for(Group(0, (Candidate("mlp"),), steps=1)) == left - 12.0
    assert grouper.next() == expected
    assert not grouper.late
