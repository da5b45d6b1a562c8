"""Mixture weights: how the outputs of members become those of an ensemble; numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights [k], [k, C] or [k, C, C] (to, from) of k members with C outputs, and a bias [C]."""

    mixture: Floats
    bias: Floats

    def combine(self, outputs: Floats) -> Floats:
        """sum_j w_j h_j + b: [n, C] for outputs [k, n, C]."""
        w = self.mixture
        if w.ndim == 1:
            return np.asarray(np.tensordot(w, outputs, 1) + self.bias)
        if w.ndim == 2:
            return np.asarray(np.einsum("kc,knc->nc", w, outputs) + self.bias)
        return np.asarray(np.einsum("kcd,knd->nc", w, outputs) + self.bias)

    def sizes(self) -> Floats:
        """|w_j|_1 of every member [k]."""
        return np.asarray(np.abs(self.mixture).reshape(len(self.mixture), -1).sum(axis=1))

    def to_json(self) -> dict[str, Any]:
        """Plain values, every field."""
        return {"mixture": self.mixture.tolist(), "bias": self.bias.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Weights:
        """Inverse of `to_json`."""
        return cls(np.array(value["mixture"], np.float64), np.array(value["bias"], np.float64))
