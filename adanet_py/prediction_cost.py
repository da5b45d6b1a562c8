"""What a saved model costs to use: the time it takes to predict, and the bytes of its file."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from adanet_py.model import Model

if TYPE_CHECKING:
    import pandas as pd

ROWS = 1000
REPEATS = 3
MOST_SECONDS = 0.25  # after which there is no other turn: a search may be waiting


def costs(models: Mapping[str, Model], frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Milliseconds that each model takes to predict 1,000 rows, and the bytes of its file.

    The rows are those of `frame`, repeated; the median of three, after one to warm up, fewer where
    these take long. The models take turns, so that what else the machine does meets all of them,
    and have one thread: small products on several wait for each other.
    """
    import pandas as pd

    rows = pd.concat([frame] * -(-ROWS // len(frame)), ignore_index=True).iloc[:ROWS]
    seconds: dict[str, list[float]] = {name: [] for name in models}
    began = time.monotonic()
    with _one_thread():
        for done in range(1 + REPEATS):
            if done and time.monotonic() - began > MOST_SECONDS:
                break
            for name, model in models.items():
                start = time.perf_counter()
                model.predict(rows)
                seconds[name].append(time.perf_counter() - start)
    return {
        name: {
            "predict_ms": round(1e3 * statistics.median(seconds[name][1:] or seconds[name]), 2),
            "bytes": float(len(model.to_bytes())),
        }
        for name, model in models.items()
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    """Hold torch, where it is loaded, to one thread."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
