"""Which network of a search is the model: the best, or the simplest that is about as good."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field

from adanet_py.metrics import Metric, to_error
from adanet_py.plan import best_of
from adanet_py.records import Result
from adanet_py.reward import RewardRule

# choose(results, refused ids) -> the result, None where none stands
Choice = Callable[[Iterable[Result], Container[str]], Result | None]

CHOICES: Mapping[str, str] = {
    "best": "the network with the highest reward",
    "simplest": "the least complex one whose validation error is within one standard error of the "
    "least",
}


@dataclass(frozen=True)
class Simplest:
    """The one-standard-error rule (Breiman et al. 1984, section 3.4.3).

    Of the networks whose validation error is at most the least error plus its standard error, the
    one with the least complexity by `rule`, of equal ones that with the highest reward.
    `standard_error` is that of a result's validation error in the metric's unit; where it is not
    known (NaN), it counts as 0. It is asked once for each result.
    """

    metric: Metric
    rule: RewardRule
    standard_error: Callable[[Result], float]
    _known: dict[str, float] = field(default_factory=dict)

    def __call__(self, results: Iterable[Result], refused: Container[str] = ()) -> Result | None:
        """The choice among `results`, but for those of the `refused` ids."""
        able = [
            (to_error(self.metric, r.metrics["validation"]), r)
            for r in results
            if r.stands and math.isfinite(r.reward) and r.candidate.id not in refused
        ]
        if not able:
            return None
        least, best = min(able, key=lambda pair: (pair[0], -pair[1].reward, pair[1].candidate.id))
        name = best.candidate.id
        if name not in self._known:
            self._known[name] = self.standard_error(best)
        doubt = self._known[name]
        limit = least + (doubt if math.isfinite(doubt) else 0.0)
        return min(
            (r for error, r in able if error <= limit),
            key=lambda r: (self.rule.complexity(r), -r.reward, r.candidate.id),
        )


@dataclass(frozen=True)
class Shrunk:
    """The end of the chain of children that were accepted for being smaller, sparser or quicker.

    It begins with the choice of `first` among the others; of several children the one with the
    fewest parameters, or the least latency, goes on. With a `share`, of all in such chains that
    have at most that share of the first one's parameters, the one with the highest reward is the
    choice; where there is none so small, the end of the chain.
    """

    first: Choice
    objective: str  # size, sparsity or latency
    share: float | None = None

    def __call__(self, results: Iterable[Result], refused: Container[str] = ()) -> Result | None:
        """The choice among `results`, but for those of the `refused` ids."""
        found, children = self._chains(results, refused)
        if found is not None and self.share is not None:
            most = self.share * found.parameters
            small = [r for r in _descendants(found, children) if r.parameters <= most]
            if small:
                return max(small, key=lambda r: (r.reward, -r.parameters, r.candidate.id))
        while found is not None and found.candidate.id in children:
            found = min(children[found.candidate.id], key=self._order)
        return found

    def family(self, results: Iterable[Result]) -> list[Result]:
        """The first one and all that were accepted in chains from it, that one first."""
        first, children = self._chains(results, ())
        return [] if first is None else [first, *_descendants(first, children)]

    def _chains(
        self, results: Iterable[Result], refused: Container[str]
    ) -> tuple[Result | None, dict[str | None, list[Result]]]:
        """Where the chains begin, and the children that were accepted, by their parent."""
        others: list[Result] = []
        children: dict[str | None, list[Result]] = {}
        for r in results:
            if not (r.accepted and r.objective == self.objective):
                others.append(r)
            elif r.candidate.id not in refused:
                children.setdefault(r.candidate.parent, []).append(r)
        return self.first(others, refused), children

    def _order(self, result: Result) -> tuple[float, float, str]:
        costs = {"size": result.parameters, "sparsity": result.nonzero}
        cost = costs.get(self.objective, result.latency_ms)
        return cost, -result.reward, result.candidate.id


def _descendants(first: Result, children: Mapping[str | None, list[Result]]) -> list[Result]:
    found, left = [], [first]
    while left:
        new = children.get(left.pop().candidate.id, [])
        found += new
        left += new
    return found


def make_choice(
    how: str,
    metric: Metric,
    rule: RewardRule,
    standard_error: Callable[[Result], float],
    objective: str = "metric",
    share: float | None = None,
) -> Choice:
    """The choice of a name in `CHOICES`; after a refinement for another `objective`, its end.

    `share`: of the parameters, see `Shrunk`.
    """
    choice = Simplest(metric, rule, standard_error) if how == "simplest" else best_of
    return choice if objective == "metric" else Shrunk(choice, objective, share)
