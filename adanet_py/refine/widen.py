"""More units in the hidden layers, the function unchanged: Net2WiderNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from adanet_py.architectures.names import norm_groups, units_before
from adanet_py.records import Candidate, Scalar
from adanet_py.refine.move import Move, Probe, dense

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor, nn

    from adanet_py.architectures import Architecture

FACTORS = (1.5, 2.0)


def children(parent: Candidate, architecture: Architecture) -> tuple[Mapping[str, Scalar], ...]:
    """Hidden layers 1.5 and 2 times as wide, as far as norm and knobs allow."""
    static = dense(parent, architecture)
    # What is wider may be factorised where it was not.
    change = _CHANGES.get(architecture.name) if not static.get("rank") else None
    found = [] if change is None else [change(static, factor) for factor in FACTORS]
    return tuple(
        static | new
        for new in found
        if new and all(architecture.static[k].allows(v) for k, v in new.items())
    )


def _width(static: Mapping[str, Scalar], factor: float) -> dict[str, Scalar]:
    """A wider mlp or tabm; none where the norm's statistics would change."""
    width, norm = int(static["width"]), str(static.get("norm", "none"))  # type: ignore[arg-type]
    wider = round(width * factor)
    if static.get("depth") == 0 or wider == width:
        return {}
    if norm in ("layer", "rms", "group") and wider != 2 * width:
        return {}
    kind = str(static["activation"])
    if norm == "group" and norm_groups(units_before(kind, width)) != norm_groups(
        units_before(kind, wider)
    ):
        return {}
    return {"width": wider}


def _expansion(static: Mapping[str, Scalar], factor: float) -> dict[str, Scalar]:
    """Wider blocks of a resnet; norms stand in its stream alone, which keeps its width."""
    width = int(static["width"])  # type: ignore[arg-type]
    hidden = max(1, round(width * float(static["expansion"])))  # type: ignore[arg-type]
    wider = round(hidden * factor)
    return {} if wider == hidden else {"expansion": wider / width}


_CHANGES: dict[str, Callable[[Mapping[str, Scalar], float], dict[str, Scalar]]] = {
    "mlp": _width,
    "resnet": _expansion,
    "tabm": _width,
}


def duplicate(parent: nn.Module, child: nn.Module, probe: Probe, rng: np.random.Generator) -> None:
    """Copies of units, all or some drawn at random, that share what they send on.

    Chen et al. 2016 (arXiv 1511.05641), section 2.2: unit j becomes units with the same incoming
    weights, and the weights W_kj that read it are split among them. There into equal parts with
    noise afterwards; here into W_kj (1 + s) and -W_kj s, s ~ U(0, 1/2) for each k, and which copy
    gets which is drawn too. That is exact, so there is nothing to add afterwards, and the copies
    part at the first step, even under an optimizer that takes no notice of the length of a
    gradient (Adam), for which parts of one sign give a single reader's copies the same steps.
    """
    import torch

    from adanet_py.refine.sites import carried, load, sites

    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    units: dict[int, Tensor] = {}
    shares: dict[str, Tensor] = {}
    wanted = child.state_dict()
    for number, (old, new) in enumerate(zip(sites(parent), sites(child), strict=True)):
        if old.width == new.width:
            continue
        units[number] = _sources(old.width, new.width, generator)
        for entry in old.read:
            # Units of the next layer are split each in a way of its own, so its copies differ.
            shape = wanted[entry.tensor].shape
            shares[entry.tensor] = _shares(units[number], shape, entry.dim, generator)
    load(child, carried(parent, units, shares))


def _sources(width: int, wider: int, generator: Generator) -> Tensor:
    """For each new unit whose copy it is; copies of all stand side by side, as group norm needs."""
    import torch

    if wider == 2 * width:
        return torch.arange(width).repeat_interleave(2)
    more = torch.randperm(width, generator=generator)[: wider - width]
    return torch.cat([torch.arange(width), more])


def _shares(sources: Tensor, shape: Sequence[int], dim: int, generator: Generator) -> Tensor:
    """Factors of what reads units, `sources` many along `dim`; those of copies add up to one."""
    import torch

    units, order = sources.sort(stable=True)
    twice = units[1:] == units[:-1]
    size = [*shape[:dim], int(twice.sum()), *shape[dim + 1 :]]
    s = 0.5 * torch.rand(size, generator=generator, dtype=torch.float64)
    share = torch.where(torch.rand(size, generator=generator) < 0.5, 1.0 + s, -s)
    out = torch.ones(*shape, dtype=torch.float64)
    out.index_copy_(dim, order[:-1][twice], share)
    return out.index_copy_(dim, order[1:][twice], 1.0 - share)


MOVE = Move(
    name="widen",
    summary="wider hidden layers: copies of units that share what they send on (Net2WiderNet)",
    preserves=True,
    children=children,
    weights="adanet_py.refine.widen:duplicate",
)
