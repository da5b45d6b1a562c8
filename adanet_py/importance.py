"""How much each decision of a space mattered in a run: PED-ANOVA, in plain numpy.

Watanabe, Bansal & Hutter 2023 (PED-ANOVA: efficiently quantifying hyperparameter importance in
arbitrary subspaces): a decision matters if the best results have other values of it than all have,

    importance = (g' / g)^2 (a^2 / b) sum_x p(x) (p'(x) / p(x) - 1)^2

with p' the density of its values x among the best, p among all, g' / g the share of the best, and,
for decisions that are not always active, a and b the shares of the best and of all where it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adanet_py.controllers.columns import Floats, columns_of
from adanet_py.records import Result, Scalar
from adanet_py.space import Decision, SearchSpace, project

FEWEST = 16  # results or, of what decides the program, programs: below them nothing is said
MOST = 250  # of which the importance is computed, drawn at random: the time is bounded
BEST_SHARE = 0.2
FEWEST_BEST = 6
CHANCE = 0.05  # what is found at random as often as this is subtracted
EDGE = 0.15  # of a range, where a value is at its end
_SHUFFLES = 60
_GRID = 40  # points of the unit interval


@dataclass(frozen=True)
class Importance:
    """What one decision did. `share`: of the importance of all, 1 together.

    `p_value`: how often the best drawn at random differ as much in it. `tried`: results in which it
    was active, or programs; `best` its value in the best result, `usual` among the best ones (the
    commonest, or the median). `edge`: -1 or 1 where most of the best lie at the low or high end.
    """

    decision: Decision
    share: float
    p_value: float
    tried: int
    best: Scalar
    usual: Scalar
    edge: int


def importances(
    space: SearchSpace, results: Sequence[Result], seed: int = 0
) -> tuple[Importance, ...]:
    """The importance of every decision that was tried with several values, the largest first.

    What decides the program is judged by the best result of each program, for its numbers were
    tuned in each; the numbers by all results. What was not scored is left out. Nothing where there
    are fewer than `FEWEST` of them.
    """
    rng = np.random.default_rng(seed)
    best_of_program: dict[str, Result] = {}
    for result in results:
        known = best_of_program.get(result.candidate.family)
        if _scored(result) and (known is None or result.reward > known.reward):
            best_of_program[result.candidate.family] = result
    found: list[tuple[float, Importance]] = []
    parts = (list(best_of_program.values()), [r for r in results if _scored(r)])
    for static, rows in zip((True, False), parts, strict=True):
        points, rewards = _points(space, rows, rng)
        if len(rewards) < FEWEST:
            continue
        count = max(FEWEST_BEST, math.ceil(BEST_SHARE * len(rewards)))
        top = np.zeros(len(rewards), dtype=bool)
        top[np.argsort(-rewards, kind="stable")[:count]] = True
        for j, decision in enumerate(space.decisions):
            if decision.static is static:
                one = _one(decision, points[:, j], top, int(rewards.argmax()), rng)
                if one is not None:
                    found.append(one)
    total = sum(value for value, _ in found) or 1.0
    shared = [Importance(**{**vars(one), "share": value / total}) for value, one in found]
    return tuple(sorted(shared, key=lambda i: (-i.share, i.p_value, i.decision.name)))


def _scored(result: Result) -> bool:
    # A child's score is not that of its settings alone.
    anew = not result.candidate.inherits
    return anew and result.status.usable and math.isfinite(result.reward)


def _points(
    space: SearchSpace, rows: Sequence[Result], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Points [n, D] (see columns.py) and rewards [n] of at most `MOST` rows in the space."""
    if len(rows) > MOST:
        rows = [rows[i] for i in np.sort(rng.choice(len(rows), MOST, replace=False))]
    columns = columns_of(space)
    places = [project(space, r.candidate) for r in rows]
    inside = [(columns.encode(p), r.reward) for p, r in zip(places, rows, strict=True) if p]
    if not inside:
        return np.empty((0, len(space.decisions))), np.empty(0)
    return np.stack([p for p, _ in inside]), np.array([reward for _, reward in inside])


def _one(
    decision: Decision,
    column: Floats,
    top: npt.NDArray[np.bool_],
    best: int,
    rng: np.random.Generator,
) -> tuple[float, Importance] | None:
    """(importance, what is told of it), None where nothing varied or it was hardly active."""
    active = ~np.isnan(column)
    values, chosen = column[active], top[active]
    count, among = int(chosen.sum()), int(active.sum())
    if among < FEWEST // 2 or count == 0 or np.ptp(values) == 0.0:
        return None
    kernels = _kernels(decision, values, count)
    everywhere = _density(kernels, np.ones((1, among)))
    value = float(_divergence(_density(kernels, chosen[None].astype(float)), everywhere)[0])
    ranks = np.argsort(rng.random((_SHUFFLES, among)), axis=1)
    null = _divergence(_density(kernels, (ranks < count).astype(float)), everywhere)
    p_value = float((1 + (null >= value).sum()) / (1 + _SHUFFLES))
    a, b, share = count / top.sum(), among / len(top), top.mean()
    # What chance may well give is no importance.
    value = float(share**2 * a**2 / b * max(0.0, value - np.quantile(null, 1.0 - CHANCE)))
    of_best = None if np.isnan(column[best]) else _value(decision, float(column[best]))
    usual, edge = _usual(decision, values[chosen])
    return value, Importance(decision, 0.0, p_value, among, of_best, usual, edge)


def ped_anova(decision: Decision, column: Floats, top: npt.NDArray[np.bool_]) -> float:
    """The formula itself, of one decision's column [n], where `top` [n] are the best."""
    active = ~np.isnan(column)
    chosen = top[active]
    if not chosen.any():
        return 0.0
    kernels = _kernels(decision, column[active], int(chosen.sum()))
    everywhere = _density(kernels, np.ones((1, int(active.sum()))))
    value = _divergence(_density(kernels, chosen[None].astype(float)), everywhere)[0]
    a, b = chosen.sum() / top.sum(), active.mean()
    return float(top.mean() ** 2 * a**2 / b * value)


def _kernels(decision: Decision, values: Floats, count: int) -> Floats:
    """What each value adds to a density: [n, cells], rows of sum 1.

    Gaussian kernels on a grid of the unit interval, reflected at the ends, half as wide as Scott's
    rule has them for `count` values spread evenly, for the best are not; of choices the choice.
    """
    if decision.kind == "choice":
        return np.eye(len(decision.domain))[values.astype(np.intp)]
    width = max(0.5 * 1.06 * 12**-0.5 * count**-0.2, 1.0 / _GRID)
    grid = (np.arange(_GRID) + 0.5) / _GRID
    total = sum(
        np.exp(-0.5 * ((grid - at[:, None]) / width) ** 2) for at in (values, -values, 2.0 - values)
    )
    out: Floats = total / total.sum(axis=1, keepdims=True)
    return out


def _density(kernels: Floats, chosen: Floats) -> Floats:
    """Densities [b, cells] of the rows `chosen` [b, n] marks; one more row is spread evenly."""
    cells = kernels.shape[1]
    return (chosen @ kernels + 1.0 / cells) / (chosen.sum(axis=1, keepdims=True) + 1.0)


def _divergence(best: Floats, everywhere: Floats) -> Floats:
    """Pearson's divergence [b] of densities from that of all."""
    out: Floats = (everywhere * (best / everywhere - 1.0) ** 2).sum(axis=1)
    return out


def _value(decision: Decision, code: float) -> Scalar:
    return decision.domain[int(code)] if decision.kind == "choice" else decision.at(code)


def _usual(decision: Decision, codes: Floats) -> tuple[Scalar, int]:
    """What the best have, and whether most of them are at an end."""
    if decision.kind != "choice":
        low, high = (codes < EDGE).mean(), (codes > 1.0 - EDGE).mean()
        if decision.kind == "int":
            low, high = (codes <= codes.min()).mean(), (codes >= codes.max()).mean()
            first, last = decision.unit(decision.domain[0]), decision.unit(decision.domain[1])
            low *= bool(np.isclose(codes.min(), first))
            high *= bool(np.isclose(codes.max(), last))
        return decision.at(float(np.median(codes))), _edge(low, high)
    counts = np.bincount(codes.astype(np.intp), minlength=len(decision.domain)) / len(codes)
    edge = _edge(counts[0], counts[-1]) if decision.ordered and len(counts) > 2 else 0
    return decision.domain[int(counts.argmax())], edge


def _edge(low: float, high: float) -> int:
    if max(low, high) < 0.5:
        return 0
    return 1 if high > low else -1


def short(decision: Decision) -> str:
    """The name of a decision as it is shown: mlp.width, adamw.lr, general.warmup."""
    head, _, rest = decision.name.partition(".")
    return rest if rest and head != "general" else decision.name
