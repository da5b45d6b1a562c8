"""Models of scikit-learn given as members: read from text, fitted by fold, saved as ONNX graphs."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import PoissonRegressor, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVR
from tables import check_here, few_trees, table
from typer.testing import CliRunner

import adanet_py
from adanet_py import loop, saving
from adanet_py.baselines import given, make_problem, onnx_models, predict_member
from adanet_py.baselines.model_text import check_text, name_models, read_model, write_model
from adanet_py.cli import app
from adanet_py.config import SearchConfig
from adanet_py.data.splits import Split
from adanet_py.data.target import Target
from adanet_py.data.targets import Targets
from adanet_py.ensembling import Options
from adanet_py.errors import ConfigError
from adanet_py.member_fits import MemberFits, main
from adanet_py.model import load
from adanet_py.regrow import regrow
from adanet_py.state import read_state

pytestmark = pytest.mark.usefixtures("reloaded_here")

MODELS = [
    RandomForestClassifier(7, class_weight={"yes": 2.0, "no": 1}, max_depth=3),
    make_pipeline(StandardScaler(with_mean=False), KNeighborsClassifier(n_neighbors=5, p=1)),
    GaussianProcessRegressor(kernel=1.0 * RBF(length_scale=0.123456789) + WhiteKernel()),
    SVR(C=1e-5, gamma=0.5),
]


def with_onnx():
    pytest.importorskip("skl2onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")


# ---------------------------------------------------------------------- text


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_a_model_written_as_text_is_read_as_the_same(model):
    text = write_model(model)
    again = read_model(text)
    assert type(again) is type(model)
    assert write_model(again) == text
    deep = {k: v for k, v in model.get_params().items() if not hasattr(v, "get_params")}
    found = again.get_params()
    plain = {k: v for k, v in deep.items() if k != "steps"}
    assert {k: found[k] for k in plain} == plain


def test_a_text_may_name_modules_and_leave_out_parentheses():
    assert isinstance(read_model("sklearn.svm.SVR"), SVR)
    assert read_model("sklearn.linear_model.Ridge(alpha=-2.5)").alpha == -2.5
    assert read_model("make_pipeline(StandardScaler(), Ridge(3))").steps[-1][1].alpha == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SVC(C=", "which cannot be read"),
        ("SVC(C=(lambda: 1)())", "the name of a class of scikit-learn, found 'lambda"),
        ("__import__('os').system('true')", "the name of a class of scikit-learn"),
        ("SVC(C=[x for x in (1, 2)])", "plain values or other such objects"),
        ("SVC(*[1])", "found \\*"),
        ("SVC(**{'C': 1})", "found \\*"),
        ("os.system('true')", "in none of scikit-learn's modules"),
        ("sklearn.os.system('true')", "in none of scikit-learn's modules"),
        ("RandomForest()", "Did you mean RandomForest"),
        ("SVC(D=1)", "cannot be made"),
        ("Pipeline([('a', Ridge())], memory='here')", "expected no memory="),
    ],
)
def test_a_text_that_is_no_model_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        read_model(text)


def test_reading_a_text_without_making_it_imports_nothing_and_names_what_is_wrong():
    assert check_text(" SVC(C=3) ") == "SVC(C=3)"
    with pytest.raises(ConfigError, match="plain values"):
        check_text("SVC(C=1 + 1)")


def test_what_text_cannot_say_is_refused():
    with pytest.raises(ConfigError, match=r"FunctionTransformer\.func"):
        write_model(make_pipeline(FunctionTransformer(np.log1p), Ridge()))

    class Own(Ridge):
        pass

    with pytest.raises(ConfigError, match="holds no code"):
        write_model(Own())
    with pytest.raises(ConfigError, match="expected a model of scikit-learn"):
        write_model(3)


def test_models_are_called_by_their_class_and_number():
    texts = ["SVC(C=1)", "make_pipeline(StandardScaler(), SVC())", "sklearn.svm.SVC",
             "Pipeline(steps=[('a', StandardScaler()), ('b', Ridge())])"]  # fmt: skip
    assert list(name_models(texts)) == ["SVC", "SVC_2", "SVC_3", "Ridge"]


@pytest.mark.parametrize(
    ("members", "joining", "models"),
    [
        ("networks", "networks", []),
        ("any", "any", []),
        (["networks"], "networks", []),
        (["SVC()"], "given", ["SVC()"]),
        ("SVC()", "given", ["SVC()"]),
        (["SVC()", "any", "Ridge"], "any", ["SVC()", "Ridge"]),
    ],
)
def test_the_options_say_who_may_join(members, joining, models):
    config = SearchConfig(members=members)
    assert (config.joining, list(config.models.values())) == (joining, models)
    assert SearchConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("members", ["trees", "an", 3, ["SVC()", "all"]])
def test_an_unknown_word_is_refused(members):
    with pytest.raises(ConfigError, match="--members: expected networks, any or a model"):
        SearchConfig(members=members)


# ---------------------------------------------------------------------- fitting


def folds(rows, audit=20):
    order = np.random.default_rng(5).permutation(rows)
    rest = np.sort(order[audit:])
    valid = np.array_split(rest, 2)
    train = tuple(np.setdiff1d(rest, v) for v in valid)
    return Split("folds", train, tuple(valid), np.sort(order[:audit]), "in halves")


def problem(task, rows=160, weight=False, **more):
    rng = np.random.default_rng(3)
    numeric = rng.normal(size=(rows, 3)).astype(np.float32)
    category = rng.integers(0, 4, (rows, 1)).astype(np.int32)
    value = numeric[:, 0] + (category[:, 0] == 2) + 0.4 * rng.normal(size=rows)
    second = numeric[:, 1] - numeric[:, 0]
    one = Target("regression", (), 50.0, 9.0)
    label = Target("binary", ("no", "yes"))
    cases = {
        "binary": ((value > 0).astype(np.int64), label),
        "multiclass": (np.digitize(value, [-0.5, 0.5]), Target("multiclass", ("a", "b", "c"))),
        "regression": (value.astype(np.float32), one),
        "multilabel": (
            np.stack([value > 0, second > 0.5], 1).astype(np.int64),
            Targets("multilabel", ("p", "q"), (label, label)),
        ),
        "multioutput": (
            np.stack([value, second], 1).astype(np.float32),
            Targets("multioutput", ("p", "q"), (one, Target("regression", (), -3.0, 2.0))),
        ),
    }
    y, target = cases[task]
    w = rng.uniform(0.2, 3.0, rows) if weight else None
    features = {"quantile": numeric, "category": category}
    return make_problem(features, y, w, task, "log_loss", target, **more)


def read_by_hand(found, rows):
    """The columns a model reads, float64."""
    codes = np.asarray(found.features["category"][rows, 0])
    return np.hstack([found.features["quantile"][rows], np.eye(4)[codes]]).astype(np.float64)


ORACLES = {
    "binary": "RandomForestClassifier(20, min_samples_leaf=3, random_state=1)",
    "multiclass": "LogisticRegression(C=3.0)",
    "regression": "RandomForestRegressor(20, random_state=1)",
    "multilabel": "GaussianNB()",
    "multioutput": "Ridge(alpha=2.0)",
}


@pytest.mark.parametrize("weight", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("task", ORACLES)
def test_a_member_predicts_what_the_model_fitted_in_each_fold_predicts(task, weight):
    with_onnx()
    found, split = problem(task, weight=weight), folds(160)
    baseline = given.given_baseline(found, split, "name", ORACLES[task])
    assert ORACLES[task] in baseline.message
    assert baseline.parameters > 0
    valid, audit = [], 0.0
    for train, held in zip(split.train, split.valid, strict=True):
        w = None if found.weight is None else found.weight[train]
        targets = found.y[:, None] if found.y.ndim == 1 else found.y
        each = []
        for t in range(targets.shape[1]):
            y = targets[train, t]
            if task in ("regression", "multioutput"):
                y = y * np.atleast_1d(found.target.scale)[t] + np.atleast_1d(found.target.mean)[t]
            model = clone(read_model(ORACLES[task])).fit(read_by_hand(found, train), y, w)
            predict = (
                model.predict if task in ("regression", "multioutput") else model.predict_proba
            )
            each.append([predict(read_by_hand(found, rows)) for rows in (held, split.audit)])
        if task == "multilabel":
            each = [[p[:, 1] for p in one] for one in each]
        several = task in ("multilabel", "multioutput")
        parts = [np.stack(p, 1) if several else p[0] for p in zip(*each, strict=True)]
        valid.append(parts[0])
        audit = audit + parts[1] / 2
    np.testing.assert_allclose(baseline.predictions_valid, np.concatenate(valid), 2e-5, 2e-5)
    np.testing.assert_allclose(baseline.predictions_audit, audit, 2e-5, 2e-5)
    again = predict_member(baseline.member, found.take(split.audit), task)
    np.testing.assert_array_equal(again, baseline.predictions_audit)


def test_a_class_that_a_fold_lacks_gets_probability_zero():
    with_onnx()
    found, split = problem("multiclass"), folds(160)
    train = tuple(rows[found.y[rows] != 1] for rows in split.train)
    split = Split(split.kind, train, split.valid, split.audit, split.how)
    baseline = given.given_baseline(found, split, "name", "GaussianNB()")
    assert (baseline.predictions_valid[:, 1] == 0).all()
    np.testing.assert_allclose(baseline.predictions_valid.sum(1), 1, atol=1e-6)


def test_weights_of_classes_follow_their_labels_and_what_is_drawn_the_seed():
    found = problem("binary", seed=11)
    model = given.prepare_model(
        read_model("RandomForestClassifier(class_weight={'yes': 5})"), found
    )
    assert model.class_weight == {1: 5}
    assert model.random_state == 11
    text = "make_pipeline(StandardScaler(), RandomForestClassifier(random_state=4))"
    piped = given.prepare_model(read_model(text), found)
    assert piped.steps[-1][1].random_state == 4


def test_only_the_most_frequent_values_of_a_category_are_told_apart():
    codes = np.arange(60, dtype=np.int32)[:, None]
    features = {"quantile": np.zeros((60, 0), np.float32), "category": codes}
    found = make_problem(
        features, np.zeros(60), None, "regression", "rmse", Target("regression", ())
    )
    widths = onnx_models.widths_of(found)
    columns = onnx_models.columns_of(features, widths)
    assert columns.shape == (60, 33)
    np.testing.assert_array_equal(columns[:33], np.eye(33))
    assert not columns[33:].any()


REFUSED = {
    "a classifier, as the target": ("binary", {}, "Ridge()"),
    "a regressor, as the target": ("regression", {}, "LogisticRegression()"),
    "CalibratedClassifierCV": ("binary", {}, "RidgeClassifier()"),
    "takes row weights": ("binary", {"weight": True}, "KNeighborsClassifier()"),
    "cannot be converted to ONNX": (
        "regression", {}, "TransformedTargetRegressor(Ridge(), transformer=StandardScaler())",
    ),
    "cannot be one: .*must be": ("binary", {}, "LogisticRegression(C=-1)"),
    "numbers of 0 or less": ("regression", {"loss": "poisson"}, "Ridge(alpha=0.0)"),
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_a_member_is_refused_by_a_trial(words):
    with_onnx()
    task, how, text = REFUSED[words]
    found = problem(task, **how)
    if "loss" in how:  # counts, most of them 0
        found.y[:] = (np.maximum(0, np.round(found.y * 2)) - 50.0) / 9.0
    with pytest.raises(ConfigError, match=words):
        given.check_models({"name": text}, found, np.arange(100))


def test_a_model_whose_conversion_predicts_otherwise_is_refused(monkeypatch):
    with_onnx()
    true = onnx_models.evaluate
    monkeypatch.setattr(given, "evaluate", lambda *a: true(*a) + 0.01)
    with pytest.raises(ConfigError, match="converted to ONNX it predicts otherwise for 100 of 100"):
        given.check_models({"a": "GaussianNB()"}, problem("binary"), np.arange(100))


def test_a_trial_takes_more_rows_where_few_do_not_do(monkeypatch):
    with_onnx()
    monkeypatch.setattr(given, "TRIAL_ROWS", (20, 150))
    found = problem("binary")
    given.check_models({"a": "KNeighborsClassifier(60)"}, found, np.arange(140))
    with pytest.raises(ConfigError, match="n_neighbors"):
        given.check_models({"a": "KNeighborsClassifier(150)"}, found, np.arange(140))


def test_what_a_model_warns_of_is_said():
    with_onnx()
    notes = given.check_models(
        {"a": "LogisticRegression(max_iter=1)"}, problem("binary"), np.arange(100)
    )
    assert len(notes) == 1
    assert "failed to converge" in notes[0]


def test_means_by_a_log_link_are_fitted_in_their_own_unit():
    with_onnx()
    found = problem("regression", loss="poisson")
    found.y[:] = (np.random.default_rng(0).poisson(2.0, len(found.y)) - 50.0) / 9.0
    split = folds(160)
    baseline = given.given_baseline(found, split, "name", "PoissonRegressor()")
    train = split.train[0]
    y = np.maximum(found.y[train].astype(np.float64) * 9.0 + 50.0, 0.0)
    expected = PoissonRegressor().fit(read_by_hand(found, train), y)
    np.testing.assert_allclose(
        baseline.predictions_valid[: len(split.valid[0])],
        expected.predict(read_by_hand(found, split.valid[0])), rtol=1e-4,
    )  # fmt: skip


def test_without_the_extra_a_search_says_how_to_install_it(monkeypatch, tmp_path):
    table(rows=60).to_csv(tmp_path / "rows.csv", index=False)
    monkeypatch.setattr(onnx_models, "find_spec", lambda name: None)
    done = CliRunner().invoke(
        app,
        ["search", str(tmp_path / "rows.csv"), "--members", "GaussianNB()", "--workers", "0",
         "--candidates", "1", "--out", str(tmp_path / "run")],
    )  # fmt: skip
    assert done.exit_code == 2
    assert 'Install it: pip install "adanet_py[onnx]"' in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()


def test_without_onnxruntime_a_model_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    onnx_models._session.cache_clear()
    with pytest.raises(ConfigError, match="pip install"):
        onnx_models.evaluate(b"graph", np.zeros((1, 1), np.float32), 1)


# ---------------------------------------------------------------------- searches

FOREST = "RandomForestClassifier(15, min_samples_leaf=3)"
SEARCH = {"target": "target", "candidates": 4, "space": "tiny", "workers": 0, "seed": 1, "folds": 2,
          "adanet_lambda": 0.0, "adanet_beta": 0.0}  # fmt: skip


class FitsHere(MemberFits):
    """Fits in this process."""

    def _start(self):
        main(self._arguments())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with_onnx()
    folder = tmp_path_factory.mktemp("members")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        patch.setattr(loop, "MemberFits", FitsHere)
        patch.setattr("os.dup2", lambda *a: None)
        few_trees(patch)
        table("binary", rows=240).to_csv(folder / "rows.csv", index=False)
        members = [read_model(FOREST), "GaussianNB()"]
        given = SEARCH | {"out": folder / "run", "members": members}
        return adanet_py.search(folder / "rows.csv", **given).run


def test_a_search_fits_the_models_given_and_may_combine_them(run):
    state = read_state(run)
    names = {r.candidate.architecture: r for r in state.baselines}
    assert names["GaussianNB"].controller == "given"
    assert FOREST.partition("(")[0] in names
    assert state.ensemble is not None
    grown, _ = regrow(run, Options("mean", members="given", most=9), run / "mean.adanet")
    joined = {r.candidate.architecture for r in grown.members}
    assert joined > {"GaussianNB", "RandomForestClassifier"}
    assert not joined & {"linear", "hist_gradient_boosting", "constant"}
    networks, _ = regrow(run, Options("mean", most=9), run / "networks.adanet")
    assert "GaussianNB" not in {r.candidate.architecture for r in networks.members}


def test_the_saved_model_holds_graphs_and_predicts_as_it_was_scored(run):
    _, path = regrow(run, Options("mean", members="given", most=9), run / "again.adanet")
    model = load(path)
    assert "onnx" in {m.kind for m in model.members}
    rows = table("binary", rows=30, seed=9)
    assert np.isfinite(model.predict_proba(rows)).all()
    assert path.read_bytes() == model.to_bytes()
    assert b"pickle" not in path.read_bytes()


def test_commands_work_on_a_run_with_a_model_given(run, tmp_path):
    rows, out = str(run.parent / "rows.csv"), str(tmp_path / "model.adanet")
    new = tmp_path / "new.csv"
    table("binary", rows=80, seed=4).to_csv(new, index=False)
    free = ["--lambda", "0", "--beta", "0", "--ensembler", "greedy"]
    commands = [
        ["ensemble", run, *free, "--json", "--out", out],
        ["ensemble", run, *free, "--single", "--out", tmp_path / "single.adanet"],
        [
            "ensemble",
            run,
            *free,
            "--distil",
            "--out",
            tmp_path / "distilled.adanet",
            "--data",
            rows,
        ],
        ["update", run, new, "--out", tmp_path / "updated.adanet"],
        ["check", run],
        ["check", out],
        ["explain", run],
        ["predict", out, new],
        ["resume", run],
    ]
    for command in commands:
        done = CliRunner().invoke(app, [str(part) for part in command])
        assert done.exit_code == 0, (command, done.stdout, done.stderr)
        if command[0] == "ensemble" and "--json" in command:
            told = json.loads(done.stdout.splitlines()[-1])
            assert told["options"]["members"] == "given"
    assert {m.kind for m in load(tmp_path / "single.adanet").members} == {"network"}
    assert {m.kind for m in load(tmp_path / "distilled.adanet").members} == {"network"}


def test_a_process_fits_a_model_and_one_that_is_ended_is_told_of(run, tmp_path, monkeypatch):
    with_onnx()
    from adanet_py.executors import make_nursery
    from adanet_py.prepare import prepare, read

    config = SearchConfig(target="target", folds=2, seed=1, candidates=1)
    prepare(read(config, run.parent / "rows.csv"), tmp_path)
    with make_nursery(0) as nursery:
        models = {"GaussianNB": "GaussianNB()", "bad": "Ridge()", "Dummy": "DummyClassifier()"}
        fits = MemberFits(tmp_path, models, ("Dummy",), nursery, 1)
        found = []
        while not fits.wait(0.2):
            found += fits.ready()
        assert found[0].name == "GaussianNB"
        stored = {r.candidate.architecture: r for r in read_state(run).baselines}["GaussianNB"]
        assert found[0].parameters == stored.parameters
        assert "The member bad failed: The member Ridge: expected a classifier" in str(found[1])
        assert len(found) == 2
        fits.end()
        assert list(fits.ready()) == []
        models = {"slow": "MLPClassifier(max_iter=100000)", "b": "GaussianNB()"}
        slow = MemberFits(tmp_path, models, (), nursery, 1)
        slow.end()
        assert [str(e) for e in slow.ready()] == [
            f"The member {name} was not fitted before the search ended." for name in models
        ]
        assert slow.wait(0.0)
        killed = MemberFits(tmp_path, models, (), nursery, 1)
        killed._process.kill()
        found = []
        while not killed.wait(0.2):
            found += killed.ready()
        assert str(found[0]) == "The member slow failed: its process died"
        assert found[1].name == "b"


def test_a_model_whose_trial_takes_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("adanet_py.member_fits.TRIAL_SECONDS", (0.1, 0.1))
    table("binary", rows=60).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(ConfigError, match=r"'GaussianNB.*within 0 s, found one"):
        adanet_py.search(
            tmp_path / "rows.csv", out=tmp_path / "run", members=["GaussianNB()"],
            candidates=1, on_note=lambda note: None,
        )  # fmt: skip
