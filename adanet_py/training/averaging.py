"""Averages of the weights along a training, which are evaluated and kept in place of the weights.

Both kinds are one recursion with a weight per step and member, so averaging is data (a column of a
table), not program:

    avg <- avg + c_t (w_t - avg),  t = 0, 1, ... the step, w_t the weights after it.

`ema` = d > 0, an exponential moving average: c_t = 1 - min(d, (1 + t) / (10 + t)), c_0 = 1; the
minimum is the usual warm-up, without which the first weights would count for too long (as in
tf.train.ExponentialMovingAverage; Polyak and Juditsky 1992 for averaging as such).

`swa` = s > 0, the equal mean over the last s of the steps: c_t = 1 / (t - start + 1) with
start = total - round(s total), and at least one step (stochastic weight averaging, Izmailov et al.
2018, arXiv 1803.05407, with a mean over steps instead of over the ends of cycles).

Where nothing is averaged c_t = 1: the average is the weights themselves. With both, the exponential
average holds up to the start of the equal mean, which begins anew there. `total` is the number of
steps the group was planned with, as for schedules. numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from adanet_py.records import Candidate
from adanet_py.training.general import GENERAL


def averaging_weights(candidates: Sequence[Candidate], total: int) -> npt.NDArray[np.float64]:
    """The weight c of the newest weights in the average at every step: [total, K], in (0, 1]."""
    step = np.arange(total, dtype=np.float64)
    table = np.ones((total, len(candidates)))
    for k, candidate in enumerate(candidates):
        decay, share = (
            float(candidate.numeric.get(name, GENERAL[name].default))  # type: ignore[arg-type]
            for name in ("ema", "swa")
        )
        if decay > 0.0:
            table[1:, k] = 1.0 - np.minimum(decay, (1.0 + step[1:]) / (10.0 + step[1:]))
        if share > 0.0:
            start = total - max(1, round(share * total))
            table[start:, k] = 1.0 / (step[start:] - start + 1.0)
    return table


def averages(candidates: Sequence[Candidate]) -> bool:
    """Whether any candidate averages: if none does, no average need be kept."""
    return any(
        c.numeric.get("ema", 0.0) > 0.0 or c.numeric.get("swa", 0.0) > 0.0 for c in candidates
    )
