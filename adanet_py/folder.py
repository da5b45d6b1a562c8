"""A run folder: what is in it, how it is begun, and how its state is read back from the journal."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from adanet_py.config import SearchConfig
from adanet_py.errors import RunError
from adanet_py.journal import Event, read, refused, write_atomic
from adanet_py.records import Group, History, Result
from adanet_py.space import SearchSpace

VERSION = 1
JOURNAL = "journal.jsonl"
CONFIG = "config.yaml"
_KNOWN = {
    CONFIG, "space.yaml", "environment.json", JOURNAL, "prepared.json", "split.npz", "lock",
    "leaderboard.csv", "curves.csv", "pareto.csv", "model.adanet", "candidates", "checkpoints",
    "cache", "logs",
}  # fmt: skip


@dataclass
class State:
    """What the journal says: groups and results by index, baselines, how it ended."""

    groups: dict[int, Group] = field(default_factory=dict)
    results: dict[int, list[Result]] = field(default_factory=dict)
    baselines: list[Result] = field(default_factory=list)
    elapsed: float = 0.0
    stopped: str | None = None  # why the search ended, if it did
    model: Mapping[str, Any] | None = None
    exhausted: bool = False

    @classmethod
    def replayed(cls, events: Iterable[Event]) -> State:
        """The state after `events`."""
        state = cls()
        for event in events:
            state.apply(event.kind, event.data)
            state.elapsed = max(state.elapsed, event.time)
        return state

    def apply(self, kind: str, data: Any) -> None:
        """Take in one event."""
        if kind == "group":
            group = Group.from_json(data)
            self.groups[group.index] = group
        elif kind == "results":
            self.results[data["group"]] = [Result.from_json(r) for r in data["results"]]
        elif kind == "baseline":
            self.baselines.append(Result.from_json(data))
        elif kind == "model":
            self.model = data
        elif kind == "stop":
            self.stopped = data["reason"]
        elif kind == "exhausted":
            self.exhausted = True

    @property
    def proposed(self) -> int:
        """Candidates proposed so far."""
        return sum(len(g.candidates) for g in self.groups.values())

    def finished(self, before: int | None = None) -> list[Result]:
        """Results in the order of their groups, of groups with an index below `before`."""
        return [r for i in sorted(self.results) if before is None or i < before for r in self.results[i]]

    def history(self, before: int | None = None) -> History:
        """What a controller may see: results of groups below `before`, the rest pending."""
        done = self.finished(before)
        seen = {r.candidate.id for r in done}
        pending = [c for i in sorted(self.groups) for c in self.groups[i].candidates]
        return History(
            (*self.baselines, *done), tuple(c for c in pending if c.id not in seen)
        )

    def all_results(self) -> list[Result]:
        """Baselines and networks."""
        return [*self.baselines, *self.finished()]


def begin(folder: Path, config: SearchConfig, space: SearchSpace, stamp: Mapping[str, Any]) -> None:
    """Write the files that describe the run; the configuration comes last and makes it one."""
    write_atomic(folder / "space.yaml", space.text)
    write_atomic(folder / "environment.json", json.dumps(environment(), indent=1))
    described = {"version": VERSION, "options": config.to_json(), "data": dict(stamp)}
    write_atomic(folder / CONFIG, yaml.safe_dump(described, sort_keys=False))


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run."""
    return (folder / CONFIG).is_file()


def open_folder(folder: Path) -> None:
    """Make the folder, or check that it is empty or a run and can be written to; RunError if not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except FileExistsError as error:
        raise RunError(
            f"Expected a folder for the run at {folder}, found a file. Choose another --out."
        ) from error
    except OSError as error:
        raise refused(folder, error) from error
    names = {p.name for p in folder.iterdir()}
    strange = sorted(n for n in names - _KNOWN if not n.startswith("."))
    if names and not is_run(folder) and strange:
        raise RunError(
            f"{folder} is not empty and not a run (it holds {strange[0]!r}). Choose a new or an "
            "empty folder (--out)."
        )


def read_config(folder: Path) -> tuple[SearchConfig, Mapping[str, Any]]:
    """The options of a run and the stamp of its data; RunError where there is no such run."""
    try:
        described = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"Expected a run folder at {folder}, found "
            + ("one without a configuration." if folder.is_dir() else "nothing.")
        ) from None
    except (OSError, yaml.YAMLError) as error:
        raise RunError(f"{folder / CONFIG} cannot be read: {error}.") from None
    if not isinstance(described, dict) or "version" not in described:
        raise RunError(f"{folder / CONFIG} is not the configuration of a run.")
    if described["version"] > VERSION:
        raise RunError(
            f"{folder} is a run of a newer version (format {described['version']}, this program "
            f"reads up to {VERSION}). Update adanet_py."
        )
    return SearchConfig.from_json(described["options"]), described["data"]


def read_state(folder: Path) -> State:
    """The state of a run, read only."""
    path = folder / JOURNAL
    return State.replayed(read(path)) if path.is_file() else State()


def differences(old: SearchConfig, new: SearchConfig) -> list[str]:
    """Options in which two configurations differ, those apart that do not change results."""
    free = {"out", "workers"}
    a, b = old.to_json(), new.to_json()
    return [f"--{k.replace('_', '-')}: {a[k]!r} then, {b[k]!r} now" for k in a if k not in free and a[k] != b[k]]


def data_stamp(data: Any) -> dict[str, Any]:
    """How a later call recognises the same data without reading it."""
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        about = path.stat()
        return {"path": str(path.resolve()), "bytes": about.st_size, "modified": about.st_mtime_ns}
    return {"path": None}


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    packages = ("adanet_py", "torch", "numpy", "pandas", "scikit-learn", "optuna", "pyarrow")
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
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


def evict(folder: Path, results: Sequence[Result], keep: int) -> None:
    """Delete the files of all candidates but the best `keep` and the baselines."""
    order = sorted(results, key=lambda r: -r.reward)
    stay = {r.candidate.id for r in order[:keep]} | {r.candidate.id for r in results if r.group < 0}
    for path in (folder / "candidates").glob("*.safetensors"):
        if path.stem not in stay and any(r.candidate.id == path.stem for r in results):
            path.unlink(missing_ok=True)
