"""The native engine: all steps between two evaluations of one member are one compiled call.

Storage, measurements and evaluation are those of the stacked engine; forward, backward and update
are loops compiled by numba with matrix products by BLAS. On a CPU this beats any order in which
members take turns within a step: what one member needs stays in the cache.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from adanet_py.architectures.perturbations import byte_deviation
from adanet_py.training.batches import noise_starts
from adanet_py.training.engines import UnsuitedError
from adanet_py.training.engines.feed import Places
from adanet_py.training.engines.native import losses, updates
from adanet_py.training.engines.native.blas import address, one_thread
from adanet_py.training.engines.native.tape import Member, Space, Table
from adanet_py.training.engines.native.training import (
    GRADIENT,
    OUTPUTS,
    TRAIN,
    UPDATE,
    Changing,
    Net,
    Steps,
    work,
)
from adanet_py.training.engines.native.translate import translate
from adanet_py.training.engines.program import Program, numeric_values
from adanet_py.training.engines.stacked import StackedEngine
from adanet_py.training.losses import LOSSES
from adanet_py.training.optimizers import OPTIMIZERS, Part
from adanet_py.training.probe import PROBE_ROWS

CALL_SECONDS = 0.1  # of training between two looks at the clock
FIRST_STEPS = 8
BLOCK_BYTES = 1 << 22  # of rows fetched at once, in the order that they are read in
CACHE_BYTES = 1 << 20  # of all rows, if they need not be
LOSS_KNOBS = ("label_smoothing", "focal_gamma", "huber_delta")

Array = npt.NDArray[Any]


class NativeEngine(StackedEngine):
    """Advances C candidates in F folds; see `Program` for the order of the members.

    Raises UnsuitedError for what compiled code cannot run.
    """

    def __init__(self, program: Program) -> None:
        _check(program)
        self._chunk = FIRST_STEPS
        self._net: Net | None = None
        super().__init__(program)

    def _read(self, module: nn.Module) -> None:
        program = self.program
        self._nothing_held = np.zeros(0, np.bool_)
        self._translation = translate(
            module,
            self.parts,
            drops="drop_path" in program.used(),
            mixes=program.mixer() is not None,
        )

    def _bind(self) -> None:
        super()._bind()
        if self._net is None:
            self._prepare()
        k = self.weights.shape[0]
        self.weights, self.gradient = _aligned(self.weights), _aligned(self.gradient)
        # What compiled code changes is contiguous per member; the named tensors are views of it.
        self._slots = _stacked(self.slots, self._slot_names, self.weights)
        self._scalars = _joined(self.slots, self._scalar_names, self.weights)
        self._running = _joined(self.buffers, self._running_names, self.weights)
        if self.averages:
            self.averages["weights"] = _aligned(self.averages["weights"])
            self._average_running = _joined(self.averages, self._running_names, self.weights)
        knobs = [self.buffers[name].double() * factor for name, factor in self._knob_names]
        self._knobs = torch.stack(knobs, 1).numpy() if knobs else np.zeros((k, 0))
        candidates = [self.program.candidates[c] for c in self.alive] * self.program.folds
        values = [numeric_values(self.program.optimizer, c) for c in candidates]
        self._hp = np.array([[v.get(n, 0.0) for n in updates.HYPERPARAMETERS] for v in values])
        quantile = self.program.spec.quantile
        quantile = 0.5 if quantile is None else float(quantile)
        self._loss_knobs = np.array([[*(v[n] for n in LOSS_KNOBS), quantile] for v in values])

    def _prepare(self) -> None:
        """What stays the same while members leave."""
        program, real = self.program, self.weights.numpy().dtype
        net = self._translation
        edges = np.array([p.start for p in self._pieces] + [self._pieces[-1].stop], np.int64)
        room = -(-max(PROBE_ROWS, int(np.diff(edges).max())) // 16) * 16
        # A user's own optimizer may bear the name of one of ours.
        ours = OPTIMIZERS.get(program.optimizer.name) is program.optimizer
        self._compiled_update = ours and program.optimizer.name in updates.CODES
        # Averages of weights that are not those trained are left to the general loop.
        if self.averages and program.optimizer.evaluated is not None:
            self._compiled_update = False
        self._net = Net(
            address(real == np.float64),
            net.ops,
            room,
            edges,
            self.decayed,
            _matrices(self.parts),
            net.members,
            losses.CODES[program.loss.name],
            updates.CODES[program.optimizer.name] if self._compiled_update else 0,
        )
        self._slot_names = program.optimizer.slots
        self._scalar_names = program.optimizer.scalars
        self._running_names, self._knob_names = net.running, net.knobs
        data = program.data
        none = np.zeros(0, real)
        ratio = program.spec.target_ratio or (1.0,)
        self._table = Table(
            data.numeric.numpy(),
            data.category.numpy(),
            data.target.reshape(len(data.target), -1).numpy(),
            none if data.weight is None else data.weight.numpy(),
            none if data.offset is None else data.offset.numpy(),
            none if program.label_weight is None else program.label_weight.reshape(-1).numpy(),
            np.array(ratio, np.float64),
            net.constants.astype(real),
            _quantiles().astype(real),
            np.zeros(0, np.bool_),
        )
        # What has a value per row; where all rows fit into the cache, nothing is gained by order.
        names = ("numeric", "category", "target", "weight", "offset")
        self._rowwise = [n for n in names if getattr(self._table, n).size]
        held = [getattr(self._table, n) for n in self._rowwise]
        self._row_bytes = sum(a.nbytes // len(a) for a in held)
        self._small = len(held[0]) * self._row_bytes <= CACHE_BYTES
        widest, size = net.widest, net.members * net.outputs
        self._space = Space(
            self.weights.new_zeros(net.columns * room).numpy(),
            np.zeros(net.fixed, real),
            *(np.zeros(widest, real), np.ones(widest, real)),
            *(np.zeros(widest, real), np.zeros(widest, real), np.zeros(size, real)),
            np.zeros(max(2, size) * losses.LANES, real),
        )

    def _member(self, m: int, weights: Array, running: Array) -> Member:
        noise = np.zeros(0, np.uint8) if self.noise is None else self.noise[m].numpy()
        return Member(weights[m], running[m], self._knobs[m], noise, self._loss_knobs[m])

    def _changing(self, m: int) -> Changing:
        none = self.weights.numpy()[0, :0]
        average, running = none, none
        if self.averages:
            average = self.averages["weights"][m].numpy()
            running = self._average_running[m]
        slots, scalars = self._slots[m], self._scalars[m]
        held = self._nothing_held if self.held is None else self.held[m].numpy()
        gradient = self.gradient[m].numpy()
        return Changing(gradient, slots, scalars, self._hp[m], average, running, held)

    def _planned(self, start: int, stop: int) -> list[Steps]:
        """What every member needs for steps [start, stop)."""
        order = self.program.order.take(start, stop)  # [S, F, B]
        places = noise_starts(start, stop, len(self._noisy), len(self._pieces))
        rates = self.rates[start:stop, :, 0].double().numpy()
        one = np.ones(stop - start)
        mixes = None if self.mixer is None else self.mixer.take(start, stop)
        none = np.zeros((stop - start, 0), np.bool_)
        rows = [np.ascontiguousarray(order[:, f]) for f in range(order.shape[1])]
        steps = []
        for m in range(len(self.weights)):
            shares = one[:0]
            if self.averages:
                shares = self._share[start:stop, m, 0].double().numpy()
            mixing = (none, one, one)
            if mixes is not None:
                mixing = (
                    np.ascontiguousarray(mixes.keep[:, m]),
                    _as_measured(mixes.share[:, m], self._space.row.dtype),
                    _as_measured(mixes.own[:, m], self._space.row.dtype),
                )
            rate = np.ascontiguousarray(rates[:, m])
            fold = rows[int(self._fold[m])]
            steps.append(Steps(fold, places, rate, *mixing, np.ascontiguousarray(shares)))
        return steps

    def _run(self, start: int, stop: int, tick: Callable[[int], bool]) -> int:
        if not self._compiled_update:
            return super()._run(start, stop, tick)
        weights, losses_ = self.weights.numpy(), self._total.numpy()
        with one_thread():
            while start < stop:
                end = min(stop, start + self._chunk)
                before = time.monotonic()
                planned = self._planned(start, end)
                own = [
                    (self._member(m, weights, self._running), self._changing(m))
                    for m in range(len(planned))
                ]
                for first, last in self._stretches(end - start):
                    part = [Steps(*(a[first:last] for a in steps)) for steps in planned]
                    for m, (table, steps) in enumerate(self._gathered(part)):
                        member, state = own[m]
                        call = (member, steps, state, start + first, table)
                        losses_[m] += self._work(TRAIN, *call)
                each = (time.monotonic() - before) / (end - start)
                self._chunk = int(min(4096, max(1, CALL_SECONDS / max(each, 1e-6))))
                start = end
                if tick(start):
                    break
        return start

    @torch.no_grad()
    def _descend(self, at: int | Tensor, t: Tensor, measured: bool) -> Tensor:
        if not self._compiled_update:
            return super()._descend(at, t, measured)
        assert isinstance(at, int)  # nothing is recorded on a CPU
        gradient = self.gradient
        if "l1" in self.constraints.used:
            gradient = gradient.clone()
            self.constraints.penalise(gradient, self.weights)
        norm = gradient.norm(dim=1)
        weights = self.weights.numpy()
        for m, steps in enumerate(self._planned(at, at + 1)):
            member = self._member(m, weights, self._running)
            self._work(UPDATE, member, steps, self._changing(m), at)
        return norm

    def _gradients(self, rows: Tensor, places: Places, total: Tensor) -> None:
        weights, losses_ = self.weights.numpy(), total.numpy()
        keep = np.zeros((1, 0), np.bool_)
        one = np.ones(1)
        windows = np.array(places, np.int64).reshape(1, len(self._pieces), -1)
        batch = rows.numpy()[:, None]  # [F, 1, B]
        with one_thread():
            for m in range(len(weights)):
                mixing = (keep, one, one)
                if self._mix:
                    mixing = (
                        self._mix["keep"][m : m + 1].numpy(),
                        self._mix["share"][m : m + 1].double().numpy(),
                        self._mix["own"][m].double().numpy(),
                    )
                steps = Steps(batch[int(self._fold[m])], windows, one, *mixing, one[:0])
                member = self._member(m, weights, self._running)
                state = self._changing(m)
                losses_[m] += self._work(GRADIENT, member, steps, state)
        self._hold(self.gradient)

    def _stretches(self, steps: int) -> Iterator[tuple[int, int]]:
        """Parts of that many steps whose rows fit into a processor's cache."""
        each = self._net.pieces[-1] * self._row_bytes  # type: ignore[union-attr]
        size = steps if self._small else max(1, BLOCK_BYTES // each)
        return ((first, min(steps, first + size)) for first in range(0, steps, size))

    def _gathered(self, members: Sequence[Steps]) -> list[tuple[Table, Steps]]:
        """The rows of these steps one after the other, fetched once for all members of a fold."""
        if self._small:
            return [(self._table, steps) for steps in members]
        folds: dict[int, tuple[Table, Array]] = {}
        out = []
        for m, steps in enumerate(members):
            fold = int(self._fold[m])
            if fold not in folds:
                rows = steps.rows.reshape(-1)
                taken = {n: getattr(self._table, n)[rows] for n in self._rowwise}
                places = np.arange(rows.size).reshape(steps.rows.shape)
                folds[fold] = self._table._replace(**taken), places
            table, places = folds[fold]
            out.append((table, steps._replace(rows=places)))
        return out

    def _work(
        self,
        wanted: int,
        member: Member,
        steps: Steps,
        state: Changing,
        first: int = 0,
        table: Table | None = None,
    ) -> float:
        nothing = member.w[:0]
        own = (self._net, table or self._table, member, self._space, steps, state)
        return float(work(wanted, *own, first, nothing, nothing))

    def _outputs(self, m: int, weights: Array, running: Array, rows: Array, found: Array) -> Array:
        """Raw outputs [N, M C] of a member."""
        assert self._net is not None
        out = np.empty(len(rows) * self._space.row.size, weights.dtype)
        member, state = self._member(m, weights, running), self._changing(m)
        edges = np.append(np.arange(0, len(rows), self._net.room), len(rows))
        net = self._net._replace(pieces=edges)
        work(OUTPUTS, net, self._table, member, self._space, _batch(rows), state, 0, out, found)
        return out

    @torch.no_grad()
    def predict(self, rows: Sequence[np.ndarray]) -> Tensor:
        """See `StackedEngine.predict`."""
        c, folds = len(self.alive), self.program.folds
        weights, running = self._evaluated_arrays()
        implicit = self._net.members  # type: ignore[union-attr]
        parts = []
        nothing = weights[0, :0]
        with one_thread():
            for f in range(folds):
                piece = np.asarray(rows[f] if len(rows) == folds else rows[0])
                each = [
                    self._outputs(f * c + i, weights, running, piece, nothing) for i in range(c)
                ]
                raw = torch.from_numpy(np.stack(each)).view(c, len(piece), implicit, -1)
                parts.append(self.program.scored(raw, torch.from_numpy(piece)))
        if len(rows) == folds:
            return torch.cat(parts, 1)
        return torch.stack(parts).mean(0)

    def _evaluated_arrays(self) -> tuple[Array, Array]:
        """Weights [K, P] and running statistics [K, Q] of what is scored."""
        weights, _ = self._evaluated()
        running = self._average_running if self.averages else self._running
        return (weights if weights.stride(1) == 1 else _aligned(weights)).numpy(), running

    @torch.no_grad()
    def measure(self, units: bool = True) -> dict[str, Tensor]:
        """See `StackedEngine.measure`."""
        if not units:
            return self._measured
        weights, running = self._evaluated_arrays()
        rows, dead = self._probe_rows.numpy(), []
        with one_thread():
            for m in range(len(weights)):
                found = np.zeros(2, weights.dtype)
                self._outputs(m, weights, running, rows[int(self._fold[m])], found)
                dead.append(found[0] / found[1] if found[1] else np.nan)
        return self._measured | {"dead_units": torch.tensor(dead, dtype=self.program.dtype)}


def _check(program: Program) -> None:
    if program.device.type != "cpu":
        raise UnsuitedError(f"it runs on a CPU, not on {program.device}")
    precision = program.candidates[0].static.get("precision", "float32")
    if precision != "float32":
        raise UnsuitedError(f"it does not compute in {precision}")
    name = program.loss.name
    if name not in losses.CODES or program.losses[name] is not LOSSES[name]:
        raise UnsuitedError(f"the loss {name} is not compiled")


def _as_measured(numbers: Array, real: npt.DTypeLike) -> Array:
    """Numbers in double precision as they are after rounding, as a step that is measured has them.

    Which steps are measured must not change a bit.
    """
    return np.ascontiguousarray(numbers.astype(real).astype(np.float64))


def _batch(rows: Array) -> Steps:
    """The rows [N] as one batch in which nothing is disturbed."""
    one, none = np.ones(1), np.zeros((1, 0), np.bool_)
    windows = np.zeros((1, len(rows) + 1, 0), np.int64)
    return Steps(rows.reshape(1, -1), windows, one, none, one, one, one[:0])


def _aligned(rows: Tensor) -> Tensor:
    """The rows [K, P], each beginning at a multiple of 64 bytes.

    The bits of a product may depend on where its matrices lie, and must not on who else is there.
    """
    store = rows.new_zeros(rows.shape[0], -(-rows.shape[1] // 16) * 16)[:, : rows.shape[1]]
    return store.copy_(rows)


def _stacked(tensors: dict[str, Tensor], names: Sequence[str], like: Tensor) -> Array:
    """The named tensors [K, P] in one [K, S, P], S >= 1, of which they become views."""
    store = like.new_zeros(like.shape[0], max(1, len(names)), like.shape[1])
    for i, name in enumerate(names):
        store[:, i].copy_(tensors[name])
        tensors[name] = store[:, i]
    return store.numpy()


def _joined(tensors: dict[str, Tensor], names: Sequence[str], like: Tensor) -> Array:
    """The named tensors [K, n] side by side in one [K, Q], of which they become views."""
    count = like.shape[0]
    store = like.new_zeros(count, sum(tensors[n].shape[1] for n in names))
    at = 0
    for name in names:
        size = tensors[name].shape[1]
        store[:, at : at + size].copy_(tensors[name])
        tensors[name] = store[:, at : at + size]
        at += size
    return store.numpy()


def _matrices(parts: Sequence[Part]) -> npt.NDArray[np.int64]:
    """The weight matrices as compiled code reads them; see the columns in `updates`."""
    table = []
    for part in parts:
        if part.decayed:
            rows, cols = part.shape[-2:]
            count = int(np.prod(part.shape[:-2], dtype=np.int64))
            table.append([part.start, count, rows, cols, part.unit_axis == -1, part.head])
    return np.array(table, np.int64).reshape(-1, 6)


@functools.cache
def _quantiles() -> npt.NDArray[np.float64]:
    """What each byte stands for in input noise; as in `perturbations.InputNoise`."""
    normal = np.array([NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256)])
    return normal / byte_deviation()
