"""Numeric hyperparameters that apply to every candidate; no torch at import."""

from __future__ import annotations

from adanet_py.records import Knob

GENERAL: dict[str, Knob] = {
    "warmup": Knob(0.0, 0.0, 0.9, doc="share of all steps over which the learning rate rises"),
    "clip_norm": Knob(0.0, 0.0, 1e6, doc="largest gradient norm of a member; 0 = no clipping"),
    "label_smoothing": Knob(
        0.0, 0.0, 0.9, doc="share of the target spread over all classes (classification)"
    ),
}
