"""Which device a run trains on, by what a worker finds there."""

from __future__ import annotations

from typing import Any

import pytest

from adanet_py import placement
from adanet_py.config import SearchConfig
from adanet_py.errors import ConfigError
from adanet_py.executors import Event
from adanet_py.placement import Device, find_device

TWO = [["Small GPU", 8 << 30], ["Large GPU", 80 << 30]]


class Finds:
    """An executor whose only worker says which CUDA devices there are."""

    def __init__(self, found: list[list[Any]]) -> None:
        self.found = found
        self.unfinished = 0

    def submit(self, job: dict[str, Any], function: str) -> int:
        assert function == "describe_devices"
        self.unfinished += 1
        return 7

    def poll(self, seconds: float) -> list[Event]:
        self.unfinished -= 1
        return [Event(7, "done", {"cuda": self.found})]


def find(
    device: str, found: list[list[Any]], monkeypatch: pytest.MonkeyPatch, *, driver: bool = True
) -> tuple[Device, list[str]]:
    monkeypatch.setattr(placement, "cuda_hinted", lambda: driver)
    notes: list[str] = []
    executor: Any = Finds(found)
    config = SearchConfig(device=device)
    return find_device(config, executor, lambda e: notes.append(e["message"])), notes


@pytest.mark.parametrize(
    ("asked", "device", "named"),
    [
        ("auto", Device("cuda", 8 << 30), "Small GPU"),
        ("cuda", Device("cuda", 8 << 30), "Small GPU"),
        ("cuda:1", Device("cuda:1", 80 << 30), "Large GPU"),
    ],
)
def test_a_gpu_is_named_and_its_memory_known(
    monkeypatch: pytest.MonkeyPatch, asked: str, device: Device, named: str
) -> None:
    found, notes = find(asked, TWO, monkeypatch)
    assert found == device
    assert notes == [f"Training on {named}."]


@pytest.mark.parametrize("asked", ["cpu", "auto"])
def test_without_a_driver_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    assert find(asked, TWO, monkeypatch, driver=False) == (Device("cpu"), [])


def test_a_driver_that_torch_cannot_use_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    found, notes = find("auto", [], monkeypatch)
    assert found == Device("cpu")
    assert notes == [placement.NO_CUDA]


@pytest.mark.parametrize(("asked", "there"), [("cuda", []), ("cuda:2", TWO)])
def test_a_device_that_is_not_there_is_an_error(
    monkeypatch: pytest.MonkeyPatch, asked: str, there: list[list[Any]]
) -> None:
    with pytest.raises(ConfigError, match=f"--device {asked}: expected a CUDA device"):
        find(asked, there, monkeypatch)
