"""What is measured at an evaluation beside loss and metric: of the last step, and of the units.

Nothing here changes the training: the gradient that is taken once more is thrown away, and the
engine puts the running statistics back. Nothing is read back from the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adanet_py.architectures.activations import activation
from adanet_py.architectures.layers import is_hidden_matrix
from adanet_py.architectures.names import ACTIVATIONS
from adanet_py.training.optimizers import Part

PROBE_ROWS = 256
# The curvature takes the gradient of a batch once more; a look at the units costs a third of that,
# or as much where networks are tiny. So where evaluations are closer than this many steps, some go
# without; it is 4 % of the cost, 6 % for tiny networks.
DUE_EVERY = 32
# A unit is dead if its values differ by no more than this share of the largest in its layer: some
# times the rounding of float32, so that a saturated sigmoid counts.
FLAT = 1e-6


class StepProbe:
    """Measures one step of K members; w and g are [K, P], columns laid out as `parts` say.

    With d the change of w and g0, g1 the gradients of the batch before and after the step:

        update_ratio = |d| / |w|
        depth_ratio  = rms(g0 of the first hidden matrix) / rms(g0 of the last matrix)
        curvature    = d (g1 - g0) / |d|^2, a mean of the second derivative along the step
    """

    def __init__(self, w: Tensor, g: Tensor, parts: Sequence[Part], curved: bool) -> None:
        """Before the step and whatever is done to its gradient; `curved`: g1 will be given."""
        self._weights = w.clone()
        self._gradient = g.clone() if curved else None
        self._depth_ratio = depth_ratio(g, parts)

    def after(self, w: Tensor, g: Tensor) -> dict[str, Tensor]:
        """After the step, by the names of `Evaluation` [K]; g is only read if `curved`."""
        change = w - self._weights
        length = change.norm(dim=1)
        curvature = torch.full_like(length, math.nan)
        if self._gradient is not None:
            curvature = (change * (g - self._gradient)).sum(1) / length.square()
        return {
            "update_ratio": length / self._weights.norm(dim=1),
            "depth_ratio": self._depth_ratio,
            "curvature": curvature,
        }


def is_due(start: int, step: int) -> bool:
    """Whether curvature and units are measured at `step`; the evaluation before was at `start`."""
    return start // DUE_EVERY != step // DUE_EVERY


def depth_ratio(g: Tensor, parts: Sequence[Part]) -> Tensor:
    """See `StepProbe`; [K], NaN where there is no hidden matrix. Embeddings do not count."""
    matrices = [p for p in parts if p.decayed and is_hidden_matrix(p.name, p.shape)]
    if len(matrices) < 2:
        return torch.full_like(g[:, 0], math.nan)
    # In double precision: what has vanished would vanish once more in its square.
    first, last = (
        g[:, p.start : p.stop].double().square().mean(1).sqrt() for p in (matrices[0], matrices[-1])
    )
    return (first / last).to(g.dtype)


def probe_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Up to `PROBE_ROWS` of each fold's training rows, spread evenly: [F, R]."""
    count = min(PROBE_ROWS, *(len(r) for r in rows))
    return np.stack([r[np.arange(count) * len(r) // count] for r in rows])


@contextmanager
def watched(module: nn.Module) -> Iterator[nn.Module]:
    """Within it, `module` gives its share of dead units, a scalar, instead of its outputs.

    A unit is dead if the output of its activation is the same for every row. NaN without
    activations (those of `architectures.activations` and of torch.nn), or with infinite ones.
    """
    seen: list[tuple[Tensor, int]] = []

    def look(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        seen.append(_dead(output))

    def answer(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        dead, units = [d for d, _ in seen], sum(n for _, n in seen)
        seen.clear()
        return torch.stack(dead).sum() / units if units else output.new_full((), math.nan)

    handles = [m.register_forward_hook(look) for m in module.modules() if is_activation(m)]
    handles.append(module.register_forward_hook(answer))
    try:
        yield module
    finally:
        for handle in handles:
            handle.remove()


def is_activation(module: nn.Module) -> bool:
    """Whether a module is a nonlinearity whose outputs are hidden units."""
    kind = type(module)
    plain = kind.__module__ == nn.ReLU.__module__ and kind is not nn.MultiheadAttention
    return plain or kind in _ACTIVATIONS


_ACTIVATIONS = frozenset(type(activation(name)) for name in ACTIVATIONS)


def _dead(values: Tensor) -> tuple[Tensor, int]:
    """How many units of one layer [rows, ...] are dead, and how many there are."""
    low, high = values.amin(0), values.amax(0)
    scale = torch.maximum(low.abs(), high.abs()).amax()
    dead = ((high - low) <= FLAT * scale).to(values.dtype).sum()
    return torch.where(torch.isfinite(scale), dead, math.nan), low.numel()
