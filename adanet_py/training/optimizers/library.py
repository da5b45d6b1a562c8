"""Classes of torch.optim.Optimizer as optimizers of a candidate, given or by name.

By name only classes of two modules are found, torch.optim and pytorch_optimizer (a package that is
installed with the extra "optimizers"), so that reading a space or a run executes no other code.
torch is loaded when the first is asked for.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from adanet_py.architectures.architecture import SHARED_NUMERIC
from adanet_py.errors import AdanetError, ConfigError, SpaceError, check_known
from adanet_py.knob import Knob
from adanet_py.training.general import GENERAL
from adanet_py.training.optimizers.optimizer import Optimizer
from adanet_py.training.schedules import SCHEDULES

MODULES = ("torch.optim", "pytorch_optimizer")

_KNOBS = {
    "lr": Knob(1e-3, 0.0, 100.0, log=True, doc="learning rate"),
    "weight_decay": Knob(0.0, 0.0, 10.0, log=True, doc="weight decay, not on biases and norms"),
}


def is_library_name(name: str) -> bool:
    """Whether it is meant as the name of a class: torch.optim.X or pytorch_optimizer.X."""
    return name.rpartition(".")[0] in MODULES


@functools.lru_cache(maxsize=256)
def by_name(name: str) -> Optimizer:
    """The optimizer of a library class. Raises SpaceError for one that is not there or unfit."""
    module, _, attribute = name.rpartition(".")
    if module not in MODULES:
        raise SpaceError(f"Expected a class of {' or '.join(MODULES)}, found {name!r}.")
    try:
        found = vars(import_module(module))
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise SpaceError(
            f"{name!r} needs the package pytorch-optimizer, which is not installed: pip install "
            "'adanet_py[optimizers]', or pip install pytorch-optimizer."
        ) from None
    from torch.optim import Optimizer as Base

    classes = {
        n: c
        for n, c in found.items()
        if isinstance(c, type) and issubclass(c, Base) and c is not Base
    }
    check_known(f"optimizer of {module}", attribute, classes, SpaceError)
    return from_class(classes[attribute], name, SpaceError)


def from_class(
    kind: type, name: str | None = None, error: type[AdanetError] = ConfigError
) -> Optimizer:
    """The class as an optimizer, its knobs the numbers among the arguments of its constructor.

    Numbers with a default become knobs of that default; a tuple `betas` becomes beta1, beta2 ...;
    `lr` is set by the schedule; `weight_decay`, where the class has it, is not given to biases and
    norms. All else keeps its default. A knob whose name has a meaning here already is called
    optimizer_<name>. Raises `error` for a class that cannot be built so, or takes no step on a
    matrix and a bias.
    """
    name = name or kind.__name__
    arguments = list(inspect.signature(kind.__init__).parameters.values())[2:]  # type: ignore[misc]
    plain = [a for a in arguments if a.kind in (a.POSITIONAL_OR_KEYWORD, a.KEYWORD_ONLY)]
    missing = [a.name for a in plain if a.default is a.empty and a.name != "lr"]
    if missing or not any(a.name == "lr" for a in plain):
        what = f"{', '.join(missing)}, which has no default" if missing else "no argument lr"
        raise error(
            f"The optimizer {name} cannot be built from numbers: its constructor has {what}. Write "
            "a subclass that needs the parameters and lr only, and give that (optimizers=[...])."
        )
    numeric: dict[str, Knob] = {}
    setters: dict[str, tuple[str, int | None, bool]] = {}  # knob: argument, place, whether whole

    def add(knob: str, argument: str, place: int | None, default: int | float) -> None:
        knob = f"optimizer_{knob}" if knob in _reserved() else knob
        numeric[knob] = Knob(default, doc=f"argument {argument} of {name}")
        setters[knob] = (argument, place, isinstance(default, int))

    for a in plain:
        if a.name in _KNOBS:
            known = _KNOBS[a.name]
            default = float(a.default) if _is_number(a.default) else known.default
            numeric[a.name] = replace(known, default=default)
        elif _is_number(a.default):
            add(a.name, a.name, None, a.default if _is_whole(a) else float(a.default))
        elif a.name == "betas" and isinstance(a.default, tuple):
            for i, beta in enumerate(a.default):
                if _is_number(beta):
                    add(f"beta{i + 1}", "betas", i, float(beta))
    defaults = {a.name: a.default for a in plain}

    def build(groups: list[dict[str, Any]], hp: Mapping[str, float]) -> Any:
        options: dict[str, Any] = {"lr": hp["lr"]}
        for knob, (argument, place, whole) in setters.items():
            value = round(hp[knob]) if whole else hp[knob]
            if place is None:
                options[argument] = value
            else:
                row = list(options.get(argument, defaults[argument]))
                row[place] = value
                options[argument] = tuple(row)
        if "weight_decay" in numeric:
            return kind([g for g in groups if g["params"]], **options)
        return kind([p for g in groups for p in g["params"]], **options)

    optimizer = Optimizer(
        name,
        _summary(kind),
        numeric,
        reference=build,
        engine="separate",
        passes=lambda parameters, hp: 1.0 + 1.25 * hp.get("max_iter", 0.0),
    )
    _try(optimizer, error)
    return optimizer


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(argument: inspect.Parameter) -> bool:
    """Whether it is meant as a whole number: `momentum: float = 0` is not, nor is a bare 0 or 1."""
    if not isinstance(argument.default, int):
        return False
    if argument.annotation is argument.empty:
        return argument.default not in (0, 1)
    return argument.annotation in (int, "int")


@functools.cache
def _reserved() -> frozenset[str]:
    """Numeric knobs that other parts of a candidate have."""
    schedules = {knob for schedule in SCHEDULES.values() for knob in schedule.numeric}
    return frozenset({*GENERAL, *SHARED_NUMERIC, *schedules})


def _summary(kind: type) -> str:
    about = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]
    return " ".join(about.split()) or f"the class {kind.__name__}"


def _try(optimizer: Optimizer, error: type[AdanetError]) -> None:
    """Two steps on a matrix and a bias, so that what cannot train a network is said at once."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        matrix, bias = (torch.nn.Parameter(torch.randn(s)) for s in ((3, 4), (3,)))

        def closure() -> torch.Tensor:
            for p in (matrix, bias):
                p.grad = torch.zeros_like(p)
            with torch.enable_grad():
                loss = (matrix.sum(1) + bias).square().sum()
                loss.backward()
            return loss.detach()

        try:
            hp = optimizer.complete({})
            groups = [{"params": [p], "weight_decay": 0.0} for p in (matrix, bias)]
            assert optimizer.reference is not None
            made = optimizer.reference(groups, hp)
            for _ in range(2):
                made.step(closure)
        except Exception as problem:  # a class may fail in any way; all mean the same here
            said = str(problem).partition("\n")[0]
            raise error(
                f"The optimizer {optimizer.name} cannot train a network: on a matrix and a bias "
                f"its step raised {type(problem).__name__}: {said}"
            ) from problem
