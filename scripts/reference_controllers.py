"""What controllers are measured against: textbook methods, one function each.

Every entry of `REFERENCES` makes a controller for one game: it may remember (Optuna's study does),
knows neither families nor priors, and proposes points it did not propose before; where its method
repeats itself, a point drawn evenly takes the place after `TRIES` attempts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from adanet_py.controllers import Controller
from adanet_py.controllers.columns import Columns, columns_of
from adanet_py.records import Candidate, History
from adanet_py.space import SearchSpace, assemble
from adanet_py.space_points import draw_seed

Floats = npt.NDArray[np.float64]
Point = tuple[float, ...]  # position of a choice, place in the unit interval of a range
TRIES = 50
STEP = 0.1  # standard deviation by which a range is mutated
BINS = 8  # of a range, for methods that know choices only


class Game:
    """A space of decisions without conditions, and what one game has seen: points and rewards."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.columns: Columns = columns_of(space)
        decisions = self.columns.decisions
        self.free = [j for j, d in enumerate(decisions) if d.size > 1]
        self.sizes = [
            len(decisions[j].domain) if decisions[j].kind == "choice" else 0 for j in self.free
        ]  # 0: a range
        self.known: dict[Point, float] = {}  # in order
        self.read = 0

    def learn(self, history: History) -> list[tuple[Point, float]]:
        """Take in the results since the last call, and return them; failures are -inf."""
        fresh = []
        for result in history.results[self.read :]:
            place = self.columns.place_of(self.space, result.candidate)
            assert place is not None
            point = tuple(place.point[self.free].tolist())
            score = -math.inf if math.isnan(result.score) else result.score
            self.known[point] = score
            fresh.append((point, score))
        self.read = len(history.results)
        return fresh

    def draw(self, rng: np.random.Generator) -> Point:
        """A point drawn evenly."""
        values = rng.random(len(self.free))
        return self.tidy(
            [u if not k else int(u * k) for u, k in zip(values, self.sizes, strict=True)]
        )

    def tidy(self, values: list[float]) -> Point:
        """The point as it comes back from a candidate: whole numbers are rounded."""
        decisions = self.columns.decisions
        return tuple(
            float(v) if k else decisions[j].unit(decisions[j].at(min(max(v, 0.0), 1.0)))
            for v, k, j in zip(values, self.sizes, self.free, strict=True)
        )

    def mutate(self, point: Point, rng: np.random.Generator) -> Point:
        """Another value in one place."""
        values, place = list(point), int(rng.integers(len(point)))
        k = self.sizes[place]
        values[place] = (
            (values[place] + 1 + int(rng.integers(k - 1))) % k
            if k
            else abs(values[place] + STEP * rng.normal())
        )
        return self.tidy(values)

    def neighbours(self, point: Point) -> Iterator[Point]:
        """Every point that differs in one place; ranges move by `STEP`."""
        for place, k in enumerate(self.sizes):
            others = [v for v in range(k) if v != point[place]]
            for value in others or (point[place] - STEP, point[place] + STEP):
                yield self.tidy([*point[:place], value, *point[place + 1 :]])

    def fresh(self, draw: Callable[[], Point], n: int, rng: np.random.Generator) -> list[Candidate]:
        """`n` candidates at new points of `draw`."""
        out: dict[Point, None] = {}
        while len(out) < n:
            for attempt in range(TRIES + 1):
                point = draw() if attempt < TRIES else self.draw(rng)
                if point not in self.known and point not in out:
                    out[point] = None
                    break
        return [self.candidate(point, rng) for point in out]

    def candidate(self, point: Point, rng: np.random.Generator) -> Candidate:
        """The candidate at a point."""
        row = np.zeros(len(self.columns.decisions))
        row[self.free] = point
        return assemble(self.space, self.columns.decode(row), draw_seed(rng))


def random_search(space: SearchSpace) -> Controller:
    """Points drawn evenly."""
    game = Game(space)

    def propose(
        space: SearchSpace, history: History, n: int, rng: np.random.Generator
    ) -> list[Candidate]:
        game.learn(history)
        return game.fresh(lambda: game.draw(rng), n, rng)

    return propose


def regularised_evolution(space: SearchSpace, population: int = 20, sample: int = 5) -> Controller:
    """Real et al. 2019: the best of `sample` out of the last `population` has a child."""
    game = Game(space)

    def propose(
        space: SearchSpace, history: History, n: int, rng: np.random.Generator
    ) -> list[Candidate]:
        game.learn(history)
        alive = list(game.known)[-population:]
        if len(alive) < population:
            return game.fresh(lambda: game.draw(rng), n, rng)

        def child() -> Point:
            chosen = [alive[i] for i in rng.choice(population, size=sample, replace=False)]
            return game.mutate(max(chosen, key=game.known.__getitem__), rng)

        return game.fresh(child, n, rng)

    return propose


def local_search(space: SearchSpace, starts: int = 10) -> Controller:
    """White et al. 2021: the neighbours of the best, in random order; at an optimum, anew."""
    game = Game(space)
    climb: dict[str, Any] = {"since": 0, "at": None, "open": []}

    def propose(
        space: SearchSpace, history: History, n: int, rng: np.random.Generator
    ) -> list[Candidate]:
        game.learn(history)
        begun = list(game.known)[climb["since"] :]
        out: list[Candidate] = []
        if len(begun) >= starts:
            best = max(begun, key=game.known.__getitem__)
            if climb["at"] is None or game.known[best] > game.known[climb["at"]]:
                near = list(dict.fromkeys(game.neighbours(best)))
                climb["at"], climb["open"] = best, [near[i] for i in rng.permutation(len(near))]
            climb["open"] = [p for p in climb["open"] if p not in game.known]
            out = [game.candidate(p, rng) for p in climb["open"][:n]]
            if not out:
                climb.update(since=len(game.known), at=None)
        return out or game.fresh(lambda: game.draw(rng), n, rng)

    return propose


def factorised_reinforce(space: SearchSpace, rate: float = 0.5, decay: float = 0.9) -> Controller:
    """Williams 1992: a softmax for every decision, the mean of the past as the baseline."""
    game = Game(space)
    logits = [np.zeros(k or BINS) for k in game.sizes]
    state = {"mean": 0.0, "square": 1.0, "steps": 0.0}

    def shares(place: int) -> Floats:
        out: Floats = np.exp(logits[place] - logits[place].max())
        return out / out.sum()

    def bin_of(place: int, value: float) -> int:
        return int(value) if game.sizes[place] else min(int(value * BINS), BINS - 1)

    def propose(
        space: SearchSpace, history: History, n: int, rng: np.random.Generator
    ) -> list[Candidate]:
        for point, reward in game.learn(history):
            if not math.isfinite(reward):
                continue
            if not state["steps"]:
                state.update(mean=reward, square=0.0)
            advantage = reward - state["mean"]
            state["mean"] += (1.0 - decay) * advantage
            state["square"] = decay * state["square"] + (1.0 - decay) * advantage**2
            state["steps"] += 1.0
            scaled = float(np.clip(advantage / (math.sqrt(state["square"]) + 1e-9), -3.0, 3.0))
            for place, value in enumerate(point):
                change = -shares(place)
                change[bin_of(place, value)] += 1.0
                logits[place] += rate * scaled * change / math.sqrt(len(point))

        def draw() -> Point:
            bins = [int(rng.choice(len(z), p=shares(i))) for i, z in enumerate(logits)]
            return game.tidy(
                [
                    b if k else (b + rng.random()) / BINS
                    for b, k in zip(bins, game.sizes, strict=True)
                ]
            )

        return game.fresh(draw, n, rng)

    return propose


def optuna_tpe(space: SearchSpace) -> Controller:
    """Optuna's TPESampler as it comes, a study for the game; repeated points are asked for anew."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    game = Game(space)
    asked: dict[Point, Any] = {}
    studies: list[Any] = []
    distributions = {
        str(i): optuna.distributions.CategoricalDistribution(range(k))
        if k
        else optuna.distributions.FloatDistribution(0.0, 1.0)
        for i, k in enumerate(game.sizes)
    }

    def propose(
        space: SearchSpace, history: History, n: int, rng: np.random.Generator
    ) -> list[Candidate]:
        if not studies:
            sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**31)))
            studies.append(optuna.create_study(direction="maximize", sampler=sampler))
        study = studies[0]
        for point, reward in game.learn(history):
            failed = not math.isfinite(reward)
            state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE
            if point in asked:
                study.tell(asked[point], None if failed else reward, state)
            elif not failed:  # a point drawn evenly, in place of repeated ones
                params = dict(zip(distributions, point, strict=True))
                study.add_trial(
                    optuna.create_trial(params=params, distributions=distributions, value=reward)
                )

        def ask() -> Point:
            trial = study.ask(distributions)
            values = [trial.params[name] for name in distributions]
            point = game.tidy(values)
            if point in asked:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                asked[point] = trial
            return point

        return game.fresh(ask, n, rng)

    return propose


def one_hot_gp(space: SearchSpace, starts: int = 10, pool: int = 1000) -> Controller:
    """A Gaussian process on the one-hot encoding with expected improvement (Jones et al. 1998).

    A squared exponential kernel whose length scale and noise are those of the largest likelihood
    out of a grid; improvement over the best reward, over random points and the neighbours of the
    five best; in a batch the next is chosen as if the last had met its mean.
    """
    game = Game(space)

    def encode(points: list[Point]) -> Floats:
        codes = np.array(points)
        parts = [
            (codes[:, [i]] == np.arange(k)) / math.sqrt(2.0) if k else 2.0 * codes[:, [i]]
            for i, k in enumerate(game.sizes)
        ]
        return np.hstack(parts).astype(np.float64)

    def propose(
        space: SearchSpace, history: History, n: int, rng: np.random.Generator
    ) -> list[Candidate]:
        from scipy.special import ndtr

        game.learn(history)
        known = {p: y for p, y in game.known.items() if math.isfinite(y)}
        if len(known) < starts:
            return game.fresh(lambda: game.draw(rng), n, rng)
        x, y = encode(list(known)), np.array(list(known.values()))
        y = (y - y.mean()) / max(float(y.std()), 1e-12)
        ranked = sorted(known, key=lambda p: -known[p])
        found = dict.fromkeys(game.draw(rng) for _ in range(pool))
        found |= dict.fromkeys(p for best in ranked[:5] for p in game.neighbours(best))
        points = [p for p in found if p not in game.known]
        z, squares = encode(points), _squares(x, x)
        scale, noise = max(
            ((s, v) for s in (0.5, 1.0, 2.0, 4.0) for v in (1e-3, 1e-2, 0.1, 0.3)),
            key=lambda pair: _likelihood(squares, y, *pair),
        )
        chosen: list[int] = []
        for _ in range(n):
            kernel = np.exp(-_squares(x, x) / (2.0 * scale**2)) + noise * np.eye(len(x))
            factor = np.linalg.cholesky(kernel)
            cross = np.exp(-_squares(z, x) / (2.0 * scale**2))
            half = np.linalg.solve(factor, cross.T)
            mean = half.T @ np.linalg.solve(factor, y)
            deviation = np.sqrt(np.maximum(1.0 - (half**2).sum(axis=0), 1e-12))
            u = (mean - y.max()) / deviation
            gain = deviation * (u * ndtr(u) + np.exp(-0.5 * u**2) / math.sqrt(2.0 * math.pi))
            gain[chosen] = -np.inf
            chosen.append(int(np.argmax(gain)))
            x, y = np.vstack([x, z[chosen[-1]]]), np.append(y, mean[chosen[-1]])
        return [game.candidate(points[i], rng) for i in chosen]

    return propose


def _squares(a: Floats, b: Floats) -> Floats:
    out: Floats = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2.0 * a @ b.T
    return np.maximum(out, 0.0)


def _likelihood(squares: Floats, y: Floats, scale: float, noise: float) -> float:
    kernel = np.exp(-squares / (2.0 * scale**2)) + noise * np.eye(len(y))
    factor = np.linalg.cholesky(kernel)
    half = np.linalg.solve(factor, y)
    return float(-0.5 * half @ half - np.log(np.diag(factor)).sum())


REFERENCES: dict[str, Callable[[SearchSpace], Controller]] = {
    "ref_random": random_search,
    "ref_evolution": regularised_evolution,
    "ref_local_search": local_search,
    "ref_reinforce": factorised_reinforce,
    "ref_optuna_tpe": optuna_tpe,
    "ref_gp": one_hot_gp,
}
