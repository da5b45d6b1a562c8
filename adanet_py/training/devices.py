"""What devices there are, asked in a worker so that the main process needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def describe(
    job: dict[str, Any], emit: Callable[[dict[str, Any]], None], should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """Name and memory in bytes of every CUDA device that can be used."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [torch.cuda.get_device_properties(i) for i in range(count)]
    return {"cuda": [[device.name, device.total_memory] for device in found]}
