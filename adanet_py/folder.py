"""A run folder: what is in it, how it is begun, described and tidied.

What its journal says is read by state.py.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import shutil
import sys
import zlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from adanet_py.config import SearchConfig
from adanet_py.errors import ConfigError, DataError, RunError
from adanet_py.journal import refused, write_atomic
from adanet_py.own import Own
from adanet_py.pareto import pareto_front
from adanet_py.records import Result, Status
from adanet_py.reward import RewardRule
from adanet_py.space import SearchSpace
from adanet_py.yaml_text import dump_yaml, load_yaml

VERSION = 1
CONFIG = "config.yaml"
LOCK = "lock"
PROBE = "probe.feather"  # rows that saved models are checked on
# What a search killed before it wrote its configuration may leave; the lock is always there.
_BEGUN = {
    LOCK, "logs", "cache", "prepared.json", "split.npz", "space.yaml", "environment.json",
    "prior.json",
    f"{CONFIG}.tmp",
}  # fmt: skip
_FINGERPRINT_ROWS = 1000


@dataclass(frozen=True)
class Described:
    """The configuration file of a run: options, and what options cannot say.

    `data` is the `data_stamp`; `objects` names what was given as an object of Python (a controller,
    what `Own` holds), which must be given again; `types` are the column types given.
    """

    config: SearchConfig
    data: Mapping[str, Any]
    objects: Mapping[str, Any]
    types: Mapping[str, str]


def begin(folder: Path, described: Described, space: SearchSpace) -> None:
    """Write the files that describe the run; the configuration comes last and makes it one."""
    write_atomic(folder / "space.yaml", space.text)
    write_atomic(folder / "environment.json", json.dumps(environment(), indent=1))
    value = {
        "version": VERSION,
        "options": described.config.to_json(),
        "data": dict(described.data),
        "objects": dict(described.objects),
        "types": dict(described.types),
    }
    write_atomic(folder / CONFIG, dump_yaml(value))


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run."""
    return (folder / CONFIG).is_file()


def open_folder(folder: Path) -> list[Path]:
    """Make the folder or check that it is empty, a run or the beginning of one, and writable.

    Returns the folders that were made, the deepest first. Raises RunError.
    """
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except (FileExistsError, NotADirectoryError) as error:
        raise RunError(
            f"Expected a folder for the run at {folder}, found a file. Choose another --out."
        ) from error
    except OSError as error:
        raise refused(folder, error) from error
    names = {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    strange = sorted(n for n in names if not _is_begun(n)) or sorted(
        names if LOCK not in names else ()
    )
    if strange and not is_run(folder):
        raise RunError(
            f"{folder} is not empty and not a run (it holds {strange[0]!r}). Choose a new or an "
            "empty folder (--out)."
        )
    return made


def _is_begun(name: str) -> bool:
    return name in _BEGUN or name.removesuffix(".tmp") in _BEGUN


def discard(folder: Path, made: Sequence[Path]) -> None:
    """Undo the beginning of a run that cannot be: nothing is left that was not there before."""
    for path in folder.iterdir():
        if _is_begun(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in made:
        try:
            path.rmdir()
        except OSError:  # someone else uses it
            break


def keep_probe(folder: Path) -> None:
    """Keep the rows that models are checked on, for models made when the run has ended."""
    shutil.copyfile(folder / "cache" / PROBE, folder / PROBE)


def tidy(folder: Path) -> None:
    """Remove what a finished run needs no more: prepared data, checkpoints, empty logs."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    logs = folder / "logs"
    if logs.is_dir() and not any(p.stat().st_size for p in logs.iterdir()):
        shutil.rmtree(logs, ignore_errors=True)


def read_described(folder: Path) -> Described:
    """What describes a run; RunError where there is no such run or a newer program wrote it."""
    try:
        value = load_yaml((folder / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        found = "nothing"
        if folder.is_dir():
            found = "one without a configuration"
        elif folder.exists():
            found = "a file"
        raise RunError(f"Expected a run folder at {folder}, found {found}.") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{folder / CONFIG} cannot be read: {error}.") from None
    version = value.get("version") if isinstance(value, dict) else None
    if not isinstance(version, int):
        raise RunError(f"{folder / CONFIG} is not the configuration of a run.")
    if version > VERSION:
        raise RunError(
            f"{folder} is a run of a newer version (format {version}, this program reads up to "
            f"{VERSION}). Update adanet_py."
        )
    try:
        return Described(
            SearchConfig.from_json(value["options"]),
            dict(value["data"]),
            dict(value["objects"]),
            dict(value["types"]),
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise RunError(
            f"{folder / CONFIG} is not the configuration of a run: {error}. Expected it unchanged."
        ) from None


def describe_objects(controller: Any, own: Own) -> dict[str, Any]:
    """What was given as objects of Python, by name."""
    named = controller is None or isinstance(controller, str)
    name = None if named else getattr(controller, "__name__", type(controller).__name__)
    return {"controller": name, **own.names()}


def check_objects(described: Described, own: Own, given: Mapping[str, Any] | None = None) -> None:
    """Raise RunError unless the objects of the run are given again.

    `given`: those of `describe_objects`, where the controller is needed too.
    """
    for kind, names in own.names().items():
        missing = sorted(set(described.objects.get(kind, ())) - set(names))
        if missing:
            one = kind.removesuffix("es") if kind == "losses" else kind.removesuffix("s")
            raise RunError(
                f"The run uses the {one} {missing[0]!r}, given as an object of Python. Give it "
                f"again ({kind}=...)."
            )
    before = described.objects.get("controller")
    if given is not None and given["controller"] != before:
        raise RunError(
            f"The run was begun with the controller {before or described.config.controller!r}"
            + (", an object of Python. Give it again" if before else ". Do not give another one")
            + " (controller=...)."
        )


def differences(old: SearchConfig, new: SearchConfig) -> list[str]:
    """Options in which two configurations differ, those apart that do not change results.

    Data and space are compared by their content, not by their names.
    """
    free = {"out", "workers", "data", "space"}
    a, b = old.to_json(), new.to_json()
    return [
        f"--{k.replace('_', '-')}: {a[k]!r} then, {b[k]!r} now"
        for k in a
        if k not in free and a[k] != b[k]
    ]


def data_stamp(data: Any) -> dict[str, Any]:
    """How a later call recognises the same data: {"path", "bytes", "crc32"} of a file.

    Of a table in memory "path" is None and the rest are of some of its rows. Raises DataError
    where there is no such file.
    """
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        try:
            with path.open("rb") as file:
                crc, size = 0, 0
                while block := file.read(1 << 20):
                    crc, size = zlib.crc32(block, crc), size + len(block)
        except OSError as error:
            raise DataError(f"Expected data at {path}: {error.strerror}.") from error
        return {"path": str(path.resolve()), "bytes": size, "crc32": crc}
    crc, size = 0, 0
    for part in data if isinstance(data, tuple) else (data,):
        sample = _sample(part)
        crc, size = zlib.crc32(sample, crc), size + len(part)
    return {"path": None, "rows": size, "crc32": crc}


def same_data(stamp: Mapping[str, Any], data: Any) -> bool:
    """Whether `data` has the stamp, wherever it lies."""
    now = data_stamp(data)
    return all(now.get(k) == v for k, v in stamp.items() if k != "path")


def _sample(part: Any) -> bytes:
    """Some rows of a table in memory as text; equal tables give equal text."""
    import pandas as pd

    frame = pd.DataFrame(part)
    rows = frame.iloc[:: max(1, len(frame) // _FINGERPRINT_ROWS)]
    return (repr(frame.shape) + rows.to_csv(index=False)).encode()


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    packages = ("adanet_py", "torch", "numpy", "pandas", "scikit-learn", "optuna", "pyarrow")
    versions: dict[str, str | None] = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "packages": versions,
    }


def new_folder() -> Path:
    """A fresh folder under results/, named by the time."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        folder = Path("results") / f"run-{now}{suffix}"
        if not folder.exists():
            return folder
    raise RunError("Expected a free name under results/, found none. Give --out.")


def candidate_file(folder: Path, candidate_id: str) -> Path:
    """Weights and predictions of one candidate."""
    return folder / "candidates" / f"{candidate_id}.safetensors"


def evict(
    folder: Path,
    results: Mapping[str, Result],
    keep: int,
    rule: RewardRule | None = None,
    needed: Container[str] = (),
) -> None:
    """Delete the files of all but the best `keep` that have one and the baselines.

    `results` by id; what was rolled back goes first. With a `rule`, what no other of them beats in
    error and complexity stays too, and so do those of the ids `needed`: parents of what is or may
    be proposed.
    """
    paths = {path.stem: path for path in (folder / "candidates").glob("*.safetensors")}
    there = [results[name] for name in paths if name in results]
    there.sort(key=lambda r: (r.accepted is False, -r.reward, r.parameters, r.candidate.id))
    front = [False] * len(there)
    if rule is not None:
        networks = [r if r.stands else None for r in there]
        points = [(r.error, rule.complexity(r)) if r else (math.nan,) * 2 for r in networks]
        front = pareto_front(points)
    for result, wanted in zip(there[keep:], front[keep:], strict=True):
        name = result.candidate.id
        if result.status is not Status.BASELINE and not wanted and name not in needed:
            paths[result.candidate.id].unlink(missing_ok=True)
