"""How a leaderboard is shown on a screen."""

from __future__ import annotations

from typing import Any

from adanet_py.console import print_table

_SHOWN = (
    "rank", "id", "architecture", "status", "train", "validation", "audit", "low", "high", "tie",
    "parameters", "seconds", "latency_ms",
)  # fmt: skip


def show_leaderboard(frame: Any, top: int | None) -> None:
    """The columns that fit a screen; the rest are in leaderboard.csv."""
    shown = frame if top is None else frame.head(top)
    names = [n for n in _SHOWN if n in frame.columns]
    rows = [[None if _missing(v) else v for v in row] for row in shown[names].itertuples(False)]
    print_table(rows, names)
    if len(shown) < len(frame):
        print(f"... and {len(frame) - len(shown)} more")


def _missing(value: Any) -> bool:
    return value is None or value != value or type(value).__name__ == "NAType"


def show_importance(frame: Any, top: int) -> None:
    """Decisions with their importance, then the advice."""
    decided = frame[frame["decision"].notna()]
    names = ["decision", "importance", "p_value", "tried", "best", "usual"]
    rows = [[None if _missing(v) else v for v in row] for row in decided[names].itertuples(False)]
    if rows:
        print_table([[r[0], *(f"{v:.2f}" for v in r[1:3]), *r[3:]] for r in rows[:top]], names)
        print()
    for sentence in next_steps(frame, top):
        print(f"Next:   {sentence}")


def next_steps(frame: Any, most: int) -> list[str]:
    """The advice of an importance table, the first `most` sentences."""
    return [str(v) for v in frame["next"] if not _missing(v)][:most]


def honest(frame: Any) -> str:
    """What is known of the model's score on rows that it was not chosen by, to follow the score."""
    if "chosen" not in frame.columns or not (frame["chosen"] == True).any():  # noqa: E712
        return ""
    row = frame[frame["chosen"] == True].iloc[0]  # noqa: E712
    out = ""
    if not _missing(row["audit"]):
        out += f", {row['audit']:.6g} on audit rows"
        if not _missing(row["optimism_low"]):
            out += (
                f" (optimism {row['optimism']:.3g}, 95 %: {row['optimism_low']:.3g} to "
                f"{row['optimism_high']:.3g})"
            )
    if not _missing(row["corrected"]):
        out += f", {row['corrected']:.6g} corrected for the choice"
    return out
