"""What mixture weights multiply where networks are trained with a log link: logs of means.

A mean of 1 is that of the target. Stored predictions are standardised values, v = r (m - 1) of the
means m with r = mean / scale; log m less the log exposure is what is combined, so that F is convex.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adanet_py.data.spec import DataSpec
from adanet_py.ensemble.losses import LOG_LINK
from adanet_py.ensemble.weights import Floats
from adanet_py.training.losses.regression import HIGHEST, LOWEST


@dataclass(frozen=True)
class Link:
    """Between standardised values and what is combined; `ratio` r of every target, none: the same.

    `offset` [n] are log exposures of rows, or None.
    """

    ratio: tuple[float, ...] = ()

    @classmethod
    def of(cls, loss: str, ratio: Sequence[float]) -> Link:
        """Of a run trained with this loss."""
        return cls(tuple(ratio) if loss in LOG_LINK else ())

    @classmethod
    def of_spec(cls, spec: DataSpec) -> Link:
        """Of a model for these data."""
        return cls.of(spec.loss, spec.target_ratio)

    def raw(self, values: Floats, offset: Floats | None = None) -> Floats:
        """What is combined, of standardised values [..., n, C]."""
        if not self.ratio:
            return values
        means = 1.0 + values / np.array(self.ratio)
        logs = np.clip(np.log(np.maximum(means, np.exp(LOWEST))), LOWEST, HIGHEST)
        return logs if offset is None else logs - offset[:, None]

    def values(self, raw: Floats, offset: Floats | None = None) -> Floats:
        """Inverse of `raw`."""
        if not self.ratio:
            return raw
        logs = raw if offset is None else raw + offset[:, None]
        return np.array(self.ratio) * (np.exp(np.clip(logs, LOWEST, HIGHEST)) - 1.0)


def rates(
    y: Floats, weight: Floats | None, exposure: Floats, ratio: Sequence[float], loss: str
) -> tuple[Floats, Floats]:
    """Standardised targets [n] or [n, T] and weights [n] with which rows need no exposure.

    The Poisson deviance of a count y with the mean e m is e times that of y / e with m, the Gamma
    deviance is the same: exposures e divide the target and, for counts, weigh the rows.
    """
    r = np.asarray(ratio)
    each = exposure.reshape(-1, *[1] * (y.ndim - 1))
    out = r * ((1.0 + y / r) / each - 1.0)
    known = np.ones(len(y)) if weight is None else weight
    return out, known * exposure if loss == "poisson" else known
