"""Whether a child takes its parent's place: only if the objective improves beyond its doubt."""

from __future__ import annotations

import math
from collections.abc import Mapping

from adanet_py.records import Result

DOUBT = 1.0  # standard errors
MARGIN = 0.1  # share by which latency or size must fall; a measured latency wavers by less

SHRINKING = ("latency", "size", "sparsity")  # for which a child must cost less than its parent
OBJECTIVES: Mapping[str, str] = {
    "metric": "the validation metric, better by more than one standard error",
    "latency": "measured latency, a tenth less at least, the metric not worse by a standard error",
    "size": "number of parameters, a tenth less at least, the metric not worse by a standard error",
    "sparsity": "parameters that are not zero, a tenth fewer at least, the metric not worse by a "
    "standard error",
}


def judged(child: Result, parent: Result | None, objective: str) -> Result:
    """The child's result with `accepted` and why; other results, and those without a score, as is.

    The standard error is that of the paired difference of the validation metric. A child whose
    parent is not known is not accepted.
    """
    if not child.candidate.inherits or not child.status.usable:
        return child
    accepted, verdict = _verdict(child, parent, objective)
    return child.replace(accepted=accepted, objective=objective, verdict=verdict)


def _verdict(child: Result, parent: Result | None, objective: str) -> tuple[bool, str]:
    gain, doubt = child.gain, DOUBT * child.gain_error
    if parent is None or not (math.isfinite(gain) and math.isfinite(doubt)):
        return False, "rolled back: what it gained is not known"
    found = f"{'gained' if gain >= 0 else 'lost'} {abs(gain):.3g} +- {child.gain_error:.2g}"
    if objective == "metric":
        if gain > doubt:
            return True, f"accepted: {found}, beyond its doubt"
        return False, f"rolled back: {found}, not beyond its doubt"
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
