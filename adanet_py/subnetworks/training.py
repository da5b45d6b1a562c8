"""A round's candidates, of one AdaNet or of many, trained as few programs on the engine `stacked`.

Candidates of the same widths are one program, whatever they are for: the learning rates are its
candidates and the AdaNets (folds, seeds, penalties) its folds. What a member reads of its own
frozen subnetworks stands beside the columns of its rows; where one has fewer frozen units than
another, columns of zeros fill up, whose weights are zero and stay so, which changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from adanet_py.data.spec import DataSpec
from adanet_py.knob import Knob
from adanet_py.records import Candidate
from adanet_py.subnetworks.architecture import SUBNETWORK, write_sizes
from adanet_py.subnetworks.networks import Offered, Subnetwork
from adanet_py.training.batches import BatchOrder, member_seed
from adanet_py.training.denormals import flushed
from adanet_py.training.engines.program import Program, Tensors, build_module, load_weights
from adanet_py.training.engines.stacked import StackedEngine
from adanet_py.training.optimizers import OPTIMIZERS, Optimizer
from adanet_py.training.optimizers.optimizer import Step, Transform

CHUNKS = 40  # of a candidate's training, after each of which its mean loss is known
DECAY = 0.9  # of the moving average, per chunk, as in TensorFlow's AdaNet per batch
MEMORY = {"cpu": 1 << 30, "cuda": 32 << 30}  # bytes of the rows of one program


@dataclass(frozen=True)
class Request:
    """Subnetworks of `widths` that one AdaNet wants, one for each of `rates`.

    Its rows: `numeric` [n, N], `category`, `target`, `weight` or None, the hidden layers it reads
    side by side `below` [n, sum of `reads`] and `before`, f_{t-1} on them [n, C]. `head_l1` is the
    penalty on the output weights. All random numbers come from `seed`.
    """

    widths: tuple[int, ...]
    reads: tuple[int, ...]
    rates: tuple[float, ...]
    numeric: Tensor
    category: Tensor
    target: Tensor
    weight: Tensor | None
    below: Tensor
    before: Tensor
    seed: int
    head_l1: float
    static: Mapping[str, str | int]
    numbers: Mapping[str, float]
    steps: int
    batch_size: int

    @property
    def kind(self) -> tuple[object, ...]:
        """What requests that can be one program have in common."""
        rows = min(self.batch_size, len(self.target))
        plain = tuple(sorted(self.static.items())), tuple(sorted(self.numbers.items()))
        return self.widths, self.rates, rows, self.steps, plain, self.weight is None

    @property
    def bytes(self) -> int:
        """Bytes of its rows."""
        columns = self.numeric.shape[1] + self.below.shape[1] + self.before.shape[1]
        return 4 * columns * len(self.target)


@dataclass(frozen=True)
class Trained:
    """A trained subnetwork, frozen, and its loss in training.

    `average` is the moving average of the loss of f_{t-1} + h over the batches and `before` that of
    f_{t-1} over the same ones.
    """

    module: Subnetwork
    rate: float
    average: float
    before: float
    finite: bool


@flushed()
def train(
    requests: Sequence[Request],
    spec: DataSpec,
    device: torch.device,
    late: Callable[[], bool] = lambda: False,
) -> list[list[Trained]]:
    """What came of every request, one per learning rate; training ends early once `late()`."""
    kinds: dict[tuple[object, ...], list[int]] = {}
    for i, request in enumerate(requests):
        kinds.setdefault(request.kind, []).append(i)
    out: list[list[Trained]] = [[] for _ in requests]
    limit = MEMORY.get(device.type, MEMORY["cpu"])
    for places in kinds.values():
        block: list[int] = []
        for i in [*places, -1]:
            full = sum(requests[j].bytes for j in block) > limit
            if block and (i < 0 or full):
                found = _train_block([requests[j] for j in block], spec, device, late)
                for j, trained in zip(block, found, strict=True):
                    out[j] = trained
                block = []
            block.append(i)
    return out


class _Order(BatchOrder):
    """Rows of every AdaNet in an order of its own, whoever it is trained with."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seeds: Sequence[int]) -> None:
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = tuple(np.arange(n) + s for n, s in zip(lengths, starts, strict=False))
        super().__init__(rows, batch_size, 0)
        self._orders = [
            BatchOrder((r,), self.batch_size, s) for r, s in zip(rows, seeds, strict=True)
        ]

    def take(self, start: int, stop: int, alive: Sequence[int] | None = None) -> np.ndarray:
        """Row indices of steps [start, stop): [steps, folds, B]."""
        return np.concatenate([order.take(start, stop) for order in self._orders], axis=1)


@dataclass(frozen=True)
class _Round(Program):
    """The program of a block of requests: its folds are the requests."""

    run_seeds: tuple[int, ...] = ()
    reads: tuple[tuple[int, ...], ...] = ()  # of every request, before filling up

    def seeds(self) -> list[int]:
        """The seed of every member [K], whoever it is trained with."""
        return [member_seed(c.seed, s) for s in self.run_seeds for c in self.candidates]

    def build(self, member: int) -> nn.Module:
        """The module of a member, filled up with weights of zero."""
        fold, at = divmod(member, len(self.candidates))
        candidate, seed = self.candidates[at], self.seeds()[member]
        own = build_module(SUBNETWORK, _reading(candidate, self.reads[fold]), self.spec, seed)
        wide = build_module(SUBNETWORK, candidate, self.spec, seed)
        wanted = wide.state_dict()
        state = {n: _fill(v, wanted[n].shape) for n, v in own.state_dict().items()}
        wide.load_state_dict(state)
        return wide.to(self.device, self.dtype)


def _reading(candidate: Candidate, reads: Sequence[int]) -> Candidate:
    return replace(candidate, static={**candidate.static, "below": write_sizes(reads)})


def _fill(values: Tensor, shape: torch.Size) -> Tensor:
    """`values` with zeros after the last column; what a layer reads of others comes last."""
    if values.shape == shape:
        return values
    out = values.new_zeros(shape)
    out[:, : values.shape[1]] = values
    return out


def _train_block(
    requests: Sequence[Request], spec: DataSpec, device: torch.device, late: Callable[[], bool]
) -> list[list[Trained]]:
    first = requests[0]
    reads = tuple(max(column) for column in zip(*(r.reads for r in requests), strict=True))
    program = _Round(
        architecture=SUBNETWORK,
        optimizer=PENALISED,
        candidates=tuple(
            Candidate(
                SUBNETWORK.name,
                {**first.static, "widths": write_sizes(first.widths), "below": write_sizes(reads)},
                PENALISED.name,
                "cosine",
                {**first.numbers, "lr": rate},
            )
            for rate in first.rates
        ),
        spec=spec,
        order=_Order(
            [len(r.target) for r in requests], first.batch_size, [r.seed for r in requests]
        ),
        steps=first.steps,
        data=Tensors(
            torch.cat([_columns(r, reads) for r in requests]).to(device),
            torch.cat([r.category for r in requests]).to(device),
            torch.cat([r.target for r in requests]).to(device),
            None
            if first.weight is None
            else torch.cat([r.weight for r in requests if r.weight is not None]).to(device),
        ),
        device=device,
        run_seeds=tuple(r.seed for r in requests),
        reads=tuple(r.reads for r in requests),
    )
    engine = StackedEngine(program)
    penalty = [r.head_l1 for r in requests for _ in first.rates]
    engine.hp["head_l1"] = torch.tensor(penalty, device=device, dtype=program.dtype).unsqueeze(1)
    average, before = _advance(engine, program, requests, late)
    return _frozen(engine, program, requests, average, before)


def _columns(request: Request, reads: Sequence[int]) -> Tensor:
    """Columns of a request's rows: its own, frozen layers filled up to `reads`, f_{t-1}."""
    parts = [request.numeric]
    for part, wide in zip(request.below.split(list(request.reads), 1), reads, strict=True):
        parts += [part, part.new_zeros(len(part), wide - part.shape[1])]
    return torch.cat([*parts, request.before], 1)


def _advance(
    engine: StackedEngine,
    program: _Round,
    requests: Sequence[Request],
    late: Callable[[], bool],
) -> tuple[np.ndarray, np.ndarray]:
    """Train to the end; moving averages of the loss of f_{t-1} + h, and of f_{t-1}, [F, C]."""
    shape = len(requests), len(program.candidates)
    every = max(10, program.steps // CHUNKS)
    ours, theirs = np.zeros(shape), np.zeros(shape)
    weight = at = 0.0
    while at < program.steps and not late():
        stop = min(program.steps, int(at) + every)
        reached, loss, _ = engine.advance(int(at), stop, lambda step: late())
        mean = loss.cpu().double().numpy().reshape(shape)
        ours = DECAY * ours + (1 - DECAY) * mean
        theirs = DECAY * theirs + (1 - DECAY) * _without(program, int(at), reached)
        weight = DECAY * weight + (1 - DECAY)
        at = reached
    if not weight:
        return np.full(shape, math.nan), np.full(shape, math.nan)
    return ours / weight, theirs / weight  # as the average begins at zero


def _without(program: _Round, start: int, stop: int) -> np.ndarray:
    """The mean loss of f_{t-1} over the batches of steps [start, stop), [F, 1]."""
    data, c = program.data, program.spec.n_outputs
    picked = torch.from_numpy(program.order.take(start, stop)).to(program.device)
    rows = picked.transpose(0, 1).flatten(1)  # [F, steps * B]
    hp = {n: v[:1] for n, v in program.hyperparameters().items()}
    outputs = data.numeric[:, -c:][rows].unsqueeze(-2)
    losses = program.loss.rows(outputs, data.target[rows], hp)
    if data.weight is not None:
        losses = losses * data.weight[rows]
    return losses.mean(1, keepdim=True).cpu().double().numpy()


def _frozen(
    engine: StackedEngine,
    program: _Round,
    requests: Sequence[Request],
    average: np.ndarray,
    before: np.ndarray,
) -> list[list[Trained]]:
    """The trained subnetworks as ordinary modules, what was filled up cut off."""
    out: list[list[Trained]] = [[] for _ in requests]
    for c, candidate in enumerate(program.candidates):
        state = engine.snapshot(c)
        for f, request in enumerate(requests):
            own = build_module(SUBNETWORK, _reading(candidate, request.reads), program.spec, 0)
            assert isinstance(own, Offered)
            wanted = own.state_dict()
            values = {n: state[f"{f}/{n}"].cpu() for n in wanted if f"{f}/{n}" in state}
            load_weights(
                own,
                {n: v[:, : wanted[n].shape[1]] if v.dim() == 2 else v for n, v in values.items()},
            )
            module = own.subnetwork.eval().requires_grad_(False)
            finite = all(bool(v.isfinite().all()) for v in module.parameters())
            trained = (module, candidate.numeric["lr"], average[f, c], before[f, c], finite)
            out[f].append(Trained(*trained))
    return out


def _head_l1(g: Tensor, slots: Mapping[str, Tensor], step: Step) -> None:
    """g <- g + head_l1 sign(v) on the output weights v."""
    for part in step.parts:
        if part.head:
            at = slice(part.start, part.stop)
            g[:, at].addcmul_(step.w[:, at].sign(), step.hp["head_l1"])


def _penalised() -> Optimizer:
    adamw = OPTIMIZERS["adamw"]
    return replace(
        adamw,
        name="adamw",
        numeric={**adamw.numeric, "head_l1": Knob(0.0, 0.0, doc="penalty of the output weights")},
        transforms=(Transform((), _head_l1), *adamw.transforms),
        reference=None,
    )


PENALISED = _penalised()
