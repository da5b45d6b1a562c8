"""Where the hidden units of a network stand: which entries of which tensors belong to a unit.

A site is a set of units that must be copied or removed together: those of one hidden layer, or of
a residual stream, which many layers read and write. Read off the modules of
`architectures.layers`, whoever put them together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from adanet_py.architectures import layers
from adanet_py.architectures.activations import Gated, name_of
from adanet_py.architectures.norms import BatchNorm, GroupNorm, LayerNorm, RMSNorm


@dataclass(frozen=True)
class Entry:
    """A dimension of a tensor that counts units; `halves` 2: twice, before a gated activation."""

    tensor: str
    dim: int
    halves: int = 1

    def index(self, units: Tensor, width: int) -> Tensor:
        """Places of the `units` of a site of `width` units in this dimension."""
        return torch.cat([units + half * width for half in range(self.halves)])


@dataclass
class Site:
    """Units of a network, [rows, (members,) width]; all names are those of the state dict.

    `own` is what a unit is made of (incoming weights, biases, its part of norms and running
    statistics), `read` the columns of the weights that read it. `readers` are the modules of
    these, and `norms` those between units and readers, which `scaled` counts as incoming weights.
    """

    width: int
    own: list[Entry] = field(default_factory=list)
    read: list[Entry] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    kind: str = ""  # "hidden", or "stream" of residual blocks; "" where nothing nonlinear follows

    @property
    def readers(self) -> list[str]:
        """Names of the modules that read it."""
        return [entry.tensor.removesuffix(".weight") for entry in self.read]


def trunk(module: nn.Module) -> nn.Sequential:
    """The layers of a network behind its inputs; beside them there may be a path."""
    assert isinstance(module, layers.Network)
    found = module.body.layers if isinstance(module.body, layers.Skip) else module.body
    assert isinstance(found, nn.Sequential)
    return found


def trunk_name(module: nn.Module) -> str:
    """What the names of the tensors of `trunk` begin with."""
    assert isinstance(module, layers.Network)
    return "body.layers." if isinstance(module.body, layers.Skip) else "body."


def sites(module: nn.Module, every: bool = False) -> list[Site]:
    """The sites of a network in order; with `every`, also what nothing nonlinear follows."""
    walk = _Walk({m: n for n, m in module.named_modules()})
    walk.through(trunk(module), None)
    return [site for site in walk.found if every or (site.kind and site.read)]


@dataclass
class _Walk:
    names: dict[nn.Module, str]
    found: list[Site] = field(default_factory=list)

    def through(self, modules: Iterable[nn.Module], x: Site | None) -> Site | None:
        """What stands behind some layers that read x (None: the features)."""
        for module in modules:
            name = self.names[module]
            if isinstance(module, layers.Residual):
                x = self.residual(module, x)
            elif isinstance(module, layers.Linear | layers.SharedLinear | layers.MemberLinear):
                x = self.linear(module, name, x)
            elif isinstance(module, BatchNorm | LayerNorm | GroupNorm | RMSNorm):
                if x is not None:
                    tensors = (*module._parameters, *module._buffers)
                    x.own += [Entry(f"{name}.{t}", 0) for t in tensors]
                    x.norms.append(name)
            elif name_of(module) is not None and x is not None:
                x.kind = x.kind or "hidden"
                if isinstance(module, Gated):
                    x.width //= 2
                    x.own = [replace(entry, halves=2) for entry in x.own]
        return x

    def linear(self, module: nn.Module, name: str, x: Site | None) -> Site:
        members = isinstance(module, layers.MemberLinear)
        if x is not None:
            x.read.append(Entry(f"{name}.weight", 1))
            if getattr(module, "scale_in", None) is not None:
                x.own.append(Entry(f"{name}.scale_in", 1))
        weight = module.get_parameter("weight")
        site = Site(weight.shape[2 if members else 0])
        site.own.append(Entry(f"{name}.weight", 2 if members else 0))
        for tensor, parameter in module._parameters.items():
            if tensor in ("bias", "bias_member", "scale_out") and parameter is not None:
                site.own.append(Entry(f"{name}.{tensor}", parameter.dim() - 1))
        self.found.append(site)
        return site

    def residual(self, module: layers.Residual, x: Site | None) -> Site | None:
        last = self.through(module.layers, x)
        assert last is not None
        if x is not None:
            x.own += last.own
            x.kind = "stream" if not x.kind else x.kind
        # What the branch gives is no site of its own, but part of the stream.
        self.found = [site for site in self.found if site is not last]
        return x


def carried(
    parent: nn.Module,
    units: dict[int, Tensor],
    shares: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The parent's tensors with unit i of site s in the child being unit `units[s][i]` of its own.

    Tensors that read units are multiplied by `shares` where there are any, by name.
    """
    state = {name: value.detach() for name, value in parent.state_dict().items()}
    for number, site in enumerate(sites(parent)):
        if number not in units:
            continue
        for entry in (*site.own, *site.read):
            index = entry.index(units[number], site.width).to(state[entry.tensor].device)
            state[entry.tensor] = state[entry.tensor].index_select(entry.dim, index)
    for name, share in (shares or {}).items():
        state[name] = state[name] * share.to(state[name])
    return state


def load(child: nn.Module, state: dict[str, Tensor]) -> None:
    """Write weights and buffers into the child; knobs stay its own."""
    own = {n: v for n, v in child.state_dict().items() if n.rsplit(".", 1)[-1].startswith("knob_")}
    child.load_state_dict(state | own)
