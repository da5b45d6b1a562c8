"""Sources: data with random access for training, without pandas.

The main process writes prepared arrays once; workers map them into memory, so that many workers
share one copy and a table larger than memory is read piece by piece.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adanet_py.data.spec import DataSpec
from adanet_py.errors import RunError

FEATURES = ("quantile", "robust", "category")
_VERSION = 1


@dataclass(frozen=True)
class ArraySource:
    """Prepared arrays of one table, memory-mapped from a folder.

    `arrays` maps "quantile" and "robust" to float32 [N, numeric columns] and "category" to int32
    [N, category columns]; `y` is [N], class codes (int64) or standardised values (float32), with
    several targets [N, T]; `weight` float32 [N] or None; `exposure` float32 [N], in units of its
    mean, or None; `info` what the writer added (plain values).
    """

    spec: DataSpec
    arrays: Mapping[str, NDArray[Any]]
    y: NDArray[Any]
    weight: NDArray[np.float32] | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    exposure: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> dict[str, NDArray[Any]]:
        """Copies of the given rows: the keys of `arrays`, "y", "weight" and "exposure" if any."""
        batch = {name: np.array(array[rows]) for name, array in self.arrays.items()}
        batch["y"] = np.array(self.y[rows])
        if self.weight is not None:
            batch["weight"] = np.array(self.weight[rows])
        if self.exposure is not None:
            batch["exposure"] = np.array(self.exposure[rows])
        return batch

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> ArraySource:
        """Map what `write_arrays` wrote; raises RunError if it is missing, newer or damaged."""
        path = Path(folder)
        try:
            about = json.loads((path / "arrays.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RunError(f"Expected prepared data in {path}, found none.") from error
        except ValueError as error:
            raise RunError(f"{path / 'arrays.json'} is damaged: {error}.") from error
        if about["version"] > _VERSION:
            raise RunError(
                f"{path}: prepared data of version {about['version']}, this program reads up to "
                f"{_VERSION}. Update it."
            )
        loaded: dict[str, NDArray[Any]] = {}
        for name, (shape, kind) in about["arrays"].items():
            array = _load(path / f"{name}.npy")
            if [list(array.shape), array.dtype.str] != [shape, kind]:
                raise RunError(
                    f"{path / name}.npy: expected {kind} {shape}, found {array.dtype.str} "
                    f"{list(array.shape)}. Prepare the data again."
                )
            loaded[name] = array
        return cls(
            DataSpec.from_json(about["spec"]),
            {name: loaded[name] for name in FEATURES},
            loaded["y"],
            loaded.get("weight"),
            about["info"],
            loaded.get("exposure"),
        )


def write_arrays(
    folder: str | os.PathLike[str],
    features: Mapping[str, NDArray[Any]],
    y: NDArray[Any],
    weight: NDArray[Any] | None,
    spec: DataSpec,
    info: Mapping[str, Any] | None = None,
    exposure: NDArray[Any] | None = None,
) -> None:
    """Write prepared arrays for `ArraySource.open`; `info` is any JSON-able addition.

    The description is written last, so that an interrupted call leaves nothing that opens.
    Raises ValueError when the arrays disagree about the number of rows or with `spec`.
    """
    arrays = {name: np.ascontiguousarray(features[name]) for name in FEATURES}
    arrays["y"] = np.ascontiguousarray(y)
    if weight is not None:
        arrays["weight"] = np.ascontiguousarray(weight, dtype=np.float32)
    if exposure is not None:
        arrays["exposure"] = np.ascontiguousarray(exposure, dtype=np.float32)
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) != 1:
        raise ValueError(f"expected arrays of one length, found {rows}")
    widths = {name: arrays[name].shape[1] for name in FEATURES}
    n_numeric, n_category = spec.n_numeric, len(spec.cardinalities)
    if widths != {"quantile": n_numeric, "robust": n_numeric, "category": n_category}:
        raise ValueError(f"expected {n_numeric} numeric and {n_category} codes, found {widths}")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / "arrays.json").unlink(missing_ok=True)
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array, allow_pickle=False)
    about = {
        "version": _VERSION,
        "spec": spec.to_json(),
        "arrays": {name: [list(a.shape), a.dtype.str] for name, a in arrays.items()},
        "info": dict(info or {}),
    }
    temporary = path / "arrays.json.tmp"
    temporary.write_text(json.dumps(about), encoding="utf-8")
    os.replace(temporary, path / "arrays.json")


def _load(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing. Prepare the data again.") from error
    except ValueError as error:
        if "empty" in str(error):  # nothing to map in an array without columns
            return np.load(path, allow_pickle=False)
        raise RunError(f"{path} is damaged: {error}. Prepare the data again.") from error
