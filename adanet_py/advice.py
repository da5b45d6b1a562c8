"""What to change next, from what a run found: a few sentences, each with its figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from adanet_py.importance import FEWEST, Importance, importances, short
from adanet_py.knob import Knob
from adanet_py.records import Result, Scalar, Status
from adanet_py.space import Decision, Registries, SearchSpace, default_registries

IMPORTANCE_COLUMNS: dict[str, str] = {
    "decision": "what was decided: mlp.width, adamw.lr; empty for advice on the search as a whole",
    "importance": "share of the importance of all decisions (PED-ANOVA, less what chance gives)",
    "p_value": "how often as large a difference of the best fifth comes by chance",
    "tried": "results with it, or programs where it is part of the program",
    "best": "its value in the best result",
    "usual": "its value among the best fifth: the commonest, or the median",
    "low": "low end of its range, or the first choice",
    "high": "high end of its range, or the last choice",
    "next": "what to change next, a sentence",
}

_SURE = 0.05  # p-value
_NOTHING = 0.5
_ENOUGH = 40  # results before something is said to make no difference
_BEST = 10  # results that the search as a whole is judged by
_MOST_NAMED = 6


def importance_rows(
    space: SearchSpace, results: Sequence[Result], registries: Registries | None = None
) -> list[dict[str, Any]]:
    """Rows of importance.csv by column, the most important decision first.

    `registries`: where legal ranges are looked up, by default the package's own.
    """
    found = importances(space, results)
    registries = registries or default_registries()
    sentences = [{"next": sentence} for sentence in on_search(results, found)]
    return sentences + [
        {
            "decision": short(i.decision),
            "importance": i.share,
            "p_value": i.p_value,
            "tried": i.tried,
            "best": _text(i.best),
            "usual": _text(i.usual),
            "low": _text(i.decision.domain[0]),
            "high": _text(i.decision.domain[-1]),
            "next": on_decision(i, registries) or None,
        }
        for i in found
    ]


def advice(rows: Sequence[dict[str, Any]], most: int = 5) -> list[str]:
    """The sentences of such rows, the first `most`."""
    return [str(row["next"]) for row in rows if row.get("next")][:most]


def on_search(results: Sequence[Result], found: Sequence[Importance]) -> list[str]:
    """Advice on the search as a whole."""
    out = []
    networks = [r for r in results if r.status is not Status.BASELINE]
    scored = [r for r in networks if r.status.usable and math.isfinite(r.reward)]
    best = sorted(scored, key=lambda r: -r.reward)[:_BEST]
    if len(scored) < FEWEST:
        few = f"Only {len(scored)} networks were scored, too few to say what mattered"
        return [f"{few}: give more time."]
    late = [r for r in best if r.status in _ENDED_EARLY and r.steps and r.step >= 0.9 * r.steps]
    if 2 * len(late) >= len(best):
        out.append(
            f"{len(late)} of the best {len(best)} networks were still improving when they ended: "
            "give more time, so that they train longer."
        )
    diverged = [r for r in networks if r.status is Status.DIVERGED]
    if len(diverged) > 0.15 * len(networks):
        optimizer, times = Counter(r.candidate.optimizer for r in diverged).most_common(1)[0]
        out.append(
            f"{len(diverged)} of {len(networks)} networks diverged, {times} of them with "
            f"{optimizer}: lower the high end of its learning rate."
        )
    broken = [r for r in networks if r.status is Status.INFEASIBLE]
    if len(broken) > len(scored):
        out.append(
            f"{len(broken)} of {len(networks)} candidates broke a bound and were not trained: a "
            "space of smaller networks wastes no proposals."
        )
    same = [short(i.decision) for i in found if i.p_value > _NOTHING and i.tried >= _ENOUGH]
    if same:
        more = f" and {len(same) - _MOST_NAMED} more" if len(same) > _MOST_NAMED else ""
        out.append(
            f"Made no difference that could be seen: {', '.join(same[:_MOST_NAMED])}{more}. They "
            "can be fixed."
        )
    return out


_ENDED_EARLY = (Status.COMPLETE, Status.DEADLINE)


def on_decision(found: Importance, registries: Registries) -> str:
    """Advice on one decision, empty where there is none."""
    decision = found.decision
    if found.p_value > _SURE:
        return ""
    name, low, high = short(decision), decision.domain[0], decision.domain[-1]
    if found.edge and decision.ordered:
        end = high if found.edge > 0 else low
        if _may_widen(decision, end, found.edge, registries):
            side, where = ("high", "above") if found.edge > 0 else ("low", "below")
            return (
                f"{name}: most of the best are at the {side} end of {_text(low)} to {_text(high)}: "
                f"try values {where} {_text(end)}."
            )
    if decision.kind == "choice":
        return f"{name}: {_text(found.usual)} is the commonest among the best."
    return f"{name}: the best are around {_text(found.usual)}."


def _may_widen(decision: Decision, end: Scalar, side: int, registries: Registries) -> bool:
    """Whether values beyond `end` are legal."""
    knob = _knob(decision, registries)
    if knob is None or knob.choices is not None or not isinstance(end, int | float):
        return False
    limit = knob.high if side > 0 else knob.low
    return limit is None or (end < limit if side > 0 else end > limit)


def _knob(decision: Decision, registries: Registries) -> Knob | None:
    section, *rest = decision.path
    if not rest:
        return None
    if section == "general":
        return registries.general.get(rest[-1])
    known: Any = getattr(registries, section, {}).get(rest[0])
    knobs = {**getattr(known, "static", {}), **getattr(known, "numeric", {})}
    return knobs.get(rest[-1])


def _text(value: Scalar) -> str | None:
    if isinstance(value, float):
        return f"{value:.4g}"
    return None if value is None else str(value)
