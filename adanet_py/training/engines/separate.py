"""The separate engine: plain PyTorch, one member at a time, `torch.optim` steps.

It is the oracle the fused engines are tested against, and the home of modules that cannot be
vectorised.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from adanet_py.architectures.layers import is_decayed
from adanet_py.architectures.perturbations import noise_pool
from adanet_py.training.averaging import averaging_weights
from adanet_py.training.batches import noise_starts
from adanet_py.training.engines.program import (
    Program,
    State,
    as_members,
    chunks,
    mixing_buffers,
    noisy_layers,
    numeric_values,
    parts_of,
    switch,
)
from adanet_py.training.optimizers.chained import ChainedOptimizer
from adanet_py.training.probe import StepProbe, is_curved, probe_rows, watched


class SeparateEngine:
    """Advances C candidates in F folds, one after the other; same contract as `StackedEngine`."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.alive = list(range(len(program.candidates)))
        members = program.folds * len(program.candidates)
        self.modules = [program.build(m) for m in range(members)]
        for m, (module, seed) in enumerate(zip(self.modules, program.seeds(), strict=True)):
            switch(module, program.used([program.candidates[m % len(program.candidates)]]))
            pool = noise_pool(seed).to(program.device)
            for layer in noisy_layers(module).values():
                layer.noise = pool
        self.mixer = program.mixer()
        self._pieces = program.micro_batches(program.build(0))
        self.optimizers = [self._optimizer(m) for m in range(members)]
        self.rates = program.rates()
        self._probe_rows = probe_rows(program.order.rows)
        self._measured: dict[str, Tensor] = {}
        self._share = np.tile(
            averaging_weights(program.candidates, program.steps), (1, program.folds)
        )
        self._averages = bool((self._share < 1.0).any())
        # What is scored and kept, where that is not what is trained.
        apart = self._averages or program.optimizer.evaluated is not None
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
        groups = [
            {"params": yes, "weight_decay": hp["weight_decay"]},
            {"params": no, "weight_decay": hp["weight_decay"] * hp["bias_decay"]},
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
        order = torch.from_numpy(self.program.order.take(start, stop)).to(self.program.device)
        layers = len(noisy_layers(self.modules[0]))
        places = noise_starts(start, stop, layers, len(self._pieces)).tolist()
        done = start
        for s, mix in enumerate(self.program.mixes(self.mixer, start, stop)):
            done = start + s + 1
            last = tick(done) or done == stop
            measured = []
            for m in range(k):
                batch = (m, order[s, m // len(self.alive)], places[s], self._mix(m, mix))
                total[m] += self._gradients(*batch)
                if not last:
                    norm[m] = self._update(m, start + s)
                    continue
                curved = is_curved(start, done)
                probe = StepProbe(*self._rows(m), parts_of(self.modules[m]), curved)
                norm[m] = self._update(m, start + s)
                if curved:
                    self._gradients_again(*batch)
                measured.append(probe.after(*self._rows(m)))
            if last:
                self._measured = {n: torch.cat([e[n] for e in measured]) for n in measured[0]}
                break
        return done, total / (done - start), norm

    def _mix(self, m: int, mix: dict[str, Tensor]) -> Tensor | None:
        """Set how the rows of a step are mixed; the share of their own targets [1, 1]."""
        if not mix:
            return None
        for name, what in mixing_buffers(self.modules[m]).items():
            self.modules[m].get_buffer(name).copy_(mix[what][m])
        return mix["own"][m : m + 1]

    def _gradients(
        self, m: int, rows: Tensor, places: list[list[int]], own: Tensor | None
    ) -> float:
        """Put the gradient of a batch, rows [B], in place; its loss."""
        self.optimizers[m].zero_grad()
        loss = 0.0
        for piece, at in zip(self._pieces, places, strict=True):
            for layer, place in zip(noisy_layers(self.modules[m]).values(), at, strict=True):
                layer.start = place
            loss += self._backward(m, rows, piece, own)
        return loss

    def _gradients_again(
        self, m: int, rows: Tensor, places: list[list[int]], own: Tensor | None
    ) -> None:
        """The same at the weights of now, leaving no trace in running statistics."""
        kept = copy.deepcopy(self.modules[m].state_dict())
        self._gradients(m, rows, places, own)
        self.modules[m].load_state_dict(kept)

    def _rows(self, m: int) -> tuple[Tensor, Tensor]:
        """Weights and gradient of a member as rows [1, P] in the order of `parts_of`."""
        named = dict(self.modules[m].named_parameters())
        found = [named[part.name] for part in parts_of(self.modules[m])]
        weights = torch.cat([p.detach().reshape(1, -1) for p in found], 1)
        zero = weights.new_zeros(1)
        gradients = [zero.expand(p.shape) if p.grad is None else p.grad for p in found]
        return weights, torch.cat([g.reshape(1, -1) for g in gradients], 1)

    def _backward(self, m: int, rows: Tensor, piece: slice, own: Tensor | None) -> float:
        """Add the gradient of a piece of the batch `rows` [B]; its share of the loss."""
        data, module = self.program.data, self.modules[m].train()
        share = (piece.stop - piece.start) / len(rows)
        rows = rows[piece]
        hp = {
            n: torch.tensor([[v]], device=rows.device, dtype=self.program.dtype)
            for n, v in self.hp[m].items()
        }
        with self.program.precision():
            outputs = module(data.numeric[rows], data.category[rows])
        outputs = as_members(outputs, 1).unsqueeze(0).to(self.program.dtype)
        weight = None if data.weight is None else data.weight[rows].unsqueeze(0)
        target = data.target[rows].unsqueeze(0)
        loss = self.program.row_losses(outputs, target, weight, hp, own).mean() * share
        loss.backward()
        return float(loss.detach())

    @torch.no_grad()
    def _update(self, m: int, step: int) -> float:
        """Clip, decay and step from the gradients in place; the gradient norm before clipping."""
        module, hp, rate = self.modules[m], self.hp[m], float(self.rates[step, m])
        parameters = list(module.parameters())
        matrices = {n: p for n, p in module.named_parameters() if is_decayed(n, tuple(p.shape))}
        for p in matrices.values():
            assert p.grad is not None
            p.grad.add_(p.sign(), alpha=hp["l1"])
        norm = torch.nn.utils.clip_grad_norm_(parameters, float("inf"))
        if hp["clip_value"] > 0:
            torch.nn.utils.clip_grad_value_(parameters, hp["clip_value"])
        if hp["clip_norm"] > 0:
            torch.nn.utils.clip_grad_norm_(parameters, hp["clip_norm"])
        for p in list(matrices.values())[:-1]:  # the last is the output layer
            if hp["agc"] > 0 and p.grad is not None:
                for w, g in zip(_units(p), _units(p.grad), strict=True):
                    _shorten(g, hp["agc"] * max(float(w.norm()), 1e-3))
        for p in matrices.values():
            p.mul_(1.0 - rate * hp["decoupled_decay"])
        for group in self.optimizers[m].param_groups:
            group["lr"] = rate
        self.optimizers[m].step()
        for p in matrices.values():
            if hp["max_norm"] > 0:
                for w in _units(p):
                    _shorten(w, hp["max_norm"])
        if self._averages:
            self._average(m, float(self._share[step, m]))
        return float(norm)

    def _average(self, m: int, share: float) -> None:
        """Move what is evaluated towards what is trained: weights and running statistics."""
        kept = self.evaluated[m].state_dict()
        names = {n for n, _ in self.modules[m].named_parameters()}
        for name, value in self._at_evaluation(m).items():
            if name in names or "running_" in name:
                kept[name].lerp_(value, share)

    def _at_evaluation(self, m: int) -> dict[str, Tensor]:
        """Weights, as the optimizer would evaluate them, and buffers of a member."""
        values = dict(self.modules[m].state_dict())
        optimizer = self.optimizers[m]
        if isinstance(optimizer, ChainedOptimizer):
            names = (part.name for part in optimizer.parts)
            values |= dict(zip(names, optimizer.evaluated(), strict=True))
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
        pieces = chunks(torch.as_tensor(rows, device=self.program.device), 4096)
        outputs = [as_members(module(data.numeric[p], data.category[p]), 1) for p in pieces]
        return self.program.scored(torch.cat(outputs)).cpu()

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
        self.evaluated = kept if apart else self.modules
        self._share = self._share[:, index]
        if self.mixer is not None:
            self.mixer = self.mixer.select(index)
        self.optimizers = [self.optimizers[i] for i in index]
        self.hp = [self.hp[i] for i in index]
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
            for i, slots in optimizer.state_dict()["state"].items():
                out |= {
                    f"{m}/slot/{i}/{n}": torch.as_tensor(v)
                    for n, v in slots.items()
                    if v is not None
                }
        return out

    def load(self, alive: Sequence[int], state: State) -> None:
        """See `StackedEngine.load`."""
        if list(alive) != self.alive:
            self.select([self.alive.index(c) for c in alive])
        for m, (module, optimizer) in enumerate(zip(self.modules, self.optimizers, strict=True)):
            module.load_state_dict(_under(f"{m}/module/", state))
            if self._averages:
                self.evaluated[m].load_state_dict(_under(f"{m}/average/", state))
            full = optimizer.state_dict()
            slots: dict[int, dict[str, Tensor]] = {}
            for name, value in state.items():
                if name.startswith(f"{m}/slot/"):
                    i, slot = name.removeprefix(f"{m}/slot/").split("/")
                    slots.setdefault(int(i), {})[slot] = value.clone()
            full["state"] = slots
            optimizer.load_state_dict(full)


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
