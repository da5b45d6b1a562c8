"""Many points of a space at once: drawn, changed, made distinct. Points are as in columns.py."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from adanet_py.controllers.columns import Bools, Columns, Floats
from adanet_py.records import Scalar
from adanet_py.space import Decision

Places = npt.NDArray[np.intp]
_STEPS = (0.02, 0.4)  # range of the standard deviation of a change in the unit interval
_AGAIN = 0.35  # chance of one more changed column, again and again
_FAR = 0.3  # of changes of rising numbers that go anywhere instead of to a neighbour


class Points:
    """Draws points of the space of `columns`; made by `points_of`."""

    def __init__(self, columns: Columns) -> None:
        # Not the columns themselves, which would never be forgotten then.
        self._decisions = decisions = columns.decisions
        self._count = np.array([len(d.domain) if d.kind == "choice" else 0 for d in decisions])
        self._free = np.array([d.size > 1 for d in decisions])
        self._even = np.array([j for j, d in enumerate(decisions) if _is_even(d)], dtype=np.intp)
        self._borders = {
            j: np.cumsum(np.array(d.prior))[:-1]
            for j, d in enumerate(decisions)
            if d.kind == "choice" and not _is_even(d)
        }
        choices = [d for d in decisions if d.kind == "choice"]
        self._ordered = np.array([d.kind == "choice" and d.ordered for d in decisions])
        self._any_ordered = any(d.ordered for d in choices)
        self._any_range = len(choices) < len(decisions)
        # Whole numbers, those of a logarithmic scale apart.
        self._whole: list[tuple[Places, _Scale]] = []
        for log in (False, True):
            whole = [j for j, d in enumerate(decisions) if d.kind == "int" and d.log is log]
            if whole:
                self._whole.append((np.array(whole), _Scale([decisions[j] for j in whole])))
        self._conditions = _conditions(decisions)
        self._hash = np.random.default_rng(0).uniform(1.0, 2.0, size=len(decisions))

    def draw(self, m: int, rng: np.random.Generator) -> Floats:
        """`m` points [m, D] by the prior, as if every column were active; to be finished."""
        out = rng.random((m, len(self._count)))
        even = self._even
        out[:, even] = np.floor(out[:, even] * self._count[even])
        for j, borders in self._borders.items():
            out[:, j] = np.searchsorted(borders, out[:, j], side="right")
        return out

    def finish(self, points: Floats, given: Floats) -> Floats:
        """`points` [m, D] in place: the columns of `given` [D] that are not NaN as there, whole
        numbers rounded, NaN where not active."""
        for columns, scale in self._whole:
            points[:, columns] = scale.rounded(points[:, columns])
        known = ~np.isnan(given)
        points[:, known] = given[known]
        for parent, columns, lets in self._conditions:
            codes = points[:, parent]
            codes = np.where(np.isnan(codes), -1.0, codes).astype(np.intp)
            points[:, columns] = np.where(lets[codes], points[:, columns], np.nan)
        return points

    def move_to(self, given: Floats, points: Floats, drawn: Floats) -> Floats:
        """`points` [m, D] with the columns of `given` [D] that are not NaN, the rest kept; what
        becomes active is taken from `drawn` [any, D]."""
        return self.finish(self._filled(points, drawn), given)

    def _filled(self, points: Floats, drawn: Floats) -> Floats:
        donors = drawn[np.arange(len(points)) % len(drawn)]
        return np.where(np.isnan(points), donors, points)

    def change(
        self, points: Floats, given: Floats, drawn: Floats, rng: np.random.Generator
    ) -> Floats:
        """Every one of `points` [m, D] with one or a few active columns changed, none of those that
        are not NaN in `given` [D]; what becomes active is taken from `drawn` [any, D]."""
        m, width = points.shape
        active = ~np.isnan(points) & self._free & np.isnan(given)
        out = self._filled(points, drawn)
        order = np.where(active, rng.random((m, width)), 2.0).argsort(axis=1)
        changes = np.minimum(rng.geometric(1.0 - _AGAIN, size=m), active.sum(axis=1))
        rows, places = np.nonzero(np.arange(width) < changes[:, None])
        columns = order[rows, places]
        out[rows, columns] = self._moved(out[rows, columns], columns, rng)
        return self.finish(out, given)

    def _moved(self, old: Floats, columns: Places, rng: np.random.Generator) -> Floats:
        """Other values of `columns` [k] than `old` [k]."""
        count, k = self._count[columns], len(columns)
        out = np.floor(rng.random(k) * np.maximum(count - 1, 1))
        out += out >= old  # any of the other choices, evenly
        if self._any_ordered:
            near = old + np.where(rng.random(k) < 0.5, -1.0, 1.0)
            near = np.where(near < 0.0, 1.0, np.where(near >= count, count - 2.0, near))
            out = np.where(self._ordered[columns] & (rng.random(k) >= _FAR), near, out)
        if self._any_range:
            ranges = np.flatnonzero(count == 0)
            low, high = _STEPS
            steps = rng.normal(size=len(ranges)) * low * (high / low) ** rng.random(len(ranges))
            moved = np.abs(old[ranges] + steps)
            out[ranges] = np.where(moved > 1.0, np.maximum(2.0 - moved, 0.0), moved)  # reflected
        return out

    def keys(self, points: Floats) -> Floats:
        """A number [m] for each of `points`, equal for equal ones, and as good as only for them."""
        key: Floats = np.round(np.where(np.isnan(points), -0.7319, points) @ self._hash, 10)
        return key


def _is_even(d: Decision) -> bool:
    return d.kind == "choice" and not d.prior


def _conditions(decisions: Sequence[Decision]) -> list[tuple[int, Places, Bools]]:
    """Parents in order, the columns that hang on each, and whether a choice of it lets them be
    active, [C + 1, columns]; the last row is that of a parent that is not active itself."""
    at = {d.name: j for j, d in enumerate(decisions)}
    hanging: dict[int, dict[int, tuple[Scalar, ...]]] = {}
    for j, d in enumerate(decisions):
        for name, values in d.when:
            hanging.setdefault(at[name], {})[j] = values
    out = []
    for parent, columns in sorted(hanging.items()):
        rows = [[v in values for values in columns.values()] for v in decisions[parent].domain]
        lets = np.array([*rows, [False] * len(columns)])
        out.append((parent, np.array(list(columns)), lets))
    return out


class _Scale:
    """Ranges of whole numbers, either all or none of them on a logarithmic scale."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self._log = decisions[0].log
        self._low, self._high = np.array([d.ends for d in decisions], dtype=np.float64).T
        start, end = self._low - 0.5, self._high + 0.5
        self._start, end = (np.log(start), np.log(end)) if self._log else (start, end)
        self._width = end - self._start

    def rounded(self, u: Floats) -> Floats:
        """Places [m, k] in the unit interval moved to the middle of the part of their number."""
        value = self._start + u * self._width
        value = np.clip(np.round(np.exp(value) if self._log else value), self._low, self._high)
        out: Floats = ((np.log(value) if self._log else value) - self._start) / self._width
        return out


_COMPILED: WeakKeyDictionary[Columns, Points] = WeakKeyDictionary()


def points_of(columns: Columns) -> Points:
    """The points of the columns of a space, compiled once."""
    if columns not in _COMPILED:
        _COMPILED[columns] = Points(columns)
    return _COMPILED[columns]
