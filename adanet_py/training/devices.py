"""What devices there are, asked in a worker so that the main process needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def describe(
    job: dict[str, Any], emit: Callable[[dict[str, Any]], None], should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """Names of the CUDA devices that can be used."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {"cuda": [torch.cuda.get_device_name(i) for i in range(count)]}
