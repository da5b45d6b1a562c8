"""`adanet_py.train`: given candidates on given data, without a search."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

import adanet_py
from adanet_py.architectures import ARCHITECTURES
from adanet_py.errors import AdanetError, ConfigError, DataError, SpaceError
from adanet_py.records import Candidate, Result, Status
from adanet_py.training.optimizers import OPTIMIZERS
from adanet_py.training.schedules import SCHEDULES

ROWS = 240
CANDIDATE = Candidate(
    "mlp",
    static={"depth": 2, "width": 64, "activation": "relu", "norm": "none", "batch_size": 256},
    optimizer="adam",
    schedule="constant",
    numeric={"lr": 1e-3},
    seed=0,
)
SMALL = {"depth": 1, "width": 8, "batch_size": 32}


def table(task: str = "binary", rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "size": rng.normal(size=rows),
            "age": rng.uniform(1, 90, rows),
            "kind": rng.choice(["red", "green", "blue"], rows),
        }
    )
    frame.loc[::17, "age"] = np.nan
    signal = 2 * frame["size"] + (frame["kind"] == "red") + 0.3 * rng.normal(size=rows)
    if task == "regression":
        return frame.assign(y=100.0 + 7.0 * signal)
    names = ["no", "yes"] if task == "binary" else ["a", "b", "c"]
    cuts = np.quantile(signal, np.arange(1, len(names)) / len(names))
    return frame.assign(y=np.array(names)[np.searchsorted(cuts, signal)])


def train(candidates: list[Candidate], data: Any = None, **options: Any) -> list[Result]:
    data = table() if data is None else data
    return adanet_py.train(candidates, data, **({"target": "y", "folds": 3, "epochs": 3} | options))


def timeless(result: Result) -> dict[str, Any]:
    return replace(result, seconds=0.0, latency_ms=0.0).to_json()


def test_trains_a_candidate_to_the_last_epoch() -> None:
    (result,) = train([CANDIDATE], epochs=40)
    assert result.candidate == CANDIDATE
    assert result.status is Status.COMPLETE
    assert result.steps == 40  # a batch larger than the fold is the fold
    assert 0 < result.step <= 40
    assert set(result.metrics) == {"train", "validation"}
    # A constant prediction has a log loss of log 2.
    assert result.metrics["validation"] < 0.8 * math.log(2)
    # 3 numeric inputs (two columns, one missing indicator) and 3 colours.
    inputs = 6
    weights = inputs * 64 + 64 * 64 + 64
    assert result.multiply_adds == 3 * weights
    assert result.parameters == 3 * (weights + 64 + 64 + 1)
    assert [e.lr for e in result.curve] == pytest.approx([1e-3] * len(result.curve))


@pytest.mark.parametrize("folds", [None, 3])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_beats_the_constant_on_every_task(task: str, folds: int | None) -> None:
    data = table(task)
    fast = Candidate("mlp", SMALL, "adam", numeric={"lr": 0.03})
    (result,) = train([fast], data, epochs=10, folds=folds)
    constant = {"binary": math.log(2), "multiclass": math.log(3)}
    worst = constant.get(task, float(data["y"].std()) if task == "regression" else 0.0)
    assert result.metrics["validation"] < 0.7 * worst


def test_results_come_in_the_order_of_the_candidates() -> None:
    candidates = [
        Candidate("mlp", SMALL, "adam", numeric={"lr": 0.01}, seed=1),
        Candidate("tabm", SMALL | {"members": 2}, "adam", numeric={"lr": 0.01}),
        Candidate("mlp", SMALL, "adam", "cosine", numeric={"lr": 0.02, "dropout": 0.2}, seed=1),
        Candidate("mlp", SMALL, "sgd", numeric={"lr": 0.01}, seed=1),
    ]
    candidates.append(candidates[0])
    results = train(candidates)
    assert [r.candidate for r in results] == candidates
    assert all(r.status is Status.COMPLETE for r in results)
    assert results[0] is results[4] or results[0].to_json() == results[4].to_json()
    # The same candidate trained alone is the same experiment.
    for k in (0, 2):
        (alone,) = train([candidates[k]])
        assert alone.metrics["validation"] == pytest.approx(
            results[k].metrics["validation"], rel=1e-3
        )


def test_the_engines_agree() -> None:
    numeric = ({"lr": 0.01}, {"lr": 0.02, "dropout": 0.3, "weight_decay": 0.1})
    candidates = [Candidate("mlp", SMALL, numeric=n, seed=i) for i, n in enumerate(numeric)]
    fused, plain = train(candidates), train(candidates, engine="separate")
    for one, other in zip(fused, plain, strict=True):
        assert (one.engine, other.engine) == ("stacked", "separate")
        for name, value in other.metrics.items():
            assert one.metrics[name] == pytest.approx(value, rel=1e-3)


def test_the_same_call_gives_the_same_results() -> None:
    candidates = [Candidate("mlp", SMALL, numeric={"lr": 0.01, "dropout": 0.2})]
    first, second = train(candidates), train(candidates)
    assert [timeless(r) for r in first] == [timeless(r) for r in second]
    other = train(candidates, seed=1)
    assert timeless(other[0]) != timeless(first[0])
    reseeded = train([replace(candidates[0], seed=5)])
    assert reseeded[0].metrics != first[0].metrics


def test_every_optimizer_and_schedule_trains() -> None:
    schedules = cycle(sorted(SCHEDULES))
    each = [Candidate("mlp", SMALL, o, next(schedules)) for o in sorted(OPTIMIZERS)]
    each += [Candidate("mlp", SMALL, "adamw", schedule) for schedule in sorted(SCHEDULES)]
    results = train(each, epochs=2)
    assert [r.status for r in results] == [Status.COMPLETE] * len(each)
    assert len({r.metrics["validation"] for r in results}) > len(each) // 2


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "rms"])
def test_every_norm_trains_and_is_kept(norm: str, tmp_path: Path) -> None:
    candidates = [Candidate(name, {"norm": norm, "width": 8}) for name in ("mlp", "resnet")]
    results = train(candidates, epochs=2, out=tmp_path)
    assert all(r.status is Status.COMPLETE for r in results)


def test_a_diverging_candidate_is_a_result() -> None:
    candidates = [
        Candidate("mlp", SMALL, "sgd", numeric={"lr": lr}, seed=3) for lr in (0.01, 100.0)
    ]
    good, bad = train(candidates, table("regression"), epochs=30)
    assert good.status is Status.COMPLETE
    assert bad.status is Status.DIVERGED
    assert bad.message.startswith("diverged: ")
    assert "between steps 0 and" in bad.message
    assert not bad.metrics


def test_out_keeps_weights_and_predictions(tmp_path: Path) -> None:
    (result,) = train([Candidate("mlp", SMALL)], out=tmp_path / "new" / "folder")
    path = tmp_path / "new" / "folder" / "candidates" / f"{result.candidate.id}.safetensors"
    with safe_open(path, framework="np") as file:
        predictions = file.get_tensor("predictions/validation")
    assert predictions.shape == (ROWS, 1)


def test_the_same_folder_may_be_used_for_other_data(tmp_path: Path) -> None:
    candidates = [Candidate("mlp", SMALL)]
    first = train(candidates, table(seed=1), out=tmp_path)
    second = train(candidates, table(seed=2, rows=150), out=tmp_path)
    assert second[0].metrics != first[0].metrics
    fresh = train(candidates, table(seed=2, rows=150))
    assert timeless(second[0]) == timeless(fresh[0])


def test_the_metric_can_be_chosen_and_arrays_are_data() -> None:
    data = table()
    candidates = [Candidate("mlp", SMALL, "adam", numeric={"lr": 0.03})]
    (result,) = train(candidates, metric="accuracy", epochs=10)
    assert 0.7 < result.metrics["validation"] <= 1.0
    x = data[["size", "age"]].to_numpy()
    (arrays,) = adanet_py.train(candidates, x, y=data["y"].to_numpy(), epochs=3, folds=3)
    assert arrays.status is Status.COMPLETE


def test_an_architecture_of_the_users_own() -> None:
    own = replace(ARCHITECTURES["mlp"], name="own", multiply_adds=None)
    (result,) = train([Candidate("own", SMALL)], architectures=[own])
    assert result.status is Status.COMPLETE
    with pytest.raises(SpaceError, match="own"):
        train([Candidate("own", SMALL)])


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (Candidate("mpl"), ("architecture", "mpl", "mlp")),
        (Candidate("mlp", optimizer="adm"), ("optimizer", "adm", "adam")),
        (Candidate("mlp", schedule="cosin"), ("schedule", "cosin", "cosine")),
        (Candidate("mlp", {"dept": 2}), ("dept", "depth")),
        (Candidate("mlp", numeric={"learning_rate": 0.1}), ("learning_rate",)),
        (Candidate("mlp", {"activation": "rely"}), ("activation", "rely", "relu")),
        (Candidate("mlp", {"width": 0}), ("width", "0")),
        (Candidate("mlp", {"width": 2.5}), ("width", "2.5")),
        (Candidate("mlp", {"width": True}), ("width", "True")),
        (Candidate("mlp", numeric={"lr": -1.0}), ("lr", "-1.0")),
        (Candidate("mlp", numeric={"lr": float("nan")}), ("lr", "nan")),
        (Candidate("mlp", optimizer="sgd", numeric={"beta1": 0.9}), ("beta1",)),
    ],
)
def test_what_is_unknown_or_illegal_is_named(candidate: Candidate, words: tuple[str, ...]) -> None:
    with pytest.raises(SpaceError) as caught:
        train([CANDIDATE, candidate])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"epochs": 0}, ConfigError),
        ({"epochs": -1}, ConfigError),
        ({"epochs": float("nan")}, ConfigError),
        ({"epochs": float("inf")}, ConfigError),
        ({"engine": "stackd"}, ConfigError),
        ({"metric": "log_los"}, ConfigError),
        ({"metric": "rmse"}, ConfigError),
        ({"target": "nowhere"}, DataError),
        ({"folds": 1000}, AdanetError),
    ],
)
def test_bad_options_are_errors_before_any_training(
    options: dict[str, Any], error: type[AdanetError]
) -> None:
    with pytest.raises(error):
        train([CANDIDATE], **options)


def test_no_candidates_give_no_results() -> None:
    assert train([]) == []
