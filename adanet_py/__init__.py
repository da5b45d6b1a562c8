"""Neural architecture and hyperparameter search on PyTorch: many networks trained as one program.

The public names are loaded when they are first used, so that `import adanet_py` and the command
line's ``--help`` are quick: they load neither torch, pandas nor scikit-learn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from adanet_py.api import load, search, train
    from adanet_py.architectures import ARCHITECTURES, Architecture
    from adanet_py.config import SearchConfig
    from adanet_py.controllers import CONTROLLERS, from_sampler
    from adanet_py.errors import AdanetError, ConfigError, DataError, RunError, SpaceError
    from adanet_py.estimators import AdaNetClassifier, AdaNetRegressor
    from adanet_py.grown_estimators import GrownClassifier, GrownRegressor
    from adanet_py.knob import Knob
    from adanet_py.metrics import METRICS
    from adanet_py.model import Model
    from adanet_py.records import Candidate, Group, History, Result, Status
    from adanet_py.run import SearchResult, refine_run
    from adanet_py.space import SearchSpace, list_spaces, load_space
    from adanet_py.subnetworks.options import GrowthOptions
    from adanet_py.subnetworks.tables import grow_table
    from adanet_py.training.arrays import train_arrays

_HOMES = {
    "api": ("load", "search", "train"),
    "run": ("SearchResult", "refine_run"),
    "model": ("Model",),
    "records": ("Candidate", "Group", "History", "Result", "Status"),
    "knob": ("Knob",),
    "errors": ("AdanetError", "ConfigError", "DataError", "RunError", "SpaceError"),
    "config": ("SearchConfig",),
    "space": ("SearchSpace", "list_spaces", "load_space"),
    "metrics": ("METRICS",),
    "architectures": ("ARCHITECTURES", "Architecture"),
    "controllers": ("CONTROLLERS", "from_sampler"),
    "training.arrays": ("train_arrays",),
    "subnetworks.options": ("GrowthOptions",),
    "subnetworks.tables": ("grow_table",),
    "estimators": ("AdaNetClassifier", "AdaNetRegressor"),
    "grown_estimators": ("GrownClassifier", "GrownRegressor"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 - by theme, as in _HOMES
    "load", "search", "train", "train_arrays", "refine_run", "Model", "SearchResult",
    "Candidate", "Group", "History", "Knob", "Result", "Status",
    "AdanetError", "ConfigError", "DataError", "RunError", "SpaceError",
    "SearchConfig",
    "SearchSpace", "list_spaces", "load_space",
    "METRICS",
    "ARCHITECTURES", "Architecture",
    "CONTROLLERS", "from_sampler",
    "GrowthOptions", "grow_table",
    "AdaNetClassifier", "AdaNetRegressor", "GrownClassifier", "GrownRegressor",
    "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'adanet_py' has no attribute {name!r}")
    value = getattr(import_module(f"adanet_py.{_HOME_OF[name]}"), name)
    globals()[name] = value  # found once, at home here from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
