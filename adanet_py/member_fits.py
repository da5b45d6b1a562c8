"""Fit the members that the user gives beside the search: one process after the other, one model.

A process of its own can be ended when the time is up, whatever it does; what it warns of is caught
there, and no lock of this process is held by it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from adanet_py.baselines import Baseline, make_problem
from adanet_py.baselines.problem import Problem
from adanet_py.errors import AdanetError, RunError
from adanet_py.executors.nursery import Nursery, Process
from adanet_py.prepare import Prepared, load_prepared
from adanet_py.worker import die_with

if TYPE_CHECKING:
    from adanet_py.config import SearchConfig


def check_members(config: SearchConfig) -> None:
    """Raise ConfigError where a model given cannot be made, or what converts it is missing."""
    from adanet_py.baselines.model_text import read_model
    from adanet_py.baselines.onnx_models import check_installed

    for text in config.models.values():
        read_model(text)
        check_installed()


def try_members(config: SearchConfig, prepared: Prepared) -> list[str]:
    """Fit and convert every model given on a few rows; see `given.check_models`."""
    if not config.models:
        return []
    from adanet_py.baselines.given import check_models

    problem = problem_of(prepared, config.seed)
    return check_models(config.models, problem, prepared.split.train[0])


class MemberFits:
    """The models of a run (their texts by name) that are not fitted yet, one being fitted."""

    def __init__(
        self,
        folder: Path,
        models: Mapping[str, str],
        have: Collection[str],
        nursery: Nursery,
        seed: int,
    ) -> None:
        self._folder, self._nursery, self._seed = folder, nursery, seed
        self._waiting = {name: text for name, text in models.items() if name not in have}
        self._name = ""
        self._process: Process | None = None
        self._errors: IO[bytes] | None = None
        self._late: list[str] = []
        self._next()

    def ready(self) -> Iterator[Baseline | AdanetError]:
        """What has been fitted since the last call, or why it could not be."""
        for name in self._late:
            yield RunError(f"The member {name} was not fitted in the time there was.")
        self._late.clear()
        while self._process is not None and self._process.poll() is not None:
            name, said = self._name, self._close()
            path = _path(self._folder, name)
            if path.is_file():
                yield _read(path, name)
            else:
                yield RunError(f"The member {name} failed: {said or 'its process died'}")
            self._next()

    def end(self) -> None:
        """End what is being fitted; nothing follows it."""
        if self._process is not None:
            self._late = [self._name, *self._waiting]
            self._process.kill()
            self._process.wait()
            self._close()
        self._waiting = {}

    def wait(self, seconds: float) -> bool:
        """Wait for the model being fitted, up to `seconds`; whether there is none any more."""
        if self._process is not None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                return False
        return self._process is None

    def _next(self) -> None:
        if not self._waiting:
            return
        self._name = next(iter(self._waiting))
        text = self._waiting.pop(self._name)
        self._errors = tempfile.TemporaryFile()
        self._process = self._nursery.open(
            "adanet_py.member_fits",
            [str(self._folder), self._name, text, str(self._seed)],
            stderr=self._errors,
        )

    def _close(self) -> str:
        """The last line that the ended process wrote."""
        assert self._process is not None
        assert self._errors is not None
        self._process.close()
        self._process = None
        with self._errors as file:
            file.seek(0)
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:400] if lines else ""


def problem_of(prepared: Prepared, seed: int) -> Problem:
    """What the members are fitted to: that of the baselines."""
    source = prepared.source
    return make_problem(
        source.arrays,
        np.asarray(source.y),
        source.weight,
        prepared.task,
        prepared.metric,
        prepared.target,
        seed=seed,
        loss=source.spec.loss,
        exposure=source.exposure,
    )


def _path(folder: Path, name: str) -> Path:
    return folder / "cache" / f"member-{name}.safetensors"


def _read(path: Path, name: str) -> Baseline:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()["about"])
        arrays = {key: file.get_tensor(key) for key in file.keys()}
    path.unlink()
    member = {k.removeprefix("member/"): v for k, v in arrays.items() if k.startswith("member/")}
    return Baseline(name, arrays["valid"], arrays["audit"], member=member, **about)


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m adanet_py.member_fits RUN NAME TEXT SEED``: fit a member, write it into RUN."""
    parser = argparse.ArgumentParser(prog="adanet_py.member_fits")
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("text")
    parser.add_argument("seed", type=int)
    parser.add_argument("--parent", type=int, help="process id to die with, where not forked")
    options = parser.parse_args(argv)
    if options.parent is not None:
        die_with(options.parent)
    os.dup2(2, 1)  # models may print: nobody reads our stdout
    from safetensors.numpy import save_file

    from adanet_py.baselines.given import given_baseline

    start = time.monotonic()
    prepared = load_prepared(options.run)
    problem = problem_of(prepared, options.seed)
    try:
        found = given_baseline(problem, prepared.split, options.name, options.text)
    except AdanetError as error:
        sys.exit(str(error))
    arrays = {"valid": found.predictions_valid, "audit": found.predictions_audit}
    arrays |= {f"member/{name}": value for name, value in (found.member or {}).items()}
    about = {"parameters": found.parameters, "message": found.message}
    about["seconds"] = time.monotonic() - start
    path = _path(options.run, options.name)
    new = path.with_suffix(".new")
    save_file(
        {name: np.ascontiguousarray(value) for name, value in arrays.items()},
        new,
        {"about": json.dumps(about)},
    )
    os.replace(new, path)


if __name__ == "__main__":
    main()
