"""What cannot fit: a simple estimate of a candidate's memory, and what failures teach. No torch.

The estimate puts candidates in order: it is compared with those of candidates that did not fit.
With the memory of a GPU it is compared with much to spare, to begin with groups that fit; those
that do not are halved (training/jobs.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from adanet_py.plan import Workload, batch_size
from adanet_py.records import Candidate, Result, Status

TELLING = (Status.OUT_OF_MEMORY, Status.INFEASIBLE)  # results that limits are learned from
SPARE = 4.0  # times the estimate that a group may take: what it leaves out, and other processes
MEMBER_BYTES = 1 << 20  # of a member whatever its size: its noise, its rates
_FLOAT = 4  # bytes


def memory_estimate(candidate: Candidate, load: Workload) -> float | None:
    """Bytes that training the candidate alone takes, roughly; None where nothing tells.

    4 folds ((2 + s) M + B sqrt(d M)): M multiply-adds of a row stand for the parameters, kept with
    their gradient and s states of the optimizer; of d layers that share M evenly, sqrt(d M) units
    are kept for each of the B rows of a step.
    """
    architecture = load.own.all_architectures()[candidate.architecture]
    if architecture.multiply_adds is None:
        return None
    static = architecture.complete(candidate.static)
    size = architecture.multiply_adds(static, load.spec)
    depth = static.get("depth")
    layers = max(1.0, depth) if isinstance(depth, int | float) else 1.0
    copies = 2 + len(load.own.optimizer(candidate.optimizer).slots)
    units = math.sqrt(layers * size)
    return _FLOAT * load.folds * (copies * size + batch_size(candidate, load) * units)


def fitting(candidate: Candidate, load: Workload) -> int:
    """How many candidates like this one a group may have for the GPU's memory; on a CPU any number.

    At least one.
    """
    if not load.gpu:
        return 1 << 30
    estimate = memory_estimate(candidate, load) or 0.0
    return max(1, int(load.gpu / (SPARE * (estimate + load.folds * MEMBER_BYTES))))


@dataclass(frozen=True)
class Limits:
    """The least that did not fit, by optimizer; "": whatever the optimizer.

    `sizes` holds bytes and candidate, `programs` the families of candidates without an estimate,
    `infeasible` the families that break a bound, with what they break.
    """

    load: Workload
    sizes: dict[str, tuple[float, Candidate]]
    programs: frozenset[str]
    infeasible: Mapping[str, str] = field(default_factory=dict)

    def why_not(self, candidate: Candidate) -> str:
        """Why the candidate is not worth a try, a sentence; empty where it may fit."""
        if broken := self.infeasible.get(candidate.family):
            return f"{candidate.architecture} with these shapes: {broken}."
        if not self.sizes and not self.programs:
            return ""
        if candidate.family in self.programs:
            return f"{candidate.architecture} with these shapes did not fit into memory before."
        estimate = memory_estimate(candidate, self.load)
        for key in ("", candidate.optimizer):
            known = self.sizes.get(key)
            if known is not None and estimate is not None and estimate >= known[0]:
                return (
                    f"{candidate.architecture} with {candidate.optimizer} would take about "
                    f"{estimate / 1e6:,.3g} MB; candidate {known[1].id}, about "
                    f"{known[0] / 1e6:,.3g} MB, did not fit into memory."
                )
        return ""


def learn_limits(results: Iterable[Result], load: Workload) -> Limits:
    """What the candidates that did not fit, or broke a bound, teach about others.

    An optimizer that has an engine of its own keeps what the estimate does not know of, so its
    failures count against itself alone.
    """
    sizes: dict[str, tuple[float, Candidate]] = {}
    programs: set[str] = set()
    told = [r for r in results if r.status in TELLING]
    infeasible = {r.candidate.family: r.message for r in told if r.status is Status.INFEASIBLE}
    for candidate in [r.candidate for r in told if r.status is Status.OUT_OF_MEMORY]:
        estimate = memory_estimate(candidate, load)
        if estimate is None:
            programs.add(candidate.family)
            continue
        key = candidate.optimizer if load.own.optimizer(candidate.optimizer).engine else ""
        if key not in sizes or estimate < sizes[key][0]:
            sizes[key] = estimate, candidate
    return Limits(load, sizes, frozenset(programs), infeasible)
