"""What is wrong with a training, named from its learning curve; pure, no torch.

`diagnose` looks at a curve and gives the named problems, `sentence` puts them after the status.
Every threshold is a constant with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from adanet_py.records import Evaluation, Status

# With sound initialisation the gradients of the first and the last matrix of the networks here
# differ by a factor of ten or so. At a thousand one end trains while the other stands still.
VANISHING = 1e-3
EXPLODING = 1e3
# The norm shrinks or wanders by small factors while a network trains; a hundredfold rise, with the
# loss above its start, is a step thrown over a cliff of the loss (Pascanu et al. 2013). Without
# the loss it may be a network that leaves a plateau.
NORM_RISE = 100.0
# A loss that has risen above its lowest by three times what it began with is worse than no
# training: noise of batches stays far below, and so does overfitting of the training loss.
LOSS_RISE = 3.0
# ReLU networks that do well have a tenth to a third of units that are silent on a sample of the
# rows. With two hidden layers one of which is all but dead it is just below a half.
DEAD = 0.4
# About 1e-3 per step is healthy. At 1e-5 a thousand steps move the weights by one per cent at
# most; at 0.3 three of them can undo all that was learned.
SMALL_STEP, LARGE_STEP = 1e-5, 0.3
# Of the improvement before it (5 % of the metric itself, where it was less): less than a hundredth
# of that in the last third is none.
PLATEAU = 0.01
PLATEAU_POINTS = 6  # evaluations: a third must hold at least two
# Overfitting: validation has given back a third of what it gained (5 % of the metric itself, where
# that was less), while the training loss went on falling by 5 % of its own fall.
GIVEN_BACK, OWN_SIZE, STILL_FALLING = 1 / 3, 0.05, 0.05
FEW = 3  # evaluations before ratios are judged: the first are of warm-up and of initial weights


@dataclass(frozen=True)
class Problem:
    """One named problem: a key of `PROBLEMS`, and the sentence that says what was seen where."""

    name: str
    text: str


Curve = Sequence[Evaluation]


def diagnose(curve: Curve, greater_is_better: bool) -> tuple[Problem, ...]:
    """The problems a learning curve shows at its end, in the order of `PROBLEMS`.

    `greater_is_better` is the direction of the validation metric. Values that are not finite are
    divergence; elsewhere they count as not measured.
    """
    errors = [-e.validation if greater_is_better else e.validation for e in curve]
    found: dict[str, str] = {}
    for name, look in PROBLEMS.items():
        if curve and not _HIDDEN_BY.get(name, frozenset()) & found.keys():
            text = look(curve, errors)
            if text:
                found[name] = text
    return tuple(Problem(name, text) for name, text in found.items())


def names(curve: Curve, greater_is_better: bool) -> str:
    """The names of the problems, as in curves.csv: "divergence; large steps", or ""."""
    return "; ".join(p.name for p in diagnose(curve, greater_is_better))


def sentence(status: Status, curve: Curve, greater_is_better: bool) -> str:
    """The status in words, then every problem: the `message` of a result."""
    problems = diagnose(curve, greater_is_better)
    texts = [f"{p.name}: {p.text}" for p in problems if p.name != "divergence"]
    divergence = next((p.text for p in problems if p.name == "divergence"), None)
    head = status.value
    if divergence and status is Status.DIVERGED:
        head = f"{status.value}, {divergence}"
    elif divergence:
        texts.insert(0, f"divergence: {divergence}")
    return "; ".join([head, *texts])


def _divergence(curve: Curve, errors: Sequence[float]) -> str:
    before = 0
    for e in curve:
        if not (math.isfinite(e.train_loss) and math.isfinite(e.validation)):
            return f"between steps {before} and {e.step}"
        before = e.step
    lowest = min(curve, key=lambda e: e.train_loss)
    rise = curve[-1].train_loss - lowest.train_loss
    # Losses of densities may be negative, so the size is that of the larger of the two.
    if rise > LOSS_RISE * max(abs(curve[0].train_loss), abs(lowest.train_loss)):
        return (
            f"the training loss rose from {lowest.train_loss:.3g} at step {lowest.step} to "
            f"{curve[-1].train_loss:.3g}"
        )
    return ""


def _vanishing(curve: Curve, errors: Sequence[float]) -> str:
    ratio = _median(e.depth_ratio for e in curve)
    if ratio < VANISHING:
        return f"the first layer's gradient is {ratio:.1g} of the last layer's"
    return ""


def _exploding(curve: Curve, errors: Sequence[float]) -> str:
    ratio = _median(e.depth_ratio for e in curve)
    if ratio > EXPLODING:
        return f"the first layer's gradient is {ratio:.1g} times the last layer's"
    for i, e in enumerate(curve[1:], start=1):
        usual = max(curve[0].grad_norm, _median(p.grad_norm for p in curve[:i]))
        if e.grad_norm > NORM_RISE * usual and not e.train_loss <= curve[0].train_loss:
            size = f"from about {usual:.1g} to {e.grad_norm:.1g}"
            return f"the gradient's norm rose {size} by step {e.step}"
    return ""


def _dead(curve: Curve, errors: Sequence[float]) -> str:
    share = _last(e.dead_units for e in curve)
    if share >= DEAD:
        return f"{share:.0%} of the hidden units give the same for every row"
    return ""


def _small_steps(curve: Curve, errors: Sequence[float]) -> str:
    # The largest ratio counts: what has converged, or cooled down, took proper steps before.
    ratios = [e.update_ratio for e in curve if math.isfinite(e.update_ratio)]
    if len(ratios) >= FEW and max(ratios) < SMALL_STEP:
        return f"a step changes the weights by {max(ratios):.1g} of their norm at most"
    return ""


def _large_steps(curve: Curve, errors: Sequence[float]) -> str:
    ratios = [e.update_ratio for e in curve if math.isfinite(e.update_ratio)]
    diverged = not math.isfinite(curve[-1].train_loss)  # then there may be no more of them
    if ratios and (len(ratios) >= FEW or diverged) and median(ratios) > LARGE_STEP:
        return f"a step changes the weights by {median(ratios):.1g} of their norm"
    return ""


def _overfitting(curve: Curve, errors: Sequence[float]) -> str:
    best = min(range(len(curve)), key=errors.__getitem__)
    if len(curve) - 1 - best < FEW:
        return ""
    now = median(errors[-FEW:])  # one noisy evaluation is no trend
    gain = max(0.0, errors[0] - errors[best])
    lost = now - errors[best] > max(GIVEN_BACK * gain, OWN_SIZE * abs(errors[best]))
    fallen = curve[0].train_loss - curve[-1].train_loss
    since = curve[best].train_loss - curve[-1].train_loss
    if lost and since > STILL_FALLING * fallen > 0:
        return f"validation has become worse since step {curve[best].step}, the training loss not"
    return ""


def _plateau(curve: Curve, errors: Sequence[float]) -> str:
    if len(curve) < PLATEAU_POINTS:
        return ""
    cut = len(curve) - len(curve) // 3
    before, after = min(errors[:cut]), min(errors[cut:])
    if before - after <= PLATEAU * max(errors[0] - before, OWN_SIZE * abs(errors[0])):
        return f"validation has not improved since step {curve[errors.index(before)].step}"
    return ""


# In the order in which they are named: causes before what follows from them.
PROBLEMS: dict[str, Callable[[Curve, Sequence[float]], str]] = {
    "divergence": _divergence,
    "exploding gradients": _exploding,
    "vanishing gradients": _vanishing,
    "dead units": _dead,
    "large steps": _large_steps,
    "small steps": _small_steps,
    "overfitting": _overfitting,
    "plateau": _plateau,
}

# What is no news where another has been named: a diverged curve neither overfits nor rests, steps
# are small because gradients vanished, and who takes small steps or overfits does not improve.
_HIDDEN_BY: dict[str, frozenset[str]] = {
    "small steps": frozenset({"vanishing gradients", "dead units"}),
    "overfitting": frozenset({"divergence"}),
    "plateau": frozenset({"divergence", "small steps", "overfitting"}),
}


def _median(values: Iterable[float]) -> float:
    """Of the finite ones; NaN where there is none."""
    finite = [v for v in values if math.isfinite(v)]
    return median(finite) if finite else math.nan


def _last(values: Iterable[float]) -> float:
    """The last finite one; NaN where there is none."""
    return next((v for v in reversed(list(values)) if math.isfinite(v)), math.nan)
