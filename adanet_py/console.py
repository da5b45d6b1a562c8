"""What the command line shows: notes and a progress bar on stderr, results on stdout.

The bar is drawn on terminals only; elsewhere there are plain lines, and with `quiet` none.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

OnEvent = Callable[[Mapping[str, Any]], None]


def say(line: str) -> None:
    """One line on stderr, neither wrapped nor coloured, so that it can be searched."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One line of strict JSON on stdout; NaN and infinities become null."""
    print(json.dumps(_strict(value), allow_nan=False), flush=True)


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, str | bytes):  # numpy scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def print_table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> None:
    """A table of plain text on stdout: numbers to the right, never cut to the terminal's width."""
    for line in table_lines(rows, header):
        print(line)


def table_lines(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> list[str]:
    """The lines of such a table."""
    cells = [[figure(v) for v in row] for row in rows]
    right = [any(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
    widths = [max([len(h), *(len(r[i]) for r in cells)]) for i, h in enumerate(header)]
    out = []
    for line in [list(header), *cells]:
        parts = [
            text.rjust(w) if r else text.ljust(w)
            for text, w, r in zip(line, widths, right, strict=True)
        ]
        out.append("  ".join(parts).rstrip())
    return out


def figure(value: Any) -> str:
    """A value as tables show it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def duration(seconds: float) -> str:
    """Seconds as people say them: 42s, 3m07s, 2h05m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


@contextmanager
def reporter(
    quiet: bool, seconds: float | None = None, candidates: int | None = None
) -> Iterator[OnEvent]:
    """Yield the function to give a search as `on_event`.

    `seconds` and `candidates` are its bounds: the bar is full when the nearer one is reached.
    """
    if quiet:
        yield lambda event: None
    elif not sys.stderr.isatty():
        yield _plain
    else:
        with _bar(seconds, candidates) as on_event:
            yield on_event


def _plain(event: Mapping[str, Any]) -> None:
    if event.get("kind") == "note":
        say(f"note: {event['message']}")


@contextmanager
def _bar(seconds: float | None, candidates: int | None) -> Iterator[OnEvent]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    console = Console(stderr=True, highlight=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("reading data", total=None, left="")

        def on_event(event: Mapping[str, Any]) -> None:
            if event.get("kind") == "note":
                console.print(f"[yellow]note:[/] {escape(str(event['message']))}", soft_wrap=True)
            elif event.get("kind") == "progress":
                share = _share(event, seconds, candidates)
                progress.update(
                    bar,
                    description=_status(event),
                    total=None if share is None else 1.0,
                    completed=share or 0.0,
                    left=_left(event),
                )

        yield on_event


def _share(event: Mapping[str, Any], seconds: float | None, candidates: int | None) -> float | None:
    shares = []
    if seconds:
        shares.append(float(event.get("seconds") or 0) / seconds)
    if candidates:
        shares.append(int(event.get("done") or 0) / candidates)
    return min(1.0, max(shares)) if shares else None


def _status(event: Mapping[str, Any]) -> str:
    """For example: "12 of 40 candidates, best rmse 52310"."""
    done, bound = event.get("done") or 0, event.get("candidates")
    text = f"{done} of {bound} candidates" if bound else f"{done} candidates"
    best = event.get("best")
    if isinstance(best, int | float) and math.isfinite(best):
        text += f", best {event.get('metric', 'score')} {best:.5g}"
    return text


def _left(event: Mapping[str, Any]) -> str:
    left = event.get("time_left")
    return "" if left is None or not math.isfinite(left) else f"{duration(left)} left"
