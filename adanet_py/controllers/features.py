"""Points of a space as features for models of the reward.

Squared Euclidean distances of features are sums over *factors*, and a model weighs each factor:

- Knobs of one name (a dropout of several architectures, a learning rate of several optimizers) are
  one factor: at most one of them is active, and what is learned of one is a guess of the others.
  They are told apart by what activates them, which is a factor itself.
- A factor of words is a one-hot code, so that two words differ by 1; of ordered values the place in
  the unit interval, where the ends differ by 1. What is not active is at the origin, which is the
  middle of a range.
- Three or more decisions between the same words (operations of a cell) also have *counts*: how
  often each word occurs, wherever it does, over the square root of the number of decisions (the
  first level of the graph kernel of Ru et al. 2021, "Interpretable NAS via BO with
  Weisfeiler-Lehman kernels", arXiv 2006.07556).
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np

from adanet_py.controllers.columns import Columns, Floats
from adanet_py.controllers.points import Places
from adanet_py.space import Decision

ALIKE = 3  # decisions between the same words that are counted together
_HALF = 0.5**0.5  # two different one-hot codes differ by 1


class Features:
    """The features of the columns of a space; made by `features_of`.

    `factor` [F] is the factor that each feature belongs to, numbered from 0; the features of counts
    come last and their factors start at `first_count`. `corners` are the points in which all
    decisions that are counted together choose the same word, as far as they decide them: the
    columns [k] and the choice [k] of each, a corner for every word.
    """

    def __init__(self, decisions: Sequence[Decision]) -> None:
        factors: dict[tuple[object, ...], list[int]] = {}
        for j, d in enumerate(decisions):
            if d.size > 1:
                name = (d.path[0], d.path[-1]) if len(d.path) > 1 else d.path
                factors.setdefault((*name, d.ordered), []).append(j)
        ranges: list[tuple[int, int, float]] = []  # column, feature, scale
        words: list[tuple[int, list[int]]] = []  # column, feature of each word
        alike: dict[tuple[str, ...], list[list[int]]] = {}
        chosen: dict[tuple[str, ...], list[int]] = {}  # the columns of these
        owner: list[int] = []
        for factor, members in enumerate(factors.values()):
            start = len(owner)
            if decisions[members[0]].ordered:
                owner.append(factor)
                for j in members:
                    d = decisions[j]
                    scale = 1.0 / (len(d.domain) - 1) if d.kind == "choice" else 1.0
                    ranges.append((j, start, scale))
                continue
            at: dict[str, int] = {}
            for j in members:
                of_word = [at.setdefault(repr(w), start + len(at)) for w in decisions[j].domain]
                words.append((j, of_word))
            owner += [factor] * len(at)
            alike.setdefault(tuple(sorted(at)), []).append([at[w] for w in sorted(at)])
            chosen.setdefault(tuple(sorted(at)), []).extend(members)
        self.first_count = len(factors)
        self._counts: list[tuple[Places, int]] = []
        self.corners: list[tuple[Places, Floats]] = []
        for text, same in alike.items():
            if len(same) >= ALIKE:
                self.corners += [_corner(decisions, chosen[text], word) for word in text]
                self._counts.append((np.array(same), len(owner)))
                owner += [self.first_count + len(self._counts) - 1] * len(same[0])
        self.factor = np.array(owner, dtype=np.intp)

        # Ranges at once by a product with `_places`, words by the number of their feature in `_at`.
        self._ranges = np.array([j for j, _, _ in ranges], dtype=np.intp)
        self._places = np.zeros((len(ranges), len(owner)))
        for i, (_, feature, _) in enumerate(ranges):
            self._places[i, feature] = 1.0
        self._scales = np.array([scale for _, _, scale in ranges])
        self._words = np.array([j for j, _ in words], dtype=np.intp)
        longest = max([len(of_word) for _, of_word in words], default=0)
        self._at = np.full((len(words), longest + 1), len(owner))  # last: not active
        for i, (_, of_word) in enumerate(words):
            self._at[i, : len(of_word)] = of_word

    def __call__(self, points: Floats) -> Floats:
        """The features [m, F] of points [m, D]."""
        m, width = len(points), len(self.factor)
        ranges = points[:, self._ranges] * self._scales - 0.5
        ranges[np.isnan(ranges)] = 0.0
        out = np.zeros((m, width + 1))
        out[:, :width] = ranges @ self._places
        codes = points[:, self._words]
        codes[np.isnan(codes)] = -1.0
        out[np.arange(m)[:, None], self._at[np.arange(len(self._words)), codes.astype(np.intp)]] = (
            _HALF
        )
        for same, first in self._counts:
            counts = out[:, same].sum(axis=1)
            out[:, first : first + same.shape[1]] = counts / len(same) ** 0.5
        return out[:, :width]


def _corner(decisions: Sequence[Decision], columns: list[int], word: str) -> tuple[Places, Floats]:
    """Those of `columns` that have this word, and which of their choices it is."""
    texts = {j: [repr(w) for w in decisions[j].domain] for j in columns}
    having = [j for j in columns if word in texts[j]]
    codes = [float(texts[j].index(word)) for j in having]
    return np.array(having, dtype=np.intp), np.array(codes)


_COMPILED: WeakKeyDictionary[Columns, Features] = WeakKeyDictionary()


def features_of(columns: Columns) -> Features:
    """The features of the columns of a space, compiled once."""
    if columns not in _COMPILED:
        _COMPILED[columns] = Features(columns.decisions)
    return _COMPILED[columns]
