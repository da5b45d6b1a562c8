"""A refiner: a controller whose candidates are children of good networks and begin with their
weights.

A call asks for the candidates of one group. A move is drawn by what it lately earned, then a parent
among the best that it applies to, then one of the programs that the move offers; its settings are
the parent's with other learning rates and more or less regularisation. Children that were accepted
are parents like any other network, so that moves form chains. `train_on`, which changes nothing, is
the control and never gets less than `CONTROL` of the groups.

The share of move i is matched to how often its children of the last `WINDOW` were accepted, a_i of
n_i, beside `PRIOR` imagined ones of which `EXPECTED` are (Thierens 2005, probability matching):

    q_i = (a_i + PRIOR e_i) / (n_i + PRIOR),   p_i = FLOOR / k + (1 - FLOOR) q_i / sum_j q_j
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from adanet_py.choosing import Shrunk
from adanet_py.controllers.families import Controller
from adanet_py.controllers.ledger import ledger_of
from adanet_py.data.spec import DataSpec
from adanet_py.plan import best_of
from adanet_py.records import Candidate, Hashes, History, Result, Scalar
from adanet_py.refine import MOVES
from adanet_py.refine.acceptance import SHRINKING
from adanet_py.space import SearchSpace
from adanet_py.space_points import draw_seed
from adanet_py.training.general import GENERAL
from adanet_py.training.schedules import SCHEDULES

if TYPE_CHECKING:
    from adanet_py.architectures import Architecture
    from adanet_py.own import Own
    from adanet_py.training.optimizers import Optimizer

NAME = "refine"
PARENTS = 8  # that children are made of
OF_FAMILY = 2  # of them at most from one program, else siblings would take all places
FALL = 0.7  # how much less often the next best parent is chosen
WINDOW = 64  # latest children by which moves are judged
PRIOR = 4.0  # children that every move is imagined to have
# Share of a move's imagined children that are accepted, by what stands before its colon: a smaller
# network is seldom better, where that is what is asked.
EXPECTED = {"train_on": 0.4, "widen": 0.3, "prune": 0.02, "factorise": 0.02, "sparsify": 0.02}
OTHERWISE = 0.2
FLOOR = 0.1  # of all groups, evenly among the moves
CONTROL = 0.15  # of all groups, at least, for the control
CONTROLS = "train_on"
WARMUP = 0.1  # share of the steps, for the moments of the optimizer begin anew
# Factors of the learning rate, and of all that regularises, in the order in which they are tried.
SETTINGS = (
    (0.3, 1.0), (1.0, 1.0), (0.1, 1.0), (0.3, 3.0), (0.3, 0.3), (1.0, 3.0), (0.1, 3.0), (1.0, 0.3),
    (0.1, 0.3), (0.03, 1.0), (3.0, 1.0),
)  # fmt: skip
REGULARISERS = ("weight_decay", "decoupled_decay", "dropout", "drop_path", "input_noise")
DROPOUT = 0.05  # least that is raised where more is to be tried
HALFWAY = 2.0  # times a given size from which there is a step between
# Moves that make networks smaller, by what stands before the colon.
PRUNING = ("prune", "factorise")


@dataclass(frozen=True)
class Refiner:
    """Proposes children by `moves` (default: all) for an objective of acceptance.OBJECTIVES.

    Pure, as every controller: the same space, history, n and generator give the same children.
    `own` is what the user gave. With the data's `spec`, children cost less than their parent where
    the objective is that they do. With a `size`, below 1, they are made to have at most that share
    of the parameters of the network that the refinement began with, in one move, and to come half
    the way there (iterative pruning); what is as small as that is no parent any more.
    """

    moves: tuple[str, ...] = ()
    objective: str = "metric"
    own: Own | None = None
    spec: DataSpec | None = None
    size: float | None = None
    sees_children: ClassVar[bool] = True

    def __call__(
        self, space: SearchSpace, history: History, n: int, rng: np.random.Generator
    ) -> list[Candidate]:
        """Up to `n` children of one program; none where no move is left to try."""
        names = self._names()
        ledger = ledger_of(space, history)
        shrinking = self.objective in SHRINKING
        parents = self.parents(ledger.chosen(("lasting", shrinking), self.lasting))
        if n < 1 or not parents or not names:
            return []
        taken = history.experiments()
        judging = ledger.chosen(("judging", *names), lambda some: latest(some, names))
        weights = np.array(list(shares(judging, names).values()))
        falling = FALL ** np.arange(len(parents))
        order = rng.choice(len(names), size=len(names), replace=False, p=weights)
        places = rng.choice(len(parents), len(parents), replace=False, p=falling / falling.sum())
        seed = draw_seed(rng)
        most = self._most(parents)
        begun = {r.candidate.parent for r in history.results if r.candidate.inherits}
        for name in (names[i] for i in order):
            for parent in (parents[i].candidate for i in places):
                offered = self._offered(name, parent, most)
                order = rng.permutation(len(offered))
                if most is not None and parent.id not in begun:
                    order.sort()  # all the way first
                for static in (offered[i] for i in order):
                    children = self._children(parent, name, static, seed, taken)
                    chosen = [child for child, _ in zip(children, range(n), strict=False)]
                    if chosen:
                        return chosen
        return []

    def parents(self, results: Sequence[Result]) -> list[Result]:
        """The networks among `results` that children are made of, the best first.

        To make a network smaller, those that the best became by children that were accepted for
        it, the last first, and it as the last.
        """
        if self.objective not in SHRINKING:
            return possible_parents(results)
        shrunk = Shrunk(best_of, self.objective, self.size)
        if self.size is not None:
            return self._towards(shrunk, results)
        out: list[Result] = []
        left = list(results)
        while (last := shrunk(left)) is not None and len(out) < PARENTS:
            out.append(last)
            if last.objective != self.objective:
                break
            left = [r for r in left if r.candidate.id != last.candidate.id]
        return out

    def _towards(self, shrunk: Shrunk, results: Sequence[Result]) -> list[Result]:
        """The choice, what is still too large among those that led there, and the first."""
        choice, family = shrunk(results), shrunk.family(results)
        if choice is None:
            return []
        most = (self.size or 1.0) * family[0].parameters
        between = [r for r in family[1:] if r.parameters > most and r is not choice]
        between.sort(key=lambda r: (r.parameters, -r.reward, r.candidate.id))
        found = [choice, *between[: PARENTS - 2], family[0]]
        return found[:-1] if choice is family[0] else found

    def lasting(self, results: Sequence[Result]) -> list[Result]:
        """Those of `results` without which `parents` of them and any later ones might differ."""
        return list(results) if self.objective in SHRINKING else possible_parents(results)

    def _names(self) -> list[str]:
        names = self.moves or tuple(MOVES)
        if self.objective in SHRINKING:
            names = tuple(n for n in names if n != CONTROLS)
        return list(names)

    def _architecture(self, candidate: Candidate) -> Architecture | None:
        if self.own is not None:
            return self.own.all_architectures().get(candidate.architecture)
        from adanet_py.architectures import ARCHITECTURES

        return ARCHITECTURES.get(candidate.architecture)

    def _most(self, parents: Sequence[Result]) -> int | None:
        """The parameters that `size` allows a network, from the last of `parents`; None: any."""
        count = None if self.size is None else self._count(parents[-1].candidate)
        return None if self.size is None else math.floor(self.size * (count or 0) + 1e-9)

    def _count(self, candidate: Candidate) -> int | None:
        architecture = self._architecture(candidate)
        if architecture is None or architecture.parameters is None or self.spec is None:
            return None
        return architecture.parameters(architecture.complete(candidate.static), self.spec)

    def _offered(
        self, move: str, parent: Candidate, most: int | None
    ) -> list[Mapping[str, Scalar]]:
        """Static descriptions of children, of at most `most` parameters or on the way there."""
        architecture = self._architecture(parent)
        if architecture is None:
            return []
        if most is not None:
            sized, count = MOVES[move].sized, self._count(parent)
            if sized is None or count is None or count <= most or self.spec is None:
                return []
            goals = [most]
            if count >= HALFWAY * most:
                goals.append(math.isqrt(count * most))
            found = [s for goal in goals for s in sized(parent, architecture, self.spec, goal)]
            return [s for i, s in enumerate(found) if s not in found[:i]]
        offered = MOVES[move].children(parent, architecture)
        estimate, spec = architecture.multiply_adds, self.spec
        if self.objective not in SHRINKING or estimate is None or spec is None:
            return list(offered)

        def cost(static: Mapping[str, Scalar]) -> float:
            zeros = float(static.get("sparsity", 0.0))  # type: ignore[arg-type]
            share = 1.0 - zeros if self.objective == "sparsity" else 1.0
            return estimate(static, spec) * share

        of_parent = cost(architecture.complete(parent.static))
        return [static for static in offered if cost(static) < of_parent]

    def _children(
        self,
        parent: Candidate,
        move: str,
        static: Mapping[str, Scalar],
        seed: int,
        taken: Hashes,
    ) -> Iterator[Candidate]:
        """Children that were not proposed before, the likeliest settings first."""
        optimizer = self._optimizer(parent)
        schedule = parent.schedule if optimizer.evaluated is not None else "cosine"
        architecture = self._architecture(parent)
        assert architecture is not None
        knobs = {
            **architecture.numeric,
            **optimizer.numeric,
            **SCHEDULES[schedule].numeric,
            **GENERAL,
        }
        own = {n: float(knobs[n].default) for n in ("lr", *REGULARISERS) if n in knobs}  # type: ignore[arg-type]
        own |= {k: v for k, v in parent.numeric.items() if k in knobs}
        own["warmup"] = max(own.get("warmup", 0.0), WARMUP)
        for rate, strength in SETTINGS:
            numeric = dict(own)
            factors = {"lr": rate} | dict.fromkeys(REGULARISERS, strength)
            for name in (f for f in factors if f in numeric):
                value, knob = numeric[name], knobs[name]
                if name == "dropout" and strength > 1.0:
                    value = max(value, DROPOUT)
                value *= factors[name]
                low = value if knob.low is None else max(value, float(knob.low))
                numeric[name] = low if knob.high is None else min(low, float(knob.high))
            child = Candidate(
                parent.architecture,
                static,
                parent.optimizer,
                schedule,
                numeric,
                seed,
                parent.id,
                move,
                inherits=True,
                by=NAME,
            )
            if child.experiment not in taken:
                taken.add(child.experiment)
                yield child

    def _optimizer(self, candidate: Candidate) -> Optimizer:
        from adanet_py.own import Own

        return (self.own or Own()).optimizer(candidate.optimizer)


def possible_parents(results: Sequence[Result]) -> list[Result]:
    """The best `PARENTS` that stand, at most `OF_FAMILY` of one program, the best first."""
    ranked = sorted(
        (r for r in results if r.stands and not math.isnan(r.score)),
        key=lambda r: (-r.reward, r.parameters, r.candidate.id),
    )
    out: list[Result] = []
    count: dict[str, int] = {}
    for result in ranked:
        family = result.candidate.family
        count[family] = count.get(family, 0) + 1
        if count[family] <= OF_FAMILY:
            out.append(result)
        if len(out) == PARENTS:
            break
    return out


def latest(results: Sequence[Result], names: Sequence[str]) -> list[Result]:
    """The last `WINDOW` children of these moves, by which the moves are judged."""
    found = (r for r in reversed(results) if r.candidate.inherits and r.candidate.move in names)
    return list(islice(found, WINDOW))[::-1]


def shares(results: Sequence[Result], names: Sequence[str]) -> dict[str, float]:
    """Which share of the groups each move gets, by the children among results."""
    tried = dict.fromkeys(names, 0)
    accepted = dict.fromkeys(names, 0)
    for result in latest(results, names):
        move = str(result.candidate.move)
        tried[move] += 1
        accepted[move] += result.accepted is True
    expected = {n: EXPECTED.get(n.partition(":")[0], OTHERWISE) for n in names}
    quality = np.array([(accepted[n] + PRIOR * expected[n]) / (tried[n] + PRIOR) for n in names])
    share = FLOOR / len(names) + (1.0 - FLOOR) * quality / quality.sum()
    if CONTROLS in tried and len(names) > 1:
        control = max(float(share[list(names).index(CONTROLS)]), CONTROL)
        others = np.array([n != CONTROLS for n in names])
        share = np.where(others, share * (1.0 - control) / share[others].sum(), control)
    return dict(zip(names, (share / share.sum()).tolist(), strict=True))


propose: Controller = Refiner()
