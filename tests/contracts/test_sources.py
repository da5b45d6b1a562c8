"""The contract of every source: sizes as in its spec, copies of rows, no pandas needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adanet_py.data import SOURCES
from adanet_py.data.preprocess import fit_preprocessor
from adanet_py.data.source import ArraySource, write_arrays
from adanet_py.data.spec import DataSpec
from adanet_py.data.table import fit_target, infer_columns
from adanet_py.errors import RunError

ROWS = 60


def write_a_table(folder: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=ROWS), "b": rng.choice(list("xyz"), ROWS)})
    series = pd.Series(rng.choice(["p", "q"], ROWS))
    target = fit_target(series, "binary")
    fitted = fit_preprocessor(frame, infer_columns(frame)[0])
    write_arrays(
        folder, fitted.transform(frame), target.encode(series), rng.random(ROWS),
        fitted.spec(target), {"target": target.to_json()},
    )  # fmt: skip


# A new source needs an example here; the test below fails until it has one.
EXAMPLES: dict[str, Callable[[Path], None]] = {"arrays": write_a_table}


def test_every_source_has_an_example() -> None:
    assert set(EXAMPLES) == set(SOURCES)


@pytest.fixture(params=sorted(SOURCES))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    EXAMPLES[request.param](tmp_path)
    return SOURCES[request.param].open(tmp_path)


def test_sizes_agree_with_the_spec(source: Any) -> None:
    batch = source.take(np.arange(len(source)))
    assert len(source) == ROWS
    assert isinstance(source.spec, DataSpec)
    assert {len(v) for v in batch.values()} == {ROWS}
    assert batch["quantile"].shape == batch["robust"].shape == (ROWS, source.spec.n_numeric)
    assert batch["category"].shape == (ROWS, len(source.spec.cardinalities))
    assert all(np.isfinite(v).all() for v in batch.values())


def test_any_rows_in_any_order(source: Any) -> None:
    whole = source.take(slice(None))
    for rows in (np.array([5, 3, 3, 59]), np.array([], dtype=np.int64), slice(2, 9)):
        batch = source.take(rows)
        assert batch.keys() == whole.keys()
        for name in whole:
            np.testing.assert_array_equal(batch[name], whole[name][rows])
            assert batch[name].dtype == whole[name].dtype


def test_a_batch_is_a_copy(source: Any) -> None:
    batch = source.take(slice(0, 5))
    for array in batch.values():
        array[...] = 0
    assert source.take(slice(0, 5))["quantile"].any()


def test_arrays_are_mapped_not_loaded(tmp_path: Path) -> None:
    write_a_table(tmp_path)
    opened = ArraySource.open(tmp_path)
    assert isinstance(opened.arrays["quantile"], np.memmap)
    assert opened.info["target"]["classes"] == ["p", "q"]
    assert opened.weight is not None
    with pytest.raises(ValueError, match="read-only"):
        opened.arrays["quantile"][0, 0] = 1


def test_a_table_without_numbers_or_without_categories(tmp_path: Path) -> None:
    for n_numeric, sizes in ((0, (3,)), (2, ())):
        features = {
            "quantile": np.zeros((4, n_numeric), np.float32),
            "robust": np.zeros((4, n_numeric), np.float32),
            "category": np.zeros((4, len(sizes)), np.int32),
        }
        spec = DataSpec("regression", 1, n_numeric, sizes)
        write_arrays(tmp_path, features, np.zeros(4, np.float32), None, spec)
        batch = ArraySource.open(tmp_path).take(np.array([1, 2]))
        assert batch["quantile"].shape == (2, n_numeric)
        assert "weight" not in batch


def test_what_disagrees_is_not_written(tmp_path: Path) -> None:
    features = {name: np.zeros((4, 1), np.float32) for name in ("quantile", "robust", "category")}
    with pytest.raises(ValueError, match="arrays of one length"):
        write_arrays(tmp_path, features, np.zeros(3), None, DataSpec("regression", 1, 1, (2,)))
    with pytest.raises(ValueError, match="expected 2 numeric"):
        write_arrays(tmp_path, features, np.zeros(4), None, DataSpec("regression", 1, 2, (2,)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "arrays.json").unlink(), "found none"),
        (lambda p: (p / "arrays.json").write_text("{"), "is damaged"),
        (lambda p: (p / "y.npy").unlink(), r"y.npy is missing"),
        (lambda p: (p / "y.npy").write_bytes(b"\x93NUMPY torn"), "is damaged"),
        (lambda p: np.save(p / "y.npy", np.zeros(3)), "expected .* found"),
        (lambda p: _newer(p / "arrays.json"), "of version 99"),
    ],
)
def test_damage_is_explained(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    write_a_table(tmp_path)
    damage(tmp_path)
    with pytest.raises(RunError, match=message):
        ArraySource.open(tmp_path)


def _newer(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))


def test_workers_need_numpy_only(tmp_path: Path) -> None:
    write_a_table(tmp_path)
    code = (
        "import sys\n"
        "from adanet_py.data import SOURCES\n"
        f"SOURCES['arrays'].open({str(tmp_path)!r}).take(slice(0, 3))\n"
        "bad = {'pandas', 'sklearn', 'scipy', 'torch', 'pyarrow'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
