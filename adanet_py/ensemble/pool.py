"""The members an ensemble can be grown from: those of a run whose predictions are stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adanet_py.ensemble.complexity import Measure, complexities
from adanet_py.ensemble.growth import Member
from adanet_py.ensemble.weights import Floats
from adanet_py.folder import candidate_file
from adanet_py.records import Result, Status


@dataclass(frozen=True)
class Pool:
    """Members, the best first; their results and their outputs on the audit rows [k, a, C]."""

    members: tuple[Member, ...]
    results: tuple[Result, ...]
    audit: Floats


def read_pool(
    folder: Path,
    results: Iterable[Result],
    measure: Measure,
    as_outputs: Callable[[Floats], Floats],
) -> Pool:
    """Those of `results`, best first, that have a file in the run: what stands, and baselines.

    Outputs are logits over the temperature of each member, or standardised values: what mixture
    weights of about 1 in all make sense for; `as_outputs` makes them of what a baseline predicts.
    """
    from safetensors import safe_open

    kept: list[Result] = []
    outputs: list[Floats] = []
    audits: list[Floats] = []
    for result in results:
        path = candidate_file(folder, result.candidate.id)
        baseline = result.status is Status.BASELINE
        if not (result.stands or baseline) or not path.is_file():
            continue
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            valid = file.get_tensor("predictions/validation").astype(np.float64)
            audit = valid[:0]
            if "predictions/audit" in names:
                audit = file.get_tensor("predictions/audit").astype(np.float64)
            if baseline:
                if not any(name.startswith("member/") for name in names):
                    continue  # a run of an earlier version kept no arrays of it
                temperature, valid, audit = 1.0, as_outputs(valid), as_outputs(audit)
            else:
                temperature = json.loads(file.metadata()["about"])["temperature"]
        if not (np.isfinite(valid).all() and np.isfinite(audit).all()):
            continue
        kept.append(result)
        outputs.append(valid / temperature)
        audits.append(audit / temperature)
    values = complexities(measure, kept, outputs)
    members = tuple(
        Member(r.candidate.id, o, r.layers, c)
        for r, o, c in zip(kept, outputs, values, strict=True)
    )
    return Pool(members, tuple(kept), np.stack(audits) if audits else np.zeros((0, 0, 0)))
