"""Why a network of a run stands where it stands: its chain, its rivals, its decisions, its part."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adanet_py.console import figure, table_lines
from adanet_py.ensemble.weights import Weights
from adanet_py.errors import RunError, nearest
from adanet_py.export import ENSEMBLE
from adanet_py.outcome import importance, leaderboard
from adanet_py.own import Own
from adanet_py.records import Candidate, Result, Scalar
from adanet_py.state import State, read_state

if TYPE_CHECKING:
    import pandas as pd

RIVALS = 3  # the next ones in the ranking that are shown
DECISIONS = 8  # the most important

_OF_LINK = ("move", "parameters", "sparsity", "latency_ms", "validation", "difference", "drop",
            "gain", "gain_error", "accepted", "verdict")  # fmt: skip
_OF_PLACE = (
    "rank",
    "validation",
    "audit",
    "low",
    "high",
    "tie",
    "why",
    "status_text",
    "parameters",
    "sparsity",
)


def explain(
    run: str | os.PathLike[str], candidate: str | None = None, own: Own | None = None
) -> dict[str, Any]:
    """What is known of a network, by default the one saved as the model, as plain values.

    `candidate` is its identifier or how that begins. The answer has candidate, architecture, model
    (whether it is), chain (from the first network to it, each with its move's certificate and
    gain), place and rivals (of the leaderboard), decisions (the most important of the search, and
    its values) and ensemble (members and weights; None where there is none).
    Raises RunError for a run without results and for an unknown or ambiguous identifier.
    """
    folder = Path(run)
    frame = leaderboard(folder)
    state = read_state(folder)
    result = _find(candidate, state, frame)
    rows = {str(row["id"]): row for row in frame.to_dict("records")}
    chain = _chain(result, state)
    return {
        "candidate": result.candidate.id,
        "architecture": result.candidate.architecture,
        "controller": result.controller,
        "metric": str(frame["metric"].iloc[0]),
        "model": bool(rows[result.candidate.id]["chosen"] is True),
        "chain": [_link(r, rows[r.candidate.id]) for r in chain],
        "place": _plain(rows[result.candidate.id], _OF_PLACE),
        "rivals": _rivals(result, frame),
        "decisions": _decisions(result.candidate, importance(folder, own)),
        "ensemble": _ensemble(state),
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """What `explain` found as text for people."""
    place, metric = found["place"], found["metric"]
    out = [f"{found['candidate']}, {found['architecture']}, {_size(place)}, "
           f"proposed by {found['controller'] or 'no controller'}"]  # fmt: skip
    if found["model"]:
        out.append("It is the network saved as the model, or the first of its ensemble.")
    rank = "no rank" if place["rank"] is None else f"rank {place['rank']}"
    out += ["", f"Place: {rank}, {metric} {figure(place['validation'])} on validation rows"
            + _interval(place) + (f", {figure(place['audit'])} on audit rows" if place["audit"]
            is not None else "")]  # fmt: skip
    out.append(f"       {place['why']}")
    for rival in found["rivals"]:
        out.append(f"  {rival['rank']}. {rival['id']}, {figure(rival['validation'])}"
                   f"{_interval(rival)}: {rival['why']}")  # fmt: skip
    out += ["", "Chain:"]
    for link in found["chain"]:
        out.append(f"  {link['id']}: {_told(link, metric)}")
    if found["decisions"]:
        names = ("decision", "value", "best", "usual", "importance")
        rows = [[row[name] for name in names] for row in found["decisions"]]
        out += ["", *table_lines(rows, names)]
    if (grown := found["ensemble"]) is not None:
        saved = "the model" if grown["saved"] else "not the model"
        out += ["", f"Ensemble ({saved}): {metric} {figure(grown['validation'])} on validation "
                f"rows, one alone {figure(grown['alone'])}, both cross-fitted"]  # fmt: skip
        rows = [
            [m["id"], m["weight"], m["architecture"], m["validation"]] for m in grown["members"]
        ]
        out += table_lines(rows, ("member", "weight", "architecture", "validation"))
    return out


def _told(link: Mapping[str, Any], metric: str) -> str:
    """A link of the chain as a sentence."""
    size = f"{_size(link)}, {metric} {figure(link['validation'])}"
    if link["move"] is None:
        return f"trained from its own initial weights; {size}"
    told = f"by {link['move']}, outputs then differed by {figure(link['difference'])}"
    if link["drop"] is not None:
        told += f", error {figure(link['drop'])} higher before training"
    return f"{told}; {size}; {link['verdict'] or 'not judged'}"


def _size(row: Mapping[str, Any]) -> str:
    """How many parameters, and how many of the weights are zero where some are."""
    size = f"{row['parameters']} parameters"
    return (
        f"{size}, {100.0 * row['sparsity']:.3g} % of the weights zero" if row["sparsity"] else size
    )


def _interval(row: Mapping[Any, Any]) -> str:
    return "" if row["low"] is None else f" ({figure(row['low'])} to {figure(row['high'])})"


def _find(name: str | None, state: State, frame: pd.DataFrame) -> Result:
    """The result that is meant: of the name, or the network that is the model, or the best."""
    networks = {r.candidate.id: r for r in state.finished()}
    if name is None:
        chosen = [str(i) for i in frame.loc[frame["chosen"] == True, "id"]]  # noqa: E712
        best = state.best.candidate.id if state.best else None
        known = [i for i in (*chosen, best) if i in networks]
        if not known:
            raise RunError("No network of the run was trained to a usable end: nothing to explain.")
        return networks[str(known[0])]
    matching = [i for i in networks if i.startswith(name)]
    if len(matching) != 1:
        many = f"found {len(matching)} that begin with it" if matching else "found none"
        raise RunError(
            f"{name!r}: expected the identifier of one network of the run, {many}."
            f"{nearest(name, networks)} The leaderboard has them all."
        )
    return networks[matching[0]]


def _chain(result: Result, state: State) -> list[Result]:
    """From the network that was trained from its own initial weights to this one."""
    out = [result]
    while out[-1].candidate.inherits and out[-1].candidate.parent in state.by_id:
        out.append(state.by_id[str(out[-1].candidate.parent)])
    return out[::-1]


def _link(result: Result, row: Mapping[Any, Any]) -> dict[str, Any]:
    found = {"id": result.candidate.id, **_plain(row, _OF_LINK)}
    # What was changed without the weights is no move of the chain.
    return found if result.candidate.inherits else found | {"move": None}


def _rivals(result: Result, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The next ones in the ranking; before one without a rank, the first."""
    own = frame.loc[frame["id"] == result.candidate.id, "rank"].iloc[0]
    after = frame[frame["rank"] > (0 if own != own else own)] if own is not None else frame
    rows = after.head(RIVALS).to_dict("records")
    return [{"id": str(row["id"]), **_plain(row, _OF_PLACE)} for row in rows]


def _decisions(candidate: Candidate, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The most important decisions and what the candidate has for them."""
    values: dict[str, Scalar] = {
        "architecture": candidate.architecture,
        "optimizer": candidate.optimizer,
        "schedule": candidate.schedule,
        **candidate.static,
        **candidate.numeric,
    }
    owners = ("", "general", candidate.architecture, candidate.optimizer, candidate.schedule)
    out: list[dict[str, Any]] = []
    for row in frame[frame["decision"].notna()].to_dict("records"):
        owner, _, name = str(row["decision"]).rpartition(".")
        if owner in owners and name in values and len(out) < DECISIONS:
            value = values[name]
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            known = _plain(row, ("decision", "importance", "p_value", "best", "usual"))
            out.append({**known, "value": shown})
    return out


def _ensemble(state: State) -> dict[str, Any] | None:
    found = state.ensemble
    if found is None:
        return None
    sizes = Weights.from_json(found["weights"]).sizes().tolist()
    members = [
        {
            "id": name,
            "weight": size,
            "architecture": state.by_id[name].candidate.architecture,
            "validation": state.by_id[name].metrics.get("validation"),
        }
        for name, size in zip(found["members"], sizes, strict=True)
        if name in state.by_id
    ]
    scores = found["scores"]
    return {
        "saved": state.model is not None and state.model["candidate"] == ENSEMBLE,
        "validation": scores["ensemble"]["validation"],
        "single": scores["single"]["validation"],
        "alone": scores.get("alone", {}).get("validation"),
        "members": members,
    }


def _plain(row: Mapping[Any, Any], names: Sequence[str]) -> dict[str, Any]:
    """Some columns of a row, None for what is empty."""
    return {name: _value(row.get(name)) for name in names}


def _value(value: Any) -> Any:
    if value is None or value != value or type(value).__name__ == "NAType":
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 1e15
        return None if not math.isfinite(value) else int(value) if whole else value
    return value
