"""The rounds of AdaNet, algorithm 1 of Cortes et al. (2017), for one data set or for many at once.

F(w) = sum_i v_i Phi(y_i, sum_j w_j h_j(x_i) + b) + sum_j Gamma_j |w_j|_1, Gamma_j = lambda r_j +
beta, as in `ensemble.objective`. A round t

1. trains candidates h, as deep as the deepest subnetwork so far and one layer deeper, with all
   earlier ones frozen, on the loss of f_{t-1} + h (what the paper calls WeakLearner);
2. finds for each the weight u of the least F(w_{t-1}, u), on the training rows;
3. takes in the best, all weights w being found anew, if what it is selected by falls, else stops.

The candidates of a round, of all the AdaNets that are grown side by side, are trained together. A
subnetwork that is in is not touched again: later ones read its hidden layers at their values.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from adanet_py.architectures.layers import Linear
from adanet_py.data.spec import DataSpec
from adanet_py.ensemble.growth import LEAST_FALL, Ensemble, Member, Setting, nothing, weigh
from adanet_py.ensemble.losses import OTHERS
from adanet_py.ensemble.objective import minimise, row_shares
from adanet_py.ensemble.weights import Weights
from adanet_py.errors import DataError
from adanet_py.records import Candidate, Result, Scalar, Status
from adanet_py.subnetworks.architecture import GROWN, write_widths
from adanet_py.subnetworks.networks import Grown, Subnetwork, layers_below
from adanet_py.subnetworks.options import GrowthOptions
from adanet_py.subnetworks.training import Request, Trained, train
from adanet_py.tasks import is_regression
from adanet_py.training.batches import hash_words
from adanet_py.training.cost import lemma_2

_ROWS = 4096  # whose hidden layers are computed together
_SLACK = 1.3  # times the last round: what a round may take


@dataclass(frozen=True)
class Problem:
    """Prepared rows: `numeric` [N, n] float32, `category` [N, c] codes, `y` encoded, `weight` [N].

    Several AdaNets may be grown on parts of them.
    """

    spec: DataSpec
    numeric: np.ndarray
    category: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None = None


@dataclass(frozen=True)
class Task:
    """One AdaNet: rows it is fitted on, rows `held` out (for the selection by them), its seed."""

    fit: np.ndarray
    options: GrowthOptions
    seed: int = 0
    held: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class Trial:
    """A candidate of a round and what became of it.

    `loss` and `penalty` are the two sums of F on the training rows with it, at the weight u =
    `weight`, the others as they were, and `change` the change of F; `score` is what the round's
    candidates were compared by, the least wins. NaN where training diverged.
    """

    round: int
    name: str
    depth: int
    width: int
    rate: float
    complexity: float
    loss: float
    penalty: float
    weight: float
    change: float
    score: float
    accepted: bool
    why: str


@dataclass(frozen=True)
class Step:
    """The ensemble after a round: F on the training rows, the loss alone, the members."""

    round: int
    value: float
    loss: float
    members: int


@dataclass
class Growing:
    """One AdaNet while it grows; `hidden` are the layers of its subnetworks on its rows."""

    task: Task
    problem: Problem
    rows: np.ndarray  # those fitted on, then those held out
    setting: Setting
    base: Ensemble
    modules: list[Subnetwork] = field(default_factory=list)
    hidden: list[list[Tensor]] = field(default_factory=list)
    outputs: list[np.ndarray] = field(default_factory=list)  # [n, C] float64
    members: list[Member] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    unit: float = math.nan  # the mean r of the first candidates
    stopped: str = ""

    @property
    def options(self) -> GrowthOptions:
        """How it is grown."""
        return self.task.options

    @property
    def fitted(self) -> int:
        """Rows it is fitted on."""
        return len(self.task.fit)

    @property
    def widths(self) -> list[tuple[int, ...]]:
        """Of its subnetworks."""
        return [tuple(layer.shape[1] for layer in layers) for layers in self.hidden]

    @classmethod
    def start(cls, problem: Problem, task: Task) -> Growing:
        """No subnetwork yet."""
        if not len(task.fit):
            raise DataError("An AdaNet needs rows to be fitted on, found none.")
        options, spec = task.options, problem.spec
        weight = None if problem.weight is None else problem.weight[task.fit].astype(np.float64)
        phi = OTHERS.get(spec.loss)
        setting = Setting(
            spec.task, problem.y[task.fit], weight, kind=options.kind, bias=options.bias,
            phi=None if phi is None else phi(spec.quantile, spec.target_ratio),
        )  # fmt: skip
        unit = nothing(replace(setting, bias=True), spec.n_outputs).value
        setting = replace(
            setting, lambda_=options.lambda_ * unit, beta=options.beta * unit, most=options.rounds
        )
        base = nothing(setting, spec.n_outputs)
        rows = np.concatenate([task.fit, task.held])
        return cls(task, problem, rows, setting, base)

    def combined(self) -> np.ndarray:
        """f_{t-1} on its rows [n, C]."""
        shape = len(self.rows), self.problem.spec.n_outputs
        if not self.members:
            return np.zeros(shape) + self.base.weights.bias
        return self.base.weights.combine(np.stack(self.outputs))

    def held_loss(self, z: np.ndarray) -> float:
        """The mean loss on the held-out rows of f on all rows [n, C]."""
        held = self.task.held
        weight = None if self.problem.weight is None else self.problem.weight[held]
        rows = self.setting.loss.rows(z[self.fitted :], self.problem.y[held])
        return float(row_shares(len(held), weight) @ rows)

    def requests(self, number: int) -> list[Request]:
        """What is to be trained in round `number`."""
        o, problem = self.options, self.problem
        seed = int(hash_words(self.task.seed, number, 7)) & 0x7FFFFFFF
        deepest = max((len(w) for w in self.widths), default=o.first)
        depths = [d for d in (deepest, deepest + 1) if d <= o.deepest]
        rows = self.rows[: self.fitted]
        before = self.combined()[: self.fitted]
        if o.goal == "alone":
            before = np.zeros_like(before)
        numeric = torch.from_numpy(np.array(problem.numeric[rows], np.float32))
        static: dict[str, str | int] = {
            "activation": o.activation, "norm": o.norm, "embedding": o.embedding,
            "scaling": o.scaling, "batch_size": o.batch_size,
        }  # fmt: skip
        numbers = {
            "weight_decay": o.weight_decay, "dropout": o.dropout,
            "connection_dropout": o.connection_dropout,
        }  # fmt: skip
        out = []
        for depth in depths:
            widths = _draw(o, seed) if depth else (0,)
            below = [
                layer[: self.fitted]
                for layer in layers_below(self.hidden, depth, o.read, self._rows_like())
            ]
            reads = tuple(layer.shape[1] for layer in below)
            gamma = self.setting.lambda_ * math.sqrt(max(1, depth)) + self.setting.beta
            out += [
                Request(
                    widths=(width,) * depth,
                    reads=reads,
                    rates=o.learning_rates,
                    numeric=numeric,
                    category=torch.from_numpy(np.array(problem.category[rows])),
                    target=_target(problem, rows),
                    weight=_weight(problem, rows),
                    below=torch.cat(below, 1) if below else numeric[:, :0],
                    before=torch.from_numpy(before.astype(np.float32)),
                    seed=int(hash_words(seed, depth, width)) & 0x7FFFFFFF,
                    head_l1=gamma if o.penalised else 0.0,
                    static=static,
                    numbers=numbers,
                    steps=max(1, round(o.epochs * len(rows) / min(o.batch_size, len(rows)))),
                    batch_size=o.batch_size,
                )
                for width in widths
            ]
        return out

    def _rows_like(self) -> Tensor:
        return torch.zeros(len(self.rows), 0)

    def choose(self, number: int, trained: Sequence[Trained]) -> None:
        """End a round: take in the best candidate, or stop."""
        offered = [self._offer(number, i, t) for i, t in enumerate(trained)]
        usable = [o for o in offered if o is not None]
        if not usable:
            self.trials += [self._lost(number, i, t) for i, t in enumerate(trained)]
            self.stopped = "every candidate diverged"
            return
        if not self.members:
            self.unit = float(np.mean([o.raw for o in usable])) or 1.0
        members = [o.member(self.unit, self.fitted) for o in usable]
        weighed = weigh(self.setting, number, members, self.members, self.base, self.base.value)
        scores = [
            self._score(o, m, w.weight, w.change)
            for o, m, w in zip(usable, members, weighed, strict=True)
        ]
        best = int(np.argmin(scores))
        after = self._refitted(members[best], weighed[best].weight)
        falls = self._falls(usable[best], after, scores[best])
        names = {o.name: (o, w, s) for o, w, s in zip(usable, weighed, scores, strict=True)}
        for i, t in enumerate(trained):
            name = _name(number, i)
            if name not in names:
                self.trials.append(self._lost(number, i, t))
                continue
            o, w, score = names[name]
            taken = falls and o is usable[best]
            why = (
                f"{self.options.selection}: best, and it falls"
                if taken
                else "F is least without it"
                if w.weight == 0.0
                else "it does not fall"
                if not falls
                else f"{usable[best].name} is better"
            )
            shape = len(o.hidden), o.hidden[-1].shape[1] if o.hidden else 0
            self.trials.append(
                Trial(
                    number, name, *shape, t.rate, w.complexity, w.loss, w.penalty, w.weight,
                    w.change, score, taken, why,
                )
            )  # fmt: skip
        if not falls:
            self.stopped = "no candidate lowers what they are selected by"
            return
        found, member = usable[best], members[best]
        self.modules.append(found.module)
        self.hidden.append(found.hidden)
        self.outputs.append(found.outputs)
        self.members.append(member)
        self.base = after
        objective = self.setting.objective(self.members)
        self.steps.append(
            Step(number, after.value, objective.data_loss(after.weights), len(self.members))
        )

    def _offer(self, number: int, at: int, trained: Trained) -> _Offer | None:
        """A trained candidate with its outputs and r(h); None where it diverged."""
        if not trained.finite:
            return None
        hidden, outputs = self._run(trained.module)
        if not np.isfinite(outputs).all():
            return None
        matrices = [m.weight for m in trained.module.modules() if isinstance(m, Linear)]
        capacity = lemma_2(matrices, self.fitted)
        # What a measure may look at: the depth, the bound and the last layer.
        about = Result(
            Candidate(GROWN.name), Status.COMPLETE, layers=len(hidden), capacity=capacity
        )
        last = hidden[-1][: self.fitted].double().numpy() if hidden else outputs[: self.fitted]
        raw = float(self.options.measure(about, last))
        return _Offer(_name(number, at), trained, hidden, outputs, raw)

    def _run(self, module: Subnetwork) -> tuple[list[Tensor], np.ndarray]:
        """Hidden layers and outputs of a frozen subnetwork on all rows."""
        problem, parts = self.problem, []
        below = layers_below(self.hidden, len(module.layers), self.options.read, self._rows_like())
        with torch.inference_mode():
            for start in range(0, len(self.rows), _ROWS):
                at = slice(start, start + _ROWS)
                rows = self.rows[at]
                numeric = torch.from_numpy(np.array(problem.numeric[rows], np.float32))
                category = torch.from_numpy(np.array(problem.category[rows]))
                parts.append(module(numeric, category, [layer[at] for layer in below]))
        hidden = [torch.cat(layers) for layers in zip(*(p[0] for p in parts), strict=True)]
        return hidden, torch.cat([p[1] for p in parts]).double().numpy()

    def _score(self, offer: _Offer, member: Member, weight: float, change: float) -> float:
        """What a candidate is compared by."""
        selection = self.options.selection
        if selection == "training":
            if self.options.uniform:
                return self._refitted(member, weight).value
            return self.base.value + change
        penalty = self._penalty()
        if selection == "moving_average":
            return offer.trained.average + penalty + self._gamma(offer)
        z = self.combined() + weight * offer.outputs
        return self.held_loss(z) + penalty + self._gamma(offer) * abs(weight)

    def _falls(self, best: _Offer, after: Ensemble, score: float) -> bool:
        """Whether the ensemble is better with the best candidate, by what they are selected by."""
        selection = self.options.selection
        if selection == "training":
            old, new = self.base.value, after.value
        elif selection == "moving_average":
            old, new = best.trained.before + self._penalty(), score
        else:
            z = after.weights.combine(np.stack([*self.outputs, best.outputs]))
            members = [*self.members, best.member(self.unit, self.fitted)]
            paid = self.setting.objective(members).penalty(after.weights)
            old, new = self.held_loss(self.combined()) + self._penalty(), self.held_loss(z) + paid
        used = after.weights.sizes()[-1] > 0.0
        return bool(used and new < old - LEAST_FALL * abs(old))

    def _penalty(self) -> float:
        """The second sum of F of the ensemble so far."""
        if not self.members:
            return 0.0
        return self.setting.objective(self.members).penalty(self.base.weights)

    def _gamma(self, offer: _Offer) -> float:
        member = offer.member(self.unit, self.fitted)
        return float(self.setting.gamma([member])[0])

    def _refitted(self, new: Member, weight: float) -> Ensemble:
        """All weights of the least F, from those so far and u, below which F does not rise."""
        members = [*self.members, new]
        objective = self.setting.objective(members)
        if self.options.uniform:
            weights = objective.uniform()
            names = tuple(m.name for m in members)
            return Ensemble(names, weights, objective.value(weights))
        start = objective.start()
        shape = start.mixture.shape[1:]
        one = np.eye(shape[0]) if len(shape) == 2 else np.ones(shape)
        old = self.base.weights
        starts = [
            Weights(np.concatenate([old.mixture, (u * one)[None]]), old.bias) for u in (0.0, weight)
        ]
        begin = min(starts, key=objective.value)
        found = min((minimise(objective, begin), begin), key=objective.value)
        return Ensemble(tuple(m.name for m in members), found, objective.value(found))

    def _lost(self, number: int, at: int, trained: Trained) -> Trial:
        layers = trained.module.layers
        width = int(trained.module.head.weight.shape[1]) if len(layers) else 0
        nan = math.nan
        return Trial(
            number, _name(number, at), len(layers), width, trained.rate, nan, nan, nan, nan, nan,
            nan, False, "its training diverged",
        )  # fmt: skip

    def network(self) -> tuple[Grown, Candidate]:
        """The ensemble as one module and the candidate that describes it.

        Subnetworks of weight 0 which none of the others reads are left out.
        """
        o, kept = self.options, self._needed()
        static: dict[str, Scalar] = {
            "subnetworks": write_widths([self.widths[t] for t in kept]),
            "read": o.read, "kind": o.kind, "activation": o.activation, "norm": o.norm,
            "embedding": o.embedding, "scaling": o.scaling, "batch_size": o.batch_size,
        }  # fmt: skip
        candidate = Candidate(GROWN.name, static, "adamw", "cosine", seed=self.task.seed)
        module = Grown(GROWN.complete(static), self.problem.spec)
        for own, t in zip(module.subnetworks, kept, strict=True):
            own.load_state_dict(self.modules[t].state_dict())
        with torch.no_grad():
            module.mixture.copy_(torch.from_numpy(self.base.weights.mixture[kept]))
            module.bias.copy_(torch.from_numpy(self.base.weights.bias))
        return module.eval(), candidate

    def _needed(self) -> list[int]:
        sizes, read, widths = self.base.weights.sizes(), self.options.read, self.widths
        needed: list[int] = []
        for t in reversed(range(len(self.modules))):
            deep = [s for s in needed if len(widths[s]) > 1 and widths[t]]
            is_read = {"all": bool(deep), "previous": t + 1 in deep, "none": False}[read]
            if sizes[t] > 0.0 or is_read:
                needed.append(t)
        return needed[::-1]


@dataclass(frozen=True)
class _Offer:
    """A trained candidate: hidden layers and outputs on all rows, r(h) in its own unit."""

    name: str
    trained: Trained
    hidden: list[Tensor]
    outputs: np.ndarray
    raw: float

    @property
    def module(self) -> Subnetwork:
        return self.trained.module

    def member(self, unit: float, fitted: int) -> Member:
        """It as a member, r(h) in units of `unit`."""
        value = self.raw / unit
        value = value if math.isfinite(value) else 1.0
        return Member(self.name, self.outputs[:fitted], len(self.hidden), value)


def grow(
    problem: Problem,
    tasks: Sequence[Task],
    *,
    device: str = "cpu",
    left: Callable[[], float] = lambda: math.inf,
    on_round: Callable[[int, Sequence[Growing]], None] = lambda number, growing: None,
) -> list[Growing]:
    """Grow an AdaNet for every task, all of them side by side, round by round.

    Training is broken off once none of the `left()` seconds is left; no round begins that would
    take longer than they last, judged by the one before. `on_round` is called after each round with
    those that went through it.
    """
    grown = [Growing.start(problem, task) for task in tasks]
    last = 0.0
    for number in range(1, 1 + max((t.options.rounds for t in tasks), default=0)):
        live = [g for g in grown if not g.stopped and number <= g.options.rounds]
        if not live:
            break
        if left() <= last * _SLACK:
            for g in live:
                g.stopped = "no time for another round"
            break
        began = time.monotonic()
        requests = [g.requests(number) for g in live]
        flat = [r for each in requests for r in each]
        trained = iter(train(flat, problem.spec, torch.device(device), lambda: left() <= 0))
        for g, own in zip(live, requests, strict=True):
            g.choose(number, [t for _ in own for t in next(trained)])
        last = time.monotonic() - began
        on_round(number, live)
    for g in grown:
        g.stopped = g.stopped or "all rounds were made"
    return grown


def _draw(options: GrowthOptions, seed: int) -> tuple[int, ...]:
    """The widths of a round."""
    if not options.random_widths:
        return options.widths
    low, high = math.log(min(options.widths)), math.log(max(options.widths))
    drawn = np.random.default_rng(seed).uniform(low, high, options.random_widths)
    return tuple(dict.fromkeys(round(math.exp(v)) for v in drawn))


def _target(problem: Problem, rows: np.ndarray) -> Tensor:
    y = torch.from_numpy(np.array(problem.y[rows]))
    return y.float() if is_regression(problem.spec.task) else y


def _weight(problem: Problem, rows: np.ndarray) -> Tensor | None:
    if problem.weight is None:
        return None
    weight = np.array(problem.weight[rows], np.float32)
    return torch.from_numpy(weight / weight.mean())


def _name(number: int, at: int) -> str:
    return f"{number}.{at + 1}"
