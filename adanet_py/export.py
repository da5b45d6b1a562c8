"""Save a candidate as a model; it is saved once a fresh process predicts what was scored."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from adanet_py.data.splits import Split
from adanet_py.executors.nursery import Forked, Nursery, Process
from adanet_py.folder import candidate_file
from adanet_py.member import Member, baseline_member, network_member
from adanet_py.model import Model, load
from adanet_py.model_file import MODEL_FILE
from adanet_py.own import Own
from adanet_py.prediction_cost import costs
from adanet_py.prepare import Prepared, probe_rows
from adanet_py.records import Result, Status
from adanet_py.worker import die_with

if TYPE_CHECKING:
    import pandas as pd

    from adanet_py.ensembling import Grown

# What a check needs, for the fork server to import once.
PRELOAD = ("adanet_py.export", "pandas", "pyarrow.feather", "safetensors.numpy")
ENSEMBLE = "ensemble"  # stands for the id of a candidate
TOLERANCE = 2e-4  # relative; float32 sums in another order differ by far less


@dataclass
class Check:
    """A model on its way: written beside the saved one, being checked by a process of its own.

    `errors` is the file of what the process prints; `seconds` are what the check took. `grown` is
    the ensemble it is of, if it is one. `costs` are what the process measured on the way, see
    prediction_cost.py, by candidate.
    """

    result: Result
    path: Path
    process: Process | None
    difference: float | None = None
    message: str = ""
    seconds: float = 0.0
    errors: IO[bytes] | None = None
    grown: Grown | None = None
    costs: Mapping[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def done(self, wait: float = 0.0) -> bool:
        """Whether the check has ended, waiting up to `wait` seconds for it."""
        if self.process is None:
            return True
        try:
            self.process.wait(wait)
        except subprocess.TimeoutExpired:
            return False
        forked = isinstance(self.process, Forked)
        out, err = self._close()
        self.seconds = time.monotonic() - self.started
        try:
            answer = json.loads(out)
            self.difference = float(answer["difference"])
            self.costs = answer["costs"]
            if forked:  # the first one waited for imports, which the next will find done
                self.seconds = min(self.seconds, float(answer["seconds"]))
        except (ValueError, KeyError):
            lines = err.decode(errors="replace").strip().splitlines()
            self.message = lines[-1] if lines else "the checking process said nothing"
        return True

    @property
    def good(self) -> bool:
        """Whether the reloaded model predicts what was scored."""
        return self.difference is not None and self.difference <= TOLERANCE

    def cancel(self) -> None:
        """Give up the check."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._close()
        self.path.unlink(missing_ok=True)

    def _close(self) -> tuple[bytes, bytes]:
        """What the ended process wrote: its answer (a line, which a pipe holds) and its errors."""
        assert self.process is not None
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        self.process.close()
        self.process = None
        if self.errors is None:
            return out, b""
        with self.errors as file:
            file.seek(0)
            return out, file.read()


def make_model(
    folder: Path, prepared: Prepared, result: Result, own: Own, grown: Grown | None = None
) -> Model:
    """The model of one candidate, or of an ensemble, from the stored weights."""
    results = (result,) if grown is None else grown.members
    about: dict[str, Any] = {
        "candidate": result.candidate.id,
        "validation": result.metrics.get("validation"),
        "audit": result.metrics.get("audit"),
        "parameters": result.parameters,
    }
    if grown is not None:
        scores = grown.scores["ensemble"]
        about = {
            "candidate": ENSEMBLE,
            "members": [r.candidate.id for r in results],
            "validation": scores.validation,
            "audit": scores.audit if math.isfinite(scores.audit) else None,
            "parameters": sum(r.parameters for r in results),
        }
    return Model(
        prepared.target_name,
        prepared.metric,
        prepared.target,
        prepared.preprocessor,
        prepared.source.spec,
        tuple(stored_member(folder, r) for r in results),
        about,
        own,
        prepared.exposure,
        None if grown is None else grown.weights,
    )


def stored_member(folder: Path, result: Result) -> Member:
    """The member that a result's file in the run holds."""
    path = candidate_file(folder, result.candidate.id)
    if result.status is not Status.BASELINE:
        return network_member(path)
    return baseline_member(path, result.candidate)


def start_check(
    folder: Path,
    prepared: Prepared,
    result: Result,
    own: Own,
    nursery: Nursery,
    grown: Grown | None = None,
    beside: Result | None = None,
) -> Check:
    """Write a model and have a process that knows nothing of the run check it.

    It is that of `result`, or the ensemble `grown`, `result` then being the best of its members.
    What the model of `beside` costs is then measured in turns with it.
    """
    model = make_model(folder, prepared, result, own, grown)
    path = folder / f"{MODEL_FILE}.new"
    model.save(path)
    expected, fold = expect(folder, prepared.split, model)
    write_expected(folder / "cache", expected, fold)
    if any(own.needed_by(m.candidate, prepared.source.spec) for m in model.members):
        import pandas as pd

        frame = pd.read_feather(folder / "cache" / "probe.feather")
        loaded = load(path, own=own)
        found = verify(loaded, frame, fold, expected)
        cost = costs({str(loaded.about["candidate"]): loaded}, frame)
        return Check(result, path, None, found, grown=grown, costs=cost)
    arguments = [str(path), str(folder / "cache")]
    if beside is not None:
        other = folder / "cache" / MODEL_FILE
        make_model(folder, prepared, beside, own).save(other)
        arguments += ["--beside", str(other)]
    errors = tempfile.TemporaryFile()
    process = nursery.open("adanet_py.export", arguments, stderr=errors, preload=PRELOAD)
    return Check(result, path, process, errors=errors, grown=grown)


def write_expected(folder: Path, expected: Sequence[np.ndarray], fold: np.ndarray) -> None:
    """Write what `expect` found where the checking process reads it."""
    np.savez(folder / "probe.npz", *expected, fold=fold)


def expect(folder: Path, split: Split, model: Model) -> tuple[list[np.ndarray], np.ndarray]:
    """What every member's folds were scored by on the probe rows [N, ...], and those folds."""
    from safetensors import safe_open

    found = []
    for member in model.members:
        with safe_open(candidate_file(folder, member.candidate.id), framework="np") as file:
            each, fold = probe(split, file.get_tensor("predictions/validation"))
        found.append(each)
    return found, fold


def probe(split: Split, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The stored outputs of the probe rows, and the fold whose member made each."""
    valid, rows = split.valid, probe_rows(split)
    position = {int(r): i for i, r in enumerate(np.concatenate(valid))}
    fold = np.repeat(np.arange(len(valid)), [len(v) for v in valid])
    at = np.array([position[int(r)] for r in rows], dtype=np.int64)
    return outputs[at], fold[at]


def verify(
    model: Model, frame: pd.DataFrame, fold: np.ndarray, expected: Sequence[np.ndarray]
) -> float:
    """The largest difference between what was scored and what the model gives on the probe rows.

    `frame` has the N rows. `expected` holds for each member the outputs [N, ...] stored in
    training (see `Model.fold_outputs`), those of row i by its fold `fold[i]`. A difference is
    relative to the size of what was stored, where that is above 1; infinite where the model gives
    another shape or numbers that are not finite.
    """
    features, largest = model.features(frame), 0.0
    for member, stored in zip(model.members, expected, strict=True):
        each = model.fold_outputs(member, features)
        found = each[fold, np.arange(len(frame))]
        size = np.maximum(1.0, np.abs(stored))
        if found.shape != stored.shape or not np.isfinite(found).all():
            return float("inf")
        largest = max(largest, float((np.abs(found - stored) / size).max(initial=0.0)))
    return largest


def accept(check: Check) -> dict[str, Any]:
    """Put the checked model in place; what the journal records of it."""
    os.replace(check.path, check.path.with_name(MODEL_FILE))
    found: dict[str, Any] = {
        "candidate": check.result.candidate.id,
        "difference": check.difference,
        "validation": check.result.metrics.get("validation"),
        "costs": dict(check.costs),
    }
    if check.grown is not None:
        scores = check.grown.scores["ensemble"]
        network = check.result.candidate.id
        found |= {"candidate": ENSEMBLE, "validation": scores.validation, "network": network}
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m adanet_py.export MODEL CACHE``: print the largest difference as JSON.

    Also what predicting costs, by candidate, of the model and of the one ``--beside`` it, and the
    seconds that all took, imports of a process that is not forked apart.
    """
    parser = argparse.ArgumentParser(prog="adanet_py.export")
    parser.add_argument("model")
    parser.add_argument("cache", type=Path)
    parser.add_argument("--beside", help="another model, whose costs are measured too")
    parser.add_argument("--parent", type=int, help="process id to die with, where not forked")
    options = parser.parse_args(argv)
    if options.parent is not None:
        die_with(options.parent)
    begun = time.monotonic()
    import pandas as pd

    model = load(options.model)
    with np.load(options.cache / "probe.npz", allow_pickle=False) as stored:
        expected, fold = [stored[f"arr_{i}"] for i in range(len(model.members))], stored["fold"]
    frame = pd.read_feather(options.cache / "probe.feather")
    difference = verify(model, frame, fold, expected)
    models = [model, *([load(options.beside)] if options.beside else [])]
    cost = {}
    if difference <= TOLERANCE:
        cost = costs({str(m.about["candidate"]): m for m in models}, frame)
    seconds = time.monotonic() - begun
    print(json.dumps({"difference": difference, "costs": cost, "seconds": seconds}))


if __name__ == "__main__":
    main()
