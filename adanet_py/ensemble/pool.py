"""The members an ensemble can be grown from: the networks of a run whose predictions are stored."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adanet_py.ensemble.complexity import Measure, complexities
from adanet_py.ensemble.growth import Member
from adanet_py.ensemble.weights import Floats
from adanet_py.folder import candidate_file
from adanet_py.records import Result


@dataclass(frozen=True)
class Pool:
    """Members, the best first; their results and their outputs on the audit rows [k, a, C]."""

    members: tuple[Member, ...]
    results: tuple[Result, ...]
    audit: Floats


def read_pool(folder: Path, results: Iterable[Result], measure: Measure) -> Pool:
    """The networks that stand among `results`, best first, that have a file in the run.

    Outputs are logits over the temperature of each member, or standardised values: what mixture
    weights of about 1 in all make sense for.
    """
    from safetensors import safe_open

    kept: list[Result] = []
    outputs: list[Floats] = []
    audits: list[Floats] = []
    for result in results:
        path = candidate_file(folder, result.candidate.id)
        if not result.stands or not path.is_file():
            continue
        with safe_open(path, framework="np") as file:
            temperature = json.loads(file.metadata()["about"])["temperature"]
            names = set(file.keys())
            valid = file.get_tensor("predictions/validation").astype(np.float64)
            audit = valid[:0]
            if "predictions/audit" in names:
                audit = file.get_tensor("predictions/audit").astype(np.float64)
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
