"""One more layer or residual block, the function unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from adanet_py.records import Candidate, Scalar
from adanet_py.refine.move import Move, Probe, dense

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from adanet_py.architectures import Architecture
    from adanet_py.architectures.norms import BatchNorm

EPSILON = 1e-5  # of batch norm

# What comes after these has them back: relu(relu(x)) = relu(x), and a gate can be held constant.
# The number is the control at which it is held, and 1 / gate(control) makes up for it.
IDENTITIES: Mapping[str, float] = {
    "relu": 0.0,
    "glu": 0.0,
    "reglu": 1.0,
    "geglu": 1.0,
    "swiglu": 1.0,
}


def children(parent: Candidate, architecture: Architecture) -> tuple[Mapping[str, Scalar], ...]:
    """One more hidden layer where it can be the identity, and one more residual block."""
    static = dense(parent, architecture)
    more = _MORE.get(architecture.name)
    return tuple(
        static | new
        for new in ([] if more is None else more(static))
        if all(architecture.static[k].allows(v) for k, v in new.items())
    )


def _dense(static: Mapping[str, Scalar]) -> list[dict[str, Scalar]]:
    depth, blocks = int(static["depth"]), int(static["blocks"])  # type: ignore[arg-type]
    if depth == 0:
        # A linear model stays as the path beside a network that adds nothing yet.
        return [{"depth": 1, "skip": True}] if blocks == 0 else []
    exact = static["activation"] in IDENTITIES and static.get("norm", "none") in ("none", "batch")
    exact = exact and not static.get("rank")
    layer: list[dict[str, Scalar]] = [{"depth": depth + 1}] if exact else []
    return [*layer, {"blocks": blocks + 1}]


def _stream(static: Mapping[str, Scalar]) -> list[dict[str, Scalar]]:
    return [{"depth": int(static["depth"]) + 1}]  # type: ignore[arg-type]


_MORE: dict[str, Callable[[Mapping[str, Scalar]], list[dict[str, Scalar]]]] = {
    "mlp": _dense,
    "resnet": _stream,
    "tabm": _dense,
}


def insert(parent: nn.Module, child: nn.Module, probe: Probe, rng: np.random.Generator) -> None:
    """What is new computes the identity, or adds zero; all else is the parent's.

    Behind relu an identity layer (Chen et al. 2016, arXiv 1511.05641, section 2.3), behind gates
    one with constant gates; batch norm undoes what it does with the running statistics, which are
    those of the probe. Anything else gets a residual block x + f(x) whose last layer is zero; what
    that layer reads is as `build_module` drew it, so that it learns at once. A linear model becomes
    the path beside a network whose last layer is zero.
    """
    import torch
    from torch import nn

    from adanet_py.architectures import layers
    from adanet_py.refine.sites import load, trunk, trunk_name

    old, new = trunk(parent), trunk(child)
    added = len(new) - len(old)
    blocks = [i for i, layer in enumerate(old) if isinstance(layer, layers.Residual)]
    if added == 1:
        at = blocks[-1] + 1 if blocks else len(old) - 1
    else:
        at = blocks[0] if blocks else len(old) - 1
    state = parent.state_dict()
    if len(old) == 1:
        state = _with_path(parent, state)
    else:
        prefix = trunk_name(parent)
        for number, layer in reversed(list(enumerate(old))[at:]):
            for name in layer.state_dict():
                state[f"{prefix}{number + added}.{name}"] = state.pop(f"{prefix}{number}.{name}")
    fresh = nn.Sequential(*[new[i] for i in range(at, at + added)])
    load(child, dict(child.state_dict()) | state)
    with torch.no_grad():
        if len(old) == 1:
            _silence(new[-1])
            _settle(child, fresh, probe)
        elif isinstance(block := new[at], layers.Residual):
            _silence([m for m in block.layers if hasattr(m, "weight")][-1])
            _settle(child, fresh, probe)
        else:
            _make_identity(child, fresh, probe)


def _with_path(parent: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a linear model as those of a path; one it had already is added."""
    from adanet_py.refine.sites import trunk_name

    out = {n: v for n, v in state.items() if not n.startswith("body.")}
    for kind in ("weight", "bias"):
        head = state[f"{trunk_name(parent)}0.{kind}"]
        beside = state.get(f"body.path.{kind}")
        out[f"body.path.{kind}"] = head if beside is None else head + beside
    return out


def _silence(layer: nn.Module) -> None:
    for name, parameter in layer.named_parameters():
        if name in ("weight", "bias", "bias_member"):
            parameter.zero_()


def _settle(child: nn.Module, fresh: nn.Module, probe: Probe) -> BatchNorm | None:
    """Give the new batch norm the statistics of what it reads on the probe."""
    from adanet_py.architectures.norms import BatchNorm

    norm = next((m for m in fresh.modules() if isinstance(m, BatchNorm)), None)
    if norm is not None:
        seen: list[Tensor] = []
        hook = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            child.eval()(probe.numeric, probe.category)
        finally:
            hook.remove()
        norm.running_mean.copy_(seen[0].mean(0))
        norm.running_var.copy_(seen[0].var(0, unbiased=len(seen[0]) > 1))
    return norm


def _make_identity(child: nn.Module, fresh: nn.Sequential, probe: Probe) -> None:
    """A linear layer, a norm, an activation and dropout that leave what the activation gives."""
    import torch

    from adanet_py.architectures.activations import Gated, name_of

    linear, gate = fresh[0], next(m for m in fresh if name_of(m) is not None)
    weight = linear.get_parameter("weight")
    width = weight.shape[1]
    held = IDENTITIES[str(name_of(gate))]
    factor = 1.0
    if isinstance(gate, Gated):
        factor = 1.0 / float(gate.gate(torch.tensor(held, dtype=torch.float64)))
    weight[:width] = torch.eye(width).to(weight)
    norm = _settle(child, fresh, probe)
    if norm is None:
        weight[:width] *= factor
        weight[width:] = 0.0  # the controls of a gate
        bias = linear.get_parameter("bias_member" if hasattr(linear, "scale_out") else "bias")
        bias[..., :width] = 0.0
        bias[..., width:] = held
        return
    # The layer before it has no bias of its own. Controls vary from row to row as they were drawn,
    # which does not show until their norm's weight, zero, has learned.
    norm.weight[:width] = factor * (norm.running_var[:width] + EPSILON).sqrt()
    norm.bias[:width] = factor * norm.running_mean[:width]
    norm.weight[width:] = 0.0
    norm.bias[width:] = held


MOVE = Move(
    name="deepen",
    summary="one more layer that is the identity, or residual block that adds zero",
    preserves=True,
    children=children,
    weights="adanet_py.refine.deepen:insert",
)
