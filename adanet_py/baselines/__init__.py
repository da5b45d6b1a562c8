"""What a network has to beat: a constant, a linear model and histogram gradient boosting.

They run before any network, in this order, so that a valid model exists within seconds. They see
the same training rows and the same preprocessed features as the networks and are not tuned. Where
they may be members of an ensemble more trees follow (`TREES`), each another way.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from adanet_py.baselines.averaging import Averaging, averaging_baseline
from adanet_py.baselines.boosting import Boosting, boosting_baseline
from adanet_py.baselines.linear import constant_model, from_members, linear_model, predict_linear
from adanet_py.baselines.onnx_models import fold_of, predict_onnx
from adanet_py.baselines.problem import Baseline, Features, make_problem
from adanet_py.baselines.tree_models import predict_trees
from adanet_py.garbage import uncollected
from adanet_py.metrics import get_metric

if TYPE_CHECKING:
    from adanet_py.data.splits import Split
    from adanet_py.data.targets import AnyTarget

__all__ = ["Baseline", "Features", "make_problem", "names", "predict_member", "run_baselines"]

ALWAYS = ("constant", "linear", "hist_gradient_boosting")

LEAST_SHARE = 0.05  # of the time for more trees, below which none is begun

# Trees that are fitted where they may be members, in this order, as far as the time goes. Boosting
# is slower and stopped where it is best; leaves are damped, for a class of few rows would make the
# steps explode.
TREES: dict[str, Averaging | Boosting] = {
    "boosting_stopped": Boosting(
        "slow boosting of half of the columns, stopped where it is best",
        {"learning_rate": 0.06, "max_features": 0.5, "l2_regularization": 1.0,
         "min_samples_leaf": 10},
        stopped=True,
    ),
    "extra_trees": Averaging(
        "extremely randomised trees (Geurts et al. 2006)",
        "ExtraTrees",
        number={"min_samples_leaf": 3},
        classes={"max_features": 0.8},
    ),
    "boosting_small": Boosting(
        "slow boosting of small trees, stopped where it is best",
        {"learning_rate": 0.06, "max_features": 0.3, "l2_regularization": 1.0,
         "min_samples_leaf": 10, "max_leaf_nodes": 7},
        stopped=True,
        seed=1,
    ),
    "random_forest": Averaging(
        "random forest (Breiman 2001)",
        "RandomForest",
        number={"min_samples_leaf": 3, "max_features": 0.5},
        classes={"max_features": 0.3},
    ),
    "boosting_large": Boosting(
        "slow boosting of large trees, stopped where it is best",
        {"learning_rate": 0.06, "max_features": 0.3, "l2_regularization": 3.0,
         "min_samples_leaf": 3, "max_leaf_nodes": 63},
        stopped=True,
        seed=2,
    ),
}  # fmt: skip


def names(more: bool) -> tuple[str, ...]:
    """Those that `run_baselines` yields, in order."""
    return (*ALWAYS, *(TREES if more else ()))


def kind_of(member: Mapping[str, np.ndarray]) -> str:
    """What holds the arrays of a Baseline's `member`: "linear", "trees" or "onnx"."""
    return "trees" if "tree" in member else "onnx" if "onnx" in member else "linear"


def predict_member(member: Mapping[str, np.ndarray], features: Features, task: str) -> np.ndarray:
    """Predict with the `member` of a Baseline: probabilities [N, C], or numbers [N].

    With several targets [N, T], see outputs.py. `features` as in `run_baselines`, any rows. The
    folds' models are averaged. A category code the model never saw counts as missing (code 0).
    """
    predict = {"trees": predict_trees, "onnx": predict_onnx, "linear": predict_linear}
    return predict[kind_of(member)](member, features, task)


def one_fold(member: Mapping[str, np.ndarray], fold: int) -> dict[str, np.ndarray]:
    """The member of one fold alone."""
    if kind_of(member) == "onnx":
        return fold_of(member, fold)
    if kind_of(member) == "linear":
        return {k: v if k == "offsets" else v[fold : fold + 1] for k, v in member.items()}
    own = member["fold"] == fold
    return {
        **member,
        **{k: member[k][own] for k in ("tree", "output")},
        **{k: member[k][fold : fold + 1] for k in ("base", "shrink")},
        "fold": np.zeros(int(own.sum()), np.int32),
    }


def count_folds(member: Mapping[str, np.ndarray]) -> int:
    """How many models a member holds."""
    each = {"trees": "base", "onnx": "length", "linear": "intercept"}
    return len(member[each[kind_of(member)]])


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
    more_seconds: float | None = None,
    have: Collection[str] = (),
) -> Iterator[Baseline]:
    """Yield "constant", "linear" and "hist_gradient_boosting", each as soon as it is there.

    With `more_seconds` those of `TREES` follow, in that time; those in `have` are left out, but for
    the constant.

    `features`: "quantile" float [N, n_numeric] and "category" int [N, n_category]; `y` [N] class
    codes, or numbers standardised by `target`, with several targets [N, T]; `weight` [N] or None.
    With several folds there is one model per fold. `seconds` bounds the boosting: it ends with
    fewer trees or rows, and its message says so. Where `loss` is "poisson" or "gamma" linear and
    boosting minimise that deviance with a log link. With `exposure` [N] see `make_problem`.
    """
    problem = make_problem(
        features, y, weight, task, metric, target, seed=seed, loss=loss, exposure=exposure
    )
    constants = [constant_model(problem, rows) for rows in split.train]
    yield from_members("constant", constants, problem, split)
    with uncollected():  # an import makes what stays, and a fifth of its time is for looking
        importlib.import_module("sklearn.ensemble")  # seconds on a busy machine, and fits nothing
    end = time.monotonic() + seconds
    if "linear" not in have:
        with _threads(threads):
            models = [linear_model(problem, rows) for rows in split.train]
            baseline = from_members("linear", models, problem, split)
        yield baseline
    if "hist_gradient_boosting" not in have:
        with _threads(threads):
            baseline = boosting_baseline(
                problem, split, end, "hist_gradient_boosting", Boosting("")
            )
        yield baseline
    if more_seconds is None:
        return
    wanted = [name for name in TREES if name not in have]
    end = max(end, time.monotonic()) + more_seconds
    for i, name in enumerate(wanted):
        # Each may take its share of what is left, and half as much again: many need less.
        now = time.monotonic()
        if end - now < LEAST_SHARE * more_seconds:
            return
        until = min(end, now + 1.5 * (end - now) / (len(wanted) - i))
        how = TREES[name]
        with _threads(threads):
            if isinstance(how, Boosting):
                baseline = boosting_baseline(problem, split, until, name, how)
            elif problem.log_link or get_metric(metric).quantile is not None:
                continue  # a mean of trees is no quantile, and has no log link
            else:
                baseline = averaging_baseline(problem, split, until, name, how)
        yield baseline


@contextmanager
def _threads(limit: int) -> Iterator[None]:
    """Hold BLAS and OpenMP to `limit` threads: the workers need the other cores."""
    import sklearn.ensemble  # noqa: F401  # only libraries that are loaded by now are held
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=limit):
        yield
