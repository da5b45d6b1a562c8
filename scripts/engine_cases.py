"""The programs of bench_engines: shapes, kinds, their table, and a timing of each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from adanet_py.architectures import ARCHITECTURES
from adanet_py.architectures.architecture import input_features, whole
from adanet_py.data.spec import DataSpec
from adanet_py.records import Candidate, Scalar
from adanet_py.training.batches import BatchOrder
from adanet_py.training.engines.program import Program, Tensors
from adanet_py.training.optimizers import OPTIMIZERS

LONGEST = 512  # steps of one call
ROWS, COLUMNS, CLASSES, MEMBERS = 20_000, 54, 7, 8
CARDINALITIES = (3, 5, 8, 12, 24, 60, 100, 400)
BINS = 8
PEAK_SIZES = (768, 1024, 1536)
RATES = (1e-3, 5e-4, 2e-3, 1e-4)


@dataclass(frozen=True)
class Case:
    """One program; `static` and `numeric` beside width, depth and batch size."""

    kind: str
    width: int
    depth: int
    batch: int
    architecture: str = "mlp"
    optimizer: str = "adamw"
    static: dict[str, Scalar] = field(default_factory=dict)
    numeric: dict[str, float] = field(default_factory=dict)
    categories: bool = False

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.kind} {self.width} x {self.depth}, batch {self.batch}"

    def statics(self) -> dict[str, Scalar]:
        """All that makes the program."""
        sizes = {"width": self.width, "depth": self.depth, "batch_size": self.batch}
        return {**sizes, **self.static}

    def spec(self) -> DataSpec:
        """The data it sees."""
        edges = tuple(tuple(np.linspace(-2.0, 2.0, BINS + 1).tolist()) for _ in range(COLUMNS))
        cardinalities = CARDINALITIES if self.categories else ()
        bins = {"quantile": edges, "robust": edges}
        return DataSpec("multiclass", CLASSES, COLUMNS, cardinalities, bins)

    def flops(self) -> float:
        """Of the matrix products of a step of one member that are needed."""
        architecture, spec = ARCHITECTURES[self.architecture], self.spec()
        static = architecture.complete(self.statics())
        assert architecture.multiply_adds is not None
        needed = 3.0 * architecture.multiply_adds(static, spec)
        if self.kind == "mlp":  # nobody asks for the gradient of the table
            features, _ = input_features(static, spec)
            needed -= features * whole(static, "width")
        return 2.0 * self.batch * needed


def shapes(quick: bool) -> list[Case]:
    """The multilayer perceptrons."""
    widths, depths, batches = (32, 64, 128, 256), (1, 2, 4), (64, 256, 1024)
    if quick:
        widths, depths, batches = (32, 128), (1, 2), (64, 256)
    return [Case("mlp", w, d, b) for w in widths for d in depths for b in batches]


def kinds(quick: bool) -> list[Case]:
    """Everything else, at two sizes each."""
    options: dict[str, dict[str, Any]] = {
        **{
            f"resnet, norm {n}": {"architecture": "resnet", "static": {"norm": n}}
            for n in ("none", "batch", "layer", "rms", "group")
        },
        "tabm, 8 members": {"architecture": "tabm"},
        "piecewise_linear": {"static": {"embedding": "piecewise_linear"}},
        "periodic": {"static": {"embedding": "periodic"}},
        "category columns": {"categories": True},
        "norm batch": {"static": {"norm": "batch"}},
        "norm layer": {"static": {"norm": "layer"}},
        "gelu": {"static": {"activation": "gelu"}},
        "swiglu": {"static": {"activation": "swiglu"}},
        "dropout": {"numeric": {"dropout": 0.2}},
        "mixup": {"numeric": {"mixup": 0.4}},
        "clip_norm": {"numeric": {"clip_norm": 1.0}},
        "ema": {"numeric": {"ema": 0.99}},
        "sgd": {"optimizer": "sgd"},
        "schedule_free": {"optimizer": "schedule_free_adamw"},
        "muon": {"optimizer": "muon"},
    }
    sizes = [(64, 2, 64)] if quick else [(64, 2, 64), (256, 2, 512)]
    return [Case(kind, *size, **given) for kind, given in options.items() for size in sizes]


@dataclass
class Bench:
    """The table on the device, and programs on it."""

    device: torch.device
    numeric: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(ROWS, COLUMNS)).astype(np.float32)
        codes = [rng.integers(0, c, ROWS) for c in CARDINALITIES]
        y = np.tanh(x @ rng.normal(size=(COLUMNS, CLASSES)) / 4.0).argmax(1)
        self.numeric = torch.from_numpy(x).to(self.device)
        self.category = torch.from_numpy(np.stack(codes, 1).astype(np.int32)).to(self.device)
        self.target = torch.from_numpy(y.astype(np.float32)).to(self.device)
        self.rows = np.arange(ROWS)

    def program(
        self, case: Case, members: int = MEMBERS, steps: int = LONGEST, rate: float = 1.0
    ) -> Program:
        """A group of a case; `rate` multiplies its learning rates."""
        candidates = tuple(
            Candidate(
                case.architecture,
                case.statics(),
                case.optimizer,
                "constant",
                {"lr": rate * RATES[i % len(RATES)], **case.numeric},
                seed=i,
            )
            for i in range(members)
        )
        category = self.category if case.categories else self.category[:, :0]
        return Program(
            ARCHITECTURES[case.architecture],
            OPTIMIZERS[case.optimizer],
            candidates,
            case.spec(),
            BatchOrder((self.rows,), case.batch, 0),
            steps,
            Tensors(self.numeric, category.contiguous(), self.target),
            self.device,
        )

    def wait(self) -> None:
        """Until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(self, engine: Any, steps: int) -> float:
        """Seconds of so many steps."""
        self.wait()
        begun = time.perf_counter()
        engine.advance(0, steps, never)
        self.wait()
        return time.perf_counter() - begun

    def peak(self) -> float:
        """Flops per second of the fastest of some large matrix products."""
        best = 0.0
        for n in PEAK_SIZES if self.device.type == "cpu" else (4096, 8192):
            a, b = torch.randn(2, n, n, device=self.device)
            out = torch.empty_like(a)
            for _ in range(3):
                self.wait()
                begun = time.perf_counter()
                torch.mm(a, b, out=out)
                self.wait()
                best = max(best, 2.0 * n**3 / (time.perf_counter() - begun))
        return best


def never(step: int) -> bool:
    return False
