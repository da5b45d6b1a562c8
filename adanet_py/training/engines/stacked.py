"""The stacked engine: all members of a group are one program over tensors with leading axis K.

Parameters, gradient and optimizer state each live in one preallocated tensor [K, P]; the module's
parameters are views of it. The forward is the ordinary module vectorised over K (torch.func), the
backward is of the sum of the members' losses, the optimizer updates all members at once. Nothing
in the loop reads a number back from the device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from adanet_py.architectures.perturbations import noise_pool
from adanet_py.training.averaging import averages, averaging_weights
from adanet_py.training.constraints import Constraints
from adanet_py.training.engines.blocks import Block, of_members, views
from adanet_py.training.engines.capture import Launcher
from adanet_py.training.engines.feed import Moment, Places, feeds
from adanet_py.training.engines.members import call_members
from adanet_py.training.engines.program import (
    Program,
    State,
    as_members,
    chunks,
    mixing_buffers,
    noisy_layers,
    parts_of,
    row_bytes,
    switch,
)
from adanet_py.training.optimizers import Step
from adanet_py.training.probe import StepProbe, is_due, probe_rows, watched
from adanet_py.training.sparsity import held_columns

# Bytes of activations kept for the backward pass at once. More members than fit are trained in
# blocks, one after the other within a step, which changes no result. On a CPU larger blocks gain
# nothing; a GPU wants all members in one launch.
ACTIVATION_BYTES = {"cpu": 20 << 20, "cuda": 4 << 30}


class StackedEngine:
    """Advances C candidates in F folds; see `Program` for the order of the members."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.alive = list(range(len(program.candidates)))
        members = program.folds * len(program.candidates)
        modules = [program.build(m) for m in range(members)]
        self.parts = parts_of(modules[0])
        self.decayed = sum(p.stop - p.start for p in self.parts if p.decayed)
        rows = []
        for module in modules:
            named = dict(module.named_parameters())
            rows.append(torch.cat([named[p.name].detach().reshape(-1) for p in self.parts]))
        self.weights = torch.stack(rows)
        self.held = held_columns(modules, self.parts) if program.sparse else None  # [K, D]
        self.noise_names = list(noisy_layers(modules[0]))
        self.mixing_names = mixing_buffers(modules[0])
        buffers = [dict(m.named_buffers()) for m in modules]
        constant = {n for n in buffers[0] if n.rsplit(".", 1)[-1].startswith("constant_")}
        self.constants = {n: buffers[0][n] for n in sorted(constant)}
        self.buffers = {
            n: torch.stack([each[n] for each in buffers])
            for n in buffers[0]
            if n not in constant and n not in self.noise_names and n not in self.mixing_names
        }
        # The weights are copied: the last module may be disturbed.
        self._row_bytes = row_bytes(program, modules[-1])
        self._pieces = program.micro_batches(self._row_bytes)
        self._limit = ACTIVATION_BYTES.get(program.device.type, ACTIVATION_BYTES["cpu"])
        self._read(modules[0])
        self._train = modules[0].to("meta").train()
        switch(self._train, program.used())
        self._noisy = list(noisy_layers(self._train).values())
        self._counts = len(self._pieces), len(self._noisy)
        self._launcher = Launcher(program)
        self.noise: Tensor | None = None  # [K, NOISE_SIZE]
        if any(layer.on for layer in self._noisy):
            pools = torch.stack([noise_pool(seed) for seed in program.seeds()])
            self.noise = pools.to(program.device)
        self.mixer = program.mixer()
        self.slots = program.optimizer.start(self.weights)
        self.hp = program.hyperparameters()
        rates = torch.from_numpy(program.rates()).to(program.device, program.dtype)
        self.rates = rates.unsqueeze(-1)  # [steps, K, 1]
        # Averages of weights and running statistics, where any member is evaluated on averages.
        self.averages: dict[str, Tensor] = {}
        if averages(program.candidates):
            share = averaging_weights(program.candidates, program.steps)
            share = np.tile(share, (1, program.folds))
            self._share = torch.from_numpy(share).to(program.device, program.dtype).unsqueeze(-1)
            self.averages = {n: v.clone() for n, v in self._averaged().items()}
        probes = torch.from_numpy(probe_rows(program.order.rows))
        self._probe_rows = probes.to(program.device)  # [F, R]
        self._measured: dict[str, Tensor] = {}
        self._bind()

    def _read(self, module: nn.Module) -> None:
        """Take from a member's module what the engine needs to know of it."""

    @cached_property
    def _eval(self) -> nn.Module:
        return copy.deepcopy(self._train).eval()

    @property
    def parameters(self) -> int:
        """Trainable numbers of one member."""
        return int(self.weights.shape[1])

    def _bind(self) -> None:
        """Make leaves that share memory with `weights`, and gradient storage of the same layout."""
        k, c = self.weights.shape[0], max(1, len(self.alive))
        members = torch.arange(k, device=self.program.device)
        self._fold = members // c  # of each member
        self._stream = self._fold if self.program.order.own is None else members
        self.gradient = torch.empty_like(self.weights)
        self.constraints = Constraints.make(self.parts, self.hp)
        bias_decay = self.hp["bias_decay"]
        self._bias_decay = bias_decay if bool((bias_decay > 0).any()) else None
        some = torch.stack(list(self.hp.values())).flatten(1).any(1).tolist()
        self._zero = frozenset(n for n, used in zip(self.hp, some, strict=True) if not used)
        self._mix: dict[str, Tensor] = {}  # of the step; see `Program.mixes`
        if self.mixer is not None:
            self._mix = {n: v[0] for n, v in self.program.mixes(self.mixer, 0, 1).items()}
        self._blocks: list[Block] = []  # made when they are first needed
        self._total = torch.zeros(k, device=self.program.device, dtype=torch.float64)
        self._launcher.forget()

    def _make_blocks(self) -> list[Block]:
        k = self.weights.shape[0]
        each = self._row_bytes * max(piece.stop - piece.start for piece in self._pieces)
        size = max(1, min(k, self._limit // each))
        size = -(-k // -(-k // size))  # blocks as equal as can be
        buffers = self.buffers
        if self.noise is not None:
            buffers = buffers | dict.fromkeys(self.noise_names, self.noise)
        if self.mixer is not None:
            buffers = buffers | {n: self._mix[v] for n, v in self.mixing_names.items()}
        blocks: list[Block] = []
        for start in range(0, k, size):
            members = slice(start, min(k, start + size))
            leaves = views(self.parts, self.weights[members])
            blocks.append(
                Block(
                    members,
                    {n: v.detach().requires_grad_() for n, v in leaves.items()},
                    list(views(self.parts, self.gradient[members]).values()),
                    of_members(buffers, members),
                    of_members(self.hp, members),
                    self._stream[members],
                    self._mix["own"][members] if self._mix else None,
                )
            )
        return blocks

    def advance(
        self, start: int, stop: int, tick: Callable[[int], bool]
    ) -> tuple[int, Tensor, Tensor]:
        """Train steps [start, stop); where `tick(step)` is true, stop after the step that follows.

        Returns the step reached, the mean training loss [K] since `start`, and the gradient norm
        [K] of the last step, which is the one that is measured.
        """
        self._total.zero_()
        last = self._run(start, stop - 1, tick) if stop - start > 1 else start
        norm = self._last_step(start, last)
        return last + 1, (self._total / (last + 1 - start)).to(self.program.dtype), norm

    def _run(self, start: int, stop: int, tick: Callable[[int], bool]) -> int:
        """Train steps [start, stop), adding to `_total`; the step reached."""
        for feed in feeds(self.program, self.mixer, self.alive, start, stop, *self._counts):
            self._launcher.wait()
            for s in range(len(feed)):
                self._launcher.take(feed, s, self._step)
                if tick(feed.first + s + 1):
                    return feed.first + s + 1
        return stop

    def _step(self, now: Moment) -> None:
        self._learn(now)
        self._descend(now.at, now.t, self.constraints.clips)

    def _learn(self, now: Moment) -> None:
        """Put the gradient of a step in place, rows mixed as it asks; its loss joins `_total`."""
        for name, value in now.mix.items():
            self._mix[name].copy_(value)
        self._gradients(now.rows, now.places, self._total)

    def _last_step(self, start: int, at: int) -> Tensor:
        """Take step `at` and measure it; the norm of its gradient [K]. Steps began at `start`."""
        (feed,) = feeds(self.program, self.mixer, self.alive, at, at + 1, *self._counts)
        now = feed.moment(0)
        self._learn(now)
        curved = is_due(start, at + 1)
        # Asked before the update, which overwrites the gradient.
        probe = StepProbe(self.weights, self.gradient, self.parts, curved)
        norm = self._descend(at, now.t, measured=True)
        if curved:
            self._gradients_again(now.rows, now.places)
        self._measured = probe.after(self.weights, self.gradient)
        return norm

    @torch.no_grad()
    def _descend(self, at: int | Tensor, t: Tensor, measured: bool) -> Tensor:
        """Step `at`, number t [1, 1] from 1, of all members by their gradient, which is lost.

        Gives the norm [K] of the gradient before it is clipped, if it is to be `measured`.
        """
        self.constraints.penalise(self.gradient, self.weights)
        norm = self.gradient.norm(dim=1) if measured else self.gradient[:, 0]
        self.constraints.clip(self.gradient, self.weights, norm if measured else None)
        self._update(at, t)
        return norm

    def _gradients(self, rows: Tensor, places: Places, total: Tensor) -> None:
        """Put the gradient of a batch, rows [streams, B], in place; add its loss to `total` [K]."""
        self._blocks = self._blocks or self._make_blocks()
        for block in self._blocks:
            for piece, at in zip(self._pieces, places, strict=True):
                for layer, place in zip(self._noisy, at, strict=True):
                    layer.start = place
                given = (self.program, self._train, self.constants)
                total[block.members] += block.backward(*given, rows, piece)
        self._hold(self.gradient)

    def _hold(self, x: Tensor) -> None:
        """Zero what belongs to weights that stay zero, in x [K, P]."""
        if self.held is not None:
            x[:, : self.held.shape[1]].masked_fill_(self.held, 0.0)

    def _gradients_again(self, rows: Tensor, places: Places) -> None:
        """The same at the weights of now, leaving no trace in running statistics."""
        kept = {n: v.clone() for n, v in self.buffers.items()}
        nowhere = torch.zeros(len(self.weights), device=rows.device, dtype=torch.float64)
        self._gradients(rows, places, nowhere)
        for n, v in kept.items():
            self.buffers[n].copy_(v)

    def _update(self, at: int | Tensor, t: Tensor) -> None:
        """Step `at` of all members from the gradient; t [1, 1] is its number from 1."""
        w, lr = self.weights, _of_step(self.rates, at)
        self.constraints.decay(w, lr)
        step = Step(w, self.hp, lr, t, self.decayed, self.parts, self._bias_decay, self._zero)
        self.program.optimizer.update(self.gradient, self.slots, step)
        self.constraints.project(w)
        self._hold(w)
        if self.averages:
            own = _of_step(self._share, at)
            for name, value in self._averaged().items():
                share = own.view(-1, *[1] * (value.dim() - 1))
                self.averages[name].lerp_(value, share.expand_as(value))

    def _averaged(self) -> dict[str, Tensor]:
        """What averages are taken of: weights as they would be evaluated, running statistics."""
        running = {n: v for n, v in self.buffers.items() if "running_" in n}
        return {"weights": self._at_evaluation()} | running

    def _at_evaluation(self) -> Tensor:
        """The optimizer's weights to evaluate with [K, P]."""
        evaluated = self.program.optimizer.evaluated
        if evaluated is None:
            return self.weights
        return evaluated(self.weights, self.slots, self.hp)

    def _evaluated(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Weights [K, P] and buffers of what is scored and kept."""
        if not self.averages:
            return self._at_evaluation(), self.buffers
        return self.averages["weights"], {
            n: self.averages.get(n, v) for n, v in self.buffers.items()
        }

    @torch.no_grad()
    def predict(self, rows: Sequence[np.ndarray]) -> Tensor:
        """Outputs [C, N, n_outputs] on the host.

        `rows` holds one array per fold, concatenated in the result (out-of-fold predictions), or
        a single one: then the outputs of a candidate's folds are averaged.
        """
        c, folds = len(self.alive), self.program.folds
        weights, buffers = self._evaluated()
        parts = []
        for f in range(folds):
            piece = rows[f] if len(rows) == folds else rows[0]
            members = slice(f * c, (f + 1) * c)
            state = (views(self.parts, weights[members]), of_members(buffers, members))
            parts.append(self._predict(*state, piece))
        if len(rows) == folds:
            return torch.cat(parts, 1)
        return torch.stack(parts).mean(0)

    def _predict(self, leaves: State, buffers: State, rows: np.ndarray) -> Tensor:
        data = self.program.data
        count = len(self.alive)
        shape = (count, len(rows), self.program.spec.n_outputs)
        out = torch.empty(shape, dtype=self.program.dtype)
        size = max(64, self._limit // (count * self._row_bytes))
        at = 0
        for piece in chunks(torch.as_tensor(rows, device=self.program.device), size):
            numeric, category = data.numeric[piece], data.category[piece]
            state = (leaves, buffers, self.constants)
            outputs = as_members(call_members(self._eval, *state, numeric, category), 2)
            out[:, at : at + len(piece)] = self.program.scored(outputs, piece)
            at += len(piece)
        return out

    @torch.no_grad()
    def measure(self, units: bool = True) -> dict[str, Tensor]:
        """What `probe.py` measures of the last step and, if asked, of the units, by name [K].

        Only right after `advance`.
        """
        if not units:
            return self._measured
        weights, buffers = self._evaluated()
        data, rows, dead = self.program.data, self._probe_rows, []
        size = max(1, self._limit // (self._row_bytes * rows.shape[1]))
        with watched(self._eval) as module:
            for start in range(0, len(weights), size):
                members = slice(start, start + size)
                leaves = views(self.parts, weights[members])
                state = (leaves, of_members(buffers, members), self.constants)
                # With one fold the members share the rows, as in training.
                picked = rows[0] if len(rows) == 1 else rows[self._fold[members]]
                numeric, category = data.numeric[picked], data.category[picked]
                dead.append(call_members(module, *state, numeric, category))
        return self._measured | {"dead_units": torch.cat(dead)}

    def select(self, keep: Sequence[int]) -> None:
        """Keep the candidates at these positions; every tensor shrinks by one index."""
        c, folds = len(self.alive), self.program.folds
        places = [f * c + k for f in range(folds) for k in keep]
        self.alive = [self.alive[k] for k in keep]
        index = torch.tensor(places, device=self.program.device)
        self.weights = self.weights[index]
        self.held = None if self.held is None else self.held[index]
        self.slots = {n: v[index] for n, v in self.slots.items()}
        self.buffers = {n: v[index] for n, v in self.buffers.items()}
        self.hp = {n: v[index] for n, v in self.hp.items()}
        self.rates = self.rates[:, index]
        if self.mixer is not None:
            self.mixer = self.mixer.select(places)
        if self.averages:
            self.averages = {n: v[index] for n, v in self.averages.items()}
            self._share = self._share[:, index]
        if self.noise is not None:
            self.noise = self.noise[index]
        self._bind()

    def scale_rates(self, start: int, factors: Sequence[float]) -> None:
        """From step `start` on, candidates learn at so many times the planned rates [C]."""
        rates = torch.from_numpy(self.program.scaled_rates(start, self.alive, factors))
        self.rates[start:] = rates.to(self.rates).unsqueeze(-1)

    def snapshot(self, position: int) -> dict[str, Tensor]:
        """Weights and running buffers of one candidate: "fold/name" -> tensor (copies)."""
        out: dict[str, Tensor] = {}
        weights, buffers = self._evaluated()
        for f in range(self.program.folds):
            member = f * len(self.alive) + position
            row = weights[member].detach().clone()  # once: the parameters are views of it
            out |= {f"{f}/{p.name}": row[p.start : p.stop].view(p.shape) for p in self.parts}
            out |= {f"{f}/{name}": value[member].clone() for name, value in buffers.items()}
            out |= {f"{f}/{name}": value.clone() for name, value in self.constants.items()}
        return out

    def state(self) -> dict[str, Tensor]:
        """Everything training goes on from, apart from `alive`."""
        return (
            {"weights": self.weights}
            | {f"slot/{n}": v for n, v in self.slots.items()}
            | {f"buffer/{n}": v for n, v in self.buffers.items()}
            | {f"average/{n}": v for n, v in self.averages.items()}
        )

    def load(self, alive: Sequence[int], state: State) -> None:
        """Inverse of `state` on a fresh engine."""
        if list(alive) != self.alive:
            self.select([self.alive.index(c) for c in alive])
        self.weights.copy_(state["weights"])
        for n, v in self.slots.items():
            v.copy_(state[f"slot/{n}"])
        for n, v in self.buffers.items():
            v.copy_(state[f"buffer/{n}"])
        for n, v in self.averages.items():
            v.copy_(state[f"average/{n}"])


def _of_step(table: Tensor, at: int | Tensor) -> Tensor:
    """The row [...] of a table [steps, ...] for a step known here, or on the device alone [1]."""
    return table[at] if isinstance(at, int) else table.index_select(0, at)[0]
