"""What every engine is given: one family of candidates, the data on the device, the plan."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from adanet_py.architectures.architecture import Architecture
from adanet_py.architectures.initialisation import initialise
from adanet_py.architectures.layers import is_decayed
from adanet_py.architectures.perturbations import (
    NOISE_SIZE,
    Cutmix,
    Dropout,
    InputNoise,
    Mixup,
    Noisy,
    Perturbation,
)
from adanet_py.data.spec import DataSpec
from adanet_py.errors import SpaceError
from adanet_py.records import Candidate
from adanet_py.tasks import is_regression, part_of
from adanet_py.training.batches import BatchOrder, member_seed, micro_batches
from adanet_py.training.general import GENERAL
from adanet_py.training.losses import LOSSES, Loss, choose_loss
from adanet_py.training.mixing import Mixer
from adanet_py.training.optimizers import Optimizer, Part, make_parts
from adanet_py.training.schedules import learning_rates
from adanet_py.training.sparsity import zero_smallest
from adanet_py.training.targets import with_label_weight

_BUILDING = threading.Lock()  # layers draw from the process's one generator, whatever the thread
# What GENERAL offers of the perturbations of `layers.Inputs`.
INPUT_KNOBS = (InputNoise.knob, Mixup.knob, Cutmix.knob)

# Bytes of activations a member keeps for its backward pass at most; a larger batch is cut into
# micro-batches whose gradients are added up.
MICRO_BYTES = {"cpu": 256 << 20, "cuda": 4 << 30}


State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Tensors:
    """The data on the device: numeric [N, n], category [N, c], target [N], weight [N] or None.

    Several targets are [N, T]. `offset` [N] or None: the log exposure of every row, which is added
    to its raw outputs.
    """

    numeric: Tensor
    category: Tensor
    target: Tensor
    weight: Tensor | None = None
    offset: Tensor | None = None


@dataclass(frozen=True)
class Program:
    """One family: C candidates, each trained in F folds; member f * C + c is c in fold f."""

    architecture: Architecture
    optimizer: Optimizer
    candidates: tuple[Candidate, ...]
    spec: DataSpec
    order: BatchOrder
    steps: int
    data: Tensors
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    pieces: int = 1  # micro-batches of a step at least, where memory is short
    losses: Mapping[str, Loss] = field(default_factory=lambda: LOSSES)  # known by name
    label_weight: Tensor | None = None  # of both values of several labels [T, 2]
    # Of a child: what it begins with in every fold, by its id (refine/inheritance.py).
    starts: Mapping[str, Sequence[State]] = field(default_factory=dict)
    say: Callable[[str], None] = lambda message: None  # what the user shall know, once

    def __post_init__(self) -> None:
        families = {c.family for c in self.candidates}
        if len(families) != 1:
            raise ValueError(f"A group needs one family of candidates, got {len(families)}.")

    @property
    def folds(self) -> int:
        """F."""
        return len(self.order.rows)

    @cached_property
    def loss(self) -> Loss:
        """The training loss of the family, for the data at hand."""
        loss = choose_loss(self.candidates[0].static, self.spec, self.losses)
        return loss if self.label_weight is None else with_label_weight(loss, self.label_weight)

    def scored(self, outputs: Tensor, rows: Tensor | None = None) -> Tensor:
        """Raw outputs [..., B, M, C] of `rows` [B] as they are scored and stored [..., B, C].

        Log exposures are added, then comes the link, then members are merged.
        """
        if self.data.offset is not None:
            assert rows is not None
            outputs = outputs + per_row(self.data.offset[rows])
        return merge_members(outputs, self.spec.task, self.loss)

    @cached_property
    def sparse(self) -> bool:
        """Whether weights that are zero at the start stay so; see `training.sparsity`."""
        return bool(self.candidates[0].static.get("sparsity", 0.0))

    def micro_batches(self, row: int) -> list[slice]:
        """The parts of a batch whose gradients are accumulated, one at a time in memory.

        `row`: what `row_bytes` gives. They depend on the network and the device alone, not on the
        group. Batch norm sees the statistics of each part (ghost batch norm, Hoffer et al. 2017);
        all else is as in one go.
        """
        limit = MICRO_BYTES.get(self.device.type, MICRO_BYTES["cpu"])
        return micro_batches(self.order.batch_size, limit // row, self.pieces)

    def seeds(self) -> list[int]:
        """The seed of every member [K]."""
        return [member_seed(c.seed, f) for f in range(self.folds) for c in self.candidates]

    def build(self, member: int) -> nn.Module:
        """The module of one member with its initial weights, knobs set; global RNG untouched."""
        fold, place = divmod(member, len(self.candidates))
        candidate = self.candidates[place]
        seed = member_seed(candidate.seed, fold)
        module = build_module(self.architecture, candidate, self.spec, seed)
        module = module.to(self.device, self.dtype)
        if candidate.id in self.starts:
            load_weights(module, self.starts[candidate.id][fold])
        return module

    def precision(self) -> AbstractContextManager[object]:
        """The context of forward passes in training: autocast where `precision` is bfloat16.

        Matrix products, and what comes after them until a layer asks for more, are then bfloat16,
        forward and backward (Kalamkar et al. 2019, arXiv 1905.12322). Weights, their gradients,
        optimizer, running statistics and loss stay float32, and so does every evaluation: what is
        scored is what the saved model computes.

        Measured by scripts/bench_precision.py (results/precision.md): on a server CPU with bfloat16
        instructions (AVX-512, no AMX) a step takes 1.5 to 1.9 times as long as in float32, at every
        size, so no search space that comes with the package offers it. Not measured on a GPU.
        """
        if self.candidates[0].static.get("precision", "float32") == "float32":
            return nullcontext()
        # Casts of stacked weights must not be kept: they end with the call that vectorises.
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)

    def used(self, candidates: Sequence[Candidate] | None = None) -> frozenset[str]:
        """The knobs that any of the candidates (default: all) has above zero."""
        if candidates is None:
            return self._used
        values = [module_values(self.architecture, c) for c in candidates]
        return frozenset(name for each in values for name, value in each.items() if value > 0)

    @cached_property
    def _used(self) -> frozenset[str]:
        return self.used(self.candidates)

    def mixer(self) -> Mixer | None:
        """How the rows of every member are mixed; None where nobody mixes."""
        if not self.used() & {Mixup.knob, Cutmix.knob}:
            return None
        columns = self.spec.n_numeric + len(self.spec.cardinalities)
        return Mixer.make(self.candidates, self.seeds(), self.folds, columns)

    def mixes(self, mixer: Mixer | None, start: int, stop: int) -> dict[str, Tensor]:
        """What `Mixup`, `Cutmix` and the loss need: share [S, K], keep [S, K, n], own [S, K, 1].

        Of the S steps [start, stop); empty where nobody mixes.
        """
        if mixer is None:
            return {}
        taken = mixer.take(start, stop)
        return {
            "share": self.put(taken.share, self.dtype),
            "keep": self.put(taken.keep),
            "own": self.put(taken.own, self.dtype).unsqueeze(-1),
        }

    def put(self, array: np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
        """An array on the device; on a GPU without waiting for what that still computes."""
        tensor = torch.from_numpy(array).to(dtype)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def row_losses(
        self,
        outputs: Tensor,
        target: Tensor,
        weight: Tensor | None,
        hp: Mapping[str, Tensor],
        own: Tensor | None,
        offset: Tensor | None = None,
    ) -> Tensor:
        """Weighted losses [K, B] against the rows' own targets by `own` [K, 1], else the partners'.

        The partner of a row is the one before it, as in `Mixup` and `Cutmix`; its target comes
        with its weight and its exposure. Target, weight and offset are [K or 1, B].
        """
        shifted = outputs if offset is None else outputs + per_row(offset)
        losses = self.loss.rows(shifted, target, hp)
        losses = losses if weight is None else losses * weight
        if own is None:
            return losses
        turned, moved = (None if v is None else v.roll(1, 1) for v in (weight, offset))
        partner = self.row_losses(outputs, target.roll(1, 1), turned, hp, None, moved)
        return own * losses + (1.0 - own) * partner

    def rates(self) -> np.ndarray:
        """Learning rate per step and member [steps, K]."""
        default = float(self.optimizer.numeric["lr"].default)  # type: ignore[arg-type]
        return np.tile(learning_rates(self.candidates, self.steps, default), (1, self.folds))

    def scaled_rates(
        self, start: int, alive: Sequence[int], factors: Sequence[float]
    ) -> np.ndarray:
        """The rates from step `start` on times a factor per living candidate [steps - start, K]."""
        planned = self.rates()[start:].reshape(-1, self.folds, len(self.candidates))
        scaled = planned[:, :, list(alive)] * np.asarray(factors)
        return scaled.reshape(len(planned), self.folds * len(alive))

    def hyperparameters(self) -> dict[str, Tensor]:
        """Every numeric hyperparameter of optimizer and loss: name -> [K, 1]."""
        rows = [numeric_values(self.optimizer, c) for c in self.candidates] * self.folds
        columns = [[[r[name]] for r in rows] for name in rows[0]]
        values = torch.tensor(columns, device=self.device, dtype=self.dtype)  # at once
        return dict(zip(rows[0], values.unbind(), strict=True))


def numeric_values(optimizer: Optimizer, candidate: Candidate) -> dict[str, float]:
    """The optimizer's and the general hyperparameters of a candidate, defaults filled in."""
    general = {
        name: float(candidate.numeric.get(name, knob.default))  # type: ignore[arg-type]
        for name, knob in GENERAL.items()
    }
    return general | optimizer.complete(candidate.numeric)


def build_module(
    architecture: Architecture, candidate: Candidate, spec: DataSpec, seed: int
) -> nn.Module:
    """An ordinary module for `candidate`: initial weights from `seed` alone, knob buffers set."""
    with _BUILDING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone, where modules are built
        static = architecture.complete(candidate.static)
        module = architecture.build(static, spec)
        initialise(module, str(static.get("init", "default")), bool(static.get("zero_last", False)))
        if sparsity := float(static.get("sparsity", 0.0)):  # type: ignore[arg-type]
            zero_smallest(module, sparsity, "layer")
    values = module_values(architecture, candidate)
    present = {layer.knob for layer in perturbations(module)}
    for knob in INPUT_KNOBS:
        if values[knob] > 0 and knob not in present:
            raise SpaceError(
                f"{knob} = {values[knob]:g} acts in adanet_py.architectures.layers.Inputs, which "
                f"the architecture {architecture.name!r} does not use. Leave it at 0."
            )
    for name, buffer in module.named_buffers():
        knob = name.rsplit(".", 1)[-1]
        if knob.startswith("knob_"):
            buffer.fill_(values[knob.removeprefix("knob_")])
    return module


def load_weights(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put saved weights and buffers into a module of `build_module`.

    Knobs that are younger than the file keep the value the candidate has. Raises RuntimeError for
    anything else that is missing, left over or of another shape.
    """
    knobs = {n: v for n, v in module.named_buffers() if n.rsplit(".", 1)[-1].startswith("knob_")}
    module.load_state_dict(knobs | dict(state))


def row_bytes(program: Program, module: nn.Module) -> int:
    """Bytes one member keeps per row for its backward pass."""
    module.train()
    for layer in perturbations(module):
        layer.on = isinstance(layer, Dropout)  # the others keep next to nothing
    pool = torch.zeros(NOISE_SIZE, dtype=torch.uint8, device=program.device)
    for noisy in noisy_layers(module).values():
        noisy.noise = pool
    count = min(program.order.batch_size, 64)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, program.precision():
        module(program.data.numeric[:count], program.data.category[:count])
    for parameter in module.parameters():
        kept.pop(parameter.data_ptr(), None)
    return max(1, sum(kept.values()) // max(1, count))


def parts_of(module: nn.Module) -> tuple[Part, ...]:
    """The layout of a module's parameters as one row of numbers."""
    shapes = {n: tuple(p.shape) for n, p in module.named_parameters()}
    return make_parts(shapes, {n: is_decayed(n, s) for n, s in shapes.items()})


def module_values(architecture: Architecture, candidate: Candidate) -> dict[str, float]:
    """The numbers a module may be given: general ones and the architecture's own."""
    return {
        name: float(candidate.numeric.get(name, knob.default))  # type: ignore[arg-type]
        for name, knob in (GENERAL | dict(architecture.numeric)).items()
    }


def perturbations(module: nn.Module) -> list[Perturbation]:
    """The layers that act in training only, in the order of the module."""
    return [layer for layer in module.modules() if isinstance(layer, Perturbation)]


def switch(module: nn.Module, used: frozenset[str]) -> None:
    """Turn perturbations on where their knob is used; the others then cost nothing."""
    for layer in perturbations(module):
        layer.on = layer.knob in used


def noisy_layers(module: nn.Module) -> dict[str, Noisy]:
    """The layers that need noise, in the order of the module: name of the noise buffer -> layer."""
    return {
        f"{name}.noise": layer for name, layer in module.named_modules() if isinstance(layer, Noisy)
    }


def mixing_buffers(module: nn.Module) -> dict[str, str]:
    """The buffers that are filled at every step: name -> which of `Program.mixes` fills it."""
    found = {Mixup: "share", Cutmix: "keep"}
    return {
        f"{name}.step_{found[type(layer)]}": found[type(layer)]
        for name, layer in module.named_modules()
        if type(layer) in found
    }


def per_row(values: Tensor) -> Tensor:
    """Values of rows [..., B] beside raw outputs [..., B, M, C]."""
    return values.unsqueeze(-1).unsqueeze(-1)


def merge_members(outputs: Tensor, task: str, loss: Loss) -> Tensor:
    """Raw outputs of implicit members [..., M, C] through the loss's link and averaged: [..., C].

    Classification averages probabilities and returns their logits (binary, each of several labels)
    or logs; regression averages standardised values.
    """
    if loss.link is not None:
        outputs = loss.link(outputs)
    if outputs.shape[-2] == 1:
        return outputs.squeeze(-2)
    if is_regression(task):
        return outputs.mean(-2)
    if part_of(task) == "binary":
        logsigmoid = nn.functional.logsigmoid
        return torch.logsumexp(logsigmoid(outputs), -2) - torch.logsumexp(logsigmoid(-outputs), -2)
    return torch.logsumexp(outputs.log_softmax(-1), -2) - np.log(outputs.shape[-2])


def as_members(outputs: Tensor, batch_dims: int) -> Tensor:
    """Give outputs without implicit members their dimension M = 1: [..., B, M, C]."""
    return outputs.unsqueeze(-2) if outputs.dim() == batch_dims + 1 else outputs


def chunks(rows: Tensor, size: int) -> Sequence[Tensor]:
    """Cut row indices [N] into pieces of at most `size`."""
    return rows.split(max(1, size))
