"""Layers that disturb training and do nothing at evaluation; each has a knob, and 0 is no change.

All randomness comes from the engine: bytes of the member's own pool, or a buffer ``step_<name>``
that it fills at every step (see `training.mixing`). So what happens depends on the member's seed
and the step, not on grouping, order, engine or resumption. Neither is part of the model. Where
`on` is false, because nobody in a group uses a layer, it costs nothing.
"""

# ruff: noqa: D102 - what `forward` computes stands in the docstring of its layer

from __future__ import annotations

import functools
import math
from statistics import NormalDist, pstdev
from typing import ClassVar

import torch
from torch import Tensor, nn

NOISE_SIZE = 1 << 19  # bytes of random numbers of a member


class Perturbation(nn.Module):
    """A layer that acts in training only, and there only where it is `on`; `knob` is its number."""

    knob: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.on = True

    @property
    def acts(self) -> bool:
        """Whether it does anything now."""
        return self.training and self.on


def noise_pool(seed: int) -> Tensor:
    """The uniform noise of one member: bytes [NOISE_SIZE] that depend on its seed alone."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.empty(NOISE_SIZE // 8, dtype=torch.int64)
    # Of all 2^64 values: eight bytes at once.
    return words.random_(-(2**63), None, generator=generator).view(torch.uint8)


class Noisy(Perturbation):
    """A perturbation by a window into the member's pool of random bytes.

    The engine moves the window, `start`, from step to step and layer to layer, which costs no
    random numbers and, where `start` is known to the host, no copy.
    """

    noise: Tensor
    start: int | Tensor  # a tensor [] where a step is captured before the window is known

    def __init__(self) -> None:
        super().__init__()
        # The engine puts the member's pool here; it is not part of the model.
        self.register_buffer("noise", torch.empty(0, dtype=torch.uint8), persistent=False)
        self.start = 0

    def window(self, rows: int, inner: tuple[int, ...]) -> Tensor:
        """Random bytes [rows, *inner]."""
        each = math.prod(inner)
        # Rows lie side by side; in layers larger than half the pool they overlap.
        stride = min(each, max(1, (NOISE_SIZE // 2 - each) // max(1, rows - 1)))
        span = (rows - 1) * stride + each
        # A row wider than the pool (a layer of half a million units) sees it more than once.
        noise = self.noise if span <= NOISE_SIZE else self.noise.repeat(-(-span // NOISE_SIZE))
        start = self.start % max(1, noise.shape[0] - span)
        if isinstance(start, int):
            return noise[start : start + span].unfold(0, each, stride).view(rows, *inner)
        row, place = (torch.arange(n, device=noise.device) for n in (rows, each))
        return noise[start + row[:, None] * stride + place].view(rows, *inner)


def _kept(window: Tensor, share: Tensor, like: Tensor) -> Tensor:
    """0 for a share of the bytes and for the others what keeps the mean at 1.

    The share is rounded to a multiple of 1/256, and at least one byte in 256 is kept.
    """
    dropped = torch.round(share * 256.0).clamp(max=255.0)
    return (window >= dropped).to(like.dtype) * (256.0 / (256.0 - dropped))


class Dropout(Noisy):
    """Set a share of the values to zero and scale up the rest (Srivastava et al. 2014).

    The share is rounded to a multiple of 1/256.
    """

    knob = "dropout"
    knob_dropout: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("knob_dropout", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        if not self.acts:
            return x
        return x * _kept(self.window(x.shape[0], x.shape[1:]), self.knob_dropout, x)


class DropPath(Noisy):
    """Set whole rows of a residual branch to zero and scale up the others: stochastic depth.

    Branch l of L is dropped with probability p l / L, p the knob, row by row (Huang et al. 2016,
    arXiv 1603.09382, section 3, the linear rule; there for whole batches and, instead of scaling up
    here, scaling down at evaluation). Last in a branch. Probabilities are rounded to 1/256.
    """

    knob = "drop_path"
    knob_drop_path: Tensor

    def __init__(self, branch: int, branches: int) -> None:
        super().__init__()
        self.share = branch / branches  # of p, branches counted from 1
        self.register_buffer("knob_drop_path", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        if not self.acts:
            return x
        window = self.window(x.shape[0], (1,) * (x.dim() - 1))
        return x * _kept(window, self.knob_drop_path * self.share, x)


@functools.cache
def byte_deviation() -> float:
    """Standard deviation of the 256 quantiles of the normal distribution that a byte stands for."""
    return pstdev(NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256))


class InputNoise(Noisy):
    """x + s z, z approximately standard normal. Shape: [B, n] -> [B, n].

    A byte b stands for the normal quantile of (b + 1/2) / 256, scaled to unit variance: 256
    values, none beyond 2.9. On scaled columns, s is in standard deviations of a column.
    """

    knob = "input_noise"
    knob_input_noise: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("knob_input_noise", torch.tensor(0.0))
        self.scale = math.sqrt(2.0) / byte_deviation()

    def forward(self, x: Tensor) -> Tensor:
        if not self.acts or not x.shape[1]:
            return x
        window = self.window(x.shape[0], x.shape[1:]).to(x.dtype)
        return x + torch.erfinv((window - 127.5) / 128.0) * (self.knob_input_noise * self.scale)


class Mixup(Perturbation):
    """a x + (1 - a) partner(x): rows mixed with others (Zhang et al. 2017, arXiv 1710.09412).

    The partner of a row is the row before it in the batch (or micro-batch), which is a random one;
    a row that is alone there is its own partner, and nothing changes. The member's a is drawn anew
    at every step from Beta(alpha, alpha), alpha the knob; the engine mixes the losses against both
    targets in the same proportion. Shape: [B, ...] -> [B, ...].
    """

    knob = "mixup"
    step_share: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step_share", torch.tensor(1.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.acts:
            return x
        return x.roll(1, 0).lerp(x, self.step_share.to(x.dtype))


class Cutmix(Perturbation):
    """Columns from the partner row: cutmix for tables (after Yun et al. 2019, arXiv 1905.04899).

    Every column stays the row's own with probability a, drawn anew at every step from Beta(alpha,
    alpha), alpha the knob; which ones is the same for all rows of a step, as the box of an image
    is. The engine mixes the losses against both targets by the share of columns that stayed.
    Columns, not their embedded features, are exchanged. ([B, n], [B, c]) -> ([B, n], [B, c]).
    """

    knob = "cutmix"
    step_keep: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        keep = torch.ones(columns, dtype=torch.bool)
        self.register_buffer("step_keep", keep, persistent=False)

    def forward(self, numeric: Tensor, category: Tensor) -> tuple[Tensor, Tensor]:
        if not self.acts:
            return numeric, category
        n = numeric.shape[1]
        return (
            torch.where(self.step_keep[:n], numeric, numeric.roll(1, 0)),
            torch.where(self.step_keep[n:], category, category.roll(1, 0)),
        )
