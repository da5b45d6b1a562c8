"""Learning curves of a run: which candidates are worth a look, and their picture.

Reads the journal, so it works while the search runs. No torch; matplotlib and plotext (the extra
"plot") are only loaded to draw.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adanet_py.errors import ConfigError, RunError, nearest
from adanet_py.folder import read_described
from adanet_py.metrics import METRICS
from adanet_py.records import Evaluation, Result, Status
from adanet_py.state import read_state

TOP = 2  # of each kind: six curves can still be told apart
WIDE = 10.0  # values that span more than this factor are drawn on a logarithmic scale
TALL = 100.0  # what diverged is drawn up to this multiple of the largest value of the others


@dataclass(frozen=True)
class Curve:
    """One candidate in the picture; `kind` is "best", "worst", "diverged" or "chosen"."""

    kind: str
    result: Result

    @property
    def label(self) -> str:
        """For the legend: kind, identifier, what it is, and how it ended."""
        candidate = self.result.candidate
        end = "no score"
        if self.result.status is Status.DIVERGED:
            end = f"diverged by step {self.result.curve[-1].step}"
        elif "validation" in self.result.metrics:
            end = f"{self.result.metrics['validation']:.4g}"
        kind = "" if self.kind in ("chosen", self.result.status.name.lower()) else f"{self.kind}: "
        return f"{kind}{candidate.architecture} {candidate.id} {candidate.optimizer}, {end}"


@dataclass(frozen=True)
class Panel:
    """One of the four small pictures: what it shows of an evaluation, and on which scale."""

    field: str
    title: str
    log: bool
    signed: bool  # some values are below zero
    limit: float = math.inf  # larger values are not drawn: they would flatten the rest


@dataclass(frozen=True)
class Picture:
    """Everything there is to draw."""

    title: str
    curves: tuple[Curve, ...]
    panels: tuple[Panel, ...]


def picture(run: Path, chosen: Sequence[str] = (), top: int = TOP) -> Picture:
    """What to draw of a run: the `top` best, worst and diverged networks, or the `chosen` ones.

    `chosen` are identifiers or their beginnings. Raises RunError where `run` is no run or has no
    trained networks yet, ConfigError for an unknown or ambiguous identifier.
    """
    described = read_described(run)
    state = read_state(run)
    results = [r for r in state.finished() if r.curve]
    if not results:
        found = (
            "none yet. They appear when a group of candidates ends; wait, or `resume` the search"
        )
        if state.stopped:
            found = "none in a search that has ended. Its leaderboard says why; search again"
        raise RunError(f"Expected trained networks in {run}, found {found}.")
    name = _metric(run) or described.config.metric or "validation"
    curves = [_find(i, results, run) for i in dict.fromkeys(chosen)] or _notable(results, top)
    better = ""
    if name in METRICS:
        better = f", {'greater' if METRICS[name].greater_is_better else 'lower'} is better"
    greater = name in METRICS and METRICS[name].greater_is_better
    panels = (
        _panel("train_loss", "training loss", curves),
        _panel("validation", f"validation {name}{better}", curves, bounded=greater),
        _panel("lr", "learning rate", curves),
        _panel("grad_norm", "gradient norm", curves),
    )
    return Picture(f"{run}: learning curves, {name}", tuple(curves), panels)


def points(curve: Curve, panel: Panel) -> tuple[list[float], list[float]]:
    """Epochs and values; a value that cannot be drawn is NaN, which breaks the line."""
    values = [_value(e, panel) for e in curve.result.curve]
    return [e.epoch for e in curve.result.curve], values


def broken(curve: Curve) -> float | None:
    """The epoch at which loss or metric was found not to be finite, if it was."""
    for e in curve.result.curve:
        if not (math.isfinite(e.train_loss) and math.isfinite(e.validation)):
            return e.epoch
    return None


def _metric(run: Path) -> str | None:
    """The name of the run's metric, once the data were prepared."""
    try:
        return str(json.loads((run / "prepared.json").read_text(encoding="utf-8"))["metric"])
    except (OSError, ValueError, KeyError):
        return None


def _notable(results: Sequence[Result], top: int) -> list[Curve]:
    """The best, the worst and the diverged, `top` of each, none twice."""
    usable = [r for r in results if math.isfinite(r.reward) and r.accepted is not False]
    ranked = sorted(usable, key=lambda r: (-r.reward, r.parameters))
    best = ranked[:top]
    worst = ranked[len(best) :][-top:]
    diverged = [r for r in results if r.status is Status.DIVERGED][:top]
    found = [Curve("best", r) for r in best] + [Curve("worst", r) for r in worst]
    found += [Curve("diverged", r) for r in diverged]
    return found or [Curve("chosen", r) for r in results[:top]]


def _find(text: str, results: Sequence[Result], run: Path) -> Curve:
    """The network whose identifier is or begins with `text`."""
    ids = [r.candidate.id for r in results]
    matching = [r for r in results if r.candidate.id.startswith(text)]
    if len(matching) == 1 and text:
        return Curve("chosen", matching[0])
    if matching:
        raise ConfigError(
            f"--candidate: expected the identifier of one network, found {len(matching)} that "
            f"begin with {text!r}. Give more of its digits."
        )
    raise ConfigError(
        f"--candidate: expected the identifier of a trained network of {run}, found {text!r}."
        f"{nearest(text, ids)} The command `leaderboard` shows them."
    )


def _panel(field: str, title: str, curves: Sequence[Curve], bounded: bool = False) -> Panel:
    sound = [c for c in curves if c.result.status is not Status.DIVERGED]
    limit = TALL * max((abs(v) for v in _finite(field, sound)), default=math.inf)
    values = [v for v in _finite(field, curves) if abs(v) <= limit]
    sizes = [abs(v) for v in values if v != 0]
    signed = any(v < 0 for v in values)
    log = len(sizes) > 1 and max(sizes) > WIDE * min(sizes)
    if signed or bounded:  # an accuracy from 0.05 or an R2 from -0.5 is no wide range
        log = max(sizes, default=0.0) > WIDE
    return Panel(field, title, log, signed, limit)


def _finite(field: str, curves: Sequence[Curve]) -> list[float]:
    values = (float(getattr(e, field)) for c in curves for e in c.result.curve)
    return [v for v in values if math.isfinite(v)]


def _value(e: Evaluation, panel: Panel) -> float:
    value = float(getattr(e, panel.field))
    drawn = math.isfinite(value) and abs(value) <= panel.limit
    return value if drawn and (panel.signed or not panel.log or value > 0) else math.nan
