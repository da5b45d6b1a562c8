"""Which units a smaller network keeps, and what makes up for the others.

Whoever chooses, what reads a smaller layer is then fitted to what the parent's layer gives on the
probe, layer by layer, by least squares (as He et al. 2017, arXiv 1707.06168, equation 5, for
channels): the units that stay make up for those that went, and the means of these go into the bias
(batch norm behind it: into its running mean). Changes of weights are damped, by `readers.DAMPING`,
for there may be fewer rows than units. Without the fit a third of the units kept loses several
times as much, by whatever criterion.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from adanet_py.refine.move import Probe
from adanet_py.refine.readers import Reader, covariance, inputs_of
from adanet_py.refine.sites import Site, carried, load, sites
from adanet_py.training.general import GENERAL

Choose = Callable[[nn.Module, Site, int, Probe], Tensor]  # gives the kept units, ascending


def magnitude(parent: nn.Module, child: nn.Module, probe: Probe, rng: np.random.Generator) -> None:
    """Keep the units with the largest |incoming weights| |outgoing weights|, lengths of vectors.

    Where a norm comes between weights and units, their length means nothing and its scale is taken
    (Liu et al. 2017, arXiv 1708.06519); scales of implicit members multiply.
    """
    _prune(parent, child, probe, _by_magnitude)


def saliency(parent: nn.Module, child: nn.Module, probe: Probe, rng: np.random.Generator) -> None:
    """Keep the units whose replacement changes the loss most, to first order.

    The mean over rows of |(a - mean a) dL/da|, a the unit's value and L the row's loss (Molchanov
    et al. 2017, arXiv 1611.06440, equation 8, there against zero instead of the mean).
    """
    _prune(parent, child, probe, _by_saliency)


def output(parent: nn.Module, child: nn.Module, probe: Probe, rng: np.random.Generator) -> None:
    """Remove, one by one, the unit that changes the output of the layers that read it least.

    Measured on the probe after the others have made up for it as well as they can: with H the
    covariance of the units (damped) and W what reads them, unit j costs |W_j|^2 / [H^-1]_jj
    (optimal brain surgeon, Hassibi and Stork 1993, for whole units: Kurtic et al. 2023, arXiv
    2302.04089).
    """
    _prune(parent, child, probe, _by_output)


def _prune(parent: nn.Module, child: nn.Module, probe: Probe, by: Choose) -> None:
    pairs = enumerate(zip(sites(parent), sites(child), strict=True))
    kept = {
        number: by(parent, old, new.width, probe)
        for number, (old, new) in pairs
        if old.width != new.width
    }
    load(child, carried(parent, kept))
    _reconstruct(parent, child, probe, kept)


def _loss(outputs: Tensor, probe: Probe) -> Tensor:
    """Sum of the rows' losses; general hyperparameters at their defaults."""
    outputs = outputs.unsqueeze(-2) if outputs.dim() == 2 else outputs
    if probe.offset is not None:
        outputs = outputs + probe.offset[:, None, None]
    hp = {
        n: torch.full((1, 1), float(k.default)).to(outputs)  # type: ignore[arg-type]
        for n, k in GENERAL.items()
    }
    return probe.loss.rows(outputs.unsqueeze(0), probe.target.unsqueeze(0), hp).sum()


def _squared(value: Tensor, dim: int) -> Tensor:
    """Sums of squares over all dimensions but one."""
    return value.double().square().movedim(dim, 0).reshape(value.shape[dim], -1).sum(1)


def _squares(module: nn.Module, site: Site) -> list[tuple[str, Tensor]]:
    """For each tensor a unit is made of: its name and the mean squares of the units' parts."""
    state, out = module.state_dict(), []
    for entry in site.own:
        value = _squared(state[entry.tensor], entry.dim)
        out.append((entry.tensor, value.view(entry.halves, site.width).sum(0)))
    return out


def _by_magnitude(module: nn.Module, site: Site, count: int, probe: Probe) -> Tensor:
    state = module.state_dict()
    squares = _squares(module, site)
    linear = {
        name: value for name, value in squares if name.endswith(".weight") and state[name].dim() > 1
    }
    scales = [
        value
        for name, value in squares
        if name.rsplit(".", 1)[0] in site.norms and name.endswith(("weight", "scale"))
    ]
    score = torch.stack(list(linear.values())).sum(0)
    if scales:
        scale = torch.stack(scales).mean(0)
        score = scale if site.kind == "hidden" else score * scale
    for name, value in squares:
        if name.endswith(("scale_in", "scale_out")):
            score = score * value
    read = [_squared(state[e.tensor], e.dim) for e in site.read]
    return _largest(score.to(read[0]) * torch.stack(read).sum(0), count)


def _by_saliency(module: nn.Module, site: Site, count: int, probe: Probe) -> Tensor:
    with torch.enable_grad():
        values, outputs = inputs_of(module, site.readers, probe)
        read = list(values.values())
        gradients = torch.autograd.grad(_loss(outputs, probe), read)
    effect = torch.zeros(())
    for x, gradient in zip(read, gradients, strict=True):
        each = ((x - x.mean(0)) * gradient).detach().double()
        effect = effect + (each if each.dim() == 2 else each.sum(1))
    return _largest(effect.abs().mean(0), count)


def _by_output(module: nn.Module, site: Site, count: int, probe: Probe) -> Tensor:
    weights, inverses = [], []
    with torch.no_grad():
        values, _ = inputs_of(module, site.readers, probe)
        for name in site.readers:
            reader = Reader(module, name)
            x = reader.design(values[name]).double()
            x = x - x.mean(1, keepdim=True)
            w = reader.weight().double()
            # Implicit members that share their weights are as many rows.
            x = x if len(w) > 1 else x.flatten(0, 1).unsqueeze(0)
            h, change = covariance(x), torch.matmul(x, w.transpose(1, 2)).square().sum()
            weights.append((w / change.clamp(min=1e-30).sqrt()).transpose(1, 2))
            inverses += list(torch.linalg.inv(h))
    inverse = torch.stack(inverses)  # [P, n, n], of all readers
    weight = [each for w in weights for each in w]  # P of [n, o]
    alive = torch.ones(site.width, dtype=torch.bool)
    for _ in range(site.width - count):
        diagonal = inverse.diagonal(dim1=1, dim2=2).clamp(min=1e-300)
        cost = torch.stack([w.square().sum(1) for w in weight]) / diagonal
        score = cost.sum(0)
        score[~alive] = torch.inf
        j = int(score.argmin())
        column = inverse[:, :, j] / diagonal[:, j : j + 1]
        weight = [w - torch.outer(c, w[j]) for w, c in zip(weight, column, strict=True)]
        inverse = inverse - column.unsqueeze(2) * inverse[:, j : j + 1, :]
        alive[j] = False
    return alive.nonzero().flatten()


def _largest(score: Tensor, count: int) -> Tensor:
    return score.topk(count).indices.sort().values.cpu()


@torch.no_grad()
def _reconstruct(
    parent: nn.Module, child: nn.Module, probe: Probe, kept: dict[int, Tensor]
) -> None:
    """Fit the weights that read smaller layers to what the parent's give there, in their order."""
    found = sites(parent)
    readers = {name for number in kept for name in found[number].readers}
    rows = {
        entry.tensor.removesuffix(".weight"): entry.index(kept[number], found[number].width)
        for number in kept
        for entry in found[number].own
    }
    for name in [n for n, _ in parent.named_modules() if n in readers]:
        old, new = Reader(parent, name), Reader(child, name)
        x = old.design(inputs_of(parent, [name], probe)[0][name]).double()
        y = new.design(inputs_of(child, [name], probe)[0][name]).double()
        target = x @ old.weight().double().transpose(1, 2)
        if name in rows:
            target = target[..., rows[name].to(target.device)]
        gap = target - y @ new.weight().double().transpose(1, 2)
        level, mean = gap.mean(1), y.mean(1)
        gap, y = gap - level.unsqueeze(1), y - mean.unsqueeze(1)
        if len(new.weight()) == 1:
            gap, y = (v.flatten(0, 1).unsqueeze(0) for v in (gap, y))
        change = torch.linalg.solve(covariance(y), y.transpose(1, 2) @ gap)  # [P, n, o]
        new.weight().add_(change.transpose(1, 2))
        new.shift(level - (mean.unsqueeze(1) @ change).squeeze(1))
