"""The end of a round of AdaNet: its trained candidates are compared, the best one may join.

What they are compared by is `GrowthOptions.selection`: F on the training rows, the moving average
of the loss over batches, or the loss on held-out rows, each with the penalty of the whole ensemble.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from adanet_py.architectures.layers import Linear
from adanet_py.ensemble import growth
from adanet_py.ensemble.growth import LEAST_FALL, Ensemble, Member
from adanet_py.ensemble.objective import minimise
from adanet_py.ensemble.weights import Weights
from adanet_py.records import Candidate, Result, Status
from adanet_py.subnetworks.architecture import GROWN
from adanet_py.subnetworks.growing import Growing, Step, Trial
from adanet_py.subnetworks.networks import Subnetwork
from adanet_py.subnetworks.training import Trained
from adanet_py.training.cost import lemma_2

_ROWS = 4096  # whose hidden layers are computed together


@dataclass(frozen=True)
class Offer:
    """A trained candidate with what it makes of the n rows of its AdaNet.

    `hidden` are its layers [n, units], `outputs` [n, C], and `member` it as a member of the
    ensemble, on the fitted rows; its complexity is r(h), in its own unit at first.
    """

    trained: Trained
    hidden: list[Tensor]
    outputs: np.ndarray
    member: Member


def choose(growing: Growing, number: int, trained: Sequence[Trained]) -> None:
    """End round `number`: take in the best of those trained, or stop; note a trial for each."""
    found = [_offer(growing, _name(number, i), t) for i, t in enumerate(trained)]
    usable = [offer for offer in found if offer is not None]
    if usable and not growing.members:
        growing.unit = float(np.mean([o.member.complexity for o in usable])) or 1.0
    usable = [_in_units(offer, growing.unit) for offer in usable]
    trials = {}
    if not usable:
        growing.stopped = "every candidate diverged"
    else:
        trials = _compare(growing, number, usable)
    for i, t in enumerate(trained):
        name = _name(number, i)
        growing.trials.append(trials.get(name) or _diverged(number, name, t))


def _compare(growing: Growing, number: int, offers: Sequence[Offer]) -> dict[str, Trial]:
    """Take in the best of the offers, or stop; their trials by name."""
    members = [offer.member for offer in offers]
    base = growing.base
    weighed = growth.weigh(growing.setting, number, members, growing.members, base, base.value)
    scores = [_score(growing, o, w) for o, w in zip(offers, weighed, strict=True)]
    at = int(np.argmin(scores))
    best, after = offers[at], _refitted(growing, offers[at].member, weighed[at].weight)
    falls = _falls(growing, best, after, scores[at])
    trials = {}
    for offer, w, score in zip(offers, weighed, scores, strict=True):
        taken = falls and offer is best
        if taken:
            why = f"{growing.options.selection}: best, and it falls"
        elif w.weight == 0.0:
            why = "F is least without it"
        else:
            why = f"{best.member.name} is better" if falls else "it does not fall"
        width = offer.hidden[-1].shape[1] if offer.hidden else 0
        trials[w.name] = Trial(
            number, w.name, w.depth, width, offer.trained.rate, w.complexity, w.loss, w.penalty,
            w.weight, w.change, score, taken, why,
        )  # fmt: skip
    if falls:
        _join(growing, number, best, after)
    else:
        growing.stopped = "no candidate lowers what they are selected by"
    return trials


def _join(growing: Growing, number: int, offer: Offer, after: Ensemble) -> None:
    growing.modules.append(offer.trained.module)
    growing.hidden.append(offer.hidden)
    growing.outputs.append(offer.outputs)
    growing.members.append(offer.member)
    growing.base = after
    loss = growing.setting.objective(growing.members).data_loss(after.weights)
    growing.steps.append(Step(number, after.value, loss, len(growing.members)))


def _offer(growing: Growing, name: str, trained: Trained) -> Offer | None:
    """A trained candidate with its outputs and r(h); None where it diverged."""
    if not trained.finite:
        return None
    hidden, outputs = _run(growing, trained.module)
    if not np.isfinite(outputs).all():
        return None
    fitted = growing.fitted
    matrices = [m.weight for m in trained.module.modules() if isinstance(m, Linear)]
    # What a measure of complexity may look at: the depth, the bound and the last layer.
    about = Result(
        Candidate(GROWN.name),
        Status.COMPLETE,
        layers=len(hidden),
        capacity=lemma_2(matrices, fitted),
    )
    last = hidden[-1][:fitted].double().numpy() if hidden else outputs[:fitted]
    complexity = float(growing.options.measure(about, last))
    return Offer(trained, hidden, outputs, Member(name, outputs[:fitted], len(hidden), complexity))


def _in_units(offer: Offer, unit: float) -> Offer:
    """The offer with r(h) in units of `unit`; 1 where it is not finite."""
    value = offer.member.complexity / unit
    value = value if math.isfinite(value) else 1.0
    return replace(offer, member=replace(offer.member, complexity=value))


def _run(growing: Growing, module: Subnetwork) -> tuple[list[Tensor], np.ndarray]:
    """Hidden layers [n, units] and outputs [n, C] of a frozen subnetwork on all rows."""
    below, parts = growing.below(len(module.layers)), []
    with torch.inference_mode():
        for start in range(0, len(growing.rows), _ROWS):
            at = slice(start, start + _ROWS)
            inputs = growing.problem.inputs(growing.rows[at])
            parts.append(module(*inputs, [layer[at] for layer in below]))
    hidden = [torch.cat(layers) for layers in zip(*(p[0] for p in parts), strict=True)]
    return hidden, torch.cat([p[1] for p in parts]).double().numpy()


def _score(growing: Growing, offer: Offer, weighed: growth.Offer) -> float:
    """What a candidate is compared by, the least wins."""
    options, u = growing.options, weighed.weight
    if options.selection == "training":
        if options.uniform:
            return _refitted(growing, offer.member, u).value
        return growing.base.value + weighed.change
    penalty, gamma = _penalty(growing), float(growing.setting.gamma([offer.member])[0])
    if options.selection == "moving_average":
        return offer.trained.average + penalty + gamma
    z = growing.combined() + u * offer.outputs
    return growing.held_loss(z) + penalty + gamma * abs(u)


def _falls(growing: Growing, best: Offer, after: Ensemble, score: float) -> bool:
    """Whether the ensemble is better with the best candidate, by what they are selected by.

    `after` is the ensemble with it, all weights found anew, `score` that of the candidate.
    """
    selection = growing.options.selection
    if selection == "training":
        old, new = growing.base.value, after.value
    elif selection == "moving_average":
        old, new = best.trained.before + _penalty(growing), score
    else:
        z = after.weights.combine(np.stack([*growing.outputs, best.outputs]))
        objective = growing.setting.objective([*growing.members, best.member])
        old = growing.held_loss(growing.combined()) + _penalty(growing)
        new = growing.held_loss(z) + objective.penalty(after.weights)
    used = after.weights.sizes()[-1] > 0.0
    return bool(used and new < old - LEAST_FALL * abs(old))


def _penalty(growing: Growing) -> float:
    """The second sum of F of the ensemble so far."""
    if not growing.members:
        return 0.0
    return growing.setting.objective(growing.members).penalty(growing.base.weights)


def _refitted(growing: Growing, new: Member, weight: float) -> Ensemble:
    """The ensemble with `new`, all weights those of the least F.

    The search for them begins at those so far, with u for the new one or 0; F does not rise.
    """
    members = [*growing.members, new]
    names = tuple(m.name for m in members)
    objective = growing.setting.objective(members)
    if growing.options.uniform:
        weights = objective.uniform()
        return Ensemble(names, weights, objective.value(weights))
    shape = objective.start().mixture.shape[1:]
    one = np.eye(shape[0]) if len(shape) == 2 else np.ones(shape)
    old = growing.base.weights
    starts = [
        Weights(np.concatenate([old.mixture, (u * one)[None]]), old.bias) for u in (0.0, weight)
    ]
    begin = min(starts, key=objective.value)
    found = min((minimise(objective, begin), begin), key=objective.value)
    return Ensemble(names, found, objective.value(found))


def _diverged(number: int, name: str, trained: Trained) -> Trial:
    layers, nan = trained.module.layers, math.nan
    width = int(trained.module.head.weight.shape[1]) if len(layers) else 0
    return Trial(
        number, name, len(layers), width, trained.rate, nan, nan, nan, nan, nan, nan, False,
        "its training diverged",
    )  # fmt: skip


def _name(number: int, at: int) -> str:
    return f"{number}.{at + 1}"
