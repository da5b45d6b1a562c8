"""Low rank: big dense layers as two thin ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from adanet_py.architectures.architecture import is_factorised
from adanet_py.architectures.names import units_before
from adanet_py.data.spec import DataSpec
from adanet_py.records import Candidate, Scalar
from adanet_py.refine.move import Move, Probe, dense

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from adanet_py.architectures import Architecture

SHARES = (1 / 4, 1 / 8)  # of the full rank


def children(parent: Candidate, architecture: Architecture) -> tuple[Mapping[str, Scalar], ...]:
    """A quarter and an eighth of the rank, where hidden layers follow upon hidden layers."""
    static = dense(parent, architecture)
    width, units, full = _layer(static, architecture)
    ranks = dict.fromkeys(max(1, round(full * share)) for share in SHARES) if full else {}
    return tuple(static | {"rank": r} for r in ranks if is_factorised(width, units, r))


def sized(
    parent: Candidate, architecture: Architecture, spec: DataSpec, most: int
) -> tuple[Mapping[str, Scalar], ...]:
    """The highest rank that leaves at most `most` parameters; none where a thinner one would not.

    Layers that a rank makes no smaller stay whole, so a rank is looked for among those that make
    the hidden ones smaller.
    """
    static, count = dense(parent, architecture), architecture.parameters
    width, units, full = _layer(static, architecture)
    ranks = (r for r in range(full, 0, -1) if is_factorised(width, units, r))
    fitting = (static | {"rank": r} for r in ranks)
    found = next((s for s in fitting if count is not None and count(s, spec) <= most), None)
    return () if found is None else (found,)


def _layer(static: Mapping[str, Scalar], architecture: Architecture) -> tuple[int, int, int]:
    """Width, units and full rank of the hidden layers; rank 0 where there is nothing to split."""
    if "rank" not in static or static["rank"] or architecture.name not in ("mlp", "resnet"):
        return 0, 0, 0
    width, kind = int(static["width"]), str(static["activation"])  # type: ignore[arg-type]
    if architecture.name == "resnet":
        hidden = max(1, round(width * float(static["expansion"])))  # type: ignore[arg-type]
    elif int(static["depth"]) + int(static["blocks"]) < 2:  # type: ignore[arg-type]
        return 0, 0, 0
    else:
        hidden = width
    return width, units_before(kind, hidden), min(width, hidden)


def split(parent: nn.Module, child: nn.Module, probe: Probe, rng: np.random.Generator) -> None:
    """W = U S V becomes U_r sqrt(S_r) and sqrt(S_r) V_r, on the inputs that there are.

    Of all maps of rank r that closest to W on the probe (Wang et al. 2024, arXiv 2403.07378): with
    C = L L' the (damped) covariance of what the layer reads, the singular values are those of W L,
    and the right factor is multiplied by L^-1. Means go into the bias. Exact where W has no more
    than r singular values.
    """
    import torch
    from torch.linalg import cholesky, solve_triangular, svd

    from adanet_py.architectures import layers
    from adanet_py.refine.readers import Reader, covariance, inputs_of
    from adanet_py.refine.sites import trunk

    names = {module: name for name, module in child.named_modules()}
    own = {module: name for name, module in parent.named_modules()}
    copied = {
        n: v for n, v in parent.state_dict().items() if n.startswith(("inputs.", "body.path"))
    }
    state = child.state_dict()
    thin: list[tuple[str, str, str]] = []
    rest = _flat(trunk(child))
    for old in _flat(trunk(parent)):
        new = next(rest)
        if isinstance(old, layers.Linear) and new.weight.shape != old.weight.shape:
            last = names[next(rest)]
            thin.append((own[old], names[new], last))
            if old.bias is not None:
                copied[f"{last}.bias"] = old.bias
        else:
            copied |= {f"{names[new]}.{n}": v for n, v in old.state_dict().items()}
    with torch.no_grad():
        knobs = {n: v for n, v in state.items() if n.rsplit(".", 1)[-1].startswith("knob_")}
        child.load_state_dict(state | copied | knobs)
        values, _ = inputs_of(parent, [name for name, _, _ in thin], probe)
        for name, first, second in thin:
            reader = Reader(parent, name)
            x, w = reader.design(values[name]).double(), reader.weight()[0].double()
            mean = x.mean(1)
            root = cholesky(covariance(x - mean.unsqueeze(1))[0])
            left, size, right = svd(w @ root, full_matrices=False)
            right = solve_triangular(root, right, upper=False, left=False)
            rank = child.get_parameter(f"{first}.weight").shape[0]
            scale = size[:rank].sqrt()
            low, high = scale.unsqueeze(1) * right[:rank], left[:, :rank] * scale
            child.get_parameter(f"{first}.weight").copy_(low)
            child.get_parameter(f"{second}.weight").copy_(high)
            Reader(child, second).shift((mean @ (w - high @ low).T).to(values[name].dtype))


def _flat(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """The layers, those of residual branches among them."""
    from adanet_py.architectures import layers

    for module in modules:
        if isinstance(module, layers.Residual):
            yield from module.layers
        else:
            yield module


MOVE = Move(
    name="factorise",
    summary="big dense layers as two of a quarter or an eighth of the rank",
    preserves=False,
    children=children,
    weights="adanet_py.refine.factorise:split",
    sized=sized,
)
