"""What a user brings as objects of Python, in one record; no torch at import.

It goes where a group is planned, trained, saved and loaded. Objects cannot travel to another
process or into a file: with any of them a run trains in this process, and they must be given again
to go on with the run or to load its model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from adanet_py.errors import ConfigError

if TYPE_CHECKING:
    from adanet_py.architectures import Architecture
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

    def needed_by(self, candidate: Candidate) -> bool:
        """Whether a model of the candidate can only be loaded with these objects."""
        loss = candidate.static.get("loss", "auto")
        return candidate.architecture in self.architectures or loss in self.losses

    def all_architectures(self) -> dict[str, Architecture]:
        """The package's own and the user's."""
        from adanet_py.architectures import ARCHITECTURES

        return {**ARCHITECTURES, **self.architectures}

    def all_losses(self) -> dict[str, Loss]:
        """The package's own and the user's."""
        from adanet_py.training.losses import LOSSES

        return {**LOSSES, **self.losses}

    def all_optimizers(self) -> dict[str, Optimizer]:
        """The package's own and the user's."""
        from adanet_py.training.optimizers import OPTIMIZERS

        return {**OPTIMIZERS, **self.optimizers}


def make_own(
    architectures: Iterable[Architecture] = (),
    optimizers: Iterable[Optimizer] = (),
    losses: Iterable[Loss] = (),
) -> Own:
    """The record of what is given, checked. Raises ConfigError for what cannot be used."""
    own = Own(
        _by_name("architecture", architectures),
        _by_name("optimizer", optimizers),
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
    return own


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
