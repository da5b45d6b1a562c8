"""Is a run folder, the folder of a grown AdaNet or a model file whole?"""

from __future__ import annotations

import os
from pathlib import Path

from adanet_py.errors import AdanetError
from adanet_py.folder import CONFIG, read_described
from adanet_py.model import load
from adanet_py.model_file import MODEL_FILE
from adanet_py.state import JOURNAL, State, read_state
from adanet_py.subnetworks.folder import check_grown, is_grown


def check(path: str | os.PathLike[str]) -> list[str]:
    """Problems of a run folder, a grown AdaNet's folder or a model file, in words; empty if whole.

    Raises RunError where there is none, or a newer program wrote the run.
    """
    found = Path(path)
    problems: list[str] = []
    if found.is_file():
        try:
            load(found)
        except AdanetError as error:
            return [str(error)]
        return []
    if is_grown(found) and not (found / CONFIG).exists():
        return check_grown(found)
    read_described(found)
    for name in (JOURNAL, "prepared.json", "split.npz", "space.yaml"):
        if not (found / name).exists():
            problems.append(f"{name} is missing")
    state = State()
    try:
        state = read_state(found)
    except AdanetError as error:
        problems.append(str(error))
    if (found / MODEL_FILE).exists():
        try:
            load(found)
        except AdanetError as error:
            problems.append(str(error))
    elif state.stopped:
        problems.append(f"{MODEL_FILE} is missing although the run has ended")
    if state.stopped and not (found / "leaderboard.csv").exists():
        problems.append("leaderboard.csv is missing although the run has ended")
    leftovers = [p.name for p in found.rglob("*.tmp")]
    problems += [f"{name} is a leftover of an interrupted write" for name in leftovers]
    unfinished = sorted(set(state.groups) - set(state.results))
    if state.stopped is None:
        problems.append(f"the run has not ended ({len(unfinished)} groups open); `resume` goes on")
    return problems
