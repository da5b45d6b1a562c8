"""The suites of bench_throughput: their tables, shapes and seeded configurations, our program."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from peers import Data, Setting

from adanet_py.architectures import ARCHITECTURES
from adanet_py.data.spec import DataSpec
from adanet_py.metrics import get_metric
from adanet_py.own import Own, engine_for
from adanet_py.plan import Workload
from adanet_py.records import Candidate, Group
from adanet_py.space import SearchSpace, assemble, load_space
from adanet_py.training.batches import BatchOrder
from adanet_py.training.engines.native import dense_engine
from adanet_py.training.engines.program import Program, Tensors
from adanet_py.training.groups import Plan
from adanet_py.training.scoring import Scorer

OWN = Own()


@dataclass(frozen=True)
class Suite:
    """A table and the shapes trained on it; `steps` by batch size."""

    load: Callable[[], tuple[np.ndarray, np.ndarray]]
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    steps: dict[int, int]
    held_out: float  # share of the rows

    def space(self) -> SearchSpace:
        """The search space of the suite's candidates."""
        choices = {"depth": self.depths, "width": self.widths, "batch_size": tuple(self.steps)}
        knobs = {name: {"choice": list(values)} for name, values in choices.items()}
        rates = {"lr": [1e-4, 1e-2], "weight_decay": [1e-6, 1e-3]}
        return load_space(
            {
                "name": "benchmark",
                "summary": "what all sides train",
                "architectures": {"mlp": knobs},
                "optimizers": {
                    "adam": {k: {"float": v, "log": True} for k, v in rates.items()},
                },
                "schedules": {"constant": {}},
                # torch.optim.Adam decays biases too.
                "general": {"bias_decay": 1.0},
            }
        )


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x / 16.0, y


def made_up() -> tuple[np.ndarray, np.ndarray]:
    """10 numbers and 44 flags; the class is the largest of 7 smooth functions of them."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(20_000, 10))
    flags = rng.random((20_000, 44)) < rng.uniform(0.02, 0.5, 44)
    x = np.concatenate([numbers, flags], 1)
    hidden = np.tanh(x @ rng.normal(size=(54, 32)) / 3.0)
    scores = hidden @ rng.normal(size=(32, 7)) + 0.5 * rng.normal(size=(20_000, 7))
    return x, scores.argmax(1)


SUITES = {
    "small": Suite(digits, (32, 48, 64, 80, 96, 128), (1, 2), {32: 300, 64: 300}, 0.25),
    "mixed": Suite(made_up, (32, 64, 128, 256), (1, 2, 4), {64: 240, 256: 120, 1024: 60}, 0.15),
}


def deal(suite: Suite, count: int, members: int, seed: int = 0) -> list[list[Setting]]:
    """`count` configurations in groups of one shape, at most `members` each, shapes shuffled.

    There are as many groups as shapes where that leaves them at least half full.
    """
    rng = np.random.default_rng(seed)
    shapes = list(itertools.product(suite.widths, suite.depths, suite.steps))
    half = max(1, members // 2)
    number = max(-(-count // members), min(len(shapes), max(1, count // half)))
    order = np.concatenate([rng.permutation(len(shapes)) for _ in range(-(-number // len(shapes)))])
    out = []
    for i, where in enumerate(order[:number]):
        size = count // number + (i < count % number)
        rates, decays = 10.0 ** rng.uniform(-4, -2, size), 10.0 ** rng.uniform(-6, -3, size)
        seeds = rng.integers(2**31, size=size)
        drawn = zip(rates, decays, seeds, strict=True)
        out.append([Setting(*shapes[where], float(a), float(b), int(c)) for a, b, c in drawn])
    return out


@dataclass
class Bench:
    """A suite's data on the device, for all sides."""

    suite: Suite
    device: torch.device
    engine: str
    order_seed: int = 0
    plain: Data = field(init=False)
    strong: Data = field(init=False)
    dense: str = field(init=False)  # the engine of dense networks

    def __post_init__(self) -> None:
        x, y = self.suite.load()
        shuffled = np.random.default_rng(1).permutation(len(x))
        cut = round(self.suite.held_out * len(x))
        self.valid, self.train = np.sort(shuffled[:cut]), np.sort(shuffled[cut:])
        x, classes = np.ascontiguousarray(x, dtype=np.float32), int(y.max()) + 1
        features, codes = torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))
        parts = [
            t[torch.from_numpy(r)] for r in (self.train, self.valid) for t in (features, codes)
        ]
        self.plain = Data(*parts, classes)
        self.strong = self.plain.to(self.device)
        self.tensors = Tensors(
            features.to(self.device),
            torch.zeros(len(x), 0, dtype=torch.int32, device=self.device),
            codes.to(self.device, torch.float32),
        )
        self.spec = DataSpec("multiclass", classes, x.shape[1])
        self.space = self.suite.space()
        self.load = Workload(self.spec, rows=len(x), folds=1, own=OWN)
        self.metric = get_metric("accuracy")
        self.scorer = Scorer.make("accuracy", "multiclass", y[self.valid], None, (0.0, 1.0))
        self.dense = dense_engine(str(self.device))
        self.constant = float(np.bincount(y[self.valid]).max() / cut)

    def candidate(self, s: Setting) -> Candidate:
        """Our record of a configuration."""
        chosen = {
            "architecture": "mlp",
            "architectures.mlp.depth": s.depth,
            "architectures.mlp.width": s.width,
            "architectures.mlp.batch_size": s.batch,
            "optimizer": "adam",
            "optimizers.adam.lr": s.lr,
            "optimizers.adam.weight_decay": s.weight_decay,
            "schedule": "constant",
        }
        return assemble(self.space, chosen, s.seed)

    def group(
        self, settings: Sequence[Setting], steps: int, every: int, index: int = 0
    ) -> tuple[Program, Plan]:
        """The program of a group of configurations and how it is scored."""
        candidates = tuple(self.candidate(s) for s in settings)
        program = Program(
            ARCHITECTURES["mlp"],
            OWN.optimizer("adam"),
            candidates,
            self.spec,
            BatchOrder((self.train,), settings[0].batch, self.order_seed),
            steps,
            self.tensors,
            self.device,
        )
        engine = engine_for(candidates[0], OWN, self.engine, self.dense)
        group = Group(index, candidates, steps, evaluate_every=every, engine=engine)
        return program, Plan(group, (self.valid,), self.scorer)
