"""What a network has to beat: a constant, a linear model and histogram gradient boosting.

They run before any network, in this order, so that a valid model exists within seconds. They see
the same training rows and the same preprocessed features as the networks and are not tuned.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from adanet_py.baselines.boosting import boosting_baseline
from adanet_py.baselines.linear import (
    constant_model,
    from_members,
    linear_model,
    predict_member,
)
from adanet_py.baselines.problem import Baseline, Features, Problem, beside_rows
from adanet_py.outputs import in_own_unit
from adanet_py.tasks import has_several_targets

if TYPE_CHECKING:
    from adanet_py.data.splits import Split
    from adanet_py.data.targets import AnyTarget

__all__ = ["Baseline", "Features", "predict_member", "run_baselines"]


def run_baselines(
    features: Features,
    y: np.ndarray,
    weight: np.ndarray | None,
    split: Split,
    task: str,
    metric: str,
    target: AnyTarget,
    *,
    seconds: float,
    seed: int = 0,
    threads: int = 1,
    loss: str = "auto",
    exposure: np.ndarray | None = None,
) -> Iterator[Baseline]:
    """Yield "constant", "linear" and "hist_gradient_boosting", each as soon as it is there.

    `features`: "quantile" float [N, n_numeric] and "category" int [N, n_category]; `y` [N] class
    codes, or numbers standardised by `target`, with several targets [N, T]; `weight` [N] or None.
    With several folds there is one model per fold. `seconds` bounds the boosting: it ends with
    fewer trees or rows, and its message says so. Where `loss` is "poisson" or "gamma" linear and
    boosting minimise that deviance with a log link. With `exposure` [N] all are fitted to rates
    (the target per exposure) with weights times exposure, and predict rate times exposure.
    """
    end = time.monotonic() + seconds
    if exposure is not None:
        e = np.asarray(exposure, dtype=np.float64)
        rates = in_own_unit(y, target.mean, target.scale) / beside_rows(e, y)
        y = (rates - target.mean) / target.scale
        weight = e if weight is None else np.asarray(weight) * e
        features = {**features, "exposure": exposure}
    n_outputs = y.shape[1] if has_several_targets(task) else max(1, len(target.classes))
    codes = features["category"]
    sizes = [int(codes[:, j].max(initial=0)) + 1 for j in range(codes.shape[1])]
    offsets = np.cumsum([0, *sizes])
    problem = Problem(features, y, weight, task, metric, target, n_outputs, seed, offsets, loss)
    constants = [constant_model(problem, rows) for rows in split.train]
    yield from_members("constant", constants, problem, split)
    with _threads(threads):
        models = [linear_model(problem, rows) for rows in split.train]
        baseline = from_members("linear", models, problem, split)
    yield baseline
    with _threads(threads):
        baseline = boosting_baseline(problem, split, end)
    yield baseline


@contextmanager
def _threads(limit: int) -> Iterator[None]:
    """Hold BLAS and OpenMP to `limit` threads: the workers need the other cores."""
    import sklearn.ensemble  # noqa: F401  # only libraries that are loaded by now are held
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=limit):
        yield
