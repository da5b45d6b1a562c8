"""The record that describes an architecture; importing it loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adanet_py.records import DataSpec, Knob, Scalar

if TYPE_CHECKING:
    from torch import nn

# Every architecture has these: how many rows one step sees, and how columns become inputs.
SHARED_STATIC: Mapping[str, Knob] = {
    "batch_size": Knob(256, 1, 1 << 20, log=True, doc="rows per optimizer step"),
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
    the initial weights.
    """

    name: str
    summary: str
    static: Mapping[str, Knob]
    numeric: Mapping[str, Knob]
    build: Callable[[Mapping[str, Scalar], DataSpec], nn.Module]

    def complete(self, static: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """`static` with the default of every knob that is not given."""
        return {name: static.get(name, knob.default) for name, knob in self.static.items()}
