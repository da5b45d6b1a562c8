"""A step that is recorded once and launched again as a whole: on a GPU a CUDA graph.

The launches of a small step take longer than its arithmetic. A recorded step is one launch; it
reads its inputs from places that stay the same, which are filled for many steps at once, and counts
the steps itself. Nothing it computes differs from a step that is not recorded.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from adanet_py.garbage import uncollected
from adanet_py.training.engines.feed import FEED_STEPS, Feed, Moment
from adanet_py.training.engines.program import Program

WARM_STEPS = 3  # taken one by one first: libraries then choose their kernels and take their memory
FEWEST_STEPS = 32  # that must be left for a recording to pay
AHEAD = 2  # feeds of steps the host may be ahead of the device, so that a deadline is met


class Capture(Protocol):
    """How steps are recorded on a kind of device."""

    def aside(self, device: torch.device) -> AbstractContextManager[None]:
        """Where steps run that prepare a recording."""
        ...

    def record(self, step: Callable[[], None], device: torch.device) -> Callable[[], None]:
        """What repeats all that `step` does on the device; `step` itself need not be carried out.

        Raises RuntimeError where it cannot be recorded.
        """
        ...


class CudaGraphs:
    """Recording by CUDA graphs (Gray 2019, developer.nvidia.com/blog/cuda-graphs)."""

    @contextmanager
    def aside(self, device: torch.device) -> Iterator[None]:
        """On the stream that is recorded from."""
        stream, outer = _stream(device), torch.cuda.current_stream(device)
        stream.wait_stream(outer)
        with torch.cuda.stream(stream):
            yield
        outer.wait_stream(stream)

    def record(self, step: Callable[[], None], device: torch.device) -> Callable[[], None]:
        """See `Capture`."""
        graph = torch.cuda.CUDAGraph()
        with self.aside(device), uncollected():  # freeing a CUDA object would end the recording
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                step()
            except BaseException:
                with suppress(RuntimeError):  # the first error is the one to tell
                    graph.capture_end()
                raise
            graph.capture_end()
        return graph.replay


CAPTURES: dict[str, Capture] = {"cuda": CudaGraphs()}


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


class CapturedStep:
    """The step of an engine, recorded; its inputs are copied to where the recording reads them."""

    def __init__(
        self, feed: Feed, step: Callable[[Moment], None], capture: Capture, capacity: int
    ) -> None:
        """Record `step` for feeds of up to `capacity` steps like `feed`; see `Capture.record`."""
        device = feed.rows.device
        self._rows = _room(feed.rows, capacity)
        self._places = _room(torch.from_numpy(feed.places).to(device), capacity)
        self._mixes = {name: _room(value, capacity) for name, value in feed.mixes.items()}
        self._first = torch.zeros(1, dtype=torch.int64, device=device)
        self._within = torch.zeros(1, dtype=torch.int64, device=device)
        self._loaded: Feed | None = None

        def one() -> None:
            at = self._first + self._within
            step(
                Moment(
                    at,
                    (at + 1).to(feed.t.dtype).unsqueeze(0),
                    self._now(self._rows),
                    self._now(self._places),
                    {name: self._now(value) for name, value in self._mixes.items()},
                )
            )
            self._within += 1

        self._replay = capture.record(one, device)

    def _now(self, table: Tensor) -> Tensor:
        return table.index_select(0, self._within)[0]

    def run(self, feed: Feed, s: int) -> None:
        """Take the s-th step of `feed`; a feed is gone through in order, from any step on."""
        if self._loaded is not feed:
            self._loaded = feed
            count = len(feed)
            self._rows[:count].copy_(feed.rows)
            self._places[:count].copy_(torch.from_numpy(feed.places), non_blocking=True)
            for name, value in feed.mixes.items():
                self._mixes[name][:count].copy_(value)
            self._first.fill_(feed.first)
            self._within.fill_(s)
        self._replay()


def _room(like: Tensor, capacity: int) -> Tensor:
    """Zeros for `capacity` steps of what has S: [capacity, ...]."""
    return like.new_zeros((capacity, *like.shape[1:]))


@dataclass
class Backlog:
    """Keeps the host from running far ahead of a GPU, where it would not notice a deadline."""

    device: torch.device
    _marks: deque[torch.cuda.Event] = field(default_factory=deque)

    def wait(self) -> None:
        """Wait until all but the work since the last `AHEAD` calls is done."""
        if self.device.type != "cuda":
            return
        mark = torch.cuda.Event()
        mark.record(torch.cuda.current_stream(self.device))
        self._marks.append(mark)
        if len(self._marks) > AHEAD:
            self._marks.popleft().synchronize()


class Launcher:
    """Takes the steps of an engine: one by one, or recorded where that is possible and pays.

    The first steps are taken one by one even then, and from there on a recording is repeated, until
    the tensors it works on are others.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._backlog = Backlog(program.device)
        self.forget()

    def forget(self) -> None:
        """Begin anew: what was recorded is of tensors that are used no more."""
        self._captured: CapturedStep | None = None
        self._warmed = 0  # steps taken one by one to prepare the recording

    def wait(self) -> None:
        """Wait where the host is far ahead of the device."""
        self._backlog.wait()

    def take(self, feed: Feed, s: int, step: Callable[[Moment], None]) -> None:
        """Take the s-th step of a feed, as `step` does."""
        device = self._program.device
        capture = CAPTURES.get(device.type)
        left = self._program.steps - feed.first - s
        if self._captured is not None:
            self._captured.run(feed, s)
        elif capture is None or left < FEWEST_STEPS:
            step(feed.moment(s))
        else:
            with capture.aside(device):
                step(feed.moment(s))
            self._warmed += 1
            if self._warmed == WARM_STEPS:
                self._record(feed, step, capture)

    def _record(self, feed: Feed, step: Callable[[Moment], None], capture: Capture) -> None:
        """Have the steps from here on recorded; where that fails, go on without and say so."""
        try:
            self._captured = CapturedStep(feed, step, capture, FEED_STEPS)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            name = self._program.architecture.name
            why = str(error).partition("\n")[0]
            self._program.say(
                f"A step of {name} cannot be recorded and is launched piece by piece, which is "
                f"slower: {why}"
            )
