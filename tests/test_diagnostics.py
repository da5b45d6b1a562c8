"""Problems named from a curve alone: each is seen where it is, and sound curves have none."""

from __future__ import annotations

import math
from typing import Any

import pytest

from adanet_py.leaderboard import curves
from adanet_py.metrics import METRICS
from adanet_py.records import Candidate, Evaluation, Result, Status
from adanet_py.training.diagnostics import PROBLEMS, diagnose, names, sentence

N = 12
NAN = math.nan


def curve(**columns: Any) -> list[Evaluation]:
    """A sound learning curve of N points, with some columns changed (a value or a list)."""
    sound: dict[str, Any] = {
        "step": [10 * (i + 1) for i in range(N)],
        "epoch": [float(i + 1) for i in range(N)],
        "lr": 0.01,
        "train_loss": [0.8**i for i in range(N)],
        "validation": [0.1 + 0.8**i for i in range(N)],
        "grad_norm": 1.0,
        "update_ratio": 1e-3,
        "depth_ratio": 0.3,
        "dead_units": 0.1,
        "curvature": 2.0,
    } | columns
    lists = {n: v if isinstance(v, list) else [v] * N for n, v in sound.items()}
    size = min(len(v) for v in lists.values())
    return [Evaluation(**{n: v[i] for n, v in lists.items()}) for i in range(size)]


def tail(values: list[float], end: list[float]) -> list[float]:
    return values[: N - len(end)] + end


SOUND = [0.8**i for i in range(N)]

SICK: dict[str, tuple[dict[str, Any], str]] = {
    "divergence": ({"train_loss": tail(SOUND, [NAN])}, "between steps 110 and 120"),
    "exploding gradients": ({"depth_ratio": 5e4}, "5e+04 times"),
    "vanishing gradients": ({"depth_ratio": 2e-7}, "2e-07 of the last"),
    "dead units": ({"dead_units": [0.0] * (N - 1) + [0.75]}, "75% of the hidden units"),
    "large steps": ({"update_ratio": 0.5}, "by 0.5 of their norm"),
    "small steps": ({"update_ratio": 3e-7}, "by 3e-07 of their norm at most"),
    "overfitting": (
        {"validation": [0.5, 0.4, 0.3, 0.35, 0.4, 0.45, *[0.5] * (N - 6)]},
        "since step 30",
    ),
    "plateau": ({"validation": [0.5, 0.4, 0.3, *[0.3001] * (N - 3)]}, "since step 30"),
}


def test_a_sound_curve_has_no_problem() -> None:
    for end in range(N + 1):
        assert names(curve()[:end], False) == ""
    assert sentence(Status.COMPLETE, curve(), False) == Status.COMPLETE.value


@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_each_problem_is_named_with_what_was_seen(name: str) -> None:
    changed, words = SICK[name]
    (problem,) = diagnose(curve(**changed), False)
    assert problem.name == name
    assert words in problem.text


@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_the_direction_of_the_metric_is_minded(name: str) -> None:
    changed, _ = SICK[name]
    points = curve(**changed)
    turned = curve(**changed | {"validation": [-e.validation for e in points]})
    assert names(turned, True) == names(points, False)


def test_a_rise_of_the_loss_is_divergence_before_it_is_infinite() -> None:
    (problem,) = diagnose(curve(train_loss=tail(SOUND, [2.0, 9.0])), False)
    assert problem.name == "divergence"
    assert "from 0.134 at step 100 to 9" in problem.text
    # A loss that may be negative has its size, too.
    negative = [-v for v in SOUND][::-1]
    assert names(curve(train_loss=negative[::-1]), False) == ""
    assert names(curve(train_loss=tail(negative, [3.0])), False) == "divergence"


def test_a_norm_that_jumps_with_the_loss_is_exploding_and_without_it_is_not() -> None:
    jump = [1.0] * (N - 1) + [500.0]
    assert names(curve(grad_norm=jump), False) == ""
    points = curve(grad_norm=jump, train_loss=tail(SOUND, [math.inf]))
    assert names(points, False) == "divergence; exploding gradients"
    assert "by step 120" in diagnose(points, False)[1].text


def test_what_follows_from_another_problem_is_not_named() -> None:
    flat = {"validation": 0.6931, "train_loss": 0.6931}
    sick = curve(depth_ratio=1e-8, update_ratio=1e-7, **flat)
    assert names(sick, False) == "vanishing gradients; plateau"
    assert names(curve(train_loss=tail(SOUND, [NAN]), validation=0.5), False) == "divergence"


def test_old_curves_without_the_later_fields_have_only_what_can_be_seen() -> None:
    old = [Evaluation(e.step, e.epoch, e.lr, e.train_loss, 0.5, 1.0) for e in curve()]
    assert names(old, False) == "plateau"


def test_one_evaluation_is_enough_for_divergence_and_nothing_for_an_empty_curve() -> None:
    assert names([], False) == ""
    broken = curve(train_loss=[NAN], update_ratio=[40.0])
    assert names(broken, False) == "divergence; large steps"
    assert "between steps 0 and 10" in sentence(Status.DIVERGED, broken, False)


def test_the_sentence_is_the_status_and_then_the_problems() -> None:
    points = curve(dead_units=0.9, depth_ratio=1e-9)
    text = sentence(Status.PRUNED, points, False)
    assert text.startswith(f"{Status.PRUNED.value}; vanishing gradients: ")
    assert "; dead units: 90%" in text
    broken = sentence(Status.DIVERGED, curve(train_loss=tail(SOUND, [NAN])), False)
    assert broken == f"{Status.DIVERGED.value}, between steps 110 and 120"


def test_the_table_of_curves_names_a_problem_from_the_row_on_where_it_shows() -> None:
    points = curve(dead_units=[0.0] * 8 + [0.6] * 4)
    result = Result(Candidate("mlp"), Status.COMPLETE, curve=tuple(points))
    table = curves([result], METRICS["log_loss"])
    assert table["diagnosis"].isna().tolist() == [True] * 8 + [False] * 4
    assert set(table["diagnosis"].dropna()) == {"dead units"}


def test_a_journal_of_before_is_read() -> None:
    line = Result(Candidate("mlp"), Status.COMPLETE, curve=tuple(curve())).to_json()
    line["curve"] = [row[:6] for row in line["curve"]]
    back = Result.from_json(line)
    assert [e.grad_norm for e in back.curve] == [1.0] * N
    assert all(math.isnan(e.dead_units) for e in back.curve)
