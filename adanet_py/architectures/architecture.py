"""The record that describes an architecture; importing it loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adanet_py.architectures.names import INITS
from adanet_py.data.spec import DataSpec
from adanet_py.knob import Knob
from adanet_py.records import Scalar
from adanet_py.training.losses import AUTO, LOSSES

if TYPE_CHECKING:
    from torch import nn

# Every architecture has these: how many rows one step sees, and how columns become inputs.
SHARED_STATIC: Mapping[str, Knob] = {
    "sampling": Knob(
        "mini_batch",
        choices=("mini_batch", "full_batch", "one_sample"),
        doc="rows of an optimizer step: batch_size of them, all, or one at a time",
    ),
    "loss": Knob(
        AUTO, choices=(AUTO, *LOSSES), doc="training loss; auto: the run's, by metric and task"
    ),
    "batch_size": Knob(256, 1, 1 << 20, log=True, doc="rows of a mini-batch"),
    "scaling": Knob(
        "quantile", choices=("quantile", "robust"), doc="scaling of the numeric columns"
    ),
    "embedding": Knob(
        "none",
        choices=("none", "piecewise_linear", "periodic"),
        doc="embedding of the numeric columns (Gorishniy et al. 2022)",
    ),
    "embedding_width": Knob(8, 1, 64, doc="features an embedded numeric column becomes"),
    "category_width": Knob(8, 1, 128, doc="features an embedded category column becomes"),
    "init": Knob("default", choices=tuple(INITS), doc="initial weights of the linear layers"),
    "zero_last": Knob(False, choices=(False, True), doc="the output layer starts at zero"),
    "sparsity": Knob(
        0.0,
        0.0,
        0.99,
        doc="share of the weights of all matrices that are zero and stay so in training",
    ),
    "precision": Knob(
        "float32",
        choices=("float32", "bfloat16"),
        doc="of matrix products in training; weights, optimizer, loss and evaluation are float32",
    ),
}
SHARED_NUMERIC: Mapping[str, Knob] = {
    "dropout": Knob(0.0, 0.0, 0.95, doc="share of hidden units set to zero"),
    "frequency": Knob(0.3, 1e-3, 100.0, log=True, doc="scale of the periodic embedding"),
}


@dataclass(frozen=True)
class Architecture:
    """A way to build an ordinary single-model `nn.Module` from plain values.

    `build(static, spec)` returns a module whose `forward(numeric [B, n], category [B, c])` gives
    [B, n_outputs] or, for implicit ensembles of M members, [B, M, n_outputs]. Values of `numeric`
    reach the module through buffers called ``knob_<name>``. The global random state alone decides
    the initial weights; `init` and `zero_last` (in SHARED_STATIC) change them afterwards, see
    `initialisation.initialise`: the output layer is the linear layer registered last. With
    `sparsity` the smallest weights of every matrix are zero from the start (training/sparsity.py).
    `multiply_adds(static, spec)` estimates the cost of one row without torch;
    the search plans its time with it. `parameters(static, spec)` is the module's exact number of
    parameters, without torch too; moves to a given size need it.
    """

    name: str
    summary: str
    static: Mapping[str, Knob]
    numeric: Mapping[str, Knob]
    build: Callable[[Mapping[str, Scalar], DataSpec], nn.Module]
    multiply_adds: Callable[[Mapping[str, Scalar], DataSpec], int] | None = None
    parameters: Callable[[Mapping[str, Scalar], DataSpec], int] | None = None

    def complete(self, static: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """`static` with the default of every knob that is not given."""
        return {name: static.get(name, knob.default) for name, knob in self.static.items()}


ONE_HOT_LIMIT = 9  # category columns with more codes than this are embedded
PERIODIC_WAVES = 16


def input_features(static: Mapping[str, Scalar], spec: DataSpec) -> tuple[int, int]:
    """Width of the input after embedding, and the multiply-adds the embedding takes per row."""
    width, kind = whole(static, "embedding_width"), static["embedding"]
    features, cost = spec.n_numeric, 0
    if kind == "piecewise_linear" and spec.n_numeric:
        bins = max(len(e) for e in spec.edges[str(static["scaling"])]) - 1
        features, cost = spec.n_numeric * width, spec.n_numeric * bins * width
    elif kind == "periodic":
        features = spec.n_numeric * (width + 1)
        cost = spec.n_numeric * PERIODIC_WAVES * width
    for size in spec.cardinalities:
        one_hot = size <= ONE_HOT_LIMIT
        features += size - 1 if one_hot else min(whole(static, "category_width"), size - 1)
    return features, cost


def input_parameters(static: Mapping[str, Scalar], spec: DataSpec) -> int:
    """Parameters of the embeddings."""
    width, kind, n = whole(static, "embedding_width"), static["embedding"], spec.n_numeric
    count = 0
    if kind == "piecewise_linear" and n:
        bins = max(len(e) for e in spec.edges[str(static["scaling"])]) - 1
        count = n * (bins + 1) * width
    elif kind == "periodic":
        count = n * (2 * PERIODIC_WAVES + (PERIODIC_WAVES + 1) * width)
    for size in (size for size in spec.cardinalities if size > ONE_HOT_LIMIT):
        count += size * min(whole(static, "category_width"), size - 1)
    return count


def is_factorised(features: int, units: int, rank: int) -> bool:
    """Whether a dense layer is two of that rank: where these are smaller; rank 0 is none."""
    return 0 < rank * (features + units) < features * units


def dense_cost(features: int, units: int, rank: int) -> int:
    """Multiply-adds of a dense layer, or of the two it is made of."""
    return rank * (features + units) if is_factorised(features, units, rank) else features * units


def whole(static: Mapping[str, Scalar], name: str) -> int:
    """An integer knob."""
    return int(static[name])  # type: ignore[arg-type]
