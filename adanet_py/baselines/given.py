"""Members given by the user: models of scikit-learn, fitted as the baselines are.

Every fold's training rows fit a model of their own, of every target where there are several. What
it reads are the prepared columns: numbers as the linear baseline has them, categories one-hot.
Classes are fitted by number, in the order of the model file's classes, numbers in their own unit.
What is scored and combined are the predictions of the converted model, which is what is saved.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.baselines.model_text import read_model
from adanet_py.baselines.onnx_models import (
    Graph,
    as_member,
    check_installed,
    columns_of,
    convert,
    evaluate,
    fold_of,
    predict_onnx,
    widths_of,
)
from adanet_py.baselines.problem import Baseline, Problem
from adanet_py.errors import ConfigError
from adanet_py.outputs import in_own_unit
from adanet_py.tasks import is_regression

if TYPE_CHECKING:
    from adanet_py.data.splits import Split

TRIAL_ROWS = (300, 3000)  # the second where the first are too few
FEWEST_OF_CLASS = 10  # in a trial, as far as there are so many
SAME = 1e-3  # difference of probabilities, or of numbers in standard deviations of the target
DIFFERING = 0.01  # share of the rows where converted predictions may differ by more


def check_models(models: Mapping[str, str], problem: Problem, train: np.ndarray) -> list[str]:
    """Fit and convert every model on a few of the rows `train`; what it warns of, in words.

    Raises ConfigError, naming the model: what is not for the task, takes no weights where there
    are some, fails, cannot be converted or predicts otherwise then.
    """
    if not models:
        return []
    check_installed()
    part, notes = problem.each()[0], list[str]()
    for name, text in models.items():
        model = prepare_model(read_model(text), part)
        for limit in TRIAL_ROWS:
            rows = _few(part, train, limit)
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    _fit(model, part, rows, rows)
            except Exception as error:
                if limit < min(len(train), TRIAL_ROWS[-1]):
                    continue  # neighbours, or rows of a class, that so few rows do not have
                raise ConfigError(f"The member {text!r} cannot be one: {_words(error)}.") from None
            notes += [f"The member {name}: {w}" for w in _warned(caught)[:1]]
            break
    return notes


def given_baseline(problem: Problem, split: Split, name: str, text: str) -> Baseline:
    """Fit a model in every fold and convert it; raises what fitting and converting raise."""
    start = time.monotonic()
    parts = problem.each()
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        graphs = [
            [_fit(prepare_model(read_model(text), part), part, train, valid) for part in parts]
            for train, valid in zip(split.train, split.valid, strict=True)
        ]
        notes += _warned(caught)[:1]
    member = as_member(graphs, problem)
    valid = [
        predict_onnx(fold_of(member, fold), problem.take(rows), problem.task)
        for fold, rows in enumerate(split.valid)
    ]
    return Baseline(
        name=name,
        predictions_valid=np.concatenate(valid),
        predictions_audit=predict_onnx(member, problem.take(split.audit), problem.task),
        parameters=max(sum(g.numbers for g in fold) for fold in graphs),
        seconds=time.monotonic() - start,
        member=member,
        message="; ".join([text, *notes]),
    )


def prepare_model(model: Any, problem: Problem) -> Any:
    """The model for one target: what it draws follows the seed, weights of classes their numbers.

    Raises ConfigError for one of another task, and for one without weights where they are needed.
    """
    from sklearn.base import is_classifier, is_regressor

    numbers = is_regression(problem.task)
    kind = type(model).__name__
    if not (is_regressor(model) if numbers else is_classifier(model)):
        wanted = "a regressor" if numbers else "a classifier"
        raise ConfigError(
            f"The member {kind}: expected {wanted}, as the target asks for ({problem.task}), found "
            "another kind of model. Leave it out or give one."
        )
    codes = {label: i for i, label in enumerate(problem.target.classes)}
    changed: dict[str, Any] = {}
    for path, value in model.get_params(deep=True).items():
        name = path.rpartition("__")[2]
        if name == "random_state" and value is None:
            changed[path] = problem.seed % 2**32
        elif name == "class_weight" and isinstance(value, dict):
            changed[path] = {codes.get(label, label): weight for label, weight in value.items()}
    model.set_params(**changed)
    if not numbers and not hasattr(model, "predict_proba"):
        raise ConfigError(
            f"The member {kind}: expected a classifier with probabilities, found one without. Wrap "
            f"it: CalibratedClassifierCV({kind}(...))."
        )
    if problem.weight is not None and _weight_argument(model) is None:
        raise ConfigError(
            f"The member {kind}: expected a model that takes row weights, which this search has, "
            "found one that takes none. Leave the member or the weights out."
        )
    return model


def _fit(model: Any, problem: Problem, train: np.ndarray, check: np.ndarray) -> Graph:
    """Fit a model of one target to the rows `train`, convert it, compare on the rows `check`."""
    widths = widths_of(problem)
    x = columns_of(problem.take(train), widths)
    y = problem.y[train]
    if is_regression(problem.task):
        target = problem.target
        y = problem.means(train) if problem.log_link else in_own_unit(y, target.mean, target.scale)
    else:
        y = y.astype(np.int64)
    weight, argument = problem.weights(train), _weight_argument(model)
    given = {} if weight is None or argument is None else {argument: weight}
    model.fit(x.astype(np.float64), y, **given)
    rows = columns_of(problem.take(check), widths)
    predict = model.predict if is_regression(problem.task) else model.predict_proba
    expected = np.asarray(predict(rows.astype(np.float64)), np.float64).reshape(len(rows), -1)
    graph = convert(model, x.shape[1])
    found = evaluate(graph.content, rows, expected.shape[1])
    unit = float(np.asarray(problem.target.scale)) if is_regression(problem.task) else 1.0
    differs = ~(np.abs(found - expected) <= SAME * unit).all(axis=1)
    if differs.mean() > DIFFERING:
        raise ConfigError(
            f"converted to ONNX it predicts otherwise for {int(differs.sum())} of {len(rows)} rows "
            f"(by up to {np.nanmax(np.abs(found - expected)):.2g})"
        )
    if problem.log_link and not (found > 0.0).all():
        raise ConfigError(
            f"it predicts numbers of 0 or less, for which the loss {problem.loss} is not defined; "
            "give one that predicts means, PoissonRegressor() say"
        )
    return graph


def _weight_argument(model: Any) -> str | None:
    """By which argument `fit` takes row weights: of a pipeline those of its last step."""
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import has_fit_parameter

    if isinstance(model, Pipeline):
        name, last = model.steps[-1]
        inner = _weight_argument(last)
        return None if inner is None else f"{name}__{inner}"
    return "sample_weight" if has_fit_parameter(model, "sample_weight") else None


def _few(problem: Problem, rows: np.ndarray, limit: int) -> np.ndarray:
    """About `limit` of `rows`, sorted; of a class with few among them at least some."""
    if len(rows) <= limit:
        return rows
    rng = np.random.default_rng(problem.seed)
    order = rng.permutation(rows)
    chosen = [order[:limit]]
    if not is_regression(problem.task):
        y = problem.y[order]
        chosen += [order[y == c][:FEWEST_OF_CLASS] for c in np.unique(y)]
    return np.unique(np.concatenate(chosen))


def _warned(caught: list[warnings.WarningMessage]) -> list[str]:
    """What the user should know of: not that something will be gone in a later version."""
    hidden = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
    kept = [w for w in caught if not issubclass(w.category, hidden)]
    return list(dict.fromkeys(" ".join(str(w.message).split())[:200] for w in kept))


def _words(error: Exception) -> str:
    said = " ".join(str(error).split())[:400].rstrip(".")
    return said if isinstance(error, ConfigError) else f"{type(error).__name__}: {said}"
