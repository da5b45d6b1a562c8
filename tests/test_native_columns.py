"""What the native engine does to every row alike, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="the native engine needs numba")

from adanet_py.training.engines.native import columns, inputs, pointwise

# Narrower than a vector, as wide as a tile and wider; rows that fill no whole tile.
SHAPES = [(1, 1), (5, 7), (257, 7), (64, 32), (33, 300), (9, 512), (3, 700)]


def drawn(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(list(shape)).normal(size=shape)


def tile() -> np.ndarray[Any, Any]:
    return np.full(columns.TILE, np.nan)  # whatever was there before


@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_sums_and_biases(rows: int, width: int) -> None:
    x, out = drawn(rows, width), drawn(width)
    expected = out + x.sum(0)
    flat = x.reshape(-1).copy()
    columns.column_sums(flat, rows, found := out.copy(), tile())
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    columns.add_rows(flat, out, rows, tile())
    np.testing.assert_array_equal(flat.reshape(x.shape), x + out)


@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_slopes_with_their_sums(rows: int, width: int, summed: bool) -> None:
    x, by = drawn(rows, width), drawn(rows, width + 1)[:, :width]
    expected = {
        columns.multiply_and_sum: x * by,
        columns.rectify_and_sum: np.where(x <= 0, 0.0, by * 1.25),
    }
    for change, values in expected.items():
        flat, total = x.reshape(-1).copy(), np.ones(width if summed else 0)
        change(flat, by.reshape(-1).copy(), 1.25, rows, total, tile())
        np.testing.assert_array_equal(flat.reshape(x.shape), values)
        if summed:
            np.testing.assert_allclose(total, 1.0 + values.sum(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_rectified_in_place_as_elsewhere(rows: int, width: int, share: float) -> None:
    """Values and slopes in place are those of the general pass, dropout too."""
    z, bias, dy = drawn(rows, width), drawn(width), drawn(rows, width).reshape(-1) ** 2
    noise = np.random.default_rng(0).integers(0, 256, pointwise.NOISE_SIZE).astype(np.uint8)
    scratch, code = np.ones(width), pointwise.CODES["relu"]
    slope, value = z.reshape(-1).copy(), np.empty(z.size)
    pointwise.activate(
        code, slope, value, bias, scratch, noise, 77, share, rows, 1, False, tile()
    )  # fmt: skip
    own = z.reshape(-1).copy()
    pointwise.rectify(own, bias, scratch, noise, 77, share, rows, 1, tile())
    np.testing.assert_array_equal(own, value)
    sums, expected = np.zeros(width), np.zeros(width)
    pointwise.rectify_backward(own, dy, share, rows, sums, tile())
    pointwise.activate_backward(slope, dy, rows, False, expected, tile())
    np.testing.assert_allclose(own, slope, rtol=1e-15)
    np.testing.assert_allclose(sums, expected, rtol=1e-12)


def test_what_is_no_number_is_seen() -> None:
    z = np.array([np.nan, -1.0, 2.0, np.inf])
    noise = np.zeros(pointwise.NOISE_SIZE, np.uint8)
    pointwise.rectify(z, np.zeros(2), np.ones(2), noise, 0, 0.0, 2, 1, tile())
    np.testing.assert_array_equal(z, [np.nan, 0.0, 2.0, np.inf])
    pointwise.rectify_backward(z, np.ones(4), 0.0, 2, sums := np.zeros(2), tile())
    assert z.tolist() == [1.0, 0.0, 1.0, 1.0]
    assert sums.tolist() == [2.0, 1.0]


@pytest.mark.parametrize("step", [3, 4])
def test_biases_of_embedded_columns(step: int) -> None:
    """Three columns of width 3, side by side or one apart, at the start of wider rows."""
    rows, parts, width = 5, 3, 3
    y, bias = drawn(rows, parts * step + 2), drawn(parts, width)
    flat = y.reshape(-1).copy()
    inputs.embed(flat, y.shape[1], parts, step, rows, bias.reshape(-1), width)
    expected, sums = y.copy(), np.zeros((parts, width))
    for p in range(parts):
        expected[:, p * step : p * step + width] += bias[p]
        sums[p] = y[:, p * step : p * step + width].sum(0)
    np.testing.assert_array_equal(flat.reshape(y.shape), expected)
    found = np.zeros(parts * width)
    inputs.embed_backward(y.reshape(-1).copy(), y.shape[1], parts, step, rows, found, width)
    np.testing.assert_allclose(found.reshape(sums.shape), sums, rtol=1e-12, atol=1e-12)
