"""How an AdaNet of dedicated subnetworks is grown, as plain values; no torch at import."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from adanet_py.architectures.names import ACTIVATIONS, NORMS
from adanet_py.ensemble.complexity import COMPLEXITIES, Measure
from adanet_py.ensemble.objective import KINDS, Kind
from adanet_py.errors import ConfigError, check_known


class Selection(NamedTuple):
    """What a round's candidates are compared by, and what of the theory is lost by it."""

    summary: str
    forfeits: str


SELECTIONS: dict[str, Selection] = {
    "training": Selection(
        "F on the training rows",
        "nothing: F never rises, and theorem 1 of Cortes et al. (2017) holds for the result",
    ),
    "moving_average": Selection(
        "moving average of the loss over training batches, plus the penalty",
        "that F never rises: batches are seen while weights change, with dropout where there is "
        "some; theorem 1 still bounds the result, as it holds for all ensembles at once",
    ),
    "held_out": Selection(
        "F on held-out rows, weights fitted on the training rows",
        "that F never rises on training rows, and the held-out rows as a test: they chose",
    ),
}

READS: dict[str, str] = {
    "all": "a layer reads the layer below of every frozen subnetwork",
    "previous": "a layer reads the layer below of the latest frozen subnetwork",
    "none": "subnetworks are not connected",
}
GOALS: dict[str, str] = {
    "ensemble": "Phi(y, f_{t-1} + h): what the ensemble lacks",
    "alone": "Phi(y, h): each subnetwork for itself, as in the tutorials of TensorFlow's AdaNet",
}


@dataclass(frozen=True)
class GrowthOptions:
    """How an AdaNet is grown (Cortes et al. 2017, arXiv 1607.01097, algorithm 1 and section 5).

    A round trains subnetworks as deep as the deepest so far and one layer deeper, `first` and one
    more in the first round, in each of `widths` and at each of `learning_rates`; with
    `random_widths` that many widths are drawn anew in every round, between the least and the
    greatest of `widths`, evenly in their logarithm. `lambda_` and `beta` are in units of the loss
    of the best constant, complexities in units of the mean of the first round's candidates.
    `complexity` may be a function of a Result (`layers`, `capacity`) and the last hidden layer on
    the training rows [n, width].

    `penalised` adds Gamma_h |v|_1 of the output weights v of a subnetwork to its training loss,
    r(h) taken by depth. `connection_dropout` is the share of what is read from frozen subnetworks
    that is dropped in training, `dropout` that of a subnetwork's own units. `uniform` gives all
    members the same weight instead of the best ones.
    """

    rounds: int = 8
    first: int = 1
    deepest: int = 8
    widths: tuple[int, ...] = (64,)
    random_widths: int = 0
    learning_rates: tuple[float, ...] = (3e-3,)
    epochs: float = 20.0
    batch_size: int = 128
    weight_decay: float = 1e-4
    dropout: float = 0.0
    activation: str = "relu"
    norm: str = "none"
    embedding: str = "none"
    scaling: str = "quantile"
    lambda_: float = 1e-2
    beta: float = 1e-3
    kind: Kind = "scalar"
    bias: bool = True
    uniform: bool = False
    complexity: str | Measure = "depth"
    selection: str = "training"
    goal: str = "ensemble"
    read: str = "all"
    penalised: bool = False
    connection_dropout: float = 0.0

    def __post_init__(self) -> None:
        names: list[tuple[str, str, Sequence[str]]] = [
            ("kind of mixture weights", self.kind, KINDS),
            ("selection", self.selection, tuple(SELECTIONS)),
            ("goal", self.goal, tuple(GOALS)),
            ("connections (read)", self.read, tuple(READS)),
            ("activation", self.activation, tuple(ACTIVATIONS)),
            ("norm", self.norm, tuple(NORMS)),
        ]
        if isinstance(self.complexity, str):
            names.append(("complexity", self.complexity, tuple(COMPLEXITIES)))
        for what, name, known in names:
            check_known(what, name, known, ConfigError)
        at_least = {"rounds": 1, "first": 0, "deepest": max(1, self.first), "batch_size": 1}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected {least} or more, found {getattr(self, name)}.")
        _check_all("widths", self.widths, lambda v: v >= 1, "whole numbers of 1 or more")
        _check_all("learning_rates", self.learning_rates, lambda v: v > 0, "numbers above 0")
        for name in ("lambda_", "beta", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name.rstrip('_')}: expected 0 or more, found {value}.")
        for name in ("dropout", "connection_dropout"):
            if not 0 <= getattr(self, name) <= 0.95:
                raise ConfigError(f"{name}: expected 0 to 0.95, found {getattr(self, name)}.")
        if not 0 < self.epochs < math.inf:
            raise ConfigError(f"epochs: expected a positive number, found {self.epochs}.")

    @property
    def measure(self) -> Measure:
        """r(h)."""
        return (
            COMPLEXITIES[self.complexity].measure
            if isinstance(self.complexity, str)
            else self.complexity
        )


def _check_all(name: str, values: Sequence[float], good: Callable[[Any], bool], what: str) -> None:
    if not values or not all(good(v) for v in values):
        raise ConfigError(f"{name}: expected {what}, at least one, found {values}.")


class Variant(NamedTuple):
    """A variant of section 6 of the paper: what it changes."""

    changes: dict[str, Any]
    summary: str


# The public pages at hand have no text of the paper's table of variants. That R(w, h) is a term of
# the training loss which is left out of the plain algorithm, and that SD takes the standard
# deviation of the last hidden layer on the training rows for r(h), is told by others who work with
# it (the issues of tensorflow/adanet, number 30, and a reproduction); P and D are as remembered.
VARIANTS: dict[str, Variant] = {
    "R": Variant({"penalised": True}, "the penalty Gamma_h |v|_1 is part of the training loss"),
    "P": Variant({"read": "previous"}, "connected to the previous round's subnetwork only"),
    "D": Variant({"connection_dropout": 0.1}, "a tenth of the connections dropped in training"),
    "SD": Variant({"complexity": "spread"}, "r(h): standard deviation of the last hidden layer"),
}


def with_variants(options: GrowthOptions, names: Sequence[str]) -> GrowthOptions:
    """The options with variants of the paper; ConfigError for an unknown one."""
    for name in names:
        check_known("variant", name, VARIANTS, ConfigError)
        options = replace(options, **VARIANTS[name].changes)
    return options


def numbers_of(option: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    """The numbers of "32,64"; ConfigError naming the option for anything else."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{option}: expected numbers with commas between them, found {text!r}."
        ) from None
