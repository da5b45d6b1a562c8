"""A run as a study of Optuna, for optuna-dashboard and what else reads Optuna's storages."""

from __future__ import annotations

import datetime
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adanet_py.folder import read_described
from adanet_py.importance import short
from adanet_py.journal import refused
from adanet_py.metrics import get_metric
from adanet_py.records import Result, Scalar, Status
from adanet_py.space import SearchSpace, project
from adanet_py.space_points import value_of
from adanet_py.state import State, read_state

if TYPE_CHECKING:
    import optuna

_FACTS = (
    "parameters", "multiply_adds", "latency_ms", "size_bytes", "layers", "capacity", "sparsity",
    "nonzero", "seconds", "steps", "error", "complexity", "reward", "controller", "group", "engine",
    "message",
)  # fmt: skip


def write_study(
    run: str | os.PathLike[str], out: str | os.PathLike[str], space: SearchSpace
) -> int:
    """Write the networks of a run as trials of an Optuna study into a journal file; how many.

    The study is called like the run's folder. A trial has the active decisions of `space` as its
    parameters, the metric on validation rows as its value (in its natural sign: the study's
    direction says what is better), the learning curve as intermediate values by step, and what else
    is known as user attributes. Failed, diverged and infeasible candidates are FAIL, those stopped
    at a rung PRUNED. An existing file is replaced. Raises RunError where that cannot be done.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    folder = Path(run)
    described = read_described(folder)
    state = read_state(folder)
    metric = get_metric(_metric_name(folder, described.config.metric))
    path = Path(out)
    fresh = path.with_name(path.name + ".new")
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        fresh.unlink(missing_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the journal storage is experimental
            # The lock by a symbolic link would hang on a stale one in a relative path.
            lock = JournalFileOpenLock(os.path.abspath(fresh))
            storage = JournalStorage(JournalFileBackend(os.path.abspath(fresh), lock_obj=lock))
            study = optuna.create_study(
                storage=storage,
                study_name=folder.resolve().name,
                direction="maximize" if metric.greater_is_better else "minimize",
            )
            study.set_metric_names([metric.name])
            study.set_user_attr("run", str(folder.resolve()))
            study.set_user_attr("metric", metric.name)
            began = _began(folder)
            trials = [
                _trial(optuna, space, r, began + datetime.timedelta(seconds=seconds))
                for r, seconds in _in_order(state)
            ]
            study.add_trials(trials)
        os.replace(fresh, path)
    except OSError as error:
        raise refused(path, error) from error
    finally:
        optuna.logging.set_verbosity(level)
        fresh.unlink(missing_ok=True)
    return len(trials)


def _metric_name(folder: Path, given: str | None) -> str:
    prepared = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
    return str(prepared.get("metric", given))


def _began(folder: Path) -> datetime.datetime:
    value = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    # Optuna's times are local and say no zone.
    return datetime.datetime.fromisoformat(value["started"]).astimezone().replace(tzinfo=None)


def _in_order(state: State) -> Iterator[tuple[Result, float]]:
    """Networks in order of their groups, with the seconds after which they were there."""
    anew = (r for r in state.finished() if not r.candidate.inherits)  # children are no samples
    for result in anew:
        yield result, float(state.when.get(result.candidate.id, 0.0))


def _trial(
    optuna: Any, space: SearchSpace, result: Result, ended: datetime.datetime
) -> optuna.trial.FrozenTrial:
    states = optuna.trial.TrialState
    value = result.metrics.get("validation", math.nan)
    usable = result.status.usable and math.isfinite(value)
    state = states.FAIL
    if usable:
        state = states.PRUNED if result.status is Status.PRUNED else states.COMPLETE
    params, distributions = _decided(optuna, space, result)
    trial = optuna.trial.create_trial(
        state=state,
        value=value if usable else None,
        params=params,
        distributions=distributions,
        user_attrs=_attributes(result),
        intermediate_values={
            e.step: e.validation for e in result.curve if math.isfinite(e.validation)
        },
    )
    trial.datetime_start = ended - datetime.timedelta(seconds=result.seconds)
    trial.datetime_complete = ended
    return trial


def _decided(
    optuna: Any, space: SearchSpace, result: Result
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Active decisions by their short name, and their domains; none that is outside of its own."""
    kinds = optuna.distributions
    params: dict[str, Any] = {}
    domains: dict[str, Any] = {}
    for name, value in (project(space, result.candidate) or {}).items():
        decision = space.by_name[name]
        if not decision.allows(value_of(decision, result.candidate)):
            continue
        key = short(decision)
        params[key] = value
        if decision.kind == "choice":
            domains[key] = kinds.CategoricalDistribution(decision.domain)
        elif decision.kind == "int":
            low, high = (int(end) for end in decision.ends)
            domains[key] = kinds.IntDistribution(low, high, log=decision.log)
        else:
            domains[key] = kinds.FloatDistribution(*decision.ends, log=decision.log)
    return params, domains


def _attributes(result: Result) -> dict[str, Any]:
    """What else is known, as plain values; what is not finite is left out."""
    candidate = result.candidate
    facts: Mapping[str, Any] = {
        "id": candidate.id,
        "status": result.status.name,
        "status_text": result.status.value,
        "architecture": candidate.architecture,
        "optimizer": candidate.optimizer,
        "schedule": candidate.schedule,
        "seed": candidate.seed,
        "parent": candidate.parent,
        "move": candidate.move,
        "static": dict(candidate.static),
        "numeric": dict(candidate.numeric),
        **{f"metric_{part}": value for part, value in result.metrics.items()},
        **{name: getattr(result, name) for name in _FACTS},
    }
    return {name: value for name, value in facts.items() if _is_plain(value)}


def _is_plain(value: Scalar) -> bool:
    if value is None or value == "":
        return False
    return not isinstance(value, float) or math.isfinite(value)
