"""What a user brings as objects of Python, in one record; no torch at import.

It goes where a group is planned, trained, saved and loaded. Objects cannot travel to another
process or into a file: with any of them a run trains in this process, and they must be given again
to go on with the run or to load its model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from adanet_py.errors import ConfigError, SpaceError, check_known

if TYPE_CHECKING:
    from adanet_py.architectures import Architecture
    from adanet_py.data.spec import DataSpec
    from adanet_py.records import Candidate
    from adanet_py.training.losses import Loss
    from adanet_py.training.optimizers import Optimizer


@dataclass(frozen=True)
class Own:
    """Architectures, optimizers and losses given by the user, each by name."""

    architectures: Mapping[str, Architecture] = field(default_factory=dict)
    optimizers: Mapping[str, Optimizer] = field(default_factory=dict)
    losses: Mapping[str, Loss] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.names().values())

    def names(self) -> dict[str, list[str]]:
        """The names of every kind, as a run's configuration keeps them."""
        return {f.name: sorted(getattr(self, f.name)) for f in fields(self)}

    def needed_by(self, candidate: Candidate, spec: DataSpec) -> bool:
        """Whether a model of the candidate can only be loaded with these objects."""
        from adanet_py.training.losses import loss_name

        loss = loss_name(candidate.static, spec)
        return candidate.architecture in self.architectures or loss in self.losses

    def all_architectures(self) -> dict[str, Architecture]:
        """The package's own and the user's; each may name the user's losses."""
        from adanet_py.architectures import ARCHITECTURES

        known = {**ARCHITECTURES, **self.architectures}
        if not self.losses:
            return known
        return {name: _with_losses(entry, self.losses) for name, entry in known.items()}

    def loadable_architectures(self) -> dict[str, Architecture]:
        """Those a saved model may have: all, and the one that is grown instead of searched."""
        from adanet_py.subnetworks.architecture import GROWN

        return {**self.all_architectures(), GROWN.name: GROWN}

    def all_losses(self) -> dict[str, Loss]:
        """The package's own and the user's."""
        from adanet_py.training.losses import LOSSES

        return {**LOSSES, **self.losses}

    def all_optimizers(self) -> dict[str, Optimizer]:
        """The package's own and the user's."""
        from adanet_py.training.optimizers import OPTIMIZERS

        return {**OPTIMIZERS, **self.optimizers}

    def optimizer(self, name: str) -> Optimizer:
        """The optimizer of that name, or the class torch.optim.X or pytorch_optimizer.X.

        Raises SpaceError for an unknown one, with the nearest name.
        """
        from adanet_py.training.optimizers.library import by_name, is_library_name

        known = self.all_optimizers()
        if name not in known and is_library_name(name):
            return by_name(name)
        check_known("optimizer", name, known, SpaceError)
        return known[name]


def engine_for(candidate: Candidate, own: Own, wanted: str = "auto", dense: str = "stacked") -> str:
    """The engine that trains a candidate: with "auto" the one its optimizer asks for, or `dense`.

    Raises ConfigError for an unknown engine and for one that cannot run the optimizer.
    """
    from adanet_py.training.engines import ENGINES

    only = own.optimizer(candidate.optimizer).engine
    if wanted == "auto":
        return only or dense
    check_known("engine", wanted, ENGINES, ConfigError)
    if only not in ("", wanted):
        raise ConfigError(
            f"The optimizer {candidate.optimizer} runs on the engine {only!r} only, not on "
            f"{wanted!r}. Use engine='auto', or train it in a call of its own."
        )
    return wanted


def make_own(
    architectures: Iterable[Architecture] = (),
    optimizers: Iterable[Optimizer | type] = (),
    losses: Iterable[Loss] = (),
) -> Own:
    """The record of what is given, checked.

    A class of torch.optim.Optimizer is an optimizer of the class's name, see `library.from_class`.
    Raises ConfigError for what cannot be used.
    """
    own = Own(
        _by_name("architecture", architectures),
        _by_name("optimizer", map(_optimizer, optimizers)),
        _by_name("loss", losses),
    )
    for name, architecture in own.architectures.items():
        lacking = [k for k in ("batch_size", "scaling") if k not in architecture.static]
        if lacking:
            raise ConfigError(
                f"Architecture {name!r}: expected the static knob {lacking[0]!r}, found none. Add "
                "the shared ones: static={**SHARED_STATIC, ...} "
                "(adanet_py.architectures.architecture)."
            )
    for name, optimizer in own.optimizers.items():
        if "lr" not in optimizer.numeric:
            raise ConfigError(
                f"Optimizer {name!r}: expected the numeric knob 'lr', which schedules set, found "
                f"{', '.join(optimizer.numeric) or 'none'}. Add it."
            )
    for name, loss in own.losses.items():
        _check_loss(name, loss)
    return own


def _with_losses(architecture: Architecture, losses: Iterable[str]) -> Architecture:
    """The architecture, able to name these losses too, if it has the knob."""
    knob = architecture.static.get("loss")
    if knob is None:
        return architecture
    names = dict.fromkeys((*(knob.choices or ()), *losses))
    return replace(
        architecture, static={**architecture.static, "loss": replace(knob, choices=tuple(names))}
    )


def _check_loss(name: str, loss: Loss) -> None:
    from adanet_py.data.spec import DataSpec
    from adanet_py.metrics import check_name
    from adanet_py.tasks import TASKS
    from adanet_py.training.general import GENERAL
    from adanet_py.training.losses import AUTO

    if name == AUTO:
        raise ConfigError(
            f"A loss cannot be called {AUTO!r}, which stands for the run's. Rename it."
        )
    known = {"tasks": TASKS, "knobs": tuple(GENERAL), "needs": tuple(DataSpec.__dataclass_fields__)}
    for kind, names in known.items():
        given = getattr(loss, kind)
        unknown = [n for n in given if n not in names]
        if isinstance(given, str) or unknown:
            raise ConfigError(
                f"Loss {name!r}, {kind}: expected a tuple of some of {', '.join(names)}, found "
                f"{given!r}."
            )
    if not loss.tasks:
        raise ConfigError(f"Loss {name!r}: expected the tasks it is for, found none.")
    if loss.metric is not None:
        check_name(loss.metric)


def _optimizer(given: Any) -> Any:
    if not isinstance(given, type):
        return given
    from adanet_py.training.optimizers.library import from_class

    return from_class(given)


def _by_name(kind: str, given: Iterable[Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for entry in given:
        name = getattr(entry, "name", None)
        if not isinstance(name, str):
            article = "an" if kind[0] in "aeiou" else "a"
            raise ConfigError(
                f"Expected {article} {kind} with a name, found {type(entry).__name__} "
                f"{entry!r:.60}."
            )
        if name in out:
            raise ConfigError(f"Two objects are called {kind} {name!r}. Rename one.")
        out[name] = entry
    return out
