"""What a grown AdaNet is as an architecture: how its structure is written down. No torch at import.

Neither is in the registry of what a search may try: a subnetwork is trained on the outputs of
frozen ones, and an ensemble is grown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from adanet_py.architectures.architecture import SHARED_NUMERIC, SHARED_STATIC, Architecture
from adanet_py.architectures.names import ACTIVATIONS, NORMS
from adanet_py.data.spec import DataSpec
from adanet_py.ensemble.objective import KINDS
from adanet_py.knob import Knob
from adanet_py.records import Scalar

if TYPE_CHECKING:
    from torch import nn

_LAYERS: Mapping[str, Knob] = {
    "activation": Knob("relu", choices=tuple(ACTIVATIONS), doc="nonlinearity"),
    "norm": Knob("none", choices=tuple(NORMS), doc="normalisation before the nonlinearity"),
    **SHARED_STATIC,
}


def sizes(text: str) -> tuple[int, ...]:
    """The numbers of "64,32"; none of ""."""
    return tuple(int(part) for part in text.split(",") if part)


def write_sizes(numbers: Sequence[int]) -> str:
    """Inverse of `sizes`."""
    return ",".join(str(n) for n in numbers)


def read_widths(text: str) -> list[tuple[int, ...]]:
    """The widths of the hidden layers of every subnetwork, of "64|64,64"."""
    return [sizes(part) for part in text.split("|")]


def write_widths(structure: Sequence[Sequence[int]]) -> str:
    """Inverse of `read_widths`."""
    return "|".join(write_sizes(widths) for widths in structure)


def widths_below(frozen: Sequence[Sequence[int]], depth: int, read: str) -> tuple[int, ...]:
    """Frozen units that layers 2 ... depth of a new subnetwork read, one number each."""
    seen = {"all": frozen, "previous": frozen[-1:], "none": ()}[read]
    return tuple(sum(w[k] for w in seen if len(w) > k) for k in range(depth - 1))


def _build_offered(static: Mapping[str, Scalar], spec: DataSpec) -> nn.Module:
    from adanet_py.subnetworks.networks import Offered

    return Offered(static, spec)


def _build_grown(static: Mapping[str, Scalar], spec: DataSpec) -> nn.Module:
    from adanet_py.subnetworks.networks import Grown

    return Grown(static, spec)


SUBNETWORK = Architecture(
    name="subnetwork",
    summary="a subnetwork of an AdaNet in training",
    static={
        "widths": Knob("64", doc="units of its hidden layers"),
        "below": Knob("", doc="frozen units that its layers from the second on read"),
        **_LAYERS,
    },
    numeric={
        **SHARED_NUMERIC,
        "connection_dropout": Knob(0.0, 0.0, 0.95, doc="share of frozen units dropped"),
    },
    build=_build_offered,
)
GROWN = Architecture(
    name="adanet",
    summary="an AdaNet: connected subnetworks and their mixture weights",
    static={
        "subnetworks": Knob("64", doc="units of the hidden layers of each"),
        "read": Knob("all", choices=("all", "previous", "none"), doc="which frozen ones are read"),
        "kind": Knob("scalar", choices=KINDS, doc="kind of mixture weights"),
        **_LAYERS,
    },
    numeric={
        **SHARED_NUMERIC,
        "connection_dropout": Knob(0.0, 0.0, 0.95, doc="share of frozen units dropped"),
    },
    build=_build_grown,
)
