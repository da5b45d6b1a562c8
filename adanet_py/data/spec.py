"""What networks are built by: the sizes of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DataSpec:
    """What architectures and losses must know of the data: sizes, never values of rows."""

    task: str  # one of tasks.TASKS
    n_outputs: int  # of a network: see outputs.py
    n_numeric: int  # columns
    cardinalities: tuple[int, ...] = ()  # codes of each category column, 0 (missing, unseen) too
    # Scaling ("quantile", "robust") -> for each numeric column its bin edges, increasing, in scaled
    # units, for piecewise-linear embeddings.
    edges: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    loss: str = "auto"  # what a candidate's loss "auto" stands for; "auto": the task decides
    quantile: float = 0.5  # the level of the quantile loss
    target_ratio: tuple[float, ...] = ()  # the mean of each numeric target over its scale
    target_low: float | None = None  # the least value of numeric targets; None: not known
    exposure: bool = False  # whether rows have one

    def to_json(self) -> dict[str, Any]:
        """Plain values, every field."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DataSpec:
        """Inverse of `to_json`."""
        fields = dict(value)
        fields["cardinalities"] = tuple(fields["cardinalities"])
        fields["edges"] = {
            k: tuple(tuple(e) for e in columns) for k, columns in fields["edges"].items()
        }
        fields["target_ratio"] = tuple(fields.get("target_ratio", ()))
        return cls(**fields)
