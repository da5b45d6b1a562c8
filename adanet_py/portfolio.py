"""Portfolios: configurations that did well on other data, to be tried first on new data.

`build_portfolio` chooses them from past runs one after the other, each the one that lowers the mean
over the runs of the best regret so far the most (Feurer et al. 2022, "Auto-sklearn 2.0", arXiv
2007.04074, section 3; Xu et al. 2010). The regret of a candidate in a run is

    (error - best error) / (median error - best error),   at most `WORST`;

what a run did not train is given the mean of those near it, weighted by exp(-(d / WIDTH)^2) of the
distance d in the run's space, with 1, the median, as one more neighbour of weight `DOUBT`. No torch
in this module; nothing here reads data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adanet_py.controllers.columns import Columns, columns_of
from adanet_py.data.spec import DataSpec
from adanet_py.errors import ConfigError, RunError, SpaceError
from adanet_py.folder import read_described
from adanet_py.journal import write_atomic
from adanet_py.records import Candidate
from adanet_py.space import SearchSpace, assemble, load_space, project, spaces_folder
from adanet_py.state import read_state
from adanet_py.tasks import is_regression

SIZE = 8  # configurations of a kind of task
POOL = 40  # best candidates of a run that may be chosen
WORST = 2.0  # the largest regret of a run that counts
WIDTH = 0.15  # of the neighbourhood of a candidate, in distances
DOUBT = 0.3
CREDIT = "portfolio"  # who proposed them, as the leaderboard says
SHIPPED = "portfolio.json"  # beside the search spaces
PRIOR = "prior.json"  # in a run folder
_FORMAT, _VERSION = "adanet_py portfolio", 1
_MAX_BYTES = 4_000_000
_LOSS, _AUTO = "loss", "auto"
_WITH_PRIOR = ("auto", "portfolio")  # controllers that begin with the shipped one
KINDS = ("classification", "regression")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """A configuration and the name of the data it did well on."""

    candidate: Candidate
    source: str


@dataclass(frozen=True)
class Portfolio:
    """Configurations by kind of task, the first to be tried first."""

    entries: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)

    def of_task(self, task: str) -> tuple[Candidate, ...]:
        """Those for a task, one of tasks.TASKS."""
        return tuple(e.candidate for e in self.entries.get(kind_of(task), ()))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        out: dict[str, Any] = {"format": _FORMAT, "version": _VERSION}
        for kind, entries in self.entries.items():
            out[kind] = [{"from": e.source, **_plain(e.candidate)} for e in entries]
        return out

    @classmethod
    def from_json(cls, value: Any) -> Portfolio:
        """Inverse of `to_json`. Raises ValueError for what is no portfolio."""
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            raise ValueError(f'no "format": "{_FORMAT}" in it')
        if value.get("version") != _VERSION:
            raise ValueError(f"version {value.get('version')!r}, this program reads {_VERSION}")
        try:
            return cls({k: tuple(_entry(e) for e in value[k]) for k in KINDS if k in value})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"an entry is not a configuration ({error})") from None


def kind_of(task: str) -> str:
    """Under which kind a task's configurations are kept."""
    return KINDS[1] if is_regression(task) else KINDS[0]


def read_portfolio(path: str | os.PathLike[str]) -> Portfolio:
    """A portfolio file. Raises ConfigError."""
    try:
        if Path(path).stat().st_size > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES:,} bytes")
        return Portfolio.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"Expected a run folder or a portfolio file at {path}, found {error}. Make one with: "
            "python -m adanet_py portfolio build RUN."
        ) from None


def write_portfolio(portfolio: Portfolio, path: str | os.PathLike[str]) -> None:
    """Write a portfolio file, whole or not at all."""
    write_atomic(Path(path), json.dumps(portfolio.to_json(), indent=1) + "\n")


def find_prior(prior: str | None, controller: str) -> Portfolio | None:
    """The portfolio that an option --prior means: "none", "default", a run folder or a file.

    Without the option it is the shipped one where the controller asks for it. Raises ConfigError,
    RunError.
    """
    if prior == "none" or (prior is None and controller not in _WITH_PRIOR):
        return None
    if prior is None or prior == "default":
        return read_portfolio(spaces_folder() / SHIPPED)
    return build_portfolio([Path(prior)]) if Path(prior).is_dir() else read_portfolio(prior)


def with_prior(
    space: SearchSpace, portfolio: Portfolio, task: str, *, first: bool = True
) -> tuple[SearchSpace, int]:
    """`space` with the portfolio's configurations among its starts, and how many there are.

    They come before (`first`) or after its own. Each is moved to its place in the space; what has
    none, or is for another kind of task, is left out.
    """
    places = [project(space, c) for c in portfolio.of_task(task)]
    inside = [assemble(space, place, 0) for place in places if place is not None]
    starts = [replace(candidate, by=CREDIT) for candidate in inside]
    found: dict[str, Candidate] = {}
    for candidate in (*starts, *space.start) if first else (*space.start, *starts):
        found.setdefault(candidate.experiment, candidate)
    return replace(space, start=tuple(found.values())), len(starts)


# ------------------------------------------------------------------------------------ building


@dataclass(frozen=True, eq=False)
class Trained:
    """What a run has trained: candidates with their regrets [m], and where they are [m, D]."""

    name: str
    kind: str
    space: SearchSpace
    candidates: Sequence[Candidate]
    regrets: Floats
    points: Floats

    def estimate(self, candidate: Candidate) -> float:
        """The candidate's regret, known or by its neighbours."""
        known = [i for i, c in enumerate(self.candidates) if c.experiment == candidate.experiment]
        if known:
            return float(self.regrets[known].min())
        place = columns_of(self.space).place_of(self.space, candidate)
        if place is None:
            return 1.0
        near = np.exp(
            -((_distances(columns_of(self.space), place.point, self.points) / WIDTH) ** 2)
        )
        return float((near @ self.regrets + DOUBT) / (near.sum() + DOUBT))


def build_portfolio(runs: Sequence[str | os.PathLike[str]], size: int = SIZE) -> Portfolio:
    """At most `size` configurations for each kind of task, from what past runs have trained.

    Runs on the same data with the same metric count as one. Raises RunError for a folder that is no
    run or has trained nothing.
    """
    trained = read_trained([Path(run) for run in runs])
    entries = {k: choose([t for t in trained if t.kind == k], size) for k in KINDS}
    return Portfolio({k: v for k, v in entries.items() if v})


def read_trained(folders: Sequence[Path]) -> list[Trained]:
    """The networks of runs with their regrets, one record for each data. Raises RunError."""
    spaces: dict[tuple[Any, ...], tuple[str, str, SearchSpace]] = {}
    found: dict[tuple[Any, ...], dict[str, tuple[Candidate, float]]] = {}
    for folder in folders:
        described, state = read_described(folder), read_state(folder)
        try:
            about = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
            space = load_space(folder / "space.yaml")
            task, metric = str(about["task"]), about["metric"]
        except (OSError, ValueError, KeyError, SpaceError) as error:
            raise RunError(f"No portfolio can be made from {folder}: {error}.") from None
        stamp = (described.data.get("crc32"), task, metric, repr(about.get("target_name")))
        spaces.setdefault(stamp, (folder.name, task, space))
        best = found.setdefault(stamp, {})
        loss = _loss_of(task, described.config.loss)
        for result in state.finished():
            known_score = np.isfinite(result.score) and np.isfinite(result.error)
            if known_score and not result.candidate.inherits:  # others cannot repeat a child
                candidate = _general(result.candidate, loss)
                known = best.get(candidate.experiment)
                if known is None or result.error < known[1]:
                    best[candidate.experiment] = candidate, result.error
        if not best:
            raise RunError(
                f"No portfolio can be made from {folder}: it has trained no network yet."
            )
    return [make_trained(*spaces[stamp], list(best.values())) for stamp, best in found.items()]


def make_trained(
    name: str, task: str, space: SearchSpace, found: Sequence[tuple[Candidate, float]]
) -> Trained:
    """Candidates with their errors, as a record of what has a place in `space`."""
    columns = columns_of(space)
    places = columns.places(space, [c for c, _ in found])
    kept = [(c, e, p.point) for (c, e), p in zip(found, places, strict=True) if p is not None]
    errors = np.array([e for _, e, _ in kept])
    low, middle = (float(errors.min()), float(np.median(errors))) if kept else (0.0, 1.0)
    regrets = np.minimum((errors - low) / (middle - low if middle > low else 1.0), WORST)
    points = np.array([point for _, _, point in kept]).reshape(len(kept), len(space.decisions))
    return Trained(name, kind_of(task), space, [c for c, _, _ in kept], regrets, points)


def choose(runs: Sequence[Trained], size: int) -> tuple[Entry, ...]:
    """The portfolio of these runs, greedily; see the module.

    Once nothing lowers the regret, what follows is the least mean regret among programs chosen the
    least often, as long as that is not worse than a median.
    """
    if not runs:
        return ()
    pool: dict[str, Entry] = {}
    for run in runs:
        for i in np.argsort(run.regrets, kind="stable")[:POOL]:
            candidate = run.candidates[i]
            pool.setdefault(candidate.experiment, Entry(candidate, run.name))
    entries = list(pool.values())
    regrets = np.array([[run.estimate(e.candidate) for e in entries] for run in runs])
    reached = np.full(len(runs), WORST)
    chosen: list[int] = []
    while len(chosen) < min(size, len(entries)):
        totals = np.minimum(reached[:, None], regrets).sum(axis=0)
        enough = totals.min() > reached.sum() - 1e-9
        good = regrets.mean(axis=0) <= 1.0 if enough else np.ones(len(entries), dtype=bool)
        left = [i for i in range(len(entries)) if i not in chosen and good[i]]
        if not left:
            break
        families = [entries[i].candidate.family for i in chosen]
        best = min(
            left,
            key=lambda i: (
                round(float(totals[i]), 9),
                families.count(entries[i].candidate.family),
                float(regrets[:, i].mean()),
            ),
        )
        chosen.append(best)
        reached = np.minimum(reached, regrets[:, best])
    owners = regrets.argmin(axis=0)  # on whose data it did best, as far as is known
    return tuple(Entry(entries[i].candidate, runs[owners[i]].name) for i in chosen)


def _distances(columns: Columns, point: Floats, others: Floats) -> Floats:
    """Root mean square difference of `point` [D] from each of `others` [m, D].

    Of a choice between words, or where only one of the two is active, the difference is 1.
    """
    apart = np.abs(others - point)
    for j, d in enumerate(columns.decisions):
        if d.kind == "choice":
            apart[:, j] = (
                apart[:, j] / (len(d.domain) - 1) if d.ordered and d.size > 1 else apart[:, j] > 0
            )
    active, mine = ~np.isnan(others), ~np.isnan(point)
    apart = np.where(active & mine, apart, np.where(active | mine, 1.0, 0.0))
    used = np.maximum((active | mine).sum(axis=1), 1)
    return np.asarray(np.sqrt((apart**2).sum(axis=1) / used))


def _loss_of(task: str, loss: str) -> str:
    """The loss that "auto" stood for in a run."""
    from adanet_py.training.losses import loss_name

    return loss_name({}, DataSpec(task, 1, 1, loss=loss))


def _general(candidate: Candidate, loss: str) -> Candidate:
    """The configuration alone: without seed and origin; the run's own loss as "auto"."""
    static = dict(candidate.static)
    if static.get(_LOSS) == loss:
        static[_LOSS] = _AUTO
    return replace(candidate, static=static, seed=0, parent=None, move=None)


def _plain(candidate: Candidate) -> dict[str, Any]:
    value = candidate.to_json()
    return {k: value[k] for k in ("architecture", "static", "optimizer", "schedule", "numeric")}


def _entry(value: Mapping[str, Any]) -> Entry:
    fields = {k: v for k, v in value.items() if k != "from"}
    return Entry(Candidate(**fields), str(value["from"]))
