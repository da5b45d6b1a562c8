"""The hyperparameters that several optimizers have; no torch at import."""

from __future__ import annotations

from collections.abc import Mapping

from adanet_py.knob import Knob


def rate(default: float) -> Knob:
    """A learning rate with this default."""
    return Knob(default, 0.0, 100.0, log=True, doc="learning rate")


def mean_decay(default: float, of: str) -> Knob:
    """The decay of a running mean `of` something."""
    return Knob(default, 0.0, 0.999999, doc=f"decay of the running mean of {of}")


def epsilon(default: float = 1e-8) -> Knob:
    """What keeps a denominator from zero."""
    return Knob(default, 0.0, 1.0, log=True, doc="added to the root of the second moment")


DECAY = Knob(0.0, 0.0, 10.0, log=True, doc="weight decay, not on biases and norms")
MOMENTUM = Knob(0.9, 0.0, 0.9999, doc="momentum")
BETA1 = Knob(0.9, 0.0, 0.9999, doc="decay of the first moment")
BETA2 = Knob(0.999, 0.0, 0.999999, doc="decay of the second moment")

ADAM_KNOBS: Mapping[str, Knob] = {
    "weight_decay": DECAY,
    "beta1": BETA1,
    "beta2": BETA2,
    "eps": epsilon(),
}
