"""Class weights: how they are said, matched with the classes, and what they do to training."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight
from tables import check_here, table

from adanet_py import AdaNetClassifier, Candidate, saving, train
from adanet_py.class_weight import check_class_weight, class_weights, read_class_weight
from adanet_py.config import SearchConfig
from adanet_py.errors import ConfigError
from adanet_py.prepare import prepare, read


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (None, "none"),
        ("none", "none"),
        (" balanced ", "balanced"),
        ("yes=3,no=1", {"yes": 3.0, "no": 1.0}),
        ("yes = 3 , no = .5", {"yes": 3.0, "no": 0.5}),
        ("a=b=2", {"a=b": 2.0}),
        ('{"a, b": 3, "c": 1e-3}', {"a, b": 3.0, "c": 1e-3}),
        ({1: 3, 0: 1}, {"1": 3.0, "0": 1.0}),
        ({True: 2, "x": 1.5}, {"True": 2.0, "x": 1.5}),
        ({np.int64(4): np.float32(2)}, {"4": 2.0}),
        ({2.5: 2}, {"2.5": 2.0}),
    ],
)
def test_it_can_be_said_in_words_as_json_and_as_a_mapping(said, meant):
    assert read_class_weight(said) == meant
    config = SearchConfig(class_weight=said, candidates=1)
    assert config.class_weight == meant
    assert SearchConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("balance", r"expected balanced, none, or weights such as yes=3,no=1, found 'balance'\. "
                    r"Did you mean 'balanced'\?"),
        ("yes=3,no", r"found 'no' in 'yes=3,no'"),
        ("=3", "found '=3'"),
        ("yes=", "found '' for the class 'yes'"),
        ("yes=much", "found 'much' for the class 'yes'"),
        ("yes=0", r"found '0' for the class 'yes'\. Give a number above 0"),
        ("yes=-1", "found '-1'"),
        ("yes=inf", "found 'inf'"),
        ("yes=nan", "found 'nan'"),
        ("yes=1,yes=2", "found the class 'yes' twice"),
        ('{"yes": 1', "no JSON"),
        ('{"yes": true}', "found True for the class 'yes'"),
        ({}, "found {}"),
        ({"yes": None}, "found None"),
        (3, "found 3"),
        (["yes"], r"found \['yes'\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_an_error(said, message):
    with pytest.raises(ConfigError, match=f"--class-weight: .*{message}"):
        SearchConfig(class_weight=said)


@pytest.mark.parametrize(
    ("given", "classes", "expected"),
    [
        ({"yes": 3.0}, ("no", "yes"), (1.0, 3.0)),
        ({"1": 3.0, "0": 2.0}, (0, 1), (2.0, 3.0)),
        ({"1.0": 3.0}, (0, 1), (1.0, 3.0)),
        ({"True": 3.0}, (False, True), (1.0, 3.0)),
        ({"007": 3.0}, ("7", "x"), (3.0, 1.0)),
        ("none", ("a", "b"), None),
    ],
)
def test_labels_are_matched_as_those_of_the_target(given, classes, expected):
    check_class_weight(given, "binary", classes)
    assert class_weights(given, classes, np.array([0, 1])) == expected


def test_an_unknown_label_and_a_target_without_classes_are_errors():
    with pytest.raises(ConfigError, match=r"no class 'yess'\. Did you mean 'yes'\? Classes: no, y"):
        check_class_weight({"yess": 2.0}, "binary", ("no", "yes"))
    with pytest.raises(ConfigError, match=r"'1' and '1\.0' are the same class"):
        check_class_weight({"1": 2.0, "1.0": 3.0}, "binary", (0, 1))
    for given in ("balanced", {"1": 2.0}):
        with pytest.raises(ConfigError, match="expected a target of classes, found the task regre"):
            check_class_weight(given, "regression", ())
    check_class_weight("none", "regression", ())
    config = SearchConfig(target="target", class_weight="yse=2", candidates=1)
    with pytest.raises(ConfigError, match=r"no class 'yse'\. Did you mean 'yes'\?"):
        read(config, table())


@pytest.mark.parametrize("weighted", [False, True])
def test_balanced_classes_count_the_same(weighted):
    rng = np.random.default_rng(0)
    codes = rng.choice(3, 100, p=[0.1, 0.3, 0.6])
    w = rng.uniform(0.1, 3, 100) if weighted else None
    found = class_weights("balanced", ("a", "b", "c"), codes, w)
    each = np.bincount(codes, weights=np.asarray(found)[codes] * (1.0 if w is None else w))
    np.testing.assert_allclose(each, (100 if w is None else w.sum()) / 3)
    if not weighted:
        expected = compute_class_weight("balanced", classes=np.arange(3), y=codes)
        np.testing.assert_allclose(found, expected)
    assert class_weights("balanced", ("a", "b"), np.zeros(4, int)) == (0.5, 1.0)


def test_prepared_data_hold_a_weight_of_every_class(tmp_path):
    config = SearchConfig(target="target", class_weight="high=4,low=0.5", candidates=1)
    prepared = prepare(read(config, table("multiclass")), tmp_path, config.class_weight)
    assert prepared.target.classes == ("high", "low", "middle")
    assert prepared.class_weight == (4.0, 0.5, 1.0)


def _candidate(**static):
    static = {"depth": 0, "batch_size": 32, **static}
    return Candidate("mlp", static, "adamw", "constant", {"lr": 0.05}, seed=0)


def test_only_ratios_of_class_weights_matter():
    [one], [two], [other] = (
        train([_candidate()], table(), target="target", folds=1, epochs=5, class_weight=w)
        for w in ({"yes": 4, "no": 2}, {"yes": 2.0}, {"yes": 0.5})
    )
    assert one.metrics == pytest.approx(two.metrics, rel=1e-4)
    assert abs(one.metrics["validation"] - other.metrics["validation"]) > 1e-3


def test_a_class_weight_is_a_row_weight_in_training_and_none_in_the_score():
    frame = table()
    frame["importance"] = np.where(frame["target"] == "yes", 0.1, 1.0)
    options = {"target": "target", "folds": 1, "epochs": 10, "metric": "recall"}
    candidates = [_candidate()]
    [plain] = train(candidates, frame.drop(columns="importance"), **options)
    [classes] = train(
        candidates, frame.drop(columns="importance"), **options, class_weight={"yes": 0.1}
    )
    [rows] = train(candidates, frame, **options, weight="importance")
    # Recall reads rows of one class only, so that their common weight does not matter to it.
    assert classes.metrics == pytest.approx(rows.metrics)
    assert classes.metrics["validation"] < plain.metrics["validation"]


@pytest.mark.parametrize("labels", [("no", "yes"), (0, 1), (False, True), (1.0, 2.0)])
def test_the_estimator_takes_weights_by_its_labels(labels, monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    frame, codes = table().drop(columns="target"), (table()["target"] == "yes").to_numpy(int)
    y = np.array(labels)[codes]
    options = {"candidates": 1, "space": "tiny", "folds": 1, "workers": 0, "random_state": 0}
    heavy = AdaNetClassifier(**options, class_weight={labels[1]: 30.0}).fit(frame, y)
    light = AdaNetClassifier(**options, class_weight={labels[0]: 30.0}).fit(frame, y)
    assert heavy.predict_proba(frame)[:, 1].mean() > light.predict_proba(frame)[:, 1].mean() + 0.1
    with pytest.raises(ValueError, match="the target has no class 'maybe'"):
        AdaNetClassifier(**options, class_weight={"maybe": 2.0}).fit(frame, y)
    with pytest.raises(ValueError, match="a number above 0"):
        AdaNetClassifier(**options, class_weight={labels[0]: 0}).fit(frame, y)
