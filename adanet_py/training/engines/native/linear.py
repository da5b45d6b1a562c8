"""Linear maps: dense, one per implicit member, and the per-member scales of BatchEnsemble."""

from __future__ import annotations

from adanet_py.training.engines.native.blas import KEEP, TURN, call
from adanet_py.training.engines.native.compiling import kernel


@kernel
def _at(x, place):
    """The address of x[place]."""
    return x.ctypes.data + place * x.itemsize


@kernel
def product(blas, x, ldx, w, y, ldy, rows, size, out, add):
    """y [rows, out] = x [rows, size] w^T, or += if `add`; w [out, size], rows ldx and ldy apart."""
    one, beta = x.dtype.type(1), x.dtype.type(add)
    call(
        blas, TURN, KEEP, out, rows, size, one, _at(w, 0), size, _at(x, 0), ldx, beta,
        _at(y, 0), ldy,
    )  # fmt: skip


@kernel
def product_weights(blas, x, ldx, dy, ldy, dw, rows, size, out, add):
    """dw [out, size] = dy^T x, or += if `add`."""
    one, beta = x.dtype.type(1), x.dtype.type(add)
    call(
        blas, KEEP, TURN, size, out, rows, one, _at(x, 0), ldx, _at(dy, 0), ldy, beta,
        _at(dw, 0), size,
    )  # fmt: skip


@kernel
def product_inputs(blas, dy, ldy, w, dx, ldx, rows, size, out, add):
    """dx [rows, size] = dy w, or += if `add`."""
    one, beta = dy.dtype.type(1), dy.dtype.type(add)
    call(
        blas, KEEP, KEEP, size, rows, out, one, _at(w, 0), size, _at(dy, 0), ldy, beta,
        _at(dx, 0), ldx,
    )  # fmt: skip


# The same with w [size, out], one matrix per part: column groups of x and y that are `size` and
# `out` wide.
@kernel
def parts_product(blas, x, ldx, w, y, ldy, parts, step, rows, size, out):
    """y_p [rows, out] = x_p [rows, size] w_p for every part; y_p begins at column p step."""
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for p in range(parts):
        call(
            blas, KEEP, KEEP, out, rows, size, one, _at(w, p * size * out), out,
            _at(x, p * size), ldx, zero, _at(y, p * step), ldy,
        )  # fmt: skip


@kernel
def parts_weights(blas, x, ldx, dy, ldy, dw, parts, step, rows, size, out, add):
    """dw_p [size, out] = x_p^T dy_p, or += if `add`."""
    one, beta = x.dtype.type(1), x.dtype.type(add)
    for p in range(parts):
        call(
            blas, KEEP, TURN, out, size, rows, one, _at(dy, p * step), ldy,
            _at(x, p * size), ldx, beta, _at(dw, p * size * out), out,
        )  # fmt: skip


@kernel
def parts_inputs(blas, dy, ldy, w, dx, ldx, parts, step, rows, size, out):
    """dx_p [rows, size] = dy_p w_p^T."""
    one, zero = dy.dtype.type(1), dy.dtype.type(0)
    for p in range(parts):
        call(
            blas, TURN, KEEP, size, rows, out, one, _at(w, p * size * out), out,
            _at(dy, p * step), ldy, zero, _at(dx, p * size), ldx,
        )  # fmt: skip


@kernel
def spread(x, scale, y, rows, members):
    """y [rows, M, d] = x [rows, d] scale [M, d]."""
    d = x.size // rows
    for r in range(rows):
        row = x[r * d : (r + 1) * d]
        for m in range(members):
            s, out = (
                scale[m * d : (m + 1) * d],
                y[(r * members + m) * d : (r * members + m + 1) * d],
            )
            for j in range(d):
                out[j] = row[j] * s[j]


@kernel
def spread_backward(x, scale, dy, dscale, rows, members, wanted):
    """Add to dscale [M, d]; x becomes dL/dx if `wanted`. dy is lost."""
    d = x.size // rows
    for r in range(rows):
        row = x[r * d : (r + 1) * d]
        first = dy[r * members * d : (r * members + 1) * d]
        for m in range(members):
            s, total = scale[m * d : (m + 1) * d], dscale[m * d : (m + 1) * d]
            g = dy[(r * members + m) * d : (r * members + m + 1) * d]
            for j in range(d):
                total[j] += g[j] * row[j]
            if wanted and m == 0:
                for j in range(d):
                    first[j] = g[j] * s[j]
            elif wanted:
                for j in range(d):
                    first[j] += g[j] * s[j]
        if wanted:
            for j in range(d):
                row[j] = first[j]


@kernel
def scale_rows(x, scale, bias, y, rows):
    """y [rows, d] = x scale [d] + bias [d]; bias may be empty."""
    d = scale.size
    for r in range(rows):
        row, out = x[r * d : (r + 1) * d], y[r * d : (r + 1) * d]
        if bias.size:
            for j in range(d):
                out[j] = row[j] * scale[j] + bias[j]
        else:
            for j in range(d):
                out[j] = row[j] * scale[j]


@kernel
def scale_backward(x, scale, dy, dscale, dbias, rows):
    """Add to dscale [d] and dbias [d] (may be empty); x becomes dL/dx."""
    d = scale.size
    for r in range(rows):
        row, g = x[r * d : (r + 1) * d], dy[r * d : (r + 1) * d]
        for j in range(d):
            dscale[j] += g[j] * row[j]
            row[j] = g[j] * scale[j]
        if dbias.size:
            for j in range(d):
                dbias[j] += g[j]
