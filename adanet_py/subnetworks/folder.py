"""The folder of a grown AdaNet: the table of its rounds beside its model, and is it whole?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.errors import AdanetError
from adanet_py.frames import make_frame, write_csv
from adanet_py.model import Model, load
from adanet_py.model_file import MODEL_FILE
from adanet_py.subnetworks.architecture import GROWN, read_widths

if TYPE_CHECKING:
    import pandas as pd

    from adanet_py.subnetworks.growing import Growing

TABLE = "adanet.csv"
COLUMNS: dict[str, str] = {
    "round": "round of the growth",
    "name": "the candidate: round and place in it",
    "depth": "its hidden layers",
    "width": "units of each",
    "rate": "learning rate it was trained at",
    "complexity": "its r(h), in units of the mean of the first round",
    "loss": "mean training loss with it in the ensemble, the other weights as they were",
    "penalty": "sum of Gamma_j |w_j| with it",
    "weight": "its weight with which F is least",
    "change": "change of F = loss + penalty on the training rows by it",
    "score": "what the candidates of the round are compared by, the least wins",
    "accepted": "whether it joined",
    "why": "why, or why not",
    "final_weight": "size of its weight in the finished ensemble, 0 if it is not in it",
}
Sized = tuple[tuple[int, ...], float]
_LEFT_OVER = (".new", ".tmp")  # how files end that are being written


def rounds_of(growing: Growing) -> pd.DataFrame:
    """Every candidate of every round, see `COLUMNS`."""
    sizes = growing.base.weights.sizes().tolist()
    final = dict(zip([m.name for m in growing.members], sizes, strict=True))
    rows = [{**asdict(t), "final_weight": final.get(t.name, 0.0)} for t in growing.trials]
    return make_frame(rows, list(COLUMNS))


def write_rounds(growing: Growing, folder: Path) -> None:
    """Write the table of the rounds to a folder."""
    write_csv(rounds_of(growing), folder / TABLE)


def is_grown(folder: Path) -> bool:
    """Whether a folder is one of an AdaNet grown by itself."""
    return (folder / TABLE).is_file()


def check_grown(folder: Path) -> list[str]:
    """Problems of the folder of a grown AdaNet, in words; empty if it is whole."""
    problems: list[str] = []
    rounds = _read_rounds(folder / TABLE, problems)
    path = folder / MODEL_FILE
    if not path.exists():
        problems.append(f"{MODEL_FILE} is missing: it was not grown to the end. Grow it again")
    else:
        try:
            model = load(path)
        except AdanetError as error:
            problems.append(str(error))
        else:
            problems += _compared(model, rounds)
    left = sorted(p.name for p in folder.iterdir() if p.suffix in _LEFT_OVER)
    return problems + [f"{name} is a leftover of an interrupted write" for name in left]


def _read_rounds(path: Path, problems: list[str]) -> pd.DataFrame | None:
    """The table; None with a problem told where it cannot be what was written."""
    import pandas as pd

    try:
        rounds = pd.read_csv(path, dtype={"name": str})
    except (ValueError, OSError) as error:
        problems.append(f"{TABLE} cannot be read: {error}")
        return None
    missing = [c for c in COLUMNS if c not in rounds]
    if missing:
        problems.append(f"{TABLE}: expected a column {missing[0]!r}, found none")
        return None
    numeric = all(rounds[c].dtype.kind in "iuf" for c in ("depth", "width", "final_weight"))
    if rounds["accepted"].dtype != bool or not numeric:
        problems.append(f"{TABLE}: expected numbers and truth values, found something else")
        return None
    return rounds


def _compared(model: Model, rounds: pd.DataFrame | None) -> list[str]:
    """Whether the members of a model are those the table tells of."""
    member = model.members[0]
    if member.candidate.architecture != GROWN.name:
        return [f"{MODEL_FILE}: expected a grown AdaNet, found {member.candidate.architecture}"]
    if rounds is None:
        return []
    joined = rounds[rounds["accepted"]]
    columns = (joined[c].tolist() for c in ("width", "depth", "final_weight"))
    told = [((int(w),) * int(d), float(size)) for w, d, size in zip(*columns, strict=True)]
    found = list(zip(_widths(member.candidate.static), _sizes(member.arrays), strict=True))
    if same_members(told, found):
        return []
    return [f"{TABLE} and {MODEL_FILE} tell of other members: they are not of one growth"]


def same_members(joined: Sequence[Sized], found: Sequence[Sized]) -> bool:
    """Whether those of a model can be those that joined, given as (units of layers, weight).

    A subnetwork of weight 0 is in the model where another reads it.
    """
    rest = iter(joined)
    in_order = all(any(_alike(one, other) for other in rest) for one in found)
    return in_order and sum(w > 0 for _, w in joined) == sum(w > 0 for _, w in found)


def _widths(static: Mapping[str, Any]) -> list[tuple[int, ...]]:
    return read_widths(str(static["subnetworks"]))


def _sizes(arrays: Mapping[str, np.ndarray]) -> list[float]:
    mixture = np.abs(np.asarray(arrays["0/mixture"], np.float64))
    return [float(w.sum()) for w in mixture]


def _alike(one: Sized, other: Sized) -> bool:
    return one[0] == other[0] and bool(np.isclose(one[1], other[1], rtol=1e-4, atol=1e-6))
