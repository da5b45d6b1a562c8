"""Draw learning curves: a picture file with matplotlib, text for a terminal with plotext."""

from __future__ import annotations

import importlib.util
import io
import math
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from adanet_py.curves import Panel, Picture, broken, points
from adanet_py.errors import ConfigError
from adanet_py.journal import write_atomic

FORMATS = (".png", ".svg", ".pdf")
# Okabe and Ito 2008: distinct for every kind of colour vision; without yellow, pale on white.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
LINES = {"best": "-", "worst": "--", "diverged": ":", "chosen": "-"}
MARKERS = "osDv^Px"  # one more round of them for every round of colours
SIGNS = "123456789abcdefghijklmnopqrstuvwxyz"  # what lines are made of in a terminal
TERMINAL = ("blue+", "orange+", "green+", "magenta+", "cyan+", "red+", "white")
NARROWEST, WIDEST, HEIGHT = 60, 160, 34


def draw(picture: Picture, path: Path) -> None:
    """Write the picture to a file; the ending of its name chooses PNG, SVG or PDF.

    Raises ConfigError for another ending or without matplotlib, RunError or StorageError where
    the file cannot be written.
    """
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise ConfigError(
            f"--out: expected a file name that ends in {', '.join(FORMATS)}; found {path}."
        )
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(f"--out needs matplotlib, which is not installed. {_HOW}") from None
    # Room for the legend, a line of which takes a fifth of an inch.
    figure = Figure(figsize=(11, 7.5 + 0.1 * len(picture.curves)), layout="constrained")
    FigureCanvasAgg(figure)
    for place, panel in enumerate(picture.panels, start=1):
        _axes(figure.add_subplot(2, 2, place), picture, panel)
    if any(broken(curve) is not None for curve in picture.curves):
        figure.axes[0].plot([], [], "x", color="grey", label="from here on no finite number")
    figure.suptitle(_cut(picture.title, 100), fontsize=12)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = 1 if max(map(len, labels)) > 60 else 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9)
    out = io.BytesIO()
    figure.savefig(out, format=kind[1:], dpi=130)
    write_atomic(path, out.getvalue())


def _axes(axes: Any, picture: Picture, panel: Panel) -> None:
    crosses = 0
    for i, curve in enumerate(picture.curves):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)]
        x, y = points(curve, panel)
        axes.plot(
            x, y, color=colour, linestyle=LINES[curve.kind], marker=marker, markersize=3.5,
            linewidth=1.8, label=curve.label,
        )  # fmt: skip
        end = broken(curve)
        if end is not None and panel.field != "lr":  # crosses hang from the upper edge
            axes.plot(
                [end], [0.97 - 0.05 * crosses], "x", color=colour, markersize=9,
                markeredgewidth=2, transform=axes.get_xaxis_transform(),
            )  # fmt: skip
            crosses += 1
    if panel.log and panel.signed:
        axes.set_yscale("symlog")
    elif panel.log:
        axes.set_yscale("log")
    axes.set_title(panel.title, fontsize=11)
    axes.set_xlabel("epoch", fontsize=9)
    axes.grid(alpha=0.3)


def write_text(picture: Picture, coloured: bool) -> str:
    """The picture as text of the terminal's width; `coloured` with control sequences.

    Raises ConfigError without plotext.
    """
    try:
        import plotext
    except ImportError:
        other = ""
        if importlib.util.find_spec("matplotlib"):
            other = "; with matplotlib, which is, --out FILE.png draws a picture"
        raise ConfigError(
            f"Drawing in the terminal needs plotext, which is not installed{other}. {_HOW}"
        ) from None
    width = min(WIDEST, max(NARROWEST, shutil.get_terminal_size((100, 40)).columns))
    parts = [picture.title]
    for two in (picture.panels[:2], picture.panels[2:]):
        texts = [_text(plotext, picture, panel, width // 2) for panel in two]
        for lines in zip(*(text.rstrip("\n").split("\n") for text in texts), strict=True):
            line = " ".join(lines)
            parts.append(line if coloured else str(plotext.uncolorize(line)).rstrip())
    parts += [f"{_sign(i)}  {curve.label}" for i, curve in enumerate(picture.curves)]
    return "\n".join(parts)


def _text(plotext: ModuleType, picture: Picture, panel: Panel, width: int) -> str:
    """One panel, every line of it of one width."""
    plotext.clear_figure()  # it has one, for the whole process
    plotext.plotsize(width - 1, HEIGHT // 2)
    plotext.theme("clear")
    drawn: list[float] = []
    for i, curve in enumerate(picture.curves):
        pairs = zip(*points(curve, panel), strict=True)
        kept = [(x, _scaled(y, panel)) for x, y in pairs if math.isfinite(y)]
        if kept:
            x, y = (list(v) for v in zip(*kept, strict=True))
            plotext.plot(x, y, marker=_sign(i), color=TERMINAL[i % len(TERMINAL)])
            drawn += y
    title = f"{panel.title} (log)" if panel.log else panel.title
    plotext.title(title if drawn else f"{panel.title}: nothing finite")
    plotext.xlabel("epoch")
    if drawn:
        low, high = min(drawn), max(drawn)
        places = [low + (high - low) * i / 4 for i in range(5)] if high > low else [low]
        plotext.yticks(places, [f"{_unscaled(v, panel):.3g}" for v in places])
    return str(plotext.build())


def _scaled(value: float, panel: Panel) -> float:
    """Where a value stands on the axis; zero and signed values have a place on a log scale too."""
    if not panel.log:
        return value
    return math.copysign(math.log10(1 + abs(value)), value) if panel.signed else math.log10(value)


def _unscaled(place: float, panel: Panel) -> float:
    if not panel.log:
        return place
    return math.copysign(10 ** abs(place) - 1, place) if panel.signed else 10**place


def _sign(i: int) -> str:
    return SIGNS[i % len(SIGNS)]


def _cut(text: str, length: int) -> str:
    """The end of a long text: of a path that is what tells."""
    return text if len(text) <= length else "..." + text[3 - length :]


_HOW = (
    "Install both with pip install 'adanet_py[plot]'. The numbers are in curves.csv of the run "
    "folder (of an unfinished run: in its journal)."
)
