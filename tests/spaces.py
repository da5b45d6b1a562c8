"""A zoo of search spaces every controller must cope with, over small registries of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adanet_py.knob import Knob
from adanet_py.space import Registries, SearchSpace, load_space


@dataclass(frozen=True)
class Entry:
    """An architecture, optimizer or schedule, as far as a space must know it."""

    static: Mapping[str, Knob] = field(default_factory=dict)
    numeric: Mapping[str, Knob] = field(default_factory=dict)


PLAIN = Entry(
    {
        "depth": Knob(2, 1, 16),
        "width": Knob(64, 1, 4096, log=True),
        "norm": Knob("none", choices=("none", "batch", "layer")),
        "skip": Knob(False, choices=(False, True)),
        "embedding": Knob("none", choices=("none", "linear", "periodic")),
        "embedding_width": Knob(8, 1, 64),
    },
    {"dropout": Knob(0.0, 0.0, 0.9), "frequency": Knob(1.0, 1e-3, 1e3, log=True)},
)
DEEP = Entry(
    {"depth": Knob(8, 4, 64), "ratio": Knob(2.0, 0.5, 8.0)}, {"dropout": Knob(0.0, 0.0, 0.9)}
)
WIDE = Entry({}, {f"x{i:02d}": Knob(0.5, 0.0, 1.0) for i in range(40)})

REGISTRIES = Registries(
    architectures={"plain": PLAIN, "deep": DEEP, "wide": WIDE},
    optimizers={
        "sgd": Entry(numeric={"lr": Knob(0.1, 0.0, 100.0, log=True)}),
        "adam": Entry(
            numeric={"lr": Knob(1e-3, 0.0, 100.0, log=True), "beta1": Knob(0.9, 0.0, 1.0)}
        ),
    },
    schedules={
        "constant": Entry(),
        "power": Entry(numeric={"power": Knob(0.5, 0.0, 4.0)}),
    },
    general={"warmup": Knob(0.0, 0.0, 0.9), "clip_norm": Knob(0.0, 0.0, 1e6)},
)

LR = {"lr": {"float": [1e-4, 1e-1], "log": True}}
FILES: dict[str, dict[str, Any]] = {
    "all types": {
        "architectures": {
            "plain": {
                "depth": {"int": [1, 8]},
                "width": {"int": [8, 512], "log": True},
                "norm": {"choice": ["none", "batch", "layer"]},
                "skip": {"choice": [True, False]},
                "dropout": {"float": [0.0, 0.5]},
            },
            "deep": {"depth": {"choice": [4, 8, 16]}, "ratio": {"float": [0.5, 4.0]}},
        },
        "optimizers": {"sgd": LR, "adam": {**LR, "beta1": {"choice": [0.8, 0.9]}}},
        "schedules": {"constant": {}, "power": {"power": {"float": [0.1, 1.0]}}},
        "general": {"warmup": {"choice": [0.0, 0.1]}},
    },
    "conditional": {
        "architectures": {
            "plain": {
                # out of order on purpose: a condition may stand after what hangs on it
                "frequency": {"float": [0.01, 10.0], "when": {"embedding": "periodic"}},
                "embedding_width": {"int": [2, 16], "when": {"embedding": ["linear", "periodic"]}},
                "embedding": {
                    "choice": ["none", "linear", "periodic"],
                    "when": {"norm": ["batch", "layer"]},
                },
                "norm": {"choice": ["none", "batch", "layer"]},
            }
        },
        "optimizers": {"adam": LR},
    },
    "logarithmic": {
        "architectures": {"plain": {"width": {"int": [1, 4096], "log": True}}},
        "optimizers": {"sgd": {"lr": {"float": [1e-12, 1e2], "log": True}}},
    },
    "integers": {
        "architectures": {"plain": {"depth": {"int": [1, 16]}, "width": {"int": [1, 200]}}},
        "optimizers": {"sgd": {}},
    },
    "one option": {"architectures": {"plain": {"depth": 3}}, "optimizers": {"sgd": {"lr": 0.01}}},
    "twelve options": {
        "architectures": {
            "plain": {"depth": {"int": [1, 3]}, "norm": {"choice": ["none", "layer"]}}
        },
        "optimizers": {"sgd": {}},
        "general": {"warmup": {"choice": [0.0, 0.1]}},
    },
    "40 dimensions": {
        "architectures": {"wide": {f"x{i:02d}": {"float": [0.0, 1.0]} for i in range(40)}},
        "optimizers": {"sgd": {}},
    },
    "weighted": {
        "architectures": {
            "plain": {
                "prior": 5,
                "depth": {"choice": [1, 2, 4, 8], "prior": [1, 8, 2, 1]},
                "norm": {"choice": ["none", "batch", "layer"], "prior": [0.5, 8, 2]},
                "skip": {"choice": [True, False], "prior": [100, 1]},
                "width": {"int": [8, 64], "when": {"norm": ["none", "layer"]}},
            },
            "deep": {"ratio": {"float": [0.5, 4.0]}},
        },
        "optimizers": {"sgd": {"prior": 0.5, **LR}, "adam": {"prior": 4, **LR}},
        "schedules": {"constant": None, "power": {"prior": 3, "power": {"float": [0.1, 1.0]}}},
        "general": {"warmup": {"choice": [0.0, 0.1, 0.2], "prior": [6, 1, 1]}},
    },
    "starts": {
        "architectures": {
            "plain": {"depth": {"int": [1, 4]}, "dropout": {"float": [0.0, 0.5]}},
            "deep": {"depth": {"int": [4, 9]}},
        },
        "optimizers": {"sgd": LR, "adam": LR},
        "start": [
            {"architecture": "deep", "optimizer": "adam", "numeric": {"lr": 0.01}},
            {"architecture": "plain", "optimizer": "sgd"},
            # the same program as the first, and one outside the ranges above
            {"architecture": "deep", "optimizer": "adam", "numeric": {"lr": 0.003}},
            {"architecture": "plain", "static": {"depth": 12, "width": 7}, "optimizer": "adam"},
        ],
    },
}
SIZES = {"one option": 1, "twelve options": 12, "integers": 16 * 200}  # of the finite ones


def space(name: str) -> SearchSpace:
    """A space of the zoo."""
    return load_space({"name": name, **FILES[name]}, REGISTRIES)


ZOO: dict[str, SearchSpace] = {
    **{name: space(name) for name in FILES},
    "table": load_space("table"),
    "tiny": load_space("tiny"),
}
