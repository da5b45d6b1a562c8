"""Fewer hidden units, in a module that really is smaller; one move per way to choose them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from adanet_py.data.spec import DataSpec
from adanet_py.records import Candidate, Scalar
from adanet_py.refine.move import Move, dense

if TYPE_CHECKING:
    from adanet_py.architectures import Architecture

SHARES = (2 / 3, 1 / 3)  # of the units that stay
EVEN = 8  # larger layers keep a multiple of this many, which computes faster
FINE = 4  # the same on the way to a given size, which a coarser one would miss by more
MOST = 4096  # units of a layer that are chosen among: matrices of all pairs are solved


def children(parent: Candidate, architecture: Architecture) -> tuple[Mapping[str, Scalar], ...]:
    """Two thirds and one third of all hidden units, and of those of a resnet's blocks alone."""
    static = dense(parent, architecture)
    # What is narrower may be whole where it was factorised.
    change = _CHANGES.get(architecture.name) if not static.get("rank") else None
    found: list[dict[str, Scalar]] = []
    for new in [] if change is None else [n for share in SHARES for n in change(static, share)]:
        if new not in found and all(architecture.static[k].allows(v) for k, v in new.items()):
            found.append(new)
    return tuple(static | new for new in found)


def sized(
    parent: Candidate, architecture: Architecture, spec: DataSpec, most: int
) -> tuple[Mapping[str, Scalar], ...]:
    """The widest that have at most `most` parameters, of the same kinds as `children`."""
    static = dense(parent, architecture)
    change, count = _NARROWER.get(architecture.name), architecture.parameters
    if change is None or count is None or static.get("rank"):
        return ()
    found = []
    for kind in change(static):
        fitting = (static | new for new in kind)
        found += [s for s in (next((s for s in fitting if count(s, spec) <= most), None),) if s]
    return tuple(
        s for s in found if all(architecture.static[k].allows(s[k]) for k in _WIDTHS if k in s)
    )


def fewer(units: int, share: float, even: int = EVEN) -> int:
    """Units that stay: a share of them, a multiple of `even` where they are twice that or more."""
    kept = units * share
    return max(1, even * round(kept / even) if kept >= 2 * even else round(kept))


def _sizes(units: int) -> Iterator[int]:
    """Fewer units, the most first."""
    return (n for n in range(units - 1, 0, -1) if n < 2 * FINE or n % FINE == 0)


def _width(static: Mapping[str, Scalar], share: float) -> list[dict[str, Scalar]]:
    width = int(static["width"])  # type: ignore[arg-type]
    narrower = fewer(width, share)
    if narrower == width or width > MOST or static.get("depth") == static.get("blocks") == 0:
        return []
    return [{"width": narrower}]


def _stream(static: Mapping[str, Scalar], share: float) -> list[dict[str, Scalar]]:
    """The residual stream with its blocks, and the hidden units of the blocks alone."""
    width = int(static["width"])  # type: ignore[arg-type]
    hidden = max(1, round(width * float(static["expansion"])))  # type: ignore[arg-type]
    if max(width, hidden) > MOST:
        return []
    kept = fewer(hidden, share)
    sizes = [(fewer(width, share), kept), (width, kept)]
    return [{"width": w, "expansion": h / w} for w, h in sizes if (w, h) != (width, hidden)]


_CHANGES: dict[str, Callable[[Mapping[str, Scalar], float], list[dict[str, Scalar]]]] = {
    "mlp": _width,
    "resnet": _stream,
    "tabm": _width,
}


def _narrower_layers(static: Mapping[str, Scalar]) -> list[Iterator[dict[str, Scalar]]]:
    width = int(static["width"])  # type: ignore[arg-type]
    if width > MOST or static.get("depth") == static.get("blocks") == 0:
        return []
    return [({"width": n} for n in _sizes(width))]


def _narrower_streams(static: Mapping[str, Scalar]) -> list[Iterator[dict[str, Scalar]]]:
    """As `_stream`: all in proportion, and the hidden units of the blocks alone."""
    width = int(static["width"])  # type: ignore[arg-type]
    hidden = max(1, round(width * float(static["expansion"])))  # type: ignore[arg-type]
    if max(width, hidden) > MOST:
        return []
    return [
        ({"width": n, "expansion": fewer(hidden, n / width, FINE) / n} for n in _sizes(width)),
        ({"width": width, "expansion": h / width} for h in _sizes(hidden)),
    ]


# By architecture, of each kind of smaller network all there are, the largest first.
_NARROWER: dict[str, Callable[[Mapping[str, Scalar]], list[Iterator[dict[str, Scalar]]]]] = {
    "mlp": _narrower_layers,
    "resnet": _narrower_streams,
    "tabm": _narrower_layers,
}
_WIDTHS = ("width", "expansion")


def _move(criterion: str, summary: str) -> Move:
    return Move(
        name=f"prune:{criterion}",
        summary=f"hidden layers keep 2/3 or 1/3 of their units, {summary}",
        preserves=False,
        children=children,
        weights=f"adanet_py.refine.pruning:{criterion}",
        sized=sized,
    )


MAGNITUDE = _move("magnitude", "those with the largest weights")
SALIENCY = _move("saliency", "those that matter most to the loss, to first order")
OUTPUT = _move("output", "those without which what reads them changes most")
