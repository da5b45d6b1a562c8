"""The native engine: all steps between two evaluations of one member are one compiled call.

Storage, measurements and evaluation are those of the stacked engine; forward, backward and update
are loops compiled by numba with matrix products by BLAS. On a CPU this beats any order in which
members take turns within a step: what one member needs stays in the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from adanet_py.training.batches import noise_starts
from adanet_py.training.engines import UnsuitedError
from adanet_py.training.engines.feed import Places
from adanet_py.training.engines.native import losses, updates
from adanet_py.training.engines.native.blas import address, one_thread
from adanet_py.training.engines.native.columns import TILE
from adanet_py.training.engines.native.constraints import HYPERPARAMETERS
from adanet_py.training.engines.native.storage import (
    aligned,
    as_measured,
    joined,
    matrices,
    quantiles,
    stacked,
)
from adanet_py.training.engines.native.tape import KIND, NUMERIC, P2, Member, Space, Table
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
from adanet_py.training.optimizers import OPTIMIZERS
from adanet_py.training.probe import PROBE_ROWS

CALL_SECONDS = 0.1  # of training between two looks at the clock
FIRST_STEPS = 8
BLOCK_BYTES = 1 << 22  # of rows fetched at once, in the order that they are read in
CACHE_BYTES = 1 << 20  # of all rows, if they need not be
FEATURES = ("numeric", "category")
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
        self.weights, self.gradient = aligned(self.weights), aligned(self.gradient)
        # What compiled code changes is contiguous per member; the named tensors are views of it.
        self._slots = stacked(self.slots, self._slot_names, self.weights)
        self._scalars = joined(self.slots, self._scalar_names, self.weights)
        self._running = joined(self.buffers, self._running_names, self.weights)
        if self.averages:
            self.averages["weights"] = aligned(self.averages["weights"])
            self._average_running = joined(self.averages, self._running_names, self.weights)
        knobs = [self.buffers[name].double() * factor for name, factor in self._knob_names]
        self._knobs = torch.stack(knobs, 1).numpy() if knobs else np.zeros((k, 0))
        candidates = [self.program.candidates[c] for c in self.alive] * self.program.folds
        values = [numeric_values(self.program.optimizer, c) for c in candidates]
        self._hp = np.array([[v.get(n, 0.0) for n in HYPERPARAMETERS] for v in values])
        quantile = self.program.spec.quantile
        quantile = 0.5 if quantile is None else float(quantile)
        self._loss_knobs = np.array([[*(v[n] for n in LOSS_KNOBS), quantile] for v in values])
        self._stream_of = self._stream.tolist()  # members of one meet the same batches
        w, g = self.weights.numpy(), self.gradient.numpy()
        self._members = [self._member(m, w) for m in range(k)]
        self._states = [self._changing(m, g) for m in range(k)]

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
            matrices(self.parts),
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
            quantiles().astype(real),
            np.zeros(0, np.bool_),
            none,
        )
        self._in_order = bool(net.ops[0][KIND] == NUMERIC and net.ops[0][P2])
        self._probes = list(self._probe_rows.numpy())
        self._fetched: dict[int, tuple[Array, Table]] = {}  # rows that were evaluated
        # What has a value per row; where all rows fit into the cache, nothing is gained by order.
        names = ("numeric", "category", "target", "weight", "offset")
        self._rowwise = [n for n in names if getattr(self._table, n).size]
        held = [getattr(self._table, n) for n in self._rowwise]
        self._fetch_bytes = sum(a.nbytes // len(a) for a in held)
        self._small = len(held[0]) * self._fetch_bytes <= CACHE_BYTES
        widest, size = net.widest, net.members * net.outputs
        self._space = Space(
            self.weights.new_zeros(net.columns * room).numpy(),
            np.zeros(net.fixed, real),
            *(np.zeros(widest, real), np.ones(widest, real)),
            *(np.zeros(widest, real), np.zeros(widest, real), np.zeros(size, real)),
            np.zeros(max(TILE, max(2, size) * losses.LANES), real),
        )

    def _member(self, m: int, weights: Array) -> Member:
        noise = np.zeros(0, np.uint8) if self.noise is None else self.noise[m].numpy()
        return Member(weights[m], self._running[m], self._knobs[m], noise, self._loss_knobs[m])

    def _changing(self, m: int, gradient: Array) -> Changing:
        none = gradient[0, :0]
        average, running = none, none
        if self.averages:
            average = self.averages["weights"][m].numpy()
            running = self._average_running[m]
        slots, scalars = self._slots[m], self._scalars[m]
        held = self._nothing_held if self.held is None else self.held[m].numpy()
        return Changing(gradient[m], slots, scalars, self._hp[m], average, running, held)

    def _planned(self, start: int, stop: int) -> list[Steps]:
        """What every member needs for steps [start, stop)."""
        order = self.program.order.take(start, stop, self.alive)  # [S, streams, B]
        places = self._places(start, stop)
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
                    as_measured(mixes.share[:, m], self._space.row.dtype),
                    as_measured(mixes.own[:, m], self._space.row.dtype),
                )
            rate = np.ascontiguousarray(rates[:, m])
            own = rows[self._stream_of[m]]
            steps.append(Steps(own, places, rate, *mixing, np.ascontiguousarray(shares)))
        return steps

    def _places(self, start: int, stop: int) -> Array:
        """Where the noise of steps [start, stop) begins; 0 where nobody needs any."""
        if self.noise is None:
            return np.zeros((stop - start, len(self._pieces), len(self._noisy)), np.int64)
        return noise_starts(start, stop, len(self._noisy), len(self._pieces))

    def _run(self, start: int, stop: int, tick: Callable[[int], bool]) -> int:
        if not self._compiled_update:
            return super()._run(start, stop, tick)
        losses_ = self._total.numpy()
        with one_thread():
            while start < stop:
                end = min(stop, start + self._chunk)
                before = time.monotonic()
                planned = self._planned(start, end)
                for first, last in self._stretches(end - start):
                    part = [Steps(*(a[first:last] for a in steps)) for steps in planned]
                    for m, (table, steps) in enumerate(self._gathered(part)):
                        losses_[m] += self._work(TRAIN, m, steps, start + first, table)
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
        for m, steps in enumerate(self._planned(at, at + 1)):
            self._work(UPDATE, m, steps, at)
        return norm

    def _gradients(self, rows: Tensor, places: Places, total: Tensor) -> None:
        losses_ = total.numpy()
        keep = np.zeros((1, 0), np.bool_)
        one = np.ones(1)
        windows = np.array(places, np.int64).reshape(1, len(self._pieces), -1)
        batch = rows.numpy()[:, None]  # [streams, 1, B]
        with one_thread():
            for m in range(len(losses_)):
                mixing = (keep, one, one)
                if self._mix:
                    mixing = (
                        self._mix["keep"][m : m + 1].numpy(),
                        self._mix["share"][m : m + 1].double().numpy(),
                        self._mix["own"][m].double().numpy(),
                    )
                steps = Steps(batch[self._stream_of[m]], windows, one, *mixing, one[:0])
                losses_[m] += self._work(GRADIENT, m, steps)
        self._hold(self.gradient)

    def _stretches(self, steps: int) -> Iterator[tuple[int, int]]:
        """Parts of that many steps whose rows fit into a processor's cache."""
        each = self._net.pieces[-1] * self._fetch_bytes  # type: ignore[union-attr]
        size = steps if self._stays else max(1, BLOCK_BYTES // each)
        return ((first, min(steps, first + size)) for first in range(0, steps, size))

    @property
    def _stays(self) -> bool:
        """Whether rows are read where they are: few, and copied anyway."""
        return self._small and not self._in_order

    def _gathered(self, members: Sequence[Steps]) -> list[tuple[Table, Steps]]:
        """The rows of these steps one after the other, fetched once for all members of a stream."""
        if self._stays:
            return [(self._table, steps) for steps in members]
        streams: dict[int, tuple[Table, Array]] = {}
        out = []
        for m, steps in enumerate(members):
            stream = self._stream_of[m]
            if stream not in streams:
                table = self._fetch(steps.rows.reshape(-1), self._rowwise)
                streams[stream] = table, np.arange(steps.rows.size).reshape(steps.rows.shape)
            table, places = streams[stream]
            out.append((table, steps._replace(rows=places)))
        return out

    def _fetch(self, rows: Array, names: Sequence[str]) -> Table:
        """The table of these rows [n], in their order; of what has these names."""
        taken = {n: getattr(self._table, n).take(rows, axis=0) for n in names}
        table = self._table._replace(**taken)
        return table._replace(flat=table.numeric.reshape(-1)) if self._in_order else table

    def _features(self, rows: Array, whole: bool) -> Table:
        """The features of these rows [n]; of a `whole` set they are kept for the next time."""
        held = self._fetched.get(id(rows))
        if held is None:
            held = rows, self._fetch(rows, [n for n in FEATURES if n in self._rowwise])
            if whole:
                if len(self._fetched) >= 2 * self.program.folds:  # of validation, and probes
                    self._fetched.clear()
                self._fetched[id(rows)] = held
        return held[1]

    def _work(
        self, wanted: int, m: int, steps: Steps, first: int = 0, table: Table | None = None
    ) -> float:
        member, state = self._members[m], self._states[m]
        nothing = member.w[:0]
        own = (self._net, table or self._table, member, self._space, steps, state)
        return float(work(wanted, *own, first, nothing, nothing))

    def _outputs(self, members: Sequence[int], rows: Array, found: Array) -> Array:
        """Raw outputs [k, N M C] of some members; found [k, 2 or 0] as in `forward`."""
        assert self._net is not None
        scored, size = self._scored_members(), self._space.row.size
        out = np.empty((len(members), len(rows) * size), self._space.row.dtype)
        each = self._net.room * max(1, BLOCK_BYTES // (self._net.room * self._fetch_bytes))
        with one_thread():
            for at in range(0, len(rows), each):
                whole = len(rows) <= each
                part = rows if whole else rows[at : at + each]
                table, steps = self._features(part, whole), _batch(np.arange(len(part)))
                edges = np.append(np.arange(0, len(part), self._net.room), len(part))
                net = self._net._replace(pieces=edges)
                for i, m in enumerate(members):
                    own = (net, table, scored[m], self._space, steps, self._states[m])
                    target = out[i, at * size : (at + len(part)) * size]
                    work(OUTPUTS, *own, 0, target, found[i])
        return out

    @torch.no_grad()
    def predict(self, rows: Sequence[np.ndarray]) -> Tensor:
        """See `StackedEngine.predict`."""
        c, folds = len(self.alive), self.program.folds
        implicit = self._net.members  # type: ignore[union-attr]
        parts = []
        nothing = np.zeros((c, 0), self._space.row.dtype)
        for f in range(folds):
            piece = np.asarray(rows[f] if len(rows) == folds else rows[0])
            found = self._outputs(range(f * c, (f + 1) * c), piece, nothing)
            raw = torch.from_numpy(found).view(c, len(piece), implicit, -1)
            parts.append(self.program.scored(raw, torch.from_numpy(piece)))
        if len(parts) == 1:
            return parts[0]
        if len(rows) == folds:
            return torch.cat(parts, 1)
        return torch.stack(parts).mean(0)

    def _scored_members(self) -> list[Member]:
        """The members with the weights and running statistics that are scored."""
        if not self.averages and self.program.optimizer.evaluated is None:
            return self._members
        found = self._evaluated()[0]
        weights = (found if found.stride(1) == 1 else aligned(found)).numpy()
        running = self._average_running if self.averages else self._running
        pairs = zip(self._members, weights, running, strict=True)
        return [member._replace(w=w, running=r) for member, w, r in pairs]

    @torch.no_grad()
    def measure(self, units: bool = True) -> dict[str, Tensor]:
        """See `StackedEngine.measure`."""
        if not units:
            return self._measured
        rows, k = self._probes, len(self._members)
        found = np.zeros((k, 2), self._space.row.dtype)
        c = k // len(rows)
        for f in range(len(rows)):
            members = range(f * c, (f + 1) * c)
            self._outputs(members, rows[f], found[members.start : members.stop])
        with np.errstate(invalid="ignore"):
            dead = found[:, 0] / found[:, 1]  # 0 / 0: there are no such units
        return self._measured | {"dead_units": torch.from_numpy(dead)}


def _check(program: Program) -> None:
    if program.device.type != "cpu":
        raise UnsuitedError(f"it runs on a CPU, not on {program.device}")
    precision = program.candidates[0].static.get("precision", "float32")
    if precision != "float32":
        raise UnsuitedError(f"it does not compute in {precision}")
    name = program.loss.name
    if name not in losses.CODES or program.losses[name] is not LOSSES[name]:
        raise UnsuitedError(f"the loss {name} is not compiled")


def _batch(rows: Array) -> Steps:
    """The rows [N] as one batch in which nothing is disturbed."""
    one, none = np.ones(1), np.zeros((1, 0), np.bool_)
    windows = np.zeros((1, len(rows) + 1, 0), np.int64)
    return Steps(rows.reshape(1, -1), windows, one, none, one, one, one[:0])
