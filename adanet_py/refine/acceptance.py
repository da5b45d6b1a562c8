"""Whether a child takes its parent's place: only if the objective improves beyond its doubt.

Children of one parent in one group are judged together: the best of eight that gained nothing seems
to gain more than a standard error in most groups. With z_i = gain_i / error_i they are accepted in
falling order of z as long as

    z > Phi^-1(1 - alpha / m),   alpha = 1 - Phi(DOUBT),   m: those not accepted yet

(Holm 1979). However their gains depend on each other, the probability that any child that truly
gains nothing is accepted is alpha at most, as for an only child (0.159). Of what is to become
smaller it is asked that it is not worse by its own standard error, which has no such correction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

from adanet_py.records import Result

DOUBT = 1.0  # standard errors
MARGIN = 0.1  # share by which latency or size must fall; a measured latency wavers by less

SHRINKING = ("latency", "size", "sparsity")  # for which a child must cost less than its parent
OBJECTIVES: Mapping[str, str] = {
    "metric": "the validation metric, better by more than one standard error, by more where "
    "several children are judged",
    "latency": "measured latency, a tenth less at least, the metric not worse by a standard error",
    "size": "number of parameters, a tenth less at least, the metric not worse by a standard error",
    "sparsity": "parameters that are not zero, a tenth fewer at least, the metric not worse by a "
    "standard error",
}


def judged(child: Result, parent: Result | None, objective: str, doubt: float = DOUBT) -> Result:
    """The child's result with `accepted` and why; other results, and those without a score, as is.

    The standard error is that of the paired difference of the validation metric, of which it has to
    gain more than `doubt` times (`doubts`). A child whose parent is not known is not accepted.
    """
    if not child.candidate.inherits or not child.status.usable:
        return child
    accepted, verdict = _verdict(child, parent, objective, doubt)
    return child.replace(accepted=accepted, objective=objective, verdict=verdict)


def doubts(results: Sequence[Result]) -> list[float]:
    """How many standard errors each result of a group has to gain among its parent's children."""
    out = [DOUBT] * len(results)
    families: dict[str | None, list[int]] = {}
    for i, r in enumerate(results):
        compared = r.candidate.inherits and r.status.usable
        if compared and math.isfinite(r.gain) and math.isfinite(r.gain_error):
            families.setdefault(r.candidate.parent, []).append(i)
    for places in families.values():
        bound, accepted = DOUBT, True
        places.sort(key=lambda i: -_standardised(results[i]))
        for left, i in zip(range(len(places), 0, -1), places, strict=True):
            if accepted:
                bound = _bound(left)
                accepted = _standardised(results[i]) > bound
            out[i] = bound
    return out


def _bound(children: int) -> float:
    normal = NormalDist()
    alpha = 1.0 - normal.cdf(DOUBT)
    return DOUBT if children == 1 else normal.inv_cdf(1.0 - alpha / children)


def _standardised(result: Result) -> float:
    """The gain in standard errors."""
    if result.gain_error > 0.0:
        return result.gain / result.gain_error
    return math.copysign(math.inf, result.gain) if result.gain else 0.0


def _verdict(
    child: Result, parent: Result | None, objective: str, among: float
) -> tuple[bool, str]:
    """`among`: standard errors it has to gain."""
    gain, doubt = child.gain, DOUBT * child.gain_error
    if parent is None or not (math.isfinite(gain) and math.isfinite(doubt)):
        return False, "rolled back: what it gained is not known"
    found = f"{'gained' if gain >= 0 else 'lost'} {abs(gain):.3g} +- {child.gain_error:.2g}"
    if objective == "metric":
        if gain > among * child.gain_error:
            return True, f"accepted: {found}, beyond its doubt"
        asked = "" if among == DOUBT else f", {among:.2g} times that among its siblings"
        return False, f"rolled back: {found}, not beyond its doubt{asked}"
    share, what = child.latency_share, "latency"
    if objective == "size":
        share, what = child.parameters / max(1, parent.parameters), "parameters"
    if objective == "sparsity":
        share, what = child.nonzero / max(1, parent.nonzero), "parameters that are not zero"
    smaller = f"{what} {100.0 * share:.0f} % of the parent's"
    if not share <= 1.0 - MARGIN:
        return False, f"rolled back: {smaller}, not a tenth less"
    if gain < -doubt:
        return False, f"rolled back: {smaller}, but it {found}"
    return True, f"accepted: {smaller}; it {found}"
