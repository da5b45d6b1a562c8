"""The names of the tasks: what is predicted, classes or numbers, of one target or several."""

from __future__ import annotations

ONE_TARGET = ("binary", "multiclass", "regression")
SEVERAL_TARGETS = ("multilabel", "multioutput")
TASKS = (*ONE_TARGET, *SEVERAL_TARGETS)
_NUMBERS = ("regression", "multioutput")


def is_regression(task: str) -> bool:
    """Whether what is predicted are numbers, not classes."""
    return task in _NUMBERS


def has_several_targets(task: str) -> bool:
    """Whether truth and predictions have a column per target, [N, T]."""
    return task in SEVERAL_TARGETS


def part_of(task: str) -> str:
    """The task of one target column alone: "binary" for a label, "regression" for a number."""
    return {"multilabel": "binary", "multioutput": "regression"}.get(task, task)
