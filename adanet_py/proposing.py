"""Ask a controller for candidates and check what it says: controllers may be given by users."""

from __future__ import annotations

import numpy as np

from adanet_py.controllers import Controller
from adanet_py.errors import ConfigError, SpaceError, check_known
from adanet_py.own import Own
from adanet_py.records import Candidate, DataSpec, History
from adanet_py.space import SearchSpace
from adanet_py.training.general import GENERAL
from adanet_py.training.losses import choose_loss
from adanet_py.training.schedules import SCHEDULES


def ask(
    controller: Controller,
    space: SearchSpace,
    history: History,
    n: int,
    rng: np.random.Generator,
    own: Own,
    spec: DataSpec | None = None,
) -> tuple[list[Candidate], int]:
    """New candidates of one family, and how many new ones of other families there were besides.

    No candidates: the controller has nothing new. Raises ConfigError for what is no candidate,
    SpaceError for a candidate with unknown names or illegal values.
    """
    found = list(controller(space, history, n, rng))
    for candidate in found:
        if not isinstance(candidate, Candidate):
            raise ConfigError(
                "Expected a list of candidates from the controller, found in it "
                f"{type(candidate).__name__}."
            )
        check_candidate(candidate, own, spec)
    new = [c for c in dict.fromkeys(found) if c.id not in history.ids]
    family = [c for c in new if c.family == new[0].family]
    return family, len(new) - len(family)


def check_candidate(candidate: Candidate, own: Own, spec: DataSpec | None = None) -> None:
    """Raise SpaceError unless every name and value of the candidate is known and legal.

    With `spec`, its loss must suit the data too.
    """
    architectures, optimizer = own.all_architectures(), own.optimizer(candidate.optimizer)
    check_known("architecture", candidate.architecture, architectures, SpaceError)
    check_known("schedule", candidate.schedule, SCHEDULES, SpaceError)
    architecture = architectures[candidate.architecture]
    numeric = {
        **architecture.numeric,
        **optimizer.numeric,
        **SCHEDULES[candidate.schedule].numeric,
        **GENERAL,
    }
    for part, values, knobs in (
        ("static", candidate.static, architecture.static),
        ("numeric", candidate.numeric, numeric),
    ):
        for name, value in values.items():
            check_known(f"{part} hyperparameter", name, knobs, SpaceError)
            if not knobs[name].allows(value):
                legal = knobs[name].choices or f"[{knobs[name].low}, {knobs[name].high}]"
                raise SpaceError(f"{name}: expected a value in {legal}, found {value!r}.")
    if spec is not None:
        choose_loss(candidate.static, spec, own.all_losses())
