"""The protocols of AdaNet's paper and of its tutorial: data, features, folds, methods.

Used by reproduce_adanet.py, whose docstring says what they are.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from adanet_py.config import SearchConfig
from adanet_py.data.spec import DataSpec
from adanet_py.prepare import prepare, read
from adanet_py.subnetworks.growing import Growing
from adanet_py.subnetworks.options import GrowthOptions, with_variants
from adanet_py.subnetworks.problem import Problem, Task
from adanet_py.subnetworks.rounds import grow
from adanet_py.subnetworks.tables import run

PAIRS = {
    "pullover / coat": (2, 4),
    "shirt / T-shirt": (6, 0),
    "sneaker / ankle boot": (7, 9),
}
METHODS = ("logistic regression", "network", "AdaNet")
PLAIN = dict(lambda_=0.0, beta=0.0, uniform=True, bias=False, rounds=1)
# By images that are not among those reported: subnetworks trained on what the ensemble lacks, and
# connected ones, have 0.5 to 1 point less than one network, those trained for themselves as much or
# more; selected by F on the training rows they are three, as further ones do not lower it.
ALONE = {"goal": "alone", "read": "none", "selection": "moving_average"}
PAPER = {"goal": "ensemble", "read": "all", "selection": "training", "uniform": False}
PLAIN_NAME = "as in the paper"
CELLS, ANGLES, LEVELS = 4, 9, 10
LAMBDAS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


@dataclass(frozen=True)
class Size:
    """How much is done; of the table so many rows each to train, validate and test.

    Of a pair, `rows` images, those from `first` on of each class: the ones before it were used to
    make AdaNet and the settings what they are. `settings` are those of each method with networks.
    """

    first: int = 3000
    rows: int = 3000
    folds: int = 10
    settings: int = 10
    table_rows: int = 2000
    seeds: int = 10


QUICK = Size(rows=200, folds=3, settings=2, table_rows=300, seeds=2)


# ------------------------------------------------------------------------------- the data


def read_images(
    folder: Path, classes: Sequence[int], rows: int, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Training images [N, 28, 28] in 0 to 1, as many of each class, and their codes.

    Of a class they follow one another, those before `first` left out.
    """
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    at = [np.flatnonzero(labels == c)[first : first + rows // 2] for c in classes]
    return np.concatenate([images[a] for a in at]) / 255.0, np.repeat([0, 1], rows // 2)


def features(images: np.ndarray) -> np.ndarray:
    """154 numbers of an image, as many as in the paper: histograms of gradients and of levels.

    In each of 4 x 4 cells the sizes of the gradients, added up by direction (nine of 20 degrees,
    the sign left out) and divided by their norm over the image; and the shares of ten grey levels.
    """
    down, right = np.gradient(images, axis=(1, 2))
    size = np.hypot(down, right)
    angle = (np.arctan2(down, right) % np.pi) / np.pi * ANGLES
    direction = np.minimum(angle.astype(int), ANGLES - 1)
    place = np.arange(images.shape[1]) * CELLS // images.shape[1]
    cell = place[:, None] * CELLS + place[None, :]
    bins = CELLS * CELLS * ANGLES
    index = np.arange(len(images))[:, None, None] * bins + cell * ANGLES + direction
    found = np.bincount(index.ravel(), size.ravel(), len(images) * bins).reshape(-1, bins)
    norm = np.linalg.norm(found, axis=1, keepdims=True)
    level = np.minimum((images * LEVELS).astype(int), LEVELS - 1)
    shares = np.stack([(level == k).mean(axis=(1, 2)) for k in range(LEVELS)], 1)
    return np.concatenate([found / np.maximum(norm, 1e-12), shares], 1)


def folds_of(y: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(training, validation, test) rows: fold i is the test, the next one the validation."""
    parts = [test for _, test in StratifiedKFold(count, shuffle=True, random_state=0).split(y, y)]
    return [
        (
            np.concatenate([p for k, p in enumerate(parts) if k not in (i, (i + 1) % count)]),
            parts[(i + 1) % count],
            parts[i],
        )
        for i in range(count)
    ]


# ------------------------------------------------------------------------------- the methods


def grid(method: str, size: Size) -> list[dict[str, Any]]:
    """The settings of a method; those of networks drawn at random, the same in every run.

    What a network is made of is drawn alike for the network and for the subnetworks of AdaNet.
    """
    rng = np.random.default_rng(METHODS.index(method))

    def log(low: float, high: float) -> float:
        return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.3g}")

    if method == "logistic regression":
        return [{"C": 10.0**k} for k in range(-4, 5)][: 9 if size.settings > 2 else 3]
    out = []
    for _ in range(size.settings):
        depth = int(rng.integers(1, 3))
        setting: dict[str, Any] = {
            "learning_rates": (log(1e-3, 2e-2),),
            "weight_decay": log(1e-2, 3.0),
            "epochs": float(rng.choice([8, 16])),
            "widths": (int(rng.choice([32, 64, 128])),),
            "dropout": float(rng.choice([0.0, 0.25, 0.5])),
            "first": depth,
            "deepest": depth,
        }
        if method == "AdaNet":
            setting |= ALONE | {"rounds": int(rng.choice([4, 6])), "uniform": bool(rng.choice(2))}
            setting |= {"lambda_": log(1e-6, 1e-2), "beta": log(1e-6, 1e-3)}
        out.append(setting)
    return out


def options_of(method: str, setting: dict[str, Any]) -> GrowthOptions:
    """A network is an AdaNet of one round, one depth and the weight 1."""
    return GrowthOptions(batch_size=128, **(PLAIN if method == "network" else {}) | setting)


def accuracies(growing: Growing, problem: Problem, parts: Iterable[np.ndarray]) -> list[float]:
    """On parts of the rows."""
    module, _ = growing.network()
    return [
        float(((run(module, problem, rows)[:, 0] > 0) == problem.y[rows]).mean()) for rows in parts
    ]


def run_pair(pair: str, method: str, at: int, data: Path, size: Size) -> list[dict[str, Any]]:
    """One setting of a method, by number, in every fold: a row each."""
    x, y = read_pair(pair, data, size)
    folds, setting = folds_of(y, size.folds), grid(method, size)[at]
    began = time.monotonic()
    if method == "logistic regression":
        found = [_logistic(x, y, fold, setting) for fold in folds]
    else:
        found = _networks(x, y, folds, options_of(method, setting))
    seconds = (time.monotonic() - began) / len(folds)
    return _rows("pairs", pair, method, at, setting, found, seconds)


@cache
def read_pair(pair: str, data: Path, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, 154] and classes [N]."""
    folder = data / "images" / "fashion_mnist"
    images, y = read_images(folder, PAIRS[pair], size.rows, size.first)
    return features(images), y


def run_variant(
    pair: str, name: str, data: Path, size: Size, setting: dict[str, Any], at: int
) -> list[dict[str, Any]]:
    """AdaNet as its paper has it with one setting, or the variant of that name."""
    x, y = read_pair(pair, data, size)
    folds = folds_of(y, size.folds)
    lists = {name: tuple(v) for name, v in setting.items() if isinstance(v, list)}
    paper = setting | lists | PAPER | {"deepest": setting["deepest"] + 1}
    began = time.monotonic()
    names = [] if name == PLAIN_NAME else [name]
    found = _networks(x, y, folds, with_variants(options_of("AdaNet", paper), names))
    seconds = (time.monotonic() - began) / len(folds)
    return _rows("variants", pair, name, at, setting, found, seconds)


def _rows(
    part: str, pair: str, method: str, at: int, setting: Any, found: list[Any], seconds: float
) -> list[dict[str, Any]]:
    return [
        {
            "part": part, "data": pair, "method": method, "setting": at, "fold": fold,
            "validation": valid, "test": test, "members": members, "depth": depth,
            "seconds": round(seconds, 3), "values": json.dumps(setting),
        }
        for fold, (valid, test, members, depth) in enumerate(found)
    ]  # fmt: skip


def _standardised(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """By mean and deviation of these rows; what does not vary there is 0."""
    mean, scale = x[rows].mean(0), x[rows].std(0)
    return np.where(scale > 1e-9, (x - mean) / np.maximum(scale, 1e-9), 0.0)


def _logistic(x: np.ndarray, y: np.ndarray, fold: Any, setting: Any) -> tuple[Any, ...]:
    train, *parts = fold
    z = _standardised(x, train)
    model = LogisticRegression(C=setting["C"], max_iter=2000).fit(z[train], y[train])
    return (*(float((model.predict(z[p]) == y[p]).mean()) for p in parts), 1, 0)


def _networks(x: np.ndarray, y: np.ndarray, folds: Any, options: GrowthOptions) -> list[Any]:
    """All folds at once: each has columns standardised by its own training rows."""
    n = len(y)
    numeric = np.concatenate([_standardised(x, train) for train, *_ in folds]).astype(np.float32)
    problem = Problem(
        DataSpec("binary", 1, x.shape[1]),
        numeric,
        np.zeros((len(numeric), 0), np.int32),
        np.tile(y, len(folds)),
    )
    tasks = [Task(train + f * n, options, f) for f, (train, *_) in enumerate(folds)]
    out = []
    for f, (growing, (_, *parts)) in enumerate(zip(grow(problem, tasks), folds, strict=True)):
        if not growing.members:  # nothing is worth its penalty: the more frequent class
            scores = [float((y[p] == round(y.mean())).mean()) for p in parts]
        else:
            scores = accuracies(growing, problem, [p + f * n for p in parts])
        depth = max((len(w) for w in growing.widths), default=0)
        out.append((*scores, len(growing.members), depth))
    return out


# ------------------------------------------------------------------------------- the tutorial


def run_tutorial(data: Path, size: Size) -> list[dict[str, Any]]:
    """Mean squared errors of log1p(y), a row per seed and way to weigh."""
    frame = pd.read_csv(
        data / "tables" / "california_housing.csv.gz", keep_default_na=False, na_values=[""]
    )
    name = "median_house_value"
    frame[name] = np.log1p(frame[name])
    alone = GrowthOptions(
        rounds=3, first=0, widths=(64,), learning_rates=(3e-3,), epochs=20, batch_size=128,
        goal="alone", lambda_=0.0, beta=0.0, bias=True,
    )  # fmt: skip
    ways = {
        "uniform": replace(alone, uniform=True, bias=False),
        "learned": alone,
        **{f"learned, lambda {v:g}": replace(alone, lambda_=v) for v in LAMBDAS},
        "on the ensemble's loss": replace(alone, goal="ensemble"),
    }
    out = []
    for seed in range(size.seeds):
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(frame))
        train, valid, test = np.split(rows[: 3 * size.table_rows], 3)
        part = np.repeat(["train", "valid", "audit"], size.table_rows)
        picked = frame.iloc[np.concatenate([train, valid, test])].reset_index(drop=True)
        picked["part of the rows"] = part
        config = SearchConfig(target=name, split="part of the rows", folds=1, candidates=1)
        with tempfile.TemporaryDirectory() as scratch:
            prepared = prepare(read(config, picked), Path(scratch))
            taken = prepared.source.take(slice(None))
        problem = Problem(prepared.source.spec, taken["quantile"], taken["category"], taken["y"])
        split, scale = prepared.split, float(np.asarray(prepared.target_scale[1]))
        began = time.monotonic()
        tasks = [Task(split.train[0], options, seed) for options in ways.values()]
        for (way, options), growing in zip(ways.items(), grow(problem, tasks), strict=True):
            module, _ = growing.network()
            errors = [
                float(np.mean((run(module, problem, r)[:, 0] - problem.y[r]) ** 2)) * scale**2
                for r in (split.valid[0], split.audit)
            ]
            out.append({
                "part": "tutorial", "data": "california_housing", "method": way, "setting": 0,
                "fold": seed, "validation": errors[0], "test": errors[1],
                "members": len(growing.members), "depth": max(len(w) for w in growing.widths),
                "seconds": round((time.monotonic() - began) / len(ways), 3),
                "values": json.dumps({"lambda": options.lambda_}),
            })  # fmt: skip
    return out
