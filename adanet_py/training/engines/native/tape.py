"""A dense network as a table of operations, and its two readers: forward and backward.

One row of the table is one operation; its columns (below) say which values it reads and writes.
A value is a number of columns, [B, width], in one preallocated arena: column c begins at c R, R the
rows there is room for. Gradients of values live in the values' own places, which are no longer
needed by then, unless an operation says otherwise (GX, GY). Nothing is allocated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from adanet_py.training.engines.native import columns, inputs, linear, norms, pointwise
from adanet_py.training.engines.native.compiling import inlined, kernel

(NUMERIC, ONE_HOT, TABLE, BINS, WAVES, MIXUP, LINEAR, ACTIVATION, ROW_NORM, BATCH_NORM, ADD,
 SPREAD, SCALE, MEMBERS) = range(14)  # fmt: skip

# Columns of an operation. X and Y are values, GX and GY the places of their gradients (GX = -1:
# none is wanted, GX != X: a place of its own, to which is added if SUM). IN and OUT are widths, W
# and B places of parameters (-1: none), LAYER a noisy layer, KNOB a number of the member (-1:
# none), P1 to P5 whatever else it needs.
KIND, X, Y, GX, GY, SUM, IN, OUT, W, B, LAYER, KNOB, P1, P2, P3, P4, P5 = range(17)
COLUMNS = 17


class Table(NamedTuple):
    """The data, and what is the same for all members."""

    numeric: Any  # [N, n]
    category: Any  # [N, c]
    target: Any  # [N, T]
    weight: Any  # [N] or [0]
    offset: Any  # [N] or [0]
    balance: Any  # [2 T] or [0]: weights of the labels by their value
    ratio: Any  # [T]: mean / scale of the target
    constants: Any  # of the network
    quantiles: Any  # [256]: of the normal distribution, for input noise
    none: Any  # [0] flags
    flat: Any  # [N n] numeric, where batches are rows that follow each other, or [0]


class Member(NamedTuple):
    """What is a member's own."""

    w: Any  # [P]
    running: Any  # [Q] running statistics
    knobs: Any  # [n] numbers of its layers
    noise: Any  # [NOISE_SIZE] or [0] bytes
    loss: Any  # [4] see `losses`


class Space(NamedTuple):
    """Preallocated memory of one thread."""

    arena: Any  # [columns * R]
    fixed: Any  # for batch norm
    zeros: Any  # [widest layer]
    mask: Any
    low: Any
    high: Any
    row: Any  # [M C]
    block: Any  # for some rows of outputs at once


@kernel
def reads_table(ops, flat, knobs, train):
    """Whether the first layers read their rows where the table has them, not a copy of them."""
    op = ops[0]
    if flat.size == 0 or op[KIND] != NUMERIC or op[P2] == 0:
        return False
    return not (train and op[KNOB] >= 0 and knobs[op[KNOB]] > 0.0)


@inlined
def forward(blas, ops, room, rows, table, member, space, keep, blend, places, train, found):
    """Values of the rows [B] of the table; the last operation's are the outputs.

    `keep` and `blend` are the step's mixing (empty and 1: none), `places` [layers] where each noisy
    layer's window begins. found [2], where not empty, counts dead units.
    """
    arena, w = space.arena, member.w
    count = rows.size
    direct = reads_table(ops, table.flat, member.knobs, train)
    for o in range(ops.shape[0]):
        op = ops[o]
        kind = op[KIND]
        if direct and kind == NUMERIC:
            continue
        x = arena[op[X] * room :]
        y = arena[op[Y] * room :]
        size, out = op[IN], op[OUT]
        place = places[op[LAYER]] if train and op[LAYER] >= 0 else 0
        knob = member.knobs[op[KNOB]] if op[KNOB] >= 0 else 0.0
        if kind == LINEAR:
            n = count * op[P1]
            if direct and op[X] == 0:
                x = table.flat[rows[0] * size :]
            linear.product(blas, x, size, w[op[W] :], y, out, n, size, out, False)
            if op[B] >= 0:
                columns.add_rows(y, w[op[B] : op[B] + out], n, space.block)
        elif kind == ACTIVATION:
            members = op[P3]
            bias = w[op[B] : op[B] + size] if op[B] >= 0 else space.zeros[:size]
            y = y[: count * members * out]
            share = knob if train else 0.0
            if op[X] == op[Y]:
                pointwise.rectify(
                    y, bias, space.mask, member.noise, place, share, count, members, space.block
                )
            else:
                pointwise.activate(
                    op[P1], x[: count * members * size], y, bias, space.mask, member.noise, place,
                    share, count, members, op[P2] != 0, space.block,
                )  # fmt: skip
            if found.size:
                pointwise.dead_units(y, count, space.low, space.high, found)
        elif kind == NUMERIC:
            strength = knob if train else 0.0
            inputs.take_numeric(
                table.numeric,
                rows,
                keep,
                y[op[P1] :],
                out,
                member.noise,
                place,
                strength,
                table.quantiles,
            )
        elif kind == ONE_HOT:
            inputs.one_hot(table.category, rows, keep, op[P2], op[P3], y[op[P1] :], out, size)
        elif kind == TABLE:
            inputs.look_up(
                table.category, rows, keep, op[P2], op[P3], w[op[W] :], y[op[P1] :], out, size
            )
        elif kind == BINS or kind == WAVES:
            encoded, width = arena[op[P5] * room :], op[P3]
            step = width if kind == BINS else width + 1
            if kind == BINS:
                inputs.encode_bins(x, size, encoded, count, op[P2], table.constants[op[P4] :])
            else:
                phase = op[P4] + size * op[P2]
                inputs.encode_waves(x, size, encoded, count, op[P2], w[op[P4] :], w[phase:], knob)
                inputs.copy_columns(x, size, y, out, op[P1] + width, step, count)
            target = y[op[P1] :]
            linear.parts_product(
                blas,
                encoded,
                size * op[P2],
                w[op[W] :],
                target,
                out,
                size,
                step,
                count,
                op[P2],
                width,
            )
            inputs.embed(target, out, size, step, count, w[op[B] :], width)
        elif kind == MIXUP:
            inputs.mix(x[: count * size], y, count, blend if train else 1.0)
        elif kind == ROW_NORM:
            n = count * op[P3]
            bias = w[op[B] : op[B] + size] if op[B] >= 0 else w[:0]
            norms.row_norm(
                x[: n * size], y, w[op[W] :], bias, arena[op[P4] * room :], n, op[P1], op[B] >= 0
            )
        elif kind == BATCH_NORM:
            mean = member.running[op[P1] : op[P1] + size]
            var = member.running[op[P2] : op[P2] + size]
            norms.batch_norm(
                x[: count * size],
                y,
                w[op[W] : op[W] + size],
                w[op[B] :],
                mean,
                var,
                space.fixed[op[P4] :],
                count,
                train,
            )
        elif kind == ADD:
            share = knob if train else 0.0
            if share > 0.0:
                pointwise.add_branch(
                    x, arena[op[P1] * room :][: count * size], y, member.noise, place, share, count
                )
            else:
                pointwise.add(x, arena[op[P1] * room :][: count * size], y)
        elif kind == SPREAD:
            linear.spread(x[: count * size], w[op[W] :], y, count, op[P1])
        elif kind == SCALE:
            bias = w[op[B] : op[B] + size] if op[B] >= 0 else w[:0]
            linear.scale_rows(x, w[op[W] : op[W] + size], bias, y, count)
        else:  # MEMBERS
            m = op[P1]
            linear.parts_product(
                blas, x, m * size, w[op[W] :], y, m * out, m, out, count, size, out
            )
            columns.add_rows(y, w[op[B] : op[B] + m * out], count, space.block)


@inlined
def backward(blas, ops, room, rows, table, member, space, keep, blend, places, g, add):
    """The gradient g [P] of the loss whose gradient stands in the place of the outputs.

    Matrices are overwritten unless `add`; all else is added to what is in g.
    """
    arena, w = space.arena, member.w
    count = rows.size
    direct = reads_table(ops, table.flat, member.knobs, True)
    for o in range(ops.shape[0] - 1, -1, -1):
        op = ops[o]
        kind = op[KIND]
        x = arena[op[X] * room :]
        dy = arena[op[GY] * room :]
        dx = arena[max(0, op[GX]) * room :]
        size, out = op[IN], op[OUT]
        place = places[op[LAYER]] if op[LAYER] >= 0 else 0
        knob = member.knobs[op[KNOB]] if op[KNOB] >= 0 else 0.0
        if kind == LINEAR:
            n = count * op[P1]
            if direct and op[X] == 0:
                x = table.flat[rows[0] * size :]
            linear.product_weights(blas, x, size, dy, out, g[op[W] :], n, size, out, add)
            if op[B] >= 0:
                columns.column_sums(dy[: n * out], n, g[op[B] : op[B] + out], space.block)
            if op[GX] >= 0:
                linear.product_inputs(
                    blas, dy, out, w[op[W] :], dx, size, n, size, out, op[SUM] != 0
                )
        elif kind == ACTIVATION:
            n = count * op[P3]
            db = g[op[B] : op[B] + size] if op[B] >= 0 else g[:0]
            if op[X] == op[Y]:
                pointwise.rectify_backward(x[: n * size], dy[: n * out], knob, n, db, space.block)
            else:
                pointwise.activate_backward(
                    x[: n * size], dy[: n * out], n, op[P2] != 0, db, space.block
                )
            if op[GX] != op[X]:
                pointwise.copy(x[: n * size], dx)
        elif kind == TABLE:
            inputs.look_up_backward(
                table.category, rows, keep, op[P2], op[P3], g[op[W] :], dy[op[P1] :], out, size
            )
        elif kind == BINS or kind == WAVES:
            encoded, width = arena[op[P5] * room :], op[P3]
            step = width if kind == BINS else width + 1
            source = dy[op[P1] :]
            linear.parts_weights(
                blas,
                encoded,
                size * op[P2],
                source,
                out,
                g[op[W] :],
                size,
                step,
                count,
                op[P2],
                width,
                add,
            )
            inputs.embed_backward(source, out, size, step, count, g[op[B] :], width)
            if kind == WAVES:
                phase = op[P4] + size * op[P2]
                linear.parts_inputs(
                    blas,
                    source,
                    out,
                    w[op[W] :],
                    encoded,
                    size * op[P2],
                    size,
                    step,
                    count,
                    op[P2],
                    width,
                )
                inputs.encode_waves_backward(
                    x,
                    size,
                    encoded,
                    count,
                    op[P2],
                    w[op[P4] :],
                    w[phase:],
                    g[op[P4] :],
                    g[phase:],
                    knob,
                )
        elif kind == MIXUP:
            if op[GX] >= 0:
                inputs.mix_backward(dy, dx[: count * size], count, blend)
        elif kind == ROW_NORM:
            n = count * op[P3]
            centered = op[B] >= 0
            db = g[op[B] :] if centered else g[:0]
            norms.row_norm_backward(
                x[: n * size],
                dy,
                dx,
                w[op[W] :],
                g[op[W] :],
                db,
                arena[op[P4] * room :],
                n,
                op[P1],
                centered,
                op[SUM] != 0,
            )
        elif kind == BATCH_NORM:
            norms.batch_norm_backward(
                x[: count * size],
                dy,
                dx,
                w[op[W] : op[W] + size],
                g[op[W] :],
                g[op[B] :],
                space.fixed[op[P4] :],
                count,
                space.fixed[op[P4] + 2 * size :],
                op[SUM] != 0,
            )
        elif kind == ADD:
            if op[P2] >= 0:  # the branch has a gradient of its own
                du = arena[op[P2] * room :][: count * size]
                if knob > 0.0:
                    pointwise.branch_backward(dy, du, member.noise, place, knob, count)
                else:
                    pointwise.copy(dy[: count * size], du)
        elif kind == SPREAD:
            linear.spread_backward(
                x[: count * size], w[op[W] :], dy, g[op[W] :], count, op[P1], op[GX] >= 0
            )
            if op[GX] >= 0 and op[GX] != op[X]:
                if op[SUM] != 0:
                    pointwise.add(dx, x[: count * size], dx)
                else:
                    pointwise.copy(x[: count * size], dx)
        elif kind == SCALE:
            db = g[op[B] : op[B] + size] if op[B] >= 0 else g[:0]
            linear.scale_backward(x, w[op[W] : op[W] + size], dy, g[op[W] :], db, count)
        elif kind == MEMBERS:
            m = op[P1]
            linear.parts_weights(
                blas, x, m * size, dy, m * out, g[op[W] :], m, out, count, size, out, add
            )
            columns.column_sums(
                dy[: count * m * out], count, g[op[B] : op[B] + m * out], space.block
            )
            if op[GX] >= 0:
                linear.parts_inputs(
                    blas, dy, m * out, w[op[W] :], dx, m * size, m, out, count, size, out
                )
