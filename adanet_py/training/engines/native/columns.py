"""What is done to every row alike: a bias added, columns summed.

Rows are taken several at once, as many as a scratch array (a tile) holds, which is read and written
where it is in the cache: alone, narrow ones would not fill the processor's registers.
"""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable

from adanet_py.training.engines.native.compiling import kernel

TILE = 512  # numbers


@kernel
def rows_at_once(d, rows, tile):
    """How many rows of d numbers, of those that there are, fit into the tile; one at least."""
    return max(1, min(rows, tile.size // d))


@kernel
def repeat(row, tile, each):
    """Write the row [d] to the tile that many times."""
    d = row.size
    for i in range(each):
        part = tile[i * d : (i + 1) * d]
        for j in range(d):
            part[j] = row[j]


@kernel
def clear(x):
    """Zeros."""
    for k in range(x.size):
        x[k] = x.dtype.type(0)


@kernel
def _fold(sums, out):
    """Add every row of sums [n, d] to out [d]."""
    d = out.size
    for i in range(sums.size // d):
        part = sums[i * d : (i + 1) * d]
        for j in range(d):
            out[j] += part[j]


@kernel
def add_rows(x, bias, rows, tile):
    """x [rows, d] += bias [d]."""
    d = bias.size
    each = rows_at_once(d, rows, tile)
    by = bias
    if each > 1:
        repeat(bias, tile, each)
        by = tile[: each * d]
    for r in range(0, rows, each):
        n = min(each, rows - r) * d
        part, shift = x[r * d : r * d + n], by[:n]
        for k in range(n):
            part[k] += shift[k]


@kernel
def column_sums(x, rows, out, tile):
    """Add the sums over rows of x [rows, d] to out [d]."""
    d = out.size
    each = rows_at_once(d, rows, tile)
    sums = out
    if each > 1:
        sums = tile[: each * d]
        clear(sums)
    for r in range(0, rows, each):
        n = min(each, rows - r) * d
        part, total = x[r * d : r * d + n], sums[:n]
        for k in range(n):
            total[k] += part[k]
    if each > 1:
        _fold(sums, out)


@register_jitable
def _multiplied(x, by, factor):
    return x * by


@register_jitable
def _rectified(x, by, factor):
    # Not where x > 0: a NaN must be seen.
    return type(x)(0) if x <= 0 else by * factor


def _summing(function: Any) -> Any:
    @kernel
    def change(x, by, factor, rows, out, tile):
        """x [rows, d] = f(x, by, factor), and the sums over its rows are added to out [d] (may be
        empty)."""
        size = by.size
        if out.size == 0:
            whole = x[:size]
            for k in range(size):
                whole[k] = function(whole[k], by[k], factor)
            return
        d = out.size
        each = rows_at_once(d, rows, tile)
        sums = out
        if each > 1:
            sums = tile[: each * d]
            clear(sums)
        for r in range(0, rows, each):
            n = min(each, rows - r) * d
            part, other, total = x[r * d : r * d + n], by[r * d : r * d + n], sums[:n]
            for k in range(n):
                value = function(part[k], other[k], factor)
                part[k] = value
                total[k] += value
        if each > 1:
            _fold(sums, out)

    return change


multiply_and_sum: Any = _summing(_multiplied)
# x is an output of rectified units: by the gradient of it, times a factor, where it is not 0.
rectify_and_sum: Any = _summing(_rectified)
