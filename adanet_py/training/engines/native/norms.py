"""Batch, layer, group and RMS norm, forward and backward; as in `architectures.norms`.

`kept` holds what the backward pass needs: the mean and 1 / deviation of each unit (batch norm) or
of each group of each row.
"""

from __future__ import annotations

import numpy as np

from adanet_py.training.engines.native.compiling import kernel

EPS, RMS_EPS = 1e-5, 1e-6
MOMENTUM, ONE_ROW_MOMENTUM = 0.1, 0.01


@kernel
def row_norm(x, y, weight, bias, kept, rows, groups, centered):
    """y [rows, d] = (x - mean) / deviation * weight + bias over each of `groups` of the units.

    Not `centered`: divided by the root of the mean square (RMS norm), without bias.
    """
    real = x.dtype.type
    d = x.size // rows
    size = d // groups
    eps = real(EPS if centered else RMS_EPS)
    for r in range(rows):
        for g in range(groups):
            at = r * d + g * size
            part, out = x[at : at + size], y[at : at + size]
            w = weight[g * size : (g + 1) * size]
            mean = real(0)
            if centered:
                for j in range(size):
                    mean += part[j]
                mean /= real(size)
            square = real(0)
            for j in range(size):
                square += (part[j] - mean) * (part[j] - mean)
            inverse = real(1) / np.sqrt(square / real(size) + eps)
            kept[2 * (r * groups + g)] = mean
            kept[2 * (r * groups + g) + 1] = inverse
            if centered:
                b = bias[g * size : (g + 1) * size]
                for j in range(size):
                    out[j] = (part[j] - mean) * inverse * w[j] + b[j]
            else:
                for j in range(size):
                    out[j] = part[j] * inverse * w[j]


@kernel
def row_norm_backward(x, dy, dx, weight, dweight, dbias, kept, rows, groups, centered, add):
    """dx may be x itself; added to what is there if `add`. Adds to dweight and dbias."""
    real = x.dtype.type
    d = x.size // rows
    size = d // groups
    for r in range(rows):
        for g in range(groups):
            at = r * d + g * size
            part, grad, out = x[at : at + size], dy[at : at + size], dx[at : at + size]
            w, dw = weight[g * size : (g + 1) * size], dweight[g * size : (g + 1) * size]
            mean = kept[2 * (r * groups + g)]
            inverse = kept[2 * (r * groups + g) + 1]
            along, plain = real(0), real(0)
            for j in range(size):
                normal = (part[j] - mean) * inverse
                scaled = grad[j] * w[j]
                along += scaled * normal
                plain += scaled
                dw[j] += grad[j] * normal
            if centered:
                db = dbias[g * size : (g + 1) * size]
                for j in range(size):
                    db[j] += grad[j]
            along /= real(size)
            plain = plain / real(size) if centered else real(0)
            if add:
                for j in range(size):
                    normal = (part[j] - mean) * inverse
                    out[j] += inverse * (grad[j] * w[j] - plain - normal * along)
            else:
                for j in range(size):
                    normal = (part[j] - mean) * inverse
                    out[j] = inverse * (grad[j] * w[j] - plain - normal * along)


@kernel
def batch_norm(x, y, weight, bias, mean, var, kept, rows, train):
    """Over rows; in training moves the running statistics mean and var [d]."""
    real = x.dtype.type
    d = weight.size
    center, inverse = kept[:d], kept[d : 2 * d]
    eps = real(EPS)
    if train and rows > 1:
        for j in range(d):
            center[j] = real(0)
            inverse[j] = real(0)
        for r in range(rows):
            row = x[r * d : (r + 1) * d]
            for j in range(d):
                center[j] += row[j]
        for j in range(d):
            center[j] /= real(rows)
        for r in range(rows):
            row = x[r * d : (r + 1) * d]
            for j in range(d):
                inverse[j] += (row[j] - center[j]) * (row[j] - center[j])
        share, unbiased = real(MOMENTUM), real(rows / (rows - 1.0))
        for j in range(d):
            spread = inverse[j] / real(rows)
            mean[j] += share * (center[j] - mean[j])
            var[j] += share * (spread * unbiased - var[j])
            inverse[j] = real(1) / np.sqrt(spread + eps)
    else:
        for j in range(d):
            center[j] = mean[j]
            inverse[j] = real(1) / np.sqrt(var[j] + eps)
        if train:  # one row has no variance: see `architectures.norms.BatchNorm`
            share = real(ONE_ROW_MOMENTUM)
            for j in range(d):
                distance = x[j] - mean[j]
                move = share * distance
                mean[j] += move
                var[j] = (var[j] + distance * move) * (real(1) - share)
    for r in range(rows):
        row, out = x[r * d : (r + 1) * d], y[r * d : (r + 1) * d]
        for j in range(d):
            out[j] = (row[j] - center[j]) * inverse[j] * weight[j] + bias[j]


@kernel
def batch_norm_backward(x, dy, dx, weight, dweight, dbias, kept, rows, sums, add):
    """dx may be x itself; `sums` [2 d] is scratch. Adds to dweight and dbias."""
    real = x.dtype.type
    d = weight.size
    center, inverse = kept[:d], kept[d : 2 * d]
    along, plain = sums[:d], sums[d : 2 * d]
    for j in range(d):
        along[j] = real(0)
        plain[j] = real(0)
    for r in range(rows):
        row, g = x[r * d : (r + 1) * d], dy[r * d : (r + 1) * d]
        for j in range(d):
            along[j] += g[j] * (row[j] - center[j]) * inverse[j]
            plain[j] += g[j]
    share = real(1.0 / rows) if rows > 1 else real(0)  # of one row the statistics are constants
    for j in range(d):
        dweight[j] += along[j]
        dbias[j] += plain[j]
        along[j] *= share
        plain[j] *= share
    for r in range(rows):
        row, g, out = x[r * d : (r + 1) * d], dy[r * d : (r + 1) * d], dx[r * d : (r + 1) * d]
        for j in range(d):
            normal = (row[j] - center[j]) * inverse[j]
            value = inverse[j] * weight[j] * (g[j] - plain[j] - normal * along[j])
            out[j] = out[j] + value if add else value
