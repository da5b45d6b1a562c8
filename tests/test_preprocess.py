"""Preprocessing: the same numbers at training and prediction, whatever form the table has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adanet_py.data.preprocess import Preprocessor, fit_preprocessor
from adanet_py.data.scaling import MAX_KNOTS, bin_edges, fit_scale
from adanet_py.data.spec import DataSpec
from adanet_py.data.table import fit_target, infer_columns, read_table
from adanet_py.errors import DataError, RunError

N = 300


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """One column of every kind, with gaps."""
    rng = np.random.default_rng(0)
    words = rng.choice("red green blue small large round flat".split(), (N, 5))
    table = pd.DataFrame(
        {
            "real": rng.normal(size=N),
            "skewed": rng.exponential(size=N) ** 3,
            "gaps": np.where(rng.random(N) < 0.2, np.nan, rng.normal(size=N)),
            "flag": rng.choice(["yes", "no"], N),
            "colour": rng.choice(["red", "green", "blue"], N),
            "shop_id": rng.integers(100, 110, N),
            "day": pd.date_range("2019-11-05", periods=N).strftime("%Y-%m-%d"),
            "moment": pd.date_range("2020-01-01", periods=N, freq="5h"),
            "comment": [" ".join(w) + f" {i}" for i, w in enumerate(words)],
        }
    )
    table.loc[3, "flag"] = None
    table.loc[4, "colour"] = None
    table.loc[5, "day"] = None
    table.loc[6, "comment"] = None
    return table


@pytest.fixture(scope="module")
def fitted(frame: pd.DataFrame) -> Preprocessor:
    return fit_preprocessor(frame, infer_columns(frame)[0])


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys() == {"quantile", "robust", "category"}
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_shapes_types_and_spec(frame: pd.DataFrame, fitted: Preprocessor) -> None:
    out = fitted.transform(frame)
    spec = fitted.spec(fit_target(pd.Series(["u", "v"] * 5), "binary"))
    assert spec.n_outputs == 1
    assert fitted.spec(fit_target(pd.Series(["u", "v", "w"] * 5), "multiclass")).n_outputs == 3
    assert spec.cardinalities == (4, 11)
    assert DataSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    for scaling in ("quantile", "robust"):
        assert out[scaling].dtype == np.float32
        assert out[scaling].shape == (N, spec.n_numeric)
        assert np.isfinite(out[scaling]).all()
        assert len(spec.edges[scaling]) == spec.n_numeric == len(fitted.numeric_names)
        for edges in spec.edges[scaling]:
            assert 2 <= len(edges) <= 33
            assert np.all(np.diff(np.float32(edges)) > 0)
    assert out["category"].dtype == np.int32
    assert (out["category"].max(axis=0) < np.array(spec.cardinalities)).all()
    assert fitted.category_names == ("colour", "shop_id")
    assert np.abs(out["quantile"]).max() <= 5.2
    assert np.abs(out["robust"][:, :3]).max() <= 3.0


def test_json_gives_the_same_numbers(frame: pd.DataFrame, fitted: Preprocessor) -> None:
    again = Preprocessor.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    assert again == fitted
    same(again.transform(frame), fitted.transform(frame))
    with pytest.raises(RunError, match="has version 99"):
        Preprocessor.from_json({**fitted.to_json(), "version": 99})


def test_columns_in_any_order_and_more(frame: pd.DataFrame, fitted: Preprocessor) -> None:
    other = frame[list(frame)[::-1]].assign(more=1)
    other.index = pd.Index(np.arange(N)[::-1] + 1000)
    same(fitted.transform(other), fitted.transform(frame))


def test_rows_alone_are_rows_in_company(frame: pd.DataFrame, fitted: Preprocessor) -> None:
    whole = fitted.transform(frame)
    for rows in (slice(0, 1), slice(7, 20), slice(0, 0)):
        same(fitted.transform(frame.iloc[rows]), {k: v[rows] for k, v in whole.items()})


def test_chunks_leave_no_seam(
    frame: pd.DataFrame, fitted: Preprocessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted.transform(frame)
    monkeypatch.setattr("adanet_py.data.preprocess._CHUNK", 7)
    same(fitted.transform(frame), whole)


@pytest.mark.parametrize("kind", ["csv", "object", "category", "nullable"])
def test_the_form_of_the_table_does_not_matter(
    frame: pd.DataFrame, fitted: Preprocessor, tmp_path: Path, kind: str
) -> None:
    if kind == "csv":
        frame.to_csv(tmp_path / "t.csv", index=False)
        other = read_table(tmp_path / "t.csv", require_target=False).frame
    elif kind == "object":
        other = frame.astype(object)
    elif kind == "category":
        other = frame.astype({"flag": "category", "colour": "category", "shop_id": "category"})
    else:
        other = frame.convert_dtypes()
    same(fitted.transform(other), fitted.transform(frame))


def test_codes_are_known_as_numbers_and_as_text(frame: pd.DataFrame, fitted: Preprocessor) -> None:
    expected = fitted.transform(frame)["category"]
    for form in (str, float, lambda v: f"0{v} "):
        other = frame.assign(shop_id=frame["shop_id"].map(form))
        np.testing.assert_array_equal(fitted.transform(other)["category"], expected)


def test_unseen_and_missing_are_code_0(frame: pd.DataFrame, fitted: Preprocessor) -> None:
    other = frame.iloc[:4].assign(colour=["violet", None, "red", " red "])
    codes = fitted.transform(other)["category"][:, 0]
    assert codes[:2].tolist() == [0, 0]
    assert codes[2] == codes[3] > 0


def test_vocabulary_is_by_frequency_and_bounded() -> None:
    values = ["often"] * 10 + ["seldom"] * 3 + ["thrice"] * 3 + ["once"]
    many = [f"v{i:04d}" for i in range(1200)] * 2
    frame = pd.DataFrame({"few": values + ["often"] * (2400 - 17), "many": many})
    fitted = fit_preprocessor(frame, infer_columns(frame)[0])
    assert fitted.encoders[0].values == ("often", "seldom", "thrice")
    assert len(fitted.encoders[1].values) == 1000
    assert fitted.transform(frame)["category"].max() == 1000


def test_missing_numbers_become_the_median_and_an_indicator(
    frame: pd.DataFrame, fitted: Preprocessor
) -> None:
    names = fitted.numeric_names
    out = fitted.transform(frame)
    missing = frame["gaps"].isna().to_numpy()
    np.testing.assert_array_equal(out["robust"][:, names.index("gaps is missing")], missing)
    assert (out["robust"][missing, names.index("gaps")] == 0).all()
    assert np.abs(out["quantile"][missing, names.index("gaps")]).max() < 0.02
    assert "real is missing" not in names
    late = fitted.transform(frame.iloc[:2].assign(real=[None, "oops"]))
    assert (late["robust"][:, names.index("real")] == 0).all()


def test_booleans_are_signs(frame: pd.DataFrame, fitted: Preprocessor) -> None:
    at = fitted.numeric_names.index("flag")
    other = frame.iloc[:6].assign(flag=["yes", "no", "YES", True, None, "perhaps"])
    assert fitted.transform(other)["robust"][:, at].tolist() == [1, -1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("values", "later", "signs"),
    [
        ([0, 1] * 30, [1.0, 0.0, 2.0, None], [1, -1, 0, 0]),
        ([1, 2] * 30, ["2", "1", "0", ""], [1, -1, 0, 0]),
        ([True, False] * 30, ["true", "False", "?", 1], [1, -1, 0, 1]),
    ],
)
def test_two_valued_columns(values: list[Any], later: list[Any], signs: list[int]) -> None:
    frame = pd.DataFrame({"b": values})
    fitted = fit_preprocessor(frame, infer_columns(frame)[0])
    out = fitted.transform(pd.DataFrame({"b": pd.Series(later, dtype=object)}))
    assert out["robust"][:, 0].tolist() == signs


def test_dates_are_parts() -> None:
    days = pd.Series(pd.date_range("2020-02-28", periods=800, freq="D"))
    frame = pd.DataFrame({"d": days})
    fitted = fit_preprocessor(frame, infer_columns(frame)[0])
    assert fitted.numeric_names == (
        "d year", "d day of month", "d days since start",
        "d month sin", "d month cos", "d weekday sin", "d weekday cos",
    )  # fmt: skip
    out = fitted.transform(frame)["robust"]
    turn = 2 * np.pi * days.dt.day_of_week.to_numpy() / 7
    np.testing.assert_allclose(out[:, 5], np.sin(turn), atol=1e-6)
    np.testing.assert_allclose(out[:, 6], np.cos(turn), atol=1e-6)
    month = 2 * np.pi * (days.dt.month.to_numpy() - 1) / 12
    np.testing.assert_allclose(out[:, 3], np.sin(month), atol=1e-6)
    assert np.all(np.diff(out[:, 2]) > 0)
    for year in (2020, 2021, 2022):
        assert np.unique(out[days.dt.year == year, 0]).size == 1
    text = pd.DataFrame({"d": days.dt.strftime("%Y-%m-%dT00:00:00Z")})
    np.testing.assert_array_equal(fitted.transform(text)["robust"], out)


def test_text_is_hashed_words() -> None:
    texts = [f"The quick fox number {i} jumps, and jumps again." for i in range(100)]
    frame = pd.DataFrame({"t": [*texts, None]})
    columns, _ = infer_columns(frame)
    assert columns[0].kind == "text"
    fitted = fit_preprocessor(frame, columns)
    out = fitted.transform(frame)["robust"]
    assert out.shape == (101, 65)
    np.testing.assert_allclose(np.linalg.norm(out[:100, 1:], axis=1), 1.0, rtol=1e-6)
    assert not out[100].any()
    shouted = fitted.transform(frame.assign(t=frame["t"].str.upper()))["robust"]
    np.testing.assert_array_equal(shouted, out)


def test_a_missing_column_is_named(frame: pd.DataFrame, fitted: Preprocessor) -> None:
    with pytest.raises(DataError, match=r"no column 'colour'.*Did you mean 'color'\?"):
        fitted.transform(frame.rename(columns={"colour": "color"}))
    with pytest.raises(DataError, match=r"'real' .and 1 more: .'gaps'"):
        fitted.transform(frame.drop(columns=["real", "gaps"]))
    twice = pd.concat([frame, frame[["real"]]], axis=1)
    with pytest.raises(DataError, match="2 columns 'real'"):
        fitted.transform(twice)


def test_infinity_at_prediction_is_named(frame: pd.DataFrame, fitted: Preprocessor) -> None:
    other = frame.iloc[:5].assign(real=[0, 1, np.inf, 2, 3])
    with pytest.raises(DataError, match="'real', row 3: expected a finite number, found inf"):
        fitted.transform(other)


def test_only_training_rows_count(frame: pd.DataFrame) -> None:
    columns, _ = infer_columns(frame)
    rows = frame.iloc[:200]
    changed = pd.concat([rows, frame.iloc[200:].assign(real=1e6, colour="violet")])
    assert fit_preprocessor(changed.iloc[:200], columns) == fit_preprocessor(rows, columns)


def test_columns_that_say_nothing_in_training_are_left_out() -> None:
    frame = pd.DataFrame({"a": np.arange(60) // 2 * 1.5, "b": [0] * 30 + [1] * 30})
    fitted = fit_preprocessor(frame.iloc[:30], infer_columns(frame)[0])
    assert fitted.columns == ("a",)
    assert "Column 'b' is not used" in fitted.notes[0]
    with pytest.raises(DataError, match="a column that varies in the training rows"):
        fit_preprocessor(frame.iloc[:1], infer_columns(frame)[0])


def test_a_large_table_is_fitted_on_a_seeded_sample_of_rows(
    frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adanet_py.data.preprocess._FIT_ROWS", 50)
    columns, _ = infer_columns(frame)
    one = fit_preprocessor(frame, columns, seed=1)
    assert one == fit_preprocessor(frame, columns, seed=1)
    assert one.edges != fit_preprocessor(frame, columns, seed=2).edges


# Scaling


def test_quantile_is_scikit_learns_where_values_do_not_repeat() -> None:
    from sklearn.preprocessing import QuantileTransformer

    values = np.random.default_rng(0).lognormal(size=5000)
    scale = fit_scale(values)
    assert scale is not None
    assert len(scale.knots) <= MAX_KNOTS
    oracle = QuantileTransformer(n_quantiles=5000, output_distribution="normal", random_state=0)
    theirs = oracle.fit_transform(values[:, None])[:, 0]
    ours = scale.quantile(values)
    for within, error in ((2.0, 0.02), (3.0, 0.1)):  # 256 knots stand for 5,000 values
        assert np.abs(ours - theirs)[np.abs(theirs) < within].max() < error
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999
    assert ours.std() == pytest.approx(1.0, abs=0.01)


def test_a_heavy_value_is_placed_in_the_middle_of_its_ranks() -> None:
    scale = fit_scale(np.concatenate([np.zeros(600), np.arange(1, 401)]))
    assert scale is not None
    assert scale.quantile(np.zeros(1))[0] == pytest.approx(-0.5244, abs=1e-3)  # normal score of .3


def test_robust_is_the_formula_of_realmlp() -> None:
    values = np.random.default_rng(0).normal(3, 5, 1000)
    scale = fit_scale(values)
    assert scale is not None
    low, middle, high = np.percentile(values, [25, 50, 75])
    x = (values - middle) / (high - low)
    np.testing.assert_allclose(scale.robust(values), x / np.sqrt(1 + (x / 3) ** 2), rtol=1e-12)
    mostly_zero = fit_scale(np.array([0.0] * 9 + [8.0]))
    assert mostly_zero is not None
    assert mostly_zero.factor == 2 / 8


@pytest.mark.parametrize(
    "values",
    [
        [1e300, -1e300, 5.0] * 5,
        [1e-310, 2e-310, 3e-310] * 5,
        [-1.7e308, 1.7e308] * 5,
        [0.0, 5e-324] * 5,
    ],
)
def test_extreme_numbers_stay_finite(values: list[float]) -> None:
    array = np.array(values)
    scale = fit_scale(array)
    assert scale is not None
    for scaled in (scale.quantile(array), scale.robust(array)):
        assert np.isfinite(scaled).all()
    assert np.unique(scale.quantile(array)).size == np.unique(array).size
    assert np.isfinite(scale.robust(np.array([1.79e308, -1.79e308]))).all()


def test_scaling_keeps_the_order_of_values() -> None:
    values = np.random.default_rng(1).standard_cauchy(3000)
    scale = fit_scale(values)
    assert scale is not None
    beyond = np.sort(np.concatenate([values, [-1e12, 1e12]]))
    assert np.all(np.diff(scale.quantile(beyond)) >= 0)
    assert np.all(np.diff(scale.robust(beyond)) >= 0)


def test_bins_hold_equal_counts() -> None:
    column = np.random.default_rng(0).normal(size=6400).astype(np.float32)
    edges = bin_edges(column)
    assert len(edges) == 33
    counts, _ = np.histogram(column, edges)
    assert counts.min() >= 190
    assert counts.max() <= 210
    assert bin_edges(np.array([-1, 1, 1, 1], dtype=np.float32))[0] == -1
    assert len(bin_edges(np.zeros(5, dtype=np.float32))) == 2


def test_prediction_needs_no_scikit_learn(fitted: Preprocessor, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(fitted.to_json()))
    code = (
        "import sys, json, pandas as pd\n"
        "from adanet_py.data.preprocess import Preprocessor\n"
        f"p = Preprocessor.from_json(json.load(open({str(tmp_path / 'p.json')!r})))\n"
        "p.transform(pd.DataFrame({c: [None, None] for c in p.columns}))\n"
        "bad = {'sklearn', 'scipy', 'torch', 'optuna'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_cells_of_another_kind_are_named_but_missing_ones_are_not() -> None:
    frame = pd.DataFrame(
        {
            "size": np.linspace(0.5, 9.1, 40),
            "member": ["yes", "no"] * 20,
            "when": pd.date_range("2020-01-01", periods=40).strftime("%Y-%m-%d"),
            "colour": ["red", "blue"] * 20,
        }
    )
    columns, _ = infer_columns(frame)
    fitted = fit_preprocessor(frame, columns)
    assert fitted.doubts(frame) == ()
    odd = frame.head(4).astype(object)
    odd["size"] = ["1.5", "oops", "NA", ""]
    odd["member"] = ["perhaps", "true", None, "no"]
    odd["when"] = ["2020-01-01", None, "soon", "later"]
    odd["colour"] = ["violet"] * 4  # an unseen category is no mistake
    assert fitted.doubts(odd) == (
        "Column 'size': expected a number, found 'oops' in row 2: treated as missing "
        "(1 of 4 cells).",
        "Column 'member': expected 'no' or 'yes', found 'perhaps' in row 1: treated as missing "
        "(1 of 4 cells).",
        "Column 'when': expected a date, found 'soon' in row 3: treated as missing (2 of 4 cells).",
    )
    assert fitted.doubts(frame.assign(size=1)) == ()
