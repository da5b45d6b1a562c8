"""What a search found, and what a run's folder says: leaderboard, importance, study."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adanet_py.errors import RunError
from adanet_py.export import ENSEMBLE
from adanet_py.folder import read_described
from adanet_py.metrics import get_metric
from adanet_py.model import Model, load
from adanet_py.model_file import MODEL_FILE
from adanet_py.own import Own
from adanet_py.plan import best_of
from adanet_py.prepare import has_prepared, load_prepared
from adanet_py.records import Result
from adanet_py.space import default_registries, space_of
from adanet_py.state import State, read_state

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found: `.leaderboard`, `.best`, `.model`, `.predict`, `.run`, `.summary`."""

    run: Path
    state: State
    summary: Mapping[str, Any]
    own: Own

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """One row per candidate and baseline, best first."""
        return leaderboard(self.run)

    @cached_property
    def importance(self) -> pd.DataFrame:
        """What each decision did, and what to change next."""
        return importance(self.run, self.own)

    @property
    def best(self) -> Result | None:
        """The network that was chosen, None if none was trained to a usable end."""
        return chosen(self.run, self.state)

    @cached_property
    def model(self) -> Model:
        """The saved model."""
        return load(self.run, own=self.own)

    def predict(self, data: Any) -> Any:
        """See `Model.predict`."""
        return self.model.predict(data)

    def predict_proba(self, data: Any) -> Any:
        """See `Model.predict_proba`."""
        return self.model.predict_proba(data)


def chosen(folder: Path, state: State) -> Result | None:
    """The network that is the model; before there is one, that with the highest reward."""
    told = state.refining is not None or read_described(folder).config.choose != "best"
    # Where an ensemble is the model, the network in its record is its first member.
    if state.model is not None and told and state.model["candidate"] != ENSEMBLE:
        saved = state.by_id.get(state.model.get("network", state.model["candidate"]))
        if saved is not None and saved.stands:
            return saved
    return best_of(state.finished())


def outcome_of(folder: Path, own: Own) -> SearchResult:
    """What the run in `folder` has found so far."""
    state = read_state(folder)
    prepared = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
    best = chosen(folder, state)
    about = None
    if best is not None:
        about = {
            "id": best.candidate.id,
            "architecture": best.candidate.architecture,
            "optimizer": best.candidate.optimizer,
            "schedule": best.candidate.schedule,
            "n_params": best.parameters,
        }
    model = folder / MODEL_FILE
    metric = get_metric(prepared["metric"])
    summary = {
        "run": str(folder),
        "model": str(model) if model.exists() else None,
        "task": prepared["task"],
        "metric": metric.name,
        "direction": "maximize" if metric.greater_is_better else "minimize",
        "validation": best.metrics.get("validation") if best else None,
        "audit": best.metrics.get("audit") if best else None,
        "seconds": round(state.elapsed, 3),
        "candidates": len(state.finished()) - sum(state.infeasible.values()),
        "best": about,
        "ensemble": _of_ensemble(state),
        "costs": _costs(state, best),
        "forecast": state.forecast,
        "stopped": state.stopped or "interrupted",
    }
    return SearchResult(folder, state, summary, own)


def _costs(state: State, best: Result | None) -> dict[str, Any]:
    """What it costs to predict with the ensemble saved and with the best network, where measured.

    Where the model is a baseline, with that too.
    """
    names = {} if best is None else {best.candidate.id: "single"}
    if state.model is not None:
        saved = state.model["candidate"]
        names.setdefault(saved, "ensemble" if saved == ENSEMBLE else "baseline")
    return {name: state.costs[key] for key, name in names.items() if key in state.costs}


def _of_ensemble(state: State) -> dict[str, Any] | None:
    """What is said of the ensemble; "saved": whether it is the model."""
    found = state.ensemble
    if found is None:
        return None
    scores = found["scores"]
    return {
        "members": len(found["members"]),
        "validation": scores["ensemble"]["validation"],
        "audit": scores["ensemble"]["audit"],
        "mean": scores["mean"]["validation"],
        "single": scores["single"]["validation"],
        "alone": scores.get("alone", {}).get("validation"),  # runs of earlier versions have none
        "saved": state.model is not None and state.model["candidate"] == ENSEMBLE,
    }


def leaderboard(run: str | os.PathLike[str]) -> pd.DataFrame:
    """The leaderboard of a run: the file of a finished one, built from the journal of others."""
    import pandas as pd

    from adanet_py.tables import write_tables

    folder = Path(run)
    read_described(folder)
    state = read_state(folder)
    path = folder / "leaderboard.csv"
    if not path.exists() or state.stopped is None:
        if not has_prepared(folder) or not state.baselines:
            raise RunError(f"{folder} has no results yet.")
        with tempfile.TemporaryDirectory() as scratch:
            write_tables(folder, load_prepared(folder), state, Path(scratch))
            return pd.read_csv(Path(scratch) / "leaderboard.csv")
    return pd.read_csv(path)


def importance(run: str | os.PathLike[str], own: Own | None = None) -> pd.DataFrame:
    """What each decision of a run did, and what to change next: the columns of importance.csv.

    The file of a finished run, else computed from the journal; then `own` is needed where the space
    names objects of the user's.
    """
    import pandas as pd

    from adanet_py.advice import IMPORTANCE_COLUMNS, importance_rows
    from adanet_py.frames import make_frame

    folder = Path(run)
    read_described(folder)
    state = read_state(folder)
    path = folder / "importance.csv"
    if path.exists() and state.stopped is not None:
        return pd.read_csv(path)
    own = own or Own()
    rows = importance_rows(
        space_of(folder / "space.yaml", own), state.finished(), default_registries(own)
    )
    return make_frame(rows, list(IMPORTANCE_COLUMNS))


def study(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    own: Own | None = None,
) -> tuple[Path, int]:
    """Write a run as a study of Optuna, by default study.log in its folder; file and trials.

    See `study.write_study`. `own` is needed where the space names objects of the user's.
    """
    from adanet_py.study import write_study

    folder = Path(run)
    read_described(folder)
    path = folder / "study.log" if out is None else Path(out)
    return path, write_study(folder, path, space_of(folder / "space.yaml", own or Own()))
