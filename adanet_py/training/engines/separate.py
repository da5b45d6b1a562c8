"""The separate engine: plain PyTorch, one member at a time, `torch.optim` steps.

It is the oracle the fused engines are tested against, and the home of modules and optimizers that
cannot be vectorised.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adanet_py.architectures.layers import is_decayed
from adanet_py.architectures.perturbations import noise_pool
from adanet_py.training.averaging import averages, averaging_weights
from adanet_py.training.batches import hash_words
from adanet_py.training.engines.closure import Closure, NotFiniteError
from adanet_py.training.engines.feed import Places, feeds, moments
from adanet_py.training.engines.program import (
    Program,
    State,
    as_members,
    chunks,
    mixing_buffers,
    noisy_layers,
    numeric_values,
    parts_of,
    row_bytes,
    switch,
)
from adanet_py.training.engines.storing import pack, put_back, unpack
from adanet_py.training.optimizers.chained import ChainedOptimizer
from adanet_py.training.optimizers.objective import Piece
from adanet_py.training.probe import StepProbe, is_due, probe_rows, watched
from adanet_py.training.sparsity import call_held, held, put_back_zeros


class SeparateEngine:
    """Advances C candidates in F folds, one after the other; same contract as `StackedEngine`."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.alive = list(range(len(program.candidates)))
        members = program.folds * len(program.candidates)
        self.modules = [program.build(m) for m in range(members)]
        self.held = [held(module) if program.sparse else {} for module in self.modules]
        self.seeds = program.seeds()
        for m, (module, seed) in enumerate(zip(self.modules, self.seeds, strict=True)):
            switch(module, program.used([program.candidates[m % len(program.candidates)]]))
            pool = noise_pool(seed).to(program.device)
            for layer in noisy_layers(module).values():
                layer.noise = pool
        self.mixer = program.mixer()
        self._pieces = program.micro_batches(row_bytes(program, program.build(0)))
        self.optimizers = [self._optimizer(m) for m in range(members)]
        self.rates = program.rates()
        self._probe_rows = probe_rows(program.order.rows)
        self._measured: dict[str, Tensor] = {}
        self._share = np.tile(
            averaging_weights(program.candidates, program.steps), (1, program.folds)
        )
        self._averages = averages(program.candidates)
        # What is scored and kept, where that is not what is trained.
        apart = self._averages or program.optimizer.evaluated is not None
        apart = apart or _switches(self.optimizers[0])
        self.evaluated = copy.deepcopy(self.modules) if apart else self.modules
        self.hp = [numeric_values(program.optimizer, c) for c in program.candidates] * program.folds

    @property
    def parameters(self) -> int:
        """Trainable numbers of one member."""
        return sum(p.numel() for p in self.modules[0].parameters())

    def _optimizer(self, member: int) -> torch.optim.Optimizer:
        candidate = self.program.candidates[member % len(self.program.candidates)]
        hp = numeric_values(self.program.optimizer, candidate)
        module = self.modules[member]
        named = list(module.named_parameters())
        if self.program.optimizer.reference is None:
            return ChainedOptimizer(self.program.optimizer, parts_of(module), named, hp)
        yes = [p for n, p in named if is_decayed(n, tuple(p.shape))]
        no = [p for n, p in named if not is_decayed(n, tuple(p.shape))]
        decay = hp.get("weight_decay", 0.0)
        groups = [
            {"params": yes, "weight_decay": decay},
            {"params": no, "weight_decay": decay * hp["bias_decay"]},
        ]
        reference: torch.optim.Optimizer = self.program.optimizer.reference(groups, hp)
        return reference

    def advance(
        self, start: int, stop: int, tick: Callable[[int], bool]
    ) -> tuple[int, Tensor, Tensor]:
        """See `StackedEngine.advance`."""
        k = len(self.modules)
        total = torch.zeros(k, dtype=self.program.dtype)
        norm = torch.zeros_like(total)
        counts = len(self._pieces), len(noisy_layers(self.modules[0]))
        done, stopping, apart = start, False, self.program.order.own is not None
        fed = feeds(self.program, self.mixer, self.alive, start, stop, *counts)
        for now in moments(fed):
            at, done = done, done + 1
            last = stopping or done == stop
            stopping = not last and tick(done)
            measured = []
            for m in range(k):
                own = self._mix(m, now.mix)
                closure = self._closure(
                    m, now.rows[m if apart else m // len(self.alive)], now.places, own
                )
                closure.keeps = last
                before = self._row(m, self.modules[m].parameters()) if last else None
                self._update(m, at, closure)
                total[m] += closure.loss or 0.0
                norm[m] = closure.norm
                if before is not None:
                    measured.append(self._measure(m, closure, before, is_due(start, done)))
            if last:
                self._measured = {n: torch.cat([e[n] for e in measured]) for n in measured[0]}
                break
        device = self.program.device
        return done, (total / (done - start)).to(device), norm.to(device)

    def _mix(self, m: int, mix: Mapping[str, Tensor]) -> Tensor | None:
        """Set how the rows of a step are mixed; the share of their own targets [1, 1]."""
        if not mix:
            return None
        for name, what in mixing_buffers(self.modules[m]).items():
            self.modules[m].get_buffer(name).copy_(mix[what][m])
        return mix["own"][m : m + 1]

    def _measure(self, m: int, closure: Closure, before: Tensor, curved: bool) -> dict[str, Tensor]:
        """What is measured of the step just taken from the weights `before`."""
        parameters = list(self.modules[m].parameters())
        gradient = self._row(m, closure.first)
        probe = StepProbe(before, gradient, parts_of(self.modules[m]), curved)
        if curved:
            closure.gradient()
            gradient = self._row(
                m, [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            )
        return probe.after(self._row(m, parameters), gradient)

    def _row(self, m: int, tensors: Iterable[Tensor]) -> Tensor:
        """What belongs to the parameters of a member as a row [1, P], laid out as `parts_of`."""
        names = (name for name, _ in self.modules[m].named_parameters())
        named = dict(zip(names, tensors, strict=True))
        parts = parts_of(self.modules[m])
        return torch.cat([named[part.name].detach().reshape(1, -1) for part in parts], 1)

    def _closure(self, m: int, rows: Tensor, places: Places, own: Tensor | None) -> Closure:
        """The loss of a member on the batch `rows` [B].

        `places` of the noise, per part; `own` is what `_mix` gives.
        """
        module = self.modules[m].train()
        layers = list(noisy_layers(module).values())

        def forward(i: int) -> Piece:
            for layer, place in zip(layers, places[i], strict=True):
                layer.start = place
            return self._forward(m, rows, self._pieces[i], own)

        penalty, constrain = partial(self._penalty, m), partial(self._constrain, m)
        return Closure(module, len(self._pieces), forward, penalty, constrain)

    def _forward(self, m: int, rows: Tensor, piece: slice, own: Tensor | None) -> Piece:
        """The outputs of a piece of the batch `rows` [B], and its share of the loss."""
        data, share = self.program.data, (piece.stop - piece.start) / len(rows)
        rows = rows[piece]
        hp = {
            n: torch.tensor([[v]], device=rows.device, dtype=self.program.dtype)
            for n, v in self.hp[m].items()
        }
        weight = None if data.weight is None else data.weight[rows].unsqueeze(0)
        offset = None if data.offset is None else data.offset[rows].unsqueeze(0)
        target = data.target[rows].unsqueeze(0)

        def loss(outputs: Tensor) -> Tensor:
            losses = self.program.row_losses(outputs, target, weight, hp, own, offset)
            return losses.mean() * share

        with self.program.precision():
            inputs = data.numeric[rows], data.category[rows]
            outputs = call_held(self.modules[m], self.held[m], *inputs)
        return Piece(as_members(outputs, 1).unsqueeze(0).to(self.program.dtype), loss)

    def _matrices(self, m: int) -> list[torch.nn.Parameter]:
        named = self.modules[m].named_parameters()
        return [p for n, p in named if is_decayed(n, tuple(p.shape))]

    def _penalty(self, m: int) -> Tensor | float:
        strength = self.hp[m]["l1"]
        return sum(strength * p.abs().sum() for p in self._matrices(m)) if strength else 0.0

    def _constrain(self, m: int) -> float:
        """Add the slope of the penalty and clip the gradients in place; their norm before that."""
        hp, matrices, parameters = self.hp[m], self._matrices(m), list(self.modules[m].parameters())
        for p in matrices:
            assert p.grad is not None
            p.grad.add_(p.sign(), alpha=hp["l1"])
        norm = torch.nn.utils.clip_grad_norm_(parameters, float("inf"))
        if hp["clip_value"] > 0:
            torch.nn.utils.clip_grad_value_(parameters, hp["clip_value"])
        if hp["clip_norm"] > 0:
            torch.nn.utils.clip_grad_norm_(parameters, hp["clip_norm"])
        for p in matrices[:-1]:  # the last is the output layer
            if hp["agc"] > 0 and p.grad is not None:
                for w, g in zip(_units(p), _units(p.grad), strict=True):
                    _shorten(g, hp["agc"] * max(float(w.norm()), 1e-3))
        return float(norm)

    @torch.no_grad()
    def _update(self, m: int, step: int, closure: Closure) -> None:
        """One step of the optimizer, and what happens to the weights beside it."""
        matrices, hp, rate = self._matrices(m), self.hp[m], float(self.rates[step, m])
        optimizer, decay = self.optimizers[m], rate * hp["decoupled_decay"]
        for group in optimizer.param_groups:
            group["lr"] = rate
        if self.program.optimizer.engine:
            before = [p.clone() for p in matrices] if decay else []
            try:
                with _seeded(self.seeds[m], step, self.program.device):
                    optimizer.step(closure)  # type: ignore[arg-type]
            except NotFiniteError:
                for p in self.modules[m].parameters():
                    p.fill_(torch.nan)  # it has diverged, whatever the optimizer would make of it
            if closure.loss is None:
                name = self.program.optimizer.name
                raise RuntimeError(f"The optimizer {name} never called the closure of its step.")
            for p, w in zip(matrices, before, strict=False):
                p.sub_(w, alpha=decay)
        else:
            with suppress(NotFiniteError):  # not a number is a step like any other here
                closure()
            for p in matrices:
                p.mul_(1.0 - decay)
            optimizer.step()
        for p in matrices:
            if hp["max_norm"] > 0:
                for w in _units(p):
                    _shorten(w, hp["max_norm"])
        put_back_zeros(self.modules[m], self.held[m])
        if self._averages:
            self._average(m, float(self._share[step, m]))

    def _average(self, m: int, share: float) -> None:
        """Move what is evaluated towards what is trained: weights and running statistics."""
        kept = self.evaluated[m].state_dict()
        names = {n for n, _ in self.modules[m].named_parameters()}
        for name, value in self._at_evaluation(m).items():
            if name in names or "running_" in name:
                kept[name].lerp_(value, share)

    @torch.no_grad()
    def _at_evaluation(self, m: int) -> dict[str, Tensor]:
        """Weights, as the optimizer would evaluate them, and buffers of a member."""
        values = dict(self.modules[m].state_dict())
        optimizer = self.optimizers[m]
        if isinstance(optimizer, ChainedOptimizer):
            names = (part.name for part in optimizer.parts)
            values |= dict(zip(names, optimizer.evaluated(), strict=True))
        elif _switches(optimizer):
            trained = [p.clone() for p in self.modules[m].parameters()]
            optimizer.eval()  # type: ignore[attr-defined]
            values = {n: v.clone() for n, v in values.items()}
            optimizer.train()  # type: ignore[attr-defined]
            for p, before in zip(self.modules[m].parameters(), trained, strict=True):
                p.copy_(before)  # there and back is not quite the same
        return values

    @torch.no_grad()
    def predict(self, rows: Sequence[np.ndarray]) -> Tensor:
        """See `StackedEngine.predict`."""
        c, folds = len(self.alive), self.program.folds
        parts = []
        for f in range(folds):
            piece = rows[f] if len(rows) == folds else rows[0]
            parts.append(torch.stack([self._predict(f * c + k, piece) for k in range(c)]))
        return torch.cat(parts, 1) if len(rows) == folds else torch.stack(parts).mean(0)

    def _scored(self, member: int) -> torch.nn.Module:
        """The module that is scored and kept."""
        if self.evaluated is not self.modules and not self._averages:
            self.evaluated[member].load_state_dict(self._at_evaluation(member))
        return self.evaluated[member]

    def _predict(self, member: int, rows: np.ndarray) -> Tensor:
        data, module = self.program.data, self._scored(member).eval()
        where = torch.as_tensor(rows, device=self.program.device)
        pieces = chunks(where, 4096)
        outputs = [as_members(module(data.numeric[p], data.category[p]), 1) for p in pieces]
        return self.program.scored(torch.cat(outputs), where).cpu()

    @torch.no_grad()
    def measure(self, units: bool = True) -> dict[str, Tensor]:
        """See `StackedEngine.measure`."""
        if not units:
            return self._measured
        dead = []
        for m in range(len(self.modules)):
            rows = self._probe_rows[m // len(self.alive)]
            data = self.program.data
            with watched(self._scored(m).eval()) as module:
                dead.append(module(data.numeric[rows], data.category[rows]))
        return self._measured | {"dead_units": torch.stack(dead)}

    def select(self, keep: Sequence[int]) -> None:
        """See `StackedEngine.select`."""
        c = len(self.alive)
        index = [f * c + k for f in range(self.program.folds) for k in keep]
        self.alive = [self.alive[k] for k in keep]
        apart = self.evaluated is not self.modules
        kept = [self.evaluated[i] for i in index]
        self.modules = [self.modules[i] for i in index]
        self.held = [self.held[i] for i in index]
        self.evaluated = kept if apart else self.modules
        self._share = self._share[:, index]
        if self.mixer is not None:
            self.mixer = self.mixer.select(index)
        self.optimizers = [self.optimizers[i] for i in index]
        self.hp = [self.hp[i] for i in index]
        self.seeds = [self.seeds[i] for i in index]
        self.rates = self.rates[:, index]

    def scale_rates(self, start: int, factors: Sequence[float]) -> None:
        """See `StackedEngine.scale_rates`."""
        self.rates[start:] = self.program.scaled_rates(start, self.alive, factors)

    def snapshot(self, position: int) -> dict[str, Tensor]:
        """See `StackedEngine.snapshot`."""
        out: dict[str, Tensor] = {}
        for f in range(self.program.folds):
            state = self._scored(f * len(self.alive) + position).state_dict()
            out |= {f"{f}/{n}": v.clone() for n, v in state.items()}
        return out

    def state(self) -> dict[str, Tensor]:
        """See `StackedEngine.state`."""
        out: dict[str, Tensor] = {}
        for m, (module, optimizer) in enumerate(zip(self.modules, self.optimizers, strict=True)):
            out |= {f"{m}/module/{n}": v for n, v in module.state_dict().items()}
            if self._averages:
                kept = self.evaluated[m].state_dict()
                out |= {f"{m}/average/{n}": v for n, v in kept.items()}
            packed = pack(optimizer.state_dict())
            out |= {f"{m}/optimizer/{n}": v for n, v in packed.items()}
        return out

    def load(self, alive: Sequence[int], state: State) -> None:
        """See `StackedEngine.load`."""
        if list(alive) != self.alive:
            self.select([self.alive.index(c) for c in alive])
        for m, (module, optimizer) in enumerate(zip(self.modules, self.optimizers, strict=True)):
            module.load_state_dict(_under(f"{m}/module/", state))
            if self._averages:
                self.evaluated[m].load_state_dict(_under(f"{m}/average/", state))
            put_back(optimizer, unpack(_under(f"{m}/optimizer/", state)))


def _switches(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it evaluates with other weights than it trains, as schedule-free ones do."""
    return callable(getattr(optimizer, "train", None)) and callable(
        getattr(optimizer, "eval", None)
    )


@contextmanager
def _seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Whatever the optimizer draws depends on the member and the step alone."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(hash_words(seed, step, 2)) & 0x7FFFFFFF)
        yield


def _under(prefix: str, state: State) -> dict[str, Tensor]:
    """The entries below a prefix, without it."""
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}


def _units(x: Tensor) -> list[Tensor]:
    """The incoming weights of every unit, as views, of a matrix [out, in] or of n [n, in, out]."""
    if x.dim() == 2:
        return list(x.unbind(0))
    return [unit for matrix in x.unbind(0) for unit in matrix.unbind(1)]


def _shorten(x: Tensor, limit: float) -> None:
    """Scale `x` down to the norm `limit` if it is longer."""
    norm = float(x.norm())
    if norm > limit:
        x *= limit / norm
