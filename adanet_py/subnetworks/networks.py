"""The modules: a subnetwork that reads frozen ones, one as it is trained, and the grown ensemble.

Layer k of a subnetwork reads its own layer k - 1 and, beside it, layer k - 1 of the frozen
subnetworks (Cortes et al. 2017, section 3, equation 1); its output is linear in its last layer.
"""

# ruff: noqa: D102 - what `forward` computes stands in the docstring of its module

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from adanet_py.architectures.activations import activation
from adanet_py.architectures.layers import Inputs, Linear
from adanet_py.architectures.names import units_before
from adanet_py.architectures.norms import norm
from adanet_py.architectures.perturbations import Dropout, Noisy
from adanet_py.data.spec import DataSpec
from adanet_py.records import Scalar
from adanet_py.subnetworks.architecture import read_widths, sizes, widths_below


class ConnectionDropout(Noisy):
    """Dropout of what is read from frozen subnetworks. Shape: [B, d] -> [B, d]."""

    knob = "connection_dropout"
    knob_connection_dropout: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("knob_connection_dropout", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        if not self.acts or not x.shape[-1]:
            return x
        dropped = torch.round(self.knob_connection_dropout * 256.0).clamp(max=255.0)
        kept = self.window(x.shape[0], x.shape[1:]) >= dropped
        return x * (kept.to(x.dtype) * (256.0 / (256.0 - dropped)))


class Subnetwork(nn.Module):
    """h: hidden layers of `widths`, layer k + 1 reading `below[k - 1]` frozen units of layer k.

    forward(numeric [B, n], category [B, c], below, one [B, d] per layer) gives the hidden layers
    and the output [B, C].
    """

    def __init__(
        self,
        static: Mapping[str, Scalar],
        spec: DataSpec,
        widths: Sequence[int],
        below: Sequence[int],
    ) -> None:
        super().__init__()
        kind, normed = str(static["activation"]), str(static["norm"])
        self.inputs = Inputs(static, spec)
        features = self.inputs.features
        self.layers, self.drops = nn.ModuleList(), nn.ModuleList()
        for k, width in enumerate(widths):
            units = units_before(kind, width)
            read = below[k - 1] if k else 0
            self.layers.append(
                nn.Sequential(
                    Linear(features + read, units, bias=normed != "batch"),
                    norm(normed, units),
                    activation(kind),
                    Dropout(),
                )
            )
            if k:
                self.drops.append(ConnectionDropout())
            features = width
        self.head = Linear(features, spec.n_outputs)  # last: what the output layer is known by

    def forward(
        self, numeric: Tensor, category: Tensor, below: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        x = self.inputs(numeric, category)
        hidden: list[Tensor] = []
        for k, layer in enumerate(self.layers):
            if k:
                x = torch.cat([x, self.drops[k - 1](below[k - 1])], -1)
            x = layer(x)
            hidden.append(x)
        return hidden, self.head(x)


class Offered(nn.Module):
    """A subnetwork in training: f_{t-1}(x) + h(x).

    What it reads of the frozen ones comes as further numeric columns: their layers 1, 2, ... side
    by side, then f_{t-1}(x) [C].
    """

    def __init__(self, static: Mapping[str, Scalar], spec: DataSpec) -> None:
        super().__init__()
        self.below = sizes(str(static["below"]))
        self.n_numeric, self.n_outputs = spec.n_numeric, spec.n_outputs
        self.subnetwork = Subnetwork(static, spec, sizes(str(static["widths"])), self.below)

    def forward(self, numeric: Tensor, category: Tensor) -> Tensor:
        own, *below, before = numeric.split([self.n_numeric, *self.below, self.n_outputs], -1)
        return before + self.subnetwork(own, category, below)[1]


class Grown(nn.Module):
    """sum_j w_j h_j(x) + b of subnetworks in the order they were taken in.

    `mixture` is [T], [T, C] or [T, C, C] (to, from), `bias` [C].
    """

    def __init__(self, static: Mapping[str, Scalar], spec: DataSpec) -> None:
        super().__init__()
        structure, self.read = read_widths(str(static["subnetworks"])), str(static["read"])
        self.widths = structure
        self.subnetworks = nn.ModuleList(
            Subnetwork(static, spec, w, widths_below(structure[:t], len(w), self.read))
            for t, w in enumerate(structure)
        )
        t, c = len(structure), spec.n_outputs
        shape = {"scalar": (t,), "vector": (t, c), "matrix": (t, c, c)}[str(static["kind"])]
        self.mixture = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(c))

    def forward(self, numeric: Tensor, category: Tensor) -> Tensor:
        seen: list[list[Tensor]] = []
        out = self.bias.expand(numeric.shape[0], -1)
        for module, widths, w in zip(self.subnetworks, self.widths, self.mixture, strict=True):
            below = layers_below(seen, len(widths), self.read, numeric)
            hidden, h = module(numeric, category, below)
            seen.append(hidden)
            out = out + (h @ w.T if w.dim() == 2 else w * h)
        return out


def layers_below(
    seen: Sequence[Sequence[Tensor]], depth: int, read: str, rows: Tensor
) -> list[Tensor]:
    """What a subnetwork of this depth reads of frozen ones, one [B, d] per layer but its last.

    `seen` are the hidden layers of the frozen ones, `rows` any tensor [B, n] of the same rows.
    """
    frozen = {"all": list(seen), "previous": list(seen[-1:]), "none": []}[read]
    out = []
    for k in range(depth - 1):
        parts = [hidden[k] for hidden in frozen if len(hidden) > k]
        out.append(torch.cat(parts, -1) if parts else rows[:, :0])
    return out
