"""Which rows the members of a group see at each step; numpy only.

The training rows of a fold are an endless stream of permutations, epoch after epoch, cut into
batches of B rows: no row is dropped at the end of an epoch, and the position is just the step.
All candidates of a run see the same order (common random numbers), or each one of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

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
    ) -> None:
        """`rows` are the training rows of each fold; a batch never exceeds the smallest fold.

        `own`: the seeds of candidates that have orders of their own; None: they share one.
        """
        self.rows = rows
        self.batch_size = min(batch_size, min(len(r) for r in rows))
        self.seed = seed
        self.own = None if own is None else tuple(own)
        self._permutations: dict[tuple[int, int, int], npt.NDArray[np.int64]] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which about every row is seen once."""
        return max(1, round(len(self.rows[0]) / self.batch_size))

    def _permutation(self, fold: int, epoch: int, seed: int) -> npt.NDArray[np.int64]:
        key = (fold, epoch, seed)
        if key not in self._permutations:
            held = [k for k in self._permutations if k[0] == fold and k[2] == seed]
            for old in (k for k in held if k[1] < epoch - 1):
                del self._permutations[old]
            generator = np.random.Generator(np.random.Philox(key=[seed, fold * 2**32 + epoch]))
            self._permutations[key] = self.rows[fold][generator.permutation(len(self.rows[fold]))]
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
        for stream, (fold, seed) in enumerate(streams):
            rows = self.rows[fold]
            at, end = start * b, stop * b
            flat = np.empty(end - at, dtype=np.int64)
            filled = 0
            while at < end:
                epoch, within = divmod(at, len(rows))
                piece = self._permutation(fold, epoch, seed)[within : within + end - at]
                flat[filled : filled + len(piece)] = piece
                filled += len(piece)
                at += len(piece)
            out[:, stream] = flat.reshape(stop - start, b)
        return out


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
