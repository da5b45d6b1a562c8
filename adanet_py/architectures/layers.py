"""The layers architectures are made of: ordinary single-model modules that vectorise under vmap.

Values that differ per member but do not shape the graph are buffers: ``knob_<name>`` holds a value
of `Candidate.numeric`, ``noise`` and ``step_<name>`` are set by the engine (see `perturbations`).
Buffers called ``constant_<name>`` are the same for all members and are not multiplied by their
number.
"""

# ruff: noqa: D102 - what `forward` computes stands in the docstring of its layer

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adanet_py.architectures.architecture import (
    ONE_HOT_LIMIT,
    PERIODIC_WAVES,
    is_factorised,
)
from adanet_py.architectures.perturbations import Cutmix, InputNoise, Mixup
from adanet_py.data.spec import DataSpec
from adanet_py.records import Scalar


class Linear(nn.Module):
    """y = x W^T + b. Shape: [..., in] -> [..., out]. Starts as torch.nn.Linear does."""

    def __init__(self, features_in: int, features_out: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(max(1, features_in))
        self.weight = nn.Parameter(torch.empty(features_out, features_in).uniform_(-bound, bound))
        self.bias = (
            nn.Parameter(torch.empty(features_out).uniform_(-bound, bound)) if bias else None
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def dense(features: int, units: int, rank: int, bias: bool = True) -> list[Linear]:
    """A dense layer, or two of that rank in its place where these are smaller."""
    if not is_factorised(features, units, rank):
        return [Linear(features, units, bias)]
    return [Linear(features, rank, bias=False), Linear(rank, units, bias)]


class FeatureLinear(nn.Module):
    """One linear map per column. Shape: [B, n, in] -> [B, n, out]."""

    def __init__(self, n: int, features_in: int, features_out: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(max(1, features_in))
        self.weight = nn.Parameter(
            torch.empty(n, features_in, features_out).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(n, features_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x.transpose(-2, -3), self.weight).transpose(-2, -3) + self.bias


class PiecewiseLinear(nn.Module):
    """Piecewise-linear encoding over quantile bins, then a linear map per column.

    Gorishniy et al. 2022 (arXiv 2203.05556), equation 1. Shape: [B, n] -> [B, n, width].
    """

    constant_start: Tensor
    constant_scale: Tensor
    constant_low: Tensor
    constant_high: Tensor

    def __init__(self, edges: tuple[tuple[float, ...], ...], width: int) -> None:
        super().__init__()
        bins = max(len(e) for e in edges) - 1
        start, length = torch.zeros(len(edges), bins), torch.ones(len(edges), bins)
        low, high = torch.zeros(len(edges), bins), torch.ones(len(edges), bins)
        for j, edge in enumerate(edges):
            n = len(edge) - 1
            e = torch.tensor(edge, dtype=torch.float64)
            start[j, :n], length[j, :n] = e[:-1], e[1:] - e[:-1]
            # The outer bins are open: values beyond the training range extrapolate linearly.
            low[j, 0], high[j, n - 1] = -math.inf, math.inf
            # Columns with fewer bins than the widest: the unused ones are always zero.
            high[j, n:] = 0.0
        self.register_buffer("constant_start", start)
        self.register_buffer("constant_scale", 1.0 / length)
        self.register_buffer("constant_low", low)
        self.register_buffer("constant_high", high)
        self.linear = FeatureLinear(len(edges), bins, width)

    def forward(self, x: Tensor) -> Tensor:
        t = (x.unsqueeze(-1) - self.constant_start) * self.constant_scale
        return self.linear(torch.clamp(t, self.constant_low, self.constant_high))


class Periodic(nn.Module):
    """cos(2 pi (f w x + b)), a linear map per column, and the value itself.

    Periodic embedding with bias and dense connection (Gorishniy et al. 2022; Holzmueller et al.
    2024, arXiv 2407.04491). Shape: [B, n] -> [B, n, width + 1].
    """

    knob_frequency: Tensor

    def __init__(self, n: int, width: int, waves: int = PERIODIC_WAVES) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.randn(n, waves))
        self.phase = nn.Parameter(torch.empty(n, waves).uniform_(-math.pi, math.pi))
        self.register_buffer("knob_frequency", torch.tensor(0.3))
        self.linear = FeatureLinear(n, waves, width)

    def forward(self, x: Tensor) -> Tensor:
        angle = x.unsqueeze(-1) * (self.frequency * (self.knob_frequency * (2 * math.pi)))
        return torch.cat([self.linear(torch.cos(angle + self.phase)), x.unsqueeze(-1)], -1)


class Inputs(nn.Module):
    """Turn (numeric [B, n], category [B, c]) into [B, features].

    Numeric columns are taken as they are or embedded; category columns become one-hot codes
    (at most `ONE_HOT_LIMIT` codes, missing or unseen = all zeros) or learned embeddings. In
    training columns may be exchanged with another row (cutmix), numeric ones get noise, and the
    features are mixed with those of another row (mixup), where a candidate asks for it.
    """

    def __init__(self, static: Mapping[str, Scalar], spec: DataSpec) -> None:
        super().__init__()
        width = int(static["embedding_width"])  # type: ignore[arg-type]
        kind = static["embedding"] if spec.n_numeric else "none"
        self.numeric: nn.Module | None = None
        self.features = spec.n_numeric
        if kind == "piecewise_linear":
            self.numeric = PiecewiseLinear(spec.edges[str(static["scaling"])], width)
            self.features = spec.n_numeric * width
        elif kind == "periodic":
            self.numeric = Periodic(spec.n_numeric, width)
            self.features = spec.n_numeric * (width + 1)
        small = [c <= ONE_HOT_LIMIT for c in spec.cardinalities]
        self.one_hot = [(i, c) for i, c in enumerate(spec.cardinalities) if small[i]]
        self.embedded = [i for i, few in enumerate(small) if not few]
        self.tables = nn.ModuleList()
        for i in self.embedded:
            size = spec.cardinalities[i]
            wide = min(int(static["category_width"]), size - 1)  # type: ignore[arg-type]
            self.tables.append(Embedding(size, wide))
            self.features += wide
        self.features += sum(c - 1 for _, c in self.one_hot)
        self.cutmix = Cutmix(spec.n_numeric + len(spec.cardinalities))
        self.noise = InputNoise()
        self.mixup = Mixup()

    def forward(self, numeric: Tensor, category: Tensor) -> Tensor:
        numeric, category = self.cutmix(numeric, category)
        numeric = self.noise(numeric)
        parts = []
        if numeric.shape[-1]:
            parts.append(numeric if self.numeric is None else self.numeric(numeric).flatten(-2))
        for i, size in self.one_hot:
            codes = torch.arange(1, size, device=numeric.device)
            parts.append((category[..., i].unsqueeze(-1) == codes).to(numeric.dtype))
        for i, table in zip(self.embedded, self.tables, strict=True):
            parts.append(table(category[..., i]))
        return self.mixup(torch.cat(parts, -1) if len(parts) > 1 else parts[0])


class Embedding(nn.Module):
    """A learned vector per code. Shape: [B] -> [B, width]."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, width) / math.sqrt(width))

    def forward(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.weight)


class MemberScale(nn.Module):
    """Give each implicit member its own view of the input. Shape: [B, d] -> [B, M, d]."""

    def __init__(self, members: int, features: int, random_signs: bool) -> None:
        super().__init__()
        signs = torch.randint(0, 2, (members, features)) * 2.0 - 1.0
        self.scale = nn.Parameter(signs if random_signs else torch.ones(members, features))

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-2) * self.scale


class SharedLinear(nn.Module):
    """y_m = ((x_m r_m) W^T) s_m + b_m: one W for all members. Shape: [B, M, in] -> [B, M, out].

    BatchEnsemble (Wen et al. 2020) as in TabM, r and s initialised to one.
    """

    def __init__(
        self, members: int, features_in: int, features_out: int, scale_input: bool
    ) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(max(1, features_in))
        self.weight = nn.Parameter(torch.empty(features_out, features_in).uniform_(-bound, bound))
        self.scale_in = nn.Parameter(torch.ones(members, features_in)) if scale_input else None
        self.scale_out = nn.Parameter(torch.ones(members, features_out))
        self.bias_member = nn.Parameter(
            torch.empty(features_out).uniform_(-bound, bound).repeat(members, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.scale_in is not None:
            x = x * self.scale_in
        return F.linear(x, self.weight) * self.scale_out + self.bias_member


class MemberLinear(nn.Module):
    """One linear map per implicit member. Shape: [B, M, in] -> [B, M, out]."""

    def __init__(self, members: int, features_in: int, features_out: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(max(1, features_in))
        shape = (members, features_in, features_out)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias_member = nn.Parameter(torch.empty(members, features_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x.transpose(-2, -3), self.weight).transpose(-2, -3) + self.bias_member


class Residual(nn.Module):
    """x + layers(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Skip(nn.Module):
    """layers(x) + path(x): a linear path beside a whole network.

    Shape: [B, in] -> that of layers(x), [B, C] or, for M implicit members, [B, M, C], each with a
    path of its own. The path is registered first: the output layer is the last of `layers`.
    """

    def __init__(self, features_in: int, features_out: int, *layers: nn.Module) -> None:
        super().__init__()
        self.path = Linear(features_in, features_out)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y + self.path(x).reshape(y.shape)


class Network(nn.Module):
    """Inputs, then the body: forward(numeric [B, n], category [B, c])."""

    def __init__(self, inputs: Inputs, body: nn.Module) -> None:
        super().__init__()
        self.inputs = inputs
        self.body = body

    def forward(self, numeric: Tensor, category: Tensor) -> Tensor:
        return self.body(self.inputs(numeric, category))


def is_hidden_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a parameter is a weight matrix of the network behind its inputs, no path beside."""
    beside = name.startswith("inputs.") or ".path." in name
    return is_decayed(name, shape) and not beside


def is_decayed(name: str, shape: tuple[int, ...]) -> bool:
    """Whether weight decay applies: matrices, not biases, norms, scales or embedding tables."""
    last = name.rsplit(".", 1)[-1]
    return len(shape) >= 2 and last == "weight" and ".tables." not in name
