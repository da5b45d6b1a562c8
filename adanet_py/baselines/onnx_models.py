"""Fitted models of scikit-learn as ONNX graphs, which a model file holds and no code goes with.

A graph is a fixed set of mathematical operators; evaluating it runs none of the model's own code.
Its input are float32 rows [N, D] (`columns_of`), its output probabilities of the classes the model
has seen, or numbers. The extra `onnx` has what is needed: skl2onnx to make graphs, onnxruntime to
evaluate them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from adanet_py.baselines.problem import SCALING, Features, Problem, at_exposure
from adanet_py.errors import ConfigError
from adanet_py.tasks import has_several_targets, is_regression

INSTALL = 'pip install "adanet_py[onnx]"'
MOST_VALUES = 32  # of a category that are told apart; codes are in order of frequency
_CHUNK = 4096  # rows
_ERRORS_ONLY = 4  # of onnxruntime: what it warns of is checked here


@dataclass(frozen=True)
class Graph:
    """One converted model: its bytes, how many numbers it holds, and the codes of its outputs."""

    content: bytes
    numbers: int
    classes: tuple[int, ...] = ()


def check_installed() -> None:
    """Raise ConfigError where what converts and evaluates is not installed."""
    missing = [name for name in ("skl2onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"A member that is a model of scikit-learn needs {' and '.join(missing)}, found "
            f"nothing of that name. Install it: {INSTALL}"
        )


def widths_of(problem: Problem) -> np.ndarray:
    """How many codes of each category column are told apart, from 0 (missing) on [n_category]."""
    return np.minimum(np.diff(problem.offsets), MOST_VALUES + 1)


def columns_of(features: Features, widths: np.ndarray) -> np.ndarray:
    """Numbers as the linear baseline has them, then categories one-hot, float32 [N, D].

    A value of a category beyond its most frequent ones has 0 in all of its columns.
    """
    codes = features["category"]
    parts = [np.asarray(features[SCALING], np.float32)]
    for j, width in enumerate(widths):
        parts.append((codes[:, j, None] == np.arange(width)).astype(np.float32))
    return np.hstack(parts)


def convert(model: Any, width: int) -> Graph:
    """The graph of a fitted classifier (with `predict_proba`) or regressor of `width` columns.

    Raises ConfigError where there is no converter for it.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.base import is_classifier

    chosen = {"zipmap": False} if is_classifier(model) else None
    try:
        made = to_onnx(
            model, initial_types=[("rows", FloatTensorType([None, width]))], options=chosen,
            name="member",
        )  # fmt: skip
        content = made.SerializeToString()
        _session(content)
    except Exception as error:  # of skl2onnx, onnx or onnxruntime, each of its own kinds
        raise ConfigError(
            f"it cannot be converted to ONNX ({type(error).__name__}: {_short(error)}). See "
            "https://onnx.ai/sklearn-onnx/supported.html for what can"
        ) from None
    classes = tuple(int(c) for c in model.classes_) if is_classifier(model) else ()
    return Graph(content, _numbers(made.graph), classes)


def evaluate(content: bytes, rows: np.ndarray, outputs: int) -> np.ndarray:
    """What a graph makes of rows [N, D]: [N, outputs], float64."""
    session = _session(content)
    [given] = session.get_inputs()
    last = session.get_outputs()[-1].name
    found = [np.zeros((0, outputs))]
    for start in range(0, len(rows), _CHUNK):
        [part] = session.run([last], {given.name: rows[start : start + _CHUNK]})
        found.append(np.asarray(part, np.float64).reshape(-1, outputs))
    return np.concatenate(found)


def as_member(graphs: Sequence[Sequence[Graph]], problem: Problem) -> dict[str, np.ndarray]:
    """The arrays of a member: graphs of every fold and target, and how their input is made."""
    flat = [graph for fold in graphs for graph in fold]
    outputs = max(1, 2 if problem.task == "multilabel" else len(problem.target.classes))
    seen = np.zeros((len(graphs), len(graphs[0]), outputs), bool)
    for f, fold in enumerate(graphs):
        for t, graph in enumerate(fold):
            seen[f, t, list(graph.classes)] = True
    return {
        "onnx": np.frombuffer(b"".join(g.content for g in flat), np.uint8),
        "length": np.array([[len(g.content) for g in fold] for fold in graphs], np.int64),
        "seen": seen,
        "widths": widths_of(problem).astype(np.int64),
    }


def fold_of(member: Mapping[str, np.ndarray], fold: int) -> dict[str, np.ndarray]:
    """The member of one fold alone."""
    length = member["length"]
    start = int(length[:fold].sum())
    return {
        "onnx": member["onnx"][start : start + int(length[fold].sum())],
        "length": length[fold : fold + 1],
        "seen": member["seen"][fold : fold + 1],
        "widths": member["widths"],
    }


def predict_onnx(member: Mapping[str, np.ndarray], features: Features, task: str) -> np.ndarray:
    """As `predict_member`, of graphs: the mean over the folds."""
    length = member["length"]
    rows = columns_of(features, member["widths"])
    ends = length.ravel().cumsum().reshape(length.shape)
    total: Any = 0.0
    for f in range(len(length)):
        each = []
        for t in range(length.shape[1]):
            end = int(ends[f, t])
            content = member["onnx"][end - int(length[f, t]) : end].tobytes()
            each.append(_of_target(content, member["seen"][f, t], rows, task))
        total = total + (np.stack(each, axis=1) if has_several_targets(task) else each[0])
    return at_exposure(np.asarray(total / len(length)), features)


def _of_target(content: bytes, seen: np.ndarray, rows: np.ndarray, task: str) -> np.ndarray:
    """Probabilities [N, C] or numbers [N] of one target; of a label those of its second [N]."""
    if is_regression(task):
        return evaluate(content, rows, 1)[:, 0]
    out = np.zeros((len(rows), len(seen)))
    out[:, seen] = evaluate(content, rows, int(seen.sum()))
    return out[:, 1] if task == "multilabel" else out


@lru_cache(maxsize=64)
def _session(content: bytes) -> Any:
    """What evaluates a graph, with one thread; operators of its own only."""
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError(
            "The model has a member of scikit-learn as an ONNX graph, which needs onnxruntime, "
            f"found nothing of that name. Install it: {INSTALL}"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _numbers(graph: Any) -> int:
    """How many numbers the constants of a graph hold."""
    total = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    for node in graph.node:
        for given in node.attribute:
            total += len(given.floats) + len(given.ints)
            total += int(np.prod(given.t.dims)) if given.HasField("t") else 0
    return total


def _short(error: Exception) -> str:
    """The first line of what it says, not too long."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "it does not say why"
