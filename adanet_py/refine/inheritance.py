"""Where a child begins: its parent's stored weights, changed by its move, and the certificate.

A child is as much a candidate as any other; what differs is the first weights of its members, one
per fold. They are made before a step is taken, the same on every engine and in every replay: by the
parent's weights of that fold, up to `PROBE_ROWS` of its training rows, and a generator keyed by the
child's seed and the fold. Files of candidates hold no state of an optimizer: its moments begin at
zero, which is why children warm up. With AdamW's moments and step counts carried over, `train_on`
ended between 0.2 % below and 0.3 % above the validation errors it has so (two tables, 100 to 400
steps, rates of 0.1 to 1 times the parent's, 16 trainings each), in most cases within two standard
errors: not worth three times the disk.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from adanet_py.errors import RunError
from adanet_py.records import Candidate
from adanet_py.refine import find_move
from adanet_py.refine.move import Probe
from adanet_py.training.batches import member_seed
from adanet_py.training.cost import LATENCY_ROWS
from adanet_py.training.engines.program import Program, as_members, build_module, load_weights

PROBE_ROWS = 512
ROUNDS = 5  # of measuring two latencies
TOLERANCE = 1e-5  # of the largest output, at least of 1


@dataclass(frozen=True)
class Parent:
    """What a run keeps of a network: weights of every fold, validation outputs [N, C]."""

    candidate: Candidate
    weights: tuple[Mapping[str, Tensor], ...]
    outputs: np.ndarray


@dataclass(frozen=True)
class Start:
    """The first weights of a child in every fold, and what the move did.

    `difference` is the largest difference of an output to the parent's on the probe and `scale` the
    largest size of the parent's, over all folds. `before` are the parent's validation outputs
    [N, C], `after` those of the child's first weights; None where the move preserves the function.
    `latency_share` is the child's time for a prediction over the parent's.
    """

    weights: tuple[Mapping[str, Tensor], ...]
    difference: float
    scale: float
    before: np.ndarray
    after: np.ndarray | None
    latency_share: float

    def check(self, child: Candidate) -> None:
        """Raise RunError unless a move that promises to preserve the function did."""
        bound = TOLERANCE * max(1.0, self.scale)
        if find_move(child.move).preserves and not self.difference <= bound:
            raise RunError(
                f"expected the same function within {bound:.2g} on {PROBE_ROWS} training rows, "
                f"found outputs that differ by {self.difference:.2g}. It is not trained."
            )


def read_parent(path: Path, program: Program) -> Parent:
    """Read a network's file; RunError where it is gone or of other data than the program's."""
    if not path.is_file():
        raise RunError(
            "its weights are no longer stored. Only the best networks of a run keep theirs."
        )
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if about["folds"] != program.folds:
        raise RunError(
            f"it was trained in {about['folds']} folds, this group in {program.folds}. Refine it "
            "with the split of its run."
        )
    weights = []
    for f in range(program.folds):
        prefix = f"weights/{f}/"
        part = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        weights.append(part)
    outputs = tensors["predictions/validation"].numpy()
    return Parent(Candidate.from_json(about["candidate"]), tuple(weights), outputs)


@torch.no_grad()
def start_of(
    child: Candidate, parent: Parent, program: Program, valid: Sequence[np.ndarray]
) -> Start:
    """The child's first weights; `valid` are the validation rows of every fold.

    Raises SpaceError for an unknown move, and what the move raises.
    """
    move = find_move(child.move)
    transfer = move.transfer()
    weights, differences, scales, after = [], [], [], []
    share = math.nan
    for f in range(program.folds):
        before = _module(program, parent.candidate, 0)
        load_weights(before, parent.weights[f])
        module = _module(program, child, member_seed(child.seed, f))
        before.eval(), module.eval()
        rows = program.order.rows[f]
        rows = rows[:: max(1, len(rows) // PROBE_ROWS)][:PROBE_ROWS]
        probe = _probe(program, rows)
        transfer(before, module, probe, np.random.default_rng([child.seed, f]))
        old, new = (m(probe.numeric, probe.category) for m in (before, module))
        differences.append(float((new - old).abs().max()))
        scales.append(float(old.abs().max()))
        state = module.state_dict()
        weights.append(
            {n: v for n, v in state.items() if not n.rsplit(".", 1)[-1].startswith("knob_")}
        )
        if f == 0:
            share = _latency_share(before, module, program)
        if not move.preserves:
            after.append(_outputs(module, program, valid[f]))
    # max() would pass over NaN, which must not pass for a small difference.
    return Start(
        tuple(weights),
        float(np.max(differences)),
        float(np.max(scales)),
        parent.outputs,
        np.concatenate(after) if after else None,
        share,
    )


def _latency_share(before: nn.Module, module: nn.Module, program: Program) -> float:
    """The time of `module` over that of `before`, in turns, so that both meet the same load.

    The least of `ROUNDS` each: whatever else the machine does only adds to it.
    """
    numeric, category = (
        part[:LATENCY_ROWS] for part in (program.data.numeric, program.data.category)
    )
    least = [math.inf, math.inf]
    for _ in range(ROUNDS):
        for i, one in enumerate((before, module)):
            start = time.perf_counter()
            one(numeric, category).sum().item()
            least[i] = min(least[i], time.perf_counter() - start)
    return least[1] / max(least[0], 1e-9)


def _module(program: Program, candidate: Candidate, seed: int) -> nn.Module:
    module = build_module(program.architecture, candidate, program.spec, seed)
    return module.to(program.device, program.dtype)


def _probe(program: Program, rows: np.ndarray) -> Probe:
    """Training rows as a move may see them."""
    data, where = program.data, torch.as_tensor(rows, device=program.device)
    offset = None if data.offset is None else data.offset[where]
    parts = data.numeric[where], data.category[where], data.target[where]
    return Probe(*parts, program.loss, offset)


def _outputs(module: nn.Module, program: Program, rows: np.ndarray) -> np.ndarray:
    """Outputs [n, C] as they are scored."""
    data, where = program.data, torch.as_tensor(rows, device=program.device)
    pieces = where.split(4096)
    found = [as_members(module(data.numeric[p], data.category[p]), 1) for p in pieces]
    return program.scored(torch.cat(found), where).cpu().numpy()
