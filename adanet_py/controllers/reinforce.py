"""Policy gradient with importance weights (Williams 1992; Zoph and Le 2017, arXiv 1611.01578).

Programs and settings are drawn from stochastic policies over the decisions, one after another
(policy.py), which natural steps (policy_gradient.py) on the history train (policy_replay.py).
The reward is that of the run; with an absolute target of complexity it is the one of Bender et al.
2020 (arXiv 2008.06120).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from adanet_py.controllers.columns import Columns, columns_of
from adanet_py.controllers.families import Proposal, has_one_setting, propose_family_by_family
from adanet_py.controllers.policy import Codes, Policy, draw
from adanet_py.controllers.policy_gradient import natural_step
from adanet_py.controllers.policy_replay import Layout, Step, layout_of, train
from adanet_py.records import Candidate, History, Scalar
from adanet_py.space import Assignment, SearchSpace

SHOWN = 1024  # draws that show what the policy prefers
HOTTEST = 1e4  # temperature from which on everything is drawn evenly
HOTTER = 1.25  # factor of the temperature after draws of which most were known


def propose(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """Draws from the policy trained by natural policy gradient."""
    return propose_by(natural_step, space, history, n, rng)


def propose_by(
    step: Step, space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """Draws from the policies that `step` trains on the history."""
    if n < 1:
        return []
    columns, layout = columns_of(space), layout_of(space)
    policies = train(space, history, step)
    tried = _tried(space, columns, layout, history) if has_one_setting(space) else None
    programs = _draws(policies.programs, np.empty(0, dtype=np.intp), n, rng, tried)
    settings: dict[tuple[tuple[str, Scalar], ...], Iterator[Assignment]] = {}

    def assignments(program: Codes) -> Iterator[Assignment]:
        for codes in _draws(policies.settings, program, n, rng):
            yield columns.decode(layout.decode(codes[None], rng)[0])

    def draw_one(
        program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None
    ) -> Proposal:
        if program is None:
            codes = next(programs)
            drawn = next(assignments(codes))
            return drawn, None, None
        key = tuple(program.items())
        if key not in settings:
            codes = layout.encode(columns.encode(program)[None])[0, : layout.settings.first]
            settings[key] = assignments(codes)
        # A cell may hold several values of a program's range: those given stay.
        drawn = next(settings[key])
        return {name: program.get(name, value) for name, value in drawn.items()}, None, None

    return propose_family_by_family(space, history, n, rng, draw_one)


def shares(
    space: SearchSpace, history: History, step: Step = natural_step
) -> dict[str, dict[str, float]]:
    """What the policy prefers, to be read: of `SHOWN` draws the share that has each choice.

    By decision; parts of a range are named by their ends. Shares sum to that of draws in which
    the decision is active.
    """
    layout, rng = layout_of(space), np.random.default_rng(0)
    policies = train(space, history, step)
    programs = draw(policies.programs, np.empty(0, dtype=np.intp), SHOWN, rng)
    codes = draw(policies.settings, programs, SHOWN, rng)
    out: dict[str, dict[str, float]] = {}
    for decision, head, cells in zip(layout.decisions, layout.settings.all, codes.T, strict=True):
        count = len(head.base)
        found = np.bincount(cells[cells >= 0], minlength=count) / SHOWN
        if decision.kind == "choice":
            names = [str(v) for v in decision.domain]
        elif decision.size == count:
            names = [str(decision.at((k + 0.5) / count)) for k in range(count)]
        else:
            ends = [decision.at(k / count) for k in range(count + 1)]
            names = [f"{a} to {b}" for a, b in pairwise(ends)]
        out[decision.name] = {}
        for name, share in zip(names, found.tolist(), strict=True):
            out[decision.name][name] = out[decision.name].get(name, 0.0) + share
    return out


def _draws(
    policy: Policy,
    given: Codes,
    batch: int,
    rng: np.random.Generator,
    tried: set[bytes] | None = None,
) -> Iterator[Codes]:
    """Draws without end; if `tried` is given none of it and none twice, as long as possible.

    Where most draws are known the policy is made hotter: it has said what it had to say.
    """
    temperature, met = 1.0, tried or set()
    while True:
        points = draw(policy, given, batch, rng, temperature)
        if tried is None or temperature > HOTTEST:
            yield from points
            continue
        fresh = {p.tobytes(): p for p in points}
        for key in fresh.keys() & met:
            del fresh[key]
        yield from fresh.values()
        met.update(fresh)
        if len(fresh) < 0.5 * batch:
            temperature *= HOTTER


def _tried(space: SearchSpace, columns: Columns, layout: Layout, history: History) -> set[bytes]:
    """The programs proposed so far."""
    candidates = [*(r.candidate for r in history.results), *history.pending]
    places = [columns.place_of(space, c) for c in candidates]
    points = [place.point for place in places if place is not None]
    if not points:
        return set()
    codes = layout.encode(np.array(points))[:, : layout.settings.first]
    return {row.tobytes() for row in codes}
