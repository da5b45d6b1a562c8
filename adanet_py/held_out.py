"""The rows of a run that no network was trained on, kept for when its data are gone."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adanet_py.ensemble.links import Link, rates
from adanet_py.ensemble.losses import OTHERS, Convex
from adanet_py.ensemble.weights import Floats
from adanet_py.errors import RunError
from adanet_py.journal import write_atomic
from adanet_py.prepare import Prepared

HELD_OUT = "held_out.npz"  # in a run that has ended


@dataclass(frozen=True)
class Rows:
    """Rows of one part of the data, encoded: `y` [n] or [n, T], `weight` [n] or None.

    `offset` [n] are log exposures, or None.
    """

    y: np.ndarray
    weight: Floats | None
    offset: Floats | None = None

    def taken(self, at: np.ndarray) -> Rows:
        """Some of them."""
        weight, offset = (None if v is None else v[at] for v in (self.weight, self.offset))
        return Rows(self.y[at], weight, offset)


@dataclass(frozen=True)
class HeldOut:
    """The rows that networks were not trained on, and how outputs on them are scored.

    `mean` and `scale` undo the standardisation of a regression target; `loss` is the run's, with
    its `quantile` and the `target_ratio` of the data.
    """

    task: str
    metric: str
    loss: str
    mean: Any
    scale: Any
    validation: Rows
    audit: Rows
    quantile: float = 0.5
    target_ratio: tuple[float, ...] = ()

    @property
    def link(self) -> Link:
        """Between standardised values and what is combined."""
        return Link.of(self.loss, self.target_ratio)

    @property
    def phi(self) -> Convex | None:
        """The loss weights are fitted by; None: that of the task."""
        if self.loss not in OTHERS:
            return None
        return OTHERS[self.loss](self.quantile, self.target_ratio)

    def fitted(self) -> Rows:
        """The validation rows as weights are fitted on them: without exposure, see `rates`."""
        rows = self.validation
        if rows.offset is None:
            return rows
        y = np.asarray(rows.y, np.float64)
        return Rows(*rates(y, rows.weight, np.exp(rows.offset), self.target_ratio, self.loss))

    @classmethod
    def of(cls, prepared: Prepared) -> HeldOut:
        """Those of a run that is not finished."""
        source, split = prepared.source, prepared.split

        def rows(at: np.ndarray) -> Rows:
            weight = None if source.weight is None else np.asarray(source.weight[at], np.float64)
            exposure = source.exposure
            offset = None if exposure is None else np.log(np.asarray(exposure[at], np.float64))
            return Rows(np.asarray(source.y[at]), weight, offset)

        (mean, scale), spec = prepared.target_scale, source.spec
        parts = rows(np.concatenate(split.valid)), rows(split.audit)
        known = (spec.loss, mean, scale, *parts, spec.quantile, spec.target_ratio)
        return cls(prepared.task, prepared.metric, *known)

    def save(self, folder: Path) -> None:
        """Keep them in the run's folder, for when its data are gone."""
        arrays: dict[str, Any] = {}
        for name, rows in (("validation", self.validation), ("audit", self.audit)):
            arrays[f"{name}_y"] = rows.y
            for part in ("weight", "offset"):
                if getattr(rows, part) is not None:
                    arrays[f"{name}_{part}"] = getattr(rows, part)
        known = ("task", "metric", "loss", "mean", "scale", "quantile", "target_ratio")
        about = {k: getattr(self, k) for k in known}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, about=np.array(json.dumps(about)), **arrays)
        write_atomic(folder / HELD_OUT, buffer.getvalue())

    @classmethod
    def load(cls, folder: Path) -> HeldOut:
        """What `save` wrote; RunError where there is nothing."""
        if not (folder / HELD_OUT).is_file():
            raise RunError(
                f"{folder} does not hold the rows an ensemble is fitted on ({HELD_OUT}). They are "
                "written when a search ends: go on with it by `resume`."
            )
        with np.load(folder / HELD_OUT, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            if "quantile" not in about and about["loss"] in OTHERS:
                raise RunError(
                    f"{folder} is of an earlier version, which kept too little for ensembles by "
                    f"the loss {about['loss']}. Search again."
                )
            about["target_ratio"] = tuple(about.get("target_ratio", ()))
            parts = [
                Rows(stored[f"{n}_y"], stored.get(f"{n}_weight"), stored.get(f"{n}_offset"))
                for n in ("validation", "audit")
            ]
        return cls(**about, validation=parts[0], audit=parts[1])
