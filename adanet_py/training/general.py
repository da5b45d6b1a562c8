"""Numeric hyperparameters that apply to every candidate; no torch at import.

A value of 0 turns a method off; what no member of a group uses costs nothing.
"""

from __future__ import annotations

from adanet_py.knob import Knob

GENERAL: dict[str, Knob] = {
    "warmup": Knob(0.0, 0.0, 0.9, doc="share of all steps over which the learning rate rises"),
    "clip_value": Knob(0.0, 0.0, 1e6, doc="gradients are cut to [-clip_value, clip_value]"),
    "clip_norm": Knob(0.0, 0.0, 1e6, doc="largest gradient norm of a member"),
    "agc": Knob(
        0.0,
        0.0,
        1e3,
        doc="largest gradient norm of a hidden unit, as a share of its weights' norm "
        "(adaptive gradient clipping, Brock et al. 2021)",
    ),
    "decoupled_decay": Knob(
        0.0, 0.0, 10.0, doc="weight decay beside the gradient: w <- w - lr decoupled_decay w"
    ),
    "bias_decay": Knob(
        0.0, 0.0, 1.0, doc="share of the weight decay that biases, norms and scales get too"
    ),
    "l1": Knob(0.0, 0.0, 10.0, doc="adds l1 |w| of the weight matrices to the loss"),
    "max_norm": Knob(
        0.0, 0.0, 1e6, doc="largest norm of a unit's incoming weights (Srivastava et al. 2014)"
    ),
    "input_noise": Knob(
        0.0, 0.0, 10.0, doc="standard deviation of noise on the scaled numeric columns in training"
    ),
    "mixup": Knob(
        0.0,
        0.0,
        10.0,
        doc="rows are mixed with others in proportions from Beta(mixup, mixup) (Zhang et al. 2017)",
    ),
    "cutmix": Knob(
        0.0,
        0.0,
        10.0,
        doc="a share from Beta(cutmix, cutmix) of the columns comes from another row "
        "(after Yun et al. 2019)",
    ),
    "label_smoothing": Knob(
        0.0, 0.0, 0.9, doc="share of the target spread over all classes (classification)"
    ),
    "focal_gamma": Knob(
        2.0, 0.0, 10.0, doc="how much less the focal loss counts rows that are right already"
    ),
    "huber_delta": Knob(
        1.0,
        1e-3,
        1e3,
        log=True,
        doc="where the Huber loss turns from squared to absolute, in standard deviations",
    ),
    "patience": Knob(
        8.0, 0.0, 1e6, doc="evaluations without improvement after which training stops"
    ),
    "ema": Knob(0.0, 0.0, 0.99999, doc="decay of the exponential moving average of the weights"),
    "swa": Knob(0.0, 0.0, 1.0, doc="share of the last steps whose weights are averaged equally"),
}
