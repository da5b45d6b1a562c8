"""From rows of the table to features: columns, one-hot codes, embeddings, mixing of rows.

`rows` [B] are places in the table; `keep` (empty, or one flag per column, numeric ones first) says
which columns stay a row's own: the others come from the row before it in the batch (cutmix).
"""

from __future__ import annotations

from adanet_py.training.engines.native.arithmetic import cosine, sine
from adanet_py.training.engines.native.compiling import kernel
from adanet_py.training.engines.native.pointwise import NOISE_SIZE, window_start

TWO_PI = 6.283185307179586476925


@kernel
def take_numeric(numeric, rows, keep, y, ldy, noise, place, strength, quantiles):
    """y [B, n], rows ldy apart: the numeric columns, with noise of that strength."""
    n = numeric.shape[1]
    real = y.dtype.type
    start, stride = window_start(place, rows.size, n)
    for r in range(rows.size):
        row, out = numeric[rows[r]], y[r * ldy : r * ldy + n]
        if keep.size:
            other = numeric[rows[r - 1 if r else rows.size - 1]]
            for j in range(n):
                out[j] = row[j] if keep[j] else other[j]
        else:
            for j in range(n):
                out[j] = row[j]
        if strength > 0.0:
            factor = real(strength)
            for j in range(n):
                out[j] += quantiles[noise[(start + r * stride + j) % NOISE_SIZE]] * factor


# Columns of codes are narrow: plain indices are quicker than a view for every row.
@kernel
def one_hot(category, rows, keep, column, skipped, y, ldy, size):
    """y [B, size - 1]: 1 at code - 1; code 0 (missing or unseen) is all zeros.

    `skipped` columns come before the first categorical one in `keep`.
    """
    one, zero = y.dtype.type(1), y.dtype.type(0)
    turned = 1 if keep.size and not keep[skipped + column] else 0
    for r in range(rows.size):
        code = category[rows[r - turned], column]  # -1: the last one
        for j in range(size - 1):
            y[r * ldy + j] = zero
        if 0 < code < size:
            y[r * ldy + code - 1] = one


@kernel
def look_up(category, rows, keep, column, skipped, table, y, ldy, width):
    """y [B, width] = table[code]."""
    turned = 1 if keep.size and not keep[skipped + column] else 0
    for r in range(rows.size):
        code = category[rows[r - turned], column]
        for j in range(width):
            y[r * ldy + j] = table[code * width + j]


@kernel
def look_up_backward(category, rows, keep, column, skipped, dtable, dy, ldy, width):
    """Add to dtable."""
    turned = 1 if keep.size and not keep[skipped + column] else 0
    for r in range(rows.size):
        code = category[rows[r - turned], column]
        for j in range(width):
            dtable[code * width + j] += dy[r * ldy + j]


@kernel
def encode_bins(x, n, y, rows, bins, constants):
    """y [B, n, bins]: piecewise-linear encoding of x [B, n].

    `constants` [4, n, bins] are start, scale, low and high of each bin.
    """
    size = n * bins
    start, scale = constants[:size], constants[size : 2 * size]
    low, high = constants[2 * size : 3 * size], constants[3 * size : 4 * size]
    for j in range(n):  # column by column: a view takes as long as a few bins
        first, by = start[j * bins : (j + 1) * bins], scale[j * bins : (j + 1) * bins]
        least, most = low[j * bins : (j + 1) * bins], high[j * bins : (j + 1) * bins]
        for r in range(rows):
            value = x[r * n + j]
            out = y[(r * n + j) * bins : (r * n + j + 1) * bins]
            for k in range(bins):
                t = (value - first[k]) * by[k]
                t = least[k] if t < least[k] else t
                out[k] = most[k] if t > most[k] else t


@kernel
def encode_waves(x, n, y, rows, waves, frequency, phase, scale):
    """y [B, n, waves] = cos(2 pi scale frequency x + phase) of x [B, n]."""
    factor = x.dtype.type(scale) * x.dtype.type(TWO_PI)
    for j in range(n):
        f, p = frequency[j * waves : (j + 1) * waves], phase[j * waves : (j + 1) * waves]
        for r in range(rows):
            value = x[r * n + j]
            out = y[(r * n + j) * waves : (r * n + j + 1) * waves]
            for k in range(waves):
                out[k] = cosine(value * (f[k] * factor) + p[k])


@kernel
def encode_waves_backward(x, n, dy, rows, waves, frequency, phase, dfrequency, dphase, scale):
    """Add to dfrequency and dphase [n, waves]."""
    factor = x.dtype.type(scale) * x.dtype.type(TWO_PI)
    for j in range(n):
        f, p = frequency[j * waves : (j + 1) * waves], phase[j * waves : (j + 1) * waves]
        df, dp = dfrequency[j * waves : (j + 1) * waves], dphase[j * waves : (j + 1) * waves]
        for r in range(rows):
            value = x[r * n + j]
            g = dy[(r * n + j) * waves : (r * n + j + 1) * waves]
            for k in range(waves):
                slope = -g[k] * sine(value * (f[k] * factor) + p[k])
                dp[k] += slope
                df[k] += slope * value * factor


@kernel
def embed(y, ldy, parts, step, rows, bias, width):
    """Add the bias [n, width] of every column's map to its part of y, `step` apart."""
    if step == width:  # side by side: as one
        parts, width = 1, parts * width
    for p in range(parts):
        by = bias[p * width : (p + 1) * width]
        for r in range(rows):
            out = y[r * ldy + p * step : r * ldy + p * step + width]
            for j in range(width):
                out[j] += by[j]


@kernel
def embed_backward(dy, ldy, parts, step, rows, dbias, width):
    """Add to dbias [n, width]."""
    if step == width:
        parts, width = 1, parts * width
    for p in range(parts):
        total = dbias[p * width : (p + 1) * width]
        for r in range(rows):
            g = dy[r * ldy + p * step : r * ldy + p * step + width]
            for j in range(width):
                total[j] += g[j]


@kernel
def copy_columns(x, n, y, ldy, first, step, rows):
    """y's column first + j step = x [B, n]'s column j."""
    for r in range(rows):
        for j in range(n):
            y[r * ldy + first + j * step] = x[r * n + j]


@kernel
def mix(x, y, rows, share):
    """y = x - (1 - share) (x - partner), the partner of a row being the one before it (mixup)."""
    d = x.size // rows
    rest = x.dtype.type(1.0 - share)
    for r in range(rows):
        p = r - 1 if r else rows - 1
        row, other, out = x[r * d : (r + 1) * d], x[p * d : (p + 1) * d], y[r * d : (r + 1) * d]
        for j in range(d):
            # A row that is all its own stays so to the bit.
            out[j] = row[j] if rest == 0 else row[j] - rest * (row[j] - other[j])


@kernel
def mix_backward(dy, dx, rows, share):
    """dx = share dy + (1 - share) times dy of the row whose partner it is."""
    d = dx.size // rows
    own = dx.dtype.type(share)
    rest = dx.dtype.type(1) - own
    for r in range(rows):
        n = r + 1 if r + 1 < rows else 0
        g, later, out = dy[r * d : (r + 1) * d], dy[n * d : (n + 1) * d], dx[r * d : (r + 1) * d]
        for j in range(d):
            out[j] = g[j] if rest == 0 else own * g[j] + rest * later[j]
