"""Controllers: who proposes. One file each, one line in `CONTROLLERS`. No torch.

A controller is a pure function `(space, history, n, rng) -> candidates`: the same arguments give
the same answer in any process, so a run is resumed by replaying its history.
"""

from __future__ import annotations

from typing import Any

from adanet_py.controllers import (
    auto,
    cmaes,
    evolution,
    gp,
    local_search,
    nsga2,
    optuna_tpe,
    portfolio,
    ppo,
    quasi_random,
    random,
    reinforce,
    surrogate,
    tpe,
)
from adanet_py.controllers.families import Controller
from adanet_py.controllers.mixture import mixture
from adanet_py.controllers.named_samplers import is_sampler, sampler_of_name
from adanet_py.controllers.samplers import from_sampler
from adanet_py.errors import ConfigError, check_known

CONTROLLERS: dict[str, Controller] = {
    "auto": auto.propose,
    "random": random.propose,
    "quasi_random": quasi_random.propose,
    "tpe": tpe.propose,
    "optuna_tpe": optuna_tpe.propose,
    "evolution": evolution.propose,
    "gp": gp.propose,
    "surrogate": surrogate.propose,
    "reinforce": reinforce.propose,
    "ppo": ppo.propose,
    "local_search": local_search.propose,
    "portfolio": portfolio.propose,
    "cmaes": cmaes.propose,
    "nsga2": nsga2.propose,
}

__all__ = ["CONTROLLERS", "Controller", "find_controller", "from_sampler", "mixture", "name_of"]


_SAMPLERS = ("PPOSampler", "ReinforceSampler")  # need Optuna, so they are imported when asked for


def __getattr__(name: str) -> Any:
    if name not in _SAMPLERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from adanet_py.controllers import policy_sampler

    return getattr(policy_sampler, name)


def find_controller(controller: Any) -> Controller:
    """The controller of a name (also that of an Optuna sampler, with arguments), an Optuna sampler,
    or a function given by the user.

    Raises:
        ConfigError: an unknown name (the nearest is suggested), or none of these.
    """
    if isinstance(controller, str):
        if is_sampler(controller):
            return sampler_of_name(controller)
        check_known("controller", controller, CONTROLLERS, ConfigError)
        return CONTROLLERS[controller]
    if any(t.__module__.startswith("optuna.") for t in type(controller).__mro__):
        return from_sampler(controller)
    if callable(controller) and not isinstance(controller, type):
        found: Controller = controller
        return found
    raise ConfigError(
        f"Expected a controller: one of {', '.join(CONTROLLERS)}, an Optuna sampler, or a function "
        f"(space, history, n, rng) -> list of candidates; found {controller!r}."
    )


def name_of(controller: Controller) -> str:
    """The registered name of a controller, or what a user's is called."""
    for name, known in CONTROLLERS.items():
        if known is controller:
            return name
    return getattr(controller, "__name__", type(controller).__name__)
