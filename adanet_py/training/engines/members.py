"""One module, called for many members at once."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call, vmap

from adanet_py.training.engines.program import State


def call_members(
    module: nn.Module,
    leaves: State,
    buffers: State,
    constants: State,
    numeric: Tensor,
    category: Tensor,
) -> Tensor:
    """What `module` gives for each of K members, stacked: [K, ...].

    `leaves` and `buffers` have a leading axis K, `constants` are the same for all; the inputs are
    [B, ...], shared, or [K, B, ...].
    """
    shared = numeric.dim() == 2
    if next(iter(leaves.values())).shape[0] == 1:
        # One member: the plain module is faster than a vectorised one and gives the same.
        own = {n: v[0] for n, v in buffers.items()}
        single = ({n: v[0] for n, v in leaves.items()}, own | dict(constants))
        inputs = (numeric, category) if shared else (numeric[0], category[0])
        alone: Tensor = functional_call(module, single, inputs)
        return alone.unsqueeze(0)

    def one(leaves: State, buffers: State, numeric: Tensor, category: Tensor) -> Tensor:
        both = dict(buffers) | dict(constants)
        return functional_call(module, (dict(leaves), both), (numeric, category))

    axis = None if shared else 0
    return vmap(one, in_dims=(0, 0, axis, axis))(leaves, buffers, numeric, category)
