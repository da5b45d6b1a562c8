"""What nothing else beats in several things at once, and how much of the space it covers."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = Sequence[float]


def pareto_front(points: Sequence[Point]) -> list[bool]:
    """Return for each point whether no other is at least as low everywhere and lower somewhere.

    Lower is better in every coordinate. Equal points are all on the front; one with a NaN never is.
    """
    front: list[Point] = []
    on = [False] * len(points)
    order = [i for i, p in enumerate(points) if not any(math.isnan(v) for v in p)]
    # Sorted by coordinates, what dominates a point comes before it, and a front member always does.
    for i in sorted(order, key=lambda i: tuple(points[i])):
        point = tuple(points[i])
        if not any(
            tuple(f) != point and all(a <= b for a, b in zip(f, point, strict=True)) for f in front
        ):
            front.append(point)
            on[i] = True
    return on


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The volume of what some point is at least as low as, up to `reference` (Zitzler 1999).

    Lower is better in every coordinate. A point that is not below the reference everywhere, or has
    a NaN, covers nothing. Exact in any number of coordinates, by slices along the last one: meant
    for fronts of some dozen points.
    """
    inside = [tuple(p) for p in points if all(a < r for a, r in zip(p, reference, strict=True))]
    return _volume(sorted(set(inside)), tuple(reference))


def _volume(points: list[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    """Of distinct points below the reference."""
    if not points:
        return 0.0
    if len(reference) == 1:
        return reference[0] - points[0][0]
    if len(reference) == 2:  # sorted by the first, each adds what lies below all before it
        total, lowest = 0.0, reference[1]
        for x, y in points:
            if y < lowest:
                total += (reference[0] - x) * (lowest - y)
                lowest = y
        return total
    levels = sorted({p[-1] for p in points})
    total = 0.0
    for low, high in zip(levels, [*levels[1:], reference[-1]], strict=True):
        slice_ = sorted({p[:-1] for p in points if p[-1] <= low})
        total += (high - low) * _volume(slice_, reference[:-1])
    return total
