"""Fit the members that the user gives beside the search, one after the other in a process.

A process of its own can be ended when the time is up, whatever it does; what it warns of is caught
there, and no lock of this process is held by it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from adanet_py.baselines import Baseline, make_problem
from adanet_py.baselines.problem import Problem
from adanet_py.errors import AdanetError, ConfigError, RunError
from adanet_py.executors.nursery import Nursery, Process, environment
from adanet_py.journal import write_atomic
from adanet_py.prepare import Prepared, load_prepared
from adanet_py.worker import die_with

if TYPE_CHECKING:
    from adanet_py.config import SearchConfig

TRIAL_SECONDS = (10.0, 30.0)  # at least and at most for the trial of all models
TRIAL_SHARE = 0.25  # of the time budget


def check_members(config: SearchConfig) -> None:
    """Raise ConfigError where a model given cannot be made, or what converts it is missing."""
    from adanet_py.baselines.model_text import read_model
    from adanet_py.baselines.onnx_models import check_installed

    for text in config.models.values():
        read_model(text)
        check_installed()


def try_members(config: SearchConfig, folder: Path) -> list[str]:
    """Fit and convert every model given on a few rows; see `given.check_models`.

    The rows are those of the prepared data in `folder`. It is done in a process of its own, so that
    ConfigError is raised for a model that takes too long too.
    """
    if not config.models:
        return []
    limit = TRIAL_SECONDS[1]
    if config.time is not None:
        limit = min(limit, max(TRIAL_SECONDS[0], TRIAL_SHARE * config.time))
    arguments = [str(folder), str(config.seed), json.dumps(config.models), "--trial"]
    nursery, late = Nursery(environment(1), fork=False), False
    with tempfile.TemporaryFile() as errors:
        process = nursery.open("adanet_py.member_fits", arguments, stderr=errors)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            process.kill()
            process.wait()
            process.close()
        said = _last_line(errors)
    # All are taken, also where the first is refused: none may be read by another search.
    told = {name: _read(folder, f"trial-{name}") for name in config.models}
    notes: list[str] = []
    for name, text in config.models.items():
        found = told[name]
        if found is None and late:
            raise ConfigError(
                f"The member {text!r} cannot be one: expected a model that is fitted to a few "
                f"hundred rows and converted within {limit:.0f} s, found one that is not. Let it "
                "do less, or give the search more time."
            )
        if found is None:
            raise RunError(f"The member {text!r} could not be tried: {said or 'its process died'}")
        about, _ = found
        if "refused" in about:
            raise ConfigError(about["refused"])
        notes += about["notes"]
    return notes


class MemberFits:
    """The models of a run (their texts by name) that are not fitted yet, and who fits them."""

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
        self._process: Process | None = None
        self._errors: IO[bytes] | None = None
        self._ended = False
        if self._waiting:
            self._start()

    def ready(self) -> Iterator[Baseline | AdanetError]:
        """What has been fitted since the last call, or why it could not be."""
        died = self._process is not None and self._process.poll() is not None
        for name in list(self._waiting):
            found = _taken(self._folder, name)
            if found is None:
                break
            del self._waiting[name]
            yield found
        if died:
            said = self._close()
            if self._waiting:
                name = next(iter(self._waiting))
                del self._waiting[name]
                yield RunError(f"The member {name} failed: {said or 'its process died'}")
            if self._waiting:
                self._start()
        if self._ended:
            for name in self._waiting:
                yield RunError(f"The member {name} was not fitted before the search ended.")
            self._waiting = {}

    def end(self) -> None:
        """End what is being fitted; nothing follows it."""
        self._ended = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close()

    def wait(self, seconds: float) -> bool:
        """Wait for those being fitted, up to `seconds`; whether there are none any more."""
        if self._process is not None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                return False
        return self._process is None

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()
        self._process = self._nursery.open(
            "adanet_py.member_fits", self._arguments(), stderr=self._errors
        )

    def _arguments(self) -> list[str]:
        return [str(self._folder), str(self._seed), json.dumps(self._waiting)]

    def _close(self) -> str:
        """The last line that the ended process wrote."""
        assert self._process is not None
        assert self._errors is not None
        self._process.close()
        self._process = None
        with self._errors as file:
            return _last_line(file)


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


def _write(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    from safetensors.numpy import save

    whole = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    write_atomic(path, save(whole, {"about": json.dumps(about)}))


def _read(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """What `_write` wrote, which is then removed; None if nothing was yet."""
    from safetensors import safe_open

    path = _path(folder, name)
    if not path.is_file():
        return None
    with safe_open(path, framework="np") as file:
        about: dict[str, Any] = json.loads(file.metadata()["about"])
        arrays = {key: file.get_tensor(key) for key in file.keys()}
    path.unlink()
    return about, arrays


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:400] if lines else ""


def _taken(folder: Path, name: str) -> Baseline | AdanetError | None:
    """The model that was written, or why there is none; None if nothing was yet."""
    found = _read(folder, name)
    if found is None:
        return None
    about, arrays = found
    if "failed" in about:
        return RunError(f"The member {name} failed: {about['failed']}")
    member = {k.removeprefix("member/"): v for k, v in arrays.items() if k.startswith("member/")}
    return Baseline(name, arrays["valid"], arrays["audit"], member=member, **about)


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m adanet_py.member_fits RUN SEED MODELS``: fit members, write them into RUN.

    MODELS are their texts by name, as JSON; each is written when it is ready. With ``--trial`` they
    are fitted to a few rows, and what is written is whether they may be members.
    """
    parser = argparse.ArgumentParser(prog="adanet_py.member_fits")
    parser.add_argument("run", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("models", type=json.loads)
    parser.add_argument("--trial", action="store_true")
    parser.add_argument("--parent", type=int, help="process id to die with, where not forked")
    options = parser.parse_args(argv)
    if options.parent is not None:
        die_with(options.parent)
    os.dup2(2, 1)  # models may print: nobody reads our stdout
    from adanet_py.baselines.given import check_models, given_baseline

    prepared = load_prepared(options.run)
    problem = problem_of(prepared, options.seed)
    if options.trial:
        for name, text in options.models.items():
            about: dict[str, Any]
            try:
                about = {"notes": check_models({name: text}, problem, prepared.split.train[0])}
            except AdanetError as error:
                about = {"refused": str(error)}
            _write(_path(options.run, f"trial-{name}"), {}, about)
        return
    for name, text in options.models.items():
        path = _path(options.run, name)
        try:
            found = given_baseline(problem, prepared.split, name, text)
        except Exception as error:  # of the model's own: it is told, and the next one follows
            said = " ".join(str(error).split())[:400]
            kind = "" if isinstance(error, AdanetError) else f"{type(error).__name__}: "
            _write(path, {}, {"failed": kind + said})
            continue
        arrays = {"valid": found.predictions_valid, "audit": found.predictions_audit}
        arrays |= {f"member/{key}": value for key, value in (found.member or {}).items()}
        names = ("parameters", "seconds", "message")
        _write(path, arrays, {key: getattr(found, key) for key in names})


if __name__ == "__main__":
    main()
