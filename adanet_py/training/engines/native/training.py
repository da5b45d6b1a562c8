"""What Python calls: some steps of one member, or one gradient, or the outputs for rows.

All are one compiled function: it takes most of a minute to compile, once on a machine, and each
further one would take nearly as long.
"""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any, NamedTuple

from adanet_py.training.engines.native.compiling import entry
from adanet_py.training.engines.native.constraints import hold
from adanet_py.training.engines.native.losses import batch_loss
from adanet_py.training.engines.native.tape import Y, backward, forward
from adanet_py.training.engines.native.updates import update

TRAIN, GRADIENT, UPDATE, OUTPUTS = range(4)  # what is wanted


class Net(NamedTuple):
    """The network as compiled code reads it."""

    blas: Any  # address of the matrix product
    ops: Any  # [n, COLUMNS]
    room: Any  # R, rows there is room for
    pieces: Any  # [n + 1] where the parts of a batch begin
    matrices: Any  # columns of w that are matrices
    parts: Any  # [n, 6] the matrices
    members: Any  # M, implicit members
    loss: Any  # code
    optimizer: Any  # code


class Steps(NamedTuple):
    """What every step of a member needs."""

    rows: Any  # [S, B]
    places: Any  # [S, pieces, layers]
    rates: Any  # [S]
    keep: Any  # [S, columns] or [S, 0]
    blend: Any  # [S]
    own: Any  # [S]
    shares: Any  # [S] of the newest weights in their average, or [0]


class Changing(NamedTuple):
    """What a step changes beside the weights."""

    g: Any  # [P]
    slots: Any  # [S, P]
    scalars: Any  # [s]
    hp: Any  # hyperparameters
    average: Any  # [P] or [0]
    average_running: Any  # [Q] or [0]
    held: Any  # [D] where weights stay zero, or [0]


@entry
def work(wanted, net, table, member, space, steps, state, first, out, found):
    """Go through the batches of `steps`, cut in `net.pieces`; the sum of their losses.

    TRAIN: an update after each, the first of them number `first` (from 0). GRADIENT: leave the last
    gradient in state.g. UPDATE: take one by the gradient that is there. OUTPUTS: write the outputs [B, M C] of each batch, as in evaluation, one
    after the other to `out`; `found` as in `forward`.
    """
    total, size, at = 0.0, space.row.size, 0
    real = member.w.dtype.type
    last = net.ops[net.ops.shape[0] - 1][Y] * net.room
    trains = wanted != OUTPUTS
    for s in range(steps.rows.shape[0]):
        rows, keep, places = steps.rows[s], steps.keep[s], steps.places[s]
        if trains and wanted != UPDATE:
            for i in range(net.matrices, state.g.size):
                state.g[i] = real(0)
        for p in range(net.pieces.size - 1 if wanted != UPDATE else 0):
            part = rows[net.pieces[p] : net.pieces[p + 1]]
            forward(
                net.blas, net.ops, net.room, part, table, member, space, keep, steps.blend[s],
                places[p], trains, found,
            )  # fmt: skip
            z = space.arena[last : last + part.size * size]
            if not trains:
                for i in range(z.size):
                    out[at + i] = z[i]
                at += z.size
                continue
            total += batch_loss(
                net.loss, z, net.members, table.target, table.weight, table.offset, table.balance,
                table.ratio, part, steps.own[s], 1.0 / rows.size, member.loss, space.row,
                space.block,
            )  # fmt: skip
            backward(
                net.blas, net.ops, net.room, part, table, member, space, keep, steps.blend[s],
                places[p], state.g, p > 0,
            )  # fmt: skip
        if wanted == TRAIN or wanted == UPDATE:
            hold(state.g, state.held)
            update(
                net.optimizer, member.w, state.g, state.slots, state.scalars, net.parts,
                net.matrices, state.hp, steps.rates[s], first + s + 1,
            )  # fmt: skip
            hold(member.w, state.held)
            if steps.shares.size:
                share = real(steps.shares[s])
                for i in range(member.w.size):
                    state.average[i] += share * (member.w[i] - state.average[i])
                for i in range(member.running.size):
                    state.average_running[i] += share * (
                        member.running[i] - state.average_running[i]
                    )
    return total
