"""One AdaNet while it grows: the subnetworks in it, what it asks to be trained, and it as a module.

Which of those trained it takes in is decided in choice.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from adanet_py.ensemble.growth import Ensemble, Member, Setting, nothing
from adanet_py.ensemble.losses import OTHERS
from adanet_py.ensemble.objective import row_shares
from adanet_py.errors import DataError
from adanet_py.records import Candidate, Scalar
from adanet_py.subnetworks.architecture import GROWN, write_widths
from adanet_py.subnetworks.networks import Grown, Subnetwork, layers_below
from adanet_py.subnetworks.options import GrowthOptions
from adanet_py.subnetworks.problem import Problem, Task
from adanet_py.subnetworks.training import Request
from adanet_py.training.batches import hash_words


@dataclass(frozen=True)
class Trial:
    """A candidate of a round and what became of it: a row of adanet.csv.

    `loss` and `penalty` are the two sums of F on the training rows with it in the ensemble at its
    best `weight` u, the other weights as they were, and `change` is the change of F. `score` is
    what the round's candidates were compared by; the least wins. NaN where training diverged.
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
    """The ensemble after a round: F on the training rows (`value`), the loss in it, the members."""

    round: int
    value: float
    loss: float
    members: int


@dataclass
class Growing:
    """One AdaNet: T subnetworks, frozen, with what they make of its n rows.

    `base` holds the weights of the mixture and F. Of every subnetwork `modules` has the module,
    `hidden` its hidden layers [n, units], `outputs` its outputs [n, C], and `members` its outputs
    on the fitted rows with its complexity r(h), in units of `unit`, the mean of the first round's
    candidates.
    """

    task: Task
    problem: Problem
    rows: np.ndarray  # those fitted on, then those held out
    setting: Setting
    base: Ensemble
    modules: list[Subnetwork] = field(default_factory=list)
    hidden: list[list[Tensor]] = field(default_factory=list)
    outputs: list[np.ndarray] = field(default_factory=list)  # float64
    members: list[Member] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    unit: float = math.nan
    stopped: str = ""  # why it grows no more

    @property
    def options(self) -> GrowthOptions:
        """How it is grown."""
        return self.task.options

    @property
    def fitted(self) -> int:
        """How many rows it is fitted on."""
        return len(self.task.fit)

    @property
    def widths(self) -> list[tuple[int, ...]]:
        """The units of the hidden layers of every subnetwork."""
        return [tuple(layer.shape[1] for layer in layers) for layers in self.hidden]

    @classmethod
    def start(cls, problem: Problem, task: Task) -> Growing:
        """One without a subnetwork yet; DataError where there are no rows to fit it on."""
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
        """The mean loss on the held-out rows where the outputs on all its rows are z [n, C]."""
        held = self.task.held
        weight = None if self.problem.weight is None else self.problem.weight[held]
        rows = self.setting.loss.rows(z[self.fitted :], self.problem.y[held])
        return float(row_shares(len(held), weight) @ rows)

    def below(self, depth: int) -> list[Tensor]:
        """What a new subnetwork of this depth reads of those that are in, see `layers_below`."""
        return layers_below(self.hidden, depth, self.options.read, torch.zeros(len(self.rows), 0))

    def requests(self, number: int) -> list[Request]:
        """What is to be trained in round `number`: every width, as deep as it is or one deeper."""
        o, shared = self.options, self._request()
        seed = int(hash_words(self.task.seed, number, 7)) & 0x7FFFFFFF
        deepest = max((len(w) for w in self.widths), default=o.first)
        out = []
        for depth in [d for d in (deepest, deepest + 1) if d <= o.deepest]:
            layers = [layer[: self.fitted] for layer in self.below(depth)]
            below = torch.cat(layers, 1) if layers else shared.below
            gamma = self.setting.lambda_ * math.sqrt(max(1, depth)) + self.setting.beta
            out += [
                replace(
                    shared,
                    widths=(width,) * depth,
                    reads=tuple(layer.shape[1] for layer in layers),
                    below=below,
                    seed=int(hash_words(seed, depth, width)) & 0x7FFFFFFF,
                    head_l1=gamma if o.penalised else 0.0,
                )
                for width in (_draw(o, seed) if depth else (0,))
            ]
        return out

    def _request(self) -> Request:
        """What the requests of a round share: a subnetwork without layers that reads of none."""
        o, rows = self.options, self.rows[: self.fitted]
        numeric, category = self.problem.inputs(rows)
        before = self.combined()[: self.fitted].astype(np.float32)
        return Request(
            widths=(),
            reads=(),
            rates=o.learning_rates,
            numeric=numeric,
            category=category,
            target=self.problem.targets(rows),
            weight=self.problem.weights(rows),
            below=numeric[:, :0],
            before=torch.from_numpy(np.zeros_like(before) if o.goal == "alone" else before),
            seed=0,
            head_l1=0.0,
            static={
                "activation": o.activation, "norm": o.norm, "embedding": o.embedding,
                "scaling": o.scaling, "batch_size": o.batch_size,
            },
            numbers={
                "weight_decay": o.weight_decay, "dropout": o.dropout,
                "connection_dropout": o.connection_dropout,
            },
            steps=max(1, round(o.epochs * len(rows) / min(o.batch_size, len(rows)))),
            batch_size=o.batch_size,
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
        """The places of the subnetworks with a weight, and of those they read."""
        sizes, read, widths = self.base.weights.sizes(), self.options.read, self.widths
        needed: list[int] = []
        for t in reversed(range(len(self.modules))):
            deep = [s for s in needed if len(widths[s]) > 1 and widths[t]]
            is_read = {"all": bool(deep), "previous": t + 1 in deep, "none": False}[read]
            if sizes[t] > 0.0 or is_read:
                needed.append(t)
        return needed[::-1]


def _draw(options: GrowthOptions, seed: int) -> tuple[int, ...]:
    """The widths of a round."""
    if not options.random_widths:
        return options.widths
    low, high = math.log(min(options.widths)), math.log(max(options.widths))
    drawn = np.random.default_rng(seed).uniform(low, high, options.random_widths)
    return tuple(dict.fromkeys(round(math.exp(v)) for v in drawn))
