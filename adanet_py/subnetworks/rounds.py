"""The rounds of AdaNet, algorithm 1 of Cortes et al. (2017), for one data set or for many at once.

F(w) = sum_i v_i Phi(y_i, sum_j w_j h_j(x_i) + b) + sum_j Gamma_j |w_j|_1, Gamma_j = lambda r_j +
beta, as in `ensemble.objective`. A round t

1. trains candidates h, as deep as the deepest subnetwork so far and one layer deeper, with all
   earlier ones frozen, on the loss of f_{t-1} + h (what the paper calls WeakLearner);
2. finds for each the weight u of the least F(w_{t-1}, u), on the training rows;
3. takes in the best, all weights w being found anew, if what it is selected by falls, else stops.

The candidates of a round, of all the AdaNets that are grown side by side, are trained together. A
subnetwork that is in is not touched again: later ones read its hidden layers at their values.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

from adanet_py.subnetworks.choice import choose
from adanet_py.subnetworks.growing import Growing
from adanet_py.subnetworks.problem import Problem, Task
from adanet_py.subnetworks.training import train

_SLACK = 1.3  # times the last round: what a round may take


def grow(
    problem: Problem,
    tasks: Sequence[Task],
    *,
    device: str = "cpu",
    left: Callable[[], float] = lambda: math.inf,
    on_round: Callable[[int, Sequence[Growing]], None] = lambda number, growing: None,
) -> list[Growing]:
    """Grow an AdaNet for every task, all of them side by side, round by round.

    Training is broken off once none of the `left()` seconds is left; no round begins that would
    take longer than they last, judged by the one before. `on_round` is called after each round with
    those that went through it.
    """
    grown = [Growing.start(problem, task) for task in tasks]
    last = 0.0
    for number in range(1, 1 + max((t.options.rounds for t in tasks), default=0)):
        live = [g for g in grown if not g.stopped and number <= g.options.rounds]
        if not live:
            break
        if left() <= last * _SLACK:
            for g in live:
                g.stopped = "no time for another round"
            break
        began = time.monotonic()
        requests = [g.requests(number) for g in live]
        flat = [r for each in requests for r in each]
        trained = iter(train(flat, problem.spec, torch.device(device), lambda: left() <= 0))
        for g, own in zip(live, requests, strict=True):
            choose(g, number, [t for _ in own for t in next(trained)])
        last = time.monotonic() - began
        on_round(number, live)
    for g in grown:
        g.stopped = g.stopped or "all rounds were made"
    return grown
