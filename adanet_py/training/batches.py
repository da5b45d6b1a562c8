"""Which rows the members of a group see at each step; numpy only.

The training rows of a fold are an endless stream of permutations, epoch after epoch, cut into
batches of B rows: no row is dropped at the end of an epoch, and the position is just the step.
All candidates of a run see the same order (common random numbers), or each one of its own. Where
the share of the rows grows from rung to rung, the stream begins anew at each with more of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from adanet_py.records import Scalar

_BITS = 0xFFFFFFFFFFFFFFFF
_MASK = np.uint64(_BITS)


class BatchOrder:
    """Row indices of every step, for each stream, as a pure function of (seed, stream, step).

    A stream is a fold, or a candidate's part in one where candidates have orders of their own.
    """

    def __init__(
        self,
        rows: tuple[npt.NDArray[np.int64], ...],
        batch_size: int,
        seed: int,
        own: Sequence[int] | None = None,
        stages: Sequence[tuple[int, float]] = ((0, 1.0),),
    ) -> None:
        """`rows` are the training rows of each fold; a batch never exceeds the smallest fold.

        `own`: the seeds of candidates that have orders of their own; None: they share one.
        `stages`: first steps, rising from 0, and the share of the rows that is seen from there on,
        a batch at least; the rows of a smaller share are among those of a larger one.
        """
        self.rows = rows
        self.batch_size = min(batch_size, min(len(r) for r in rows))
        self.seed = seed
        self.own = None if own is None else tuple(own)
        self.stages = tuple(stages)
        self._permutations: dict[tuple[int, ...], npt.NDArray[np.int64]] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which about every row is seen once."""
        return max(1, round(len(self.rows[0]) / self.batch_size))

    @cached_property
    def _seen(self) -> list[list[npt.NDArray[np.int64]]]:
        """The rows of each stage and fold."""
        out = []
        for _, share in self.stages:
            folds = []
            for fold, rows in enumerate(self.rows):
                count = max(self.batch_size, round(share * len(rows)))
                if count < len(rows):
                    # An epoch that nobody comes to: every share is a part of the same order.
                    order = _shuffled(self.seed, fold * 2**32 + 2**32 - 1, len(rows))
                    rows = rows[np.sort(order[:count])]
                folds.append(rows)
            out.append(folds)
        return out

    def _permutation(self, stage: int, fold: int, epoch: int, seed: int) -> npt.NDArray[np.int64]:
        key = (stage, fold, seed, epoch)
        if key not in self._permutations:
            for old in [k for k in self._permutations if k[:3] == key[:3] and k[3] < epoch - 1]:
                del self._permutations[old]
            rows = self._seen[stage][fold]
            where = fold * 2**32 + stage * 2**24 + epoch
            self._permutations[key] = rows[_shuffled(seed, where, len(rows))]
        return self._permutations[key]

    def take(
        self, start: int, stop: int, alive: Sequence[int] | None = None
    ) -> npt.NDArray[np.int64]:
        """Row indices of steps [start, stop): [steps, streams, B].

        Streams are the folds; or of candidates with orders of their own those at the places `alive`
        (None: all), fold after fold.
        """
        b, seeds = self.batch_size, [self.seed]
        if self.own is not None:
            places = range(len(self.own)) if alive is None else alive
            seeds = [hash_word(self.seed, self.own[c], 2) for c in places]
        streams = [(fold, seed) for fold in range(len(self.rows)) for seed in seeds]
        out = np.empty((stop - start, len(streams), b), dtype=np.int64)
        ends = [*(first for first, _ in self.stages[1:]), stop]
        for stage, ((began, _), until) in enumerate(zip(self.stages, ends, strict=True)):
            first, last = max(start, began), min(stop, until)
            for stream, (fold, seed) in enumerate(streams if first < last else ()):
                flat = self._stretch(stage, fold, seed, (first - began) * b, (last - began) * b)
                out[first - start : last - start, stream] = flat.reshape(last - first, b)
        return out

    def _stretch(
        self, stage: int, fold: int, seed: int, at: int, end: int
    ) -> npt.NDArray[np.int64]:
        """Places [at, end) of a stream within a stage."""
        flat, size = np.empty(end - at, dtype=np.int64), len(self._seen[stage][fold])
        filled = 0
        while at < end:
            epoch, within = divmod(at, size)
            piece = self._permutation(stage, fold, epoch, seed)[within : within + end - at]
            flat[filled : filled + len(piece)] = piece
            filled += len(piece)
            at += len(piece)
        return flat


def _shuffled(seed: int, where: int, count: int) -> npt.NDArray[np.int64]:
    """A permutation of so many numbers, the same for the same seed and place."""
    return np.random.Generator(np.random.Philox(key=[seed, where])).permutation(count)


def hash_words(*words: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Mix integers (broadcast together) into well-spread 64-bit values (splitmix64)."""
    mixed = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            mixed = mixed ^ np.asarray(word).astype(np.uint64)
            mixed = mixed + np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = (mixed ^ (mixed >> np.uint64(31))) & _MASK
    return np.asarray(mixed)


def hash_word(*words: int) -> int:
    """`hash_words` of single numbers, without numpy, which takes ten times as long for them."""
    mixed = 0
    for word in words:
        mixed = ((mixed ^ (word & _BITS)) + 0x9E3779B97F4A7C15) & _BITS
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _BITS
        mixed ^= mixed >> 31
    return mixed


def member_seed(seed: int, fold: int) -> int:
    """The seed of a candidate's member in `fold`: decides its weights and its dropout."""
    return hash_word(seed, fold, 1) & 0x7FFFFFFF


def noise_starts(start: int, stop: int, layers: int, pieces: int = 1) -> npt.NDArray[np.int64]:
    """Where each noisy layer's window into the noise begins: [steps, pieces, layers].

    The steps are [start, stop), each of so many micro-batches. Members share the places; their
    noise differs.
    """
    steps = np.arange(start, stop).reshape(-1, 1, 1)
    places = np.arange(pieces * layers).reshape(1, pieces, layers)
    return (hash_words(steps, places) >> np.uint64(33)).astype(np.int64)


def rows_per_step(static: Mapping[str, Scalar], rows: int) -> int:
    """Rows of one optimizer step under the candidate's sampling regime, of `rows` in all."""
    regime = static.get("sampling", "mini_batch")
    if regime == "full_batch":
        return rows
    return 1 if regime == "one_sample" else min(int(static["batch_size"]), rows)  # type: ignore[arg-type]


def micro_batches(batch: int, most: int, pieces: int = 1) -> list[slice]:
    """Cut a batch into at least `pieces` equal parts of at most `most` rows each."""
    count = max(pieces, -(-batch // max(1, most)))
    ends = np.linspace(0, batch, min(count, batch) + 1).round().astype(int).tolist()
    return [slice(a, b) for a, b in itertools.pairwise(ends)]
