"""A saved model predicts what was scored, in any process, from a file that executes nothing."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tables import check_here, table

import adanet_py
from adanet_py import saving
from adanet_py.calibration import cross_fitted, probabilities
from adanet_py.config import SearchConfig
from adanet_py.ensemble.weights import Weights
from adanet_py.errors import ConfigError, DataError, RunError
from adanet_py.metrics import score
from adanet_py.model import load
from adanet_py.model_file import MODEL_FILE
from adanet_py.prepare import read

QUICK = {"space": "tiny", "workers": 0, "candidates": 2, "on_note": lambda m: None}
TASKS = ("binary", "multiclass", "regression")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run of each task; the first checks its model in a fresh process, as users' runs do."""
    out = {}
    for task in TASKS:
        folds = 1 if task == "multiclass" else 3
        with pytest.MonkeyPatch.context() as patch:
            if task != "binary":
                patch.setattr(saving, "start_check", check_here)
            folder = tmp_path_factory.mktemp(task) / "run"
            out[task] = adanet_py.search(table(task), out=folder, folds=folds, **QUICK)
    return out


@pytest.fixture
def model(runs):
    return load(runs["binary"].run)


@pytest.fixture
def file(runs, tmp_path):
    path = tmp_path / MODEL_FILE
    path.write_bytes((runs["binary"].run / MODEL_FILE).read_bytes())
    return path


def _in_a_fresh_process(run, frame, tmp_path, proba):
    frame.to_feather(tmp_path / "rows.feather")
    code = (
        "import sys, numpy as np, pandas as pd, adanet_py\n"
        "model = adanet_py.load(sys.argv[1])\n"
        "frame = pd.read_feather(sys.argv[2])\n"
        "call = model.predict_proba if sys.argv[4] == 'True' else model.predict\n"
        "np.save(sys.argv[3], call(frame))\n"
    )
    arguments = [run, tmp_path / "rows.feather", tmp_path / "out.npy", proba]
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=True,
        env={"PYTHONPATH": ":".join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"},
    )
    return np.load(tmp_path / "out.npy")


def test_the_fresh_process_said_yes(runs):
    saved = runs["binary"].state.model
    assert saved["candidate"] == runs["binary"].best.candidate.id
    assert 0.0 <= saved["difference"] < 1e-5


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_fresh_process_predicts_the_same(task, runs, tmp_path):
    frame = table(task, rows=50, seed=3)
    proba = task != "regression"
    here = runs[task].predict_proba(frame) if proba else runs[task].predict(frame)
    there = _in_a_fresh_process(runs[task].run, frame, tmp_path, proba)
    np.testing.assert_array_equal(there, here)


def test_a_hold_out_model_scores_what_the_leaderboard_says(runs):
    found = runs["multiclass"]
    frame = table("multiclass")
    config = SearchConfig(target="target", folds=1, candidates=1)
    rows = read(config, frame).split.valid[0]
    model = found.model
    y = model.target.encode(frame["target"])[rows]
    features = model.preprocessor.transform(frame.iloc[rows])
    outputs = model.fold_outputs(model.members[0], features)[0]
    # Each row is scored with a temperature fitted on other rows.
    value = score("log_loss", y, probabilities(outputs, cross_fitted(outputs, y)))
    assert value == pytest.approx(found.best.metrics["validation"], rel=1e-5)
    shares = probabilities(outputs, model.members[0].temperature)
    np.testing.assert_allclose(shares, model.predict_proba(frame.iloc[rows]), rtol=1e-12)


@pytest.mark.parametrize("task", TASKS)
def test_it_predicts_better_than_a_constant(task, runs):
    scores = runs[task].model.evaluate(table(task, rows=300, seed=9))
    name = {"regression": "r2"}.get(task, "accuracy")
    assert scores[name] > {"binary": 0.75, "multiclass": 0.6, "regression": 0.5}[task]
    assert next(iter(scores)) == runs[task].model.metric


def test_columns_may_come_in_any_order_and_number(model):
    frame = table(rows=40, seed=2)
    expected = model.predict_proba(frame)
    turned = frame[frame.columns[::-1]].assign(more=1.0)
    np.testing.assert_array_equal(model.predict_proba(turned), expected)
    alone = frame[list(model.columns)].set_index(pd.Index(range(1000, 1040)))
    np.testing.assert_array_equal(model.predict_proba(alone), expected)


def test_a_missing_column_is_named(model):
    with pytest.raises(DataError, match="colour"):
        model.predict(table().drop(columns="colour"))


def test_unseen_categories_and_missing_values_are_fine(model):
    frame = table(rows=4)
    frame["colour"] = ["purple", None, "", "red"]
    frame["size"] = [np.nan, 1.0, -1e9, 1e9]
    found = model.predict_proba(frame)
    assert np.isfinite(found).all()
    frame["size"] = frame["size"].astype(str)  # numbers as text, as from a careless CSV
    np.testing.assert_array_equal(model.predict_proba(frame.replace("nan", None)), found)


def test_no_rows_give_no_predictions(model):
    assert model.predict(table().iloc[:0]).shape == (0,)
    assert model.predict_proba(table().iloc[:0]).shape == (0, 2)


def test_one_row_at_a_time_is_the_same(model):
    frame = table(rows=10, seed=4)
    each = np.concatenate([model.predict_proba(frame.iloc[i : i + 1]) for i in range(10)])
    np.testing.assert_allclose(each, model.predict_proba(frame), atol=1e-6)


def test_regression_has_no_probabilities(runs):
    with pytest.raises(ConfigError, match="regression"):
        runs["regression"].model.predict_proba(table())


def test_saving_again_gives_the_same_bytes(model, tmp_path):
    model.save(tmp_path / "again")
    load(tmp_path / "again").save(tmp_path / "once-more")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "once-more").read_bytes()


# ---------------------------------------------------------------- files that are not models


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file(share, file):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(RunError, match="intact copy"):
        load(file)


def test_a_flipped_byte_anywhere(file):
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        starts = [i.header_offset + 30 + len(i.filename) for i in archive.infolist()]
        sizes = [i.file_size for i in archive.infolist()]
    refused = 0
    for start, size in zip(starts, sizes, strict=True):
        for at in np.linspace(start, start + size - 1, 12).astype(int):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
            with pytest.raises(RunError):
                load(file)
            refused += 1
    assert refused == 36


def _parts(path):
    with zipfile.ZipFile(path) as archive:
        return {i.filename: archive.read(i.filename) for i in archive.infolist()}


def _write(path, parts, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def _manifest(change):
    def edit(parts):
        value = json.loads(parts["manifest.json"])
        change(value)
        parts["manifest.json"] = json.dumps(value).encode()

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_manifest(lambda m: m.update(version=99)), "newer version"),
        (_manifest(lambda m: m.update(version="x")), "cannot be read"),
        (_manifest(lambda m: m.update(format="something")), "not a model of adanet_py"),
        (_manifest(lambda m: m.pop("sha256")), "cannot be read"),
        (_manifest(lambda m: m["sha256"].pop("weights.safetensors")), "cannot be read"),
        (_manifest(lambda m: m.pop("target")), "cannot be read"),
        (
            _manifest(lambda m: m["members"][0]["candidate"].update(architecture="os.system")),
            "architecture 'os.system'",
        ),
        (lambda parts: parts.pop("preprocessor.json"), "expected the parts"),
        (lambda parts: parts.update({"more.py": b"print()"}), "expected the parts"),
        (lambda parts: parts.update({"manifest.json": b"[1]"}), "cannot be read"),
        (lambda parts: parts.update({"manifest.json": b"[" * 100_000}), "cannot be read"),
    ],
)
def test_a_changed_file(edit, words, file):
    parts = _parts(file)
    edit(parts)
    _write(file, parts)
    with pytest.raises(RunError, match=words) as caught:
        load(file)
    assert caught.value.exit_code == 2


def test_weights_of_another_shape(file):
    parts = _parts(file)
    value = json.loads(parts["manifest.json"])
    value["members"][0]["candidate"]["static"]["width"] = 7
    parts["manifest.json"] = json.dumps(value).encode()
    _write(file, parts)
    with pytest.raises(RunError, match="weights"):
        load(file).predict(table())


def test_a_compressed_file_is_refused_before_it_unfolds(file):
    parts = _parts(file)
    parts["weights.safetensors"] = b"\0" * 10_000_000
    _write(file, parts, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(RunError, match="expected the parts"):
        load(file)


def test_a_pickle_is_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = tmp_path / "trap.adanet"
    path.write_bytes(pickle.dumps(Trap()))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
    (tmp_path / "torch.adanet").write_bytes(buffer.getvalue())
    for each in (path, tmp_path / "torch.adanet"):
        with pytest.raises(RunError, match="not a model file"):
            load(each)
    assert not (tmp_path / "sprung").exists()


def test_no_file_at_all(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(RunError, match="Expected a model file"):
            load(path)


# ---------------------------------------------------------------- linear members


@pytest.mark.parametrize("kind", ["linear", "trees"])
def test_before_there_is_a_network_a_baseline_is_the_model(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    chosen = saving.Saver.choose
    left_out = {"linear": "hist_gradient_boosting", "trees": "linear"}[kind]

    def choose(self, networks, baselines, last=False):
        self.leader = lambda: None
        return chosen(self, [], [b for b in baselines if b.candidate.architecture != left_out])

    monkeypatch.setattr(saving.Saver, "choose", choose)
    frame = table("regression")
    found = adanet_py.search(frame, out=tmp_path / "run", folds=3, ensemble="none", **QUICK)
    assert found.model.members[0].kind == kind
    values = found.predict(frame)
    assert score("r2", frame["target"].to_numpy(), values) > 0.6
    there = _in_a_fresh_process(found.run, frame, tmp_path, False)
    np.testing.assert_array_equal(there, values)


def test_a_file_older_than_a_knob_predicts_the_same(model, tmp_path):
    member = model.members[0]
    older = {n: v for n, v in member.arrays.items() if "knob_" not in n}
    assert len(older) < len(member.arrays)
    old = replace(model, members=(replace(member, arrays=older), *model.members[1:]))
    old.save(tmp_path / "old.adanet")
    frame = table(rows=20)
    wanted = model.predict_proba(frame)
    np.testing.assert_array_equal(load(tmp_path / "old.adanet").predict_proba(frame), wanted)


def test_an_ensemble_combines_the_outputs_of_its_members(model, tmp_path):
    frame = table(rows=20)
    member = model.members[0]
    cold = replace(member, temperature=member.temperature / 4)
    weights = Weights(np.array([0.75, -0.25]), np.array([0.1]))
    mixed = replace(model, members=(member, cold), weights=weights)
    logits = [model.fold_outputs(m, model.features(frame)).mean(0) for m in model.members]
    z = (0.75 - 0.25 * 4) * logits[0][:, 0] / member.temperature + 0.1
    np.testing.assert_allclose(mixed.predict_proba(frame)[:, 1], 1 / (1 + np.exp(-z)), rtol=1e-6)
    mixed.save(tmp_path / "mixed.adanet")
    again = load(tmp_path / "mixed.adanet")
    np.testing.assert_array_equal(again.predict_proba(frame), mixed.predict_proba(frame))
    np.testing.assert_array_equal(again.weights.mixture, weights.mixture)
