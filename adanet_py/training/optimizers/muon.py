"""Muon: momentum made orthogonal for hidden weight matrices, AdamW for the rest.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon). Hidden matrices are the decayed
parts in front of the output layer's: columns [0, E) of w. No torch at import.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adanet_py.knob import Knob
from adanet_py.training.optimizers import knobs
from adanet_py.training.optimizers.adam import adam_direction
from adanet_py.training.optimizers.optimizer import Optimizer, Step, Transform
from adanet_py.training.optimizers.transforms import Slots

if TYPE_CHECKING:
    from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def orthogonalised(x: Tensor) -> Tensor:
    """Matrices [..., a, b] with their singular values moved near to 1 (about 0.7 to 1.2).

    X <- X / |X|, then five times X <- a X + (b X X^T + c (X X^T)^2) X: a polynomial in the
    singular values that leaves the singular vectors alone. In the precision of x, where
    torch.optim.Muon rounds to bfloat16.
    """
    import torch

    shape, tall = x.shape, x.shape[-2] > x.shape[-1]
    x = x.reshape(-1, *shape[-2:])
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, gram, x, beta=a)
    return (x.mT if tall else x).view(shape)


def _hidden(s: Step) -> int:
    # E: decayed parts come first, the head as the last of them
    return next((p.start for p in s.parts if p.head), 0)


def _decay(g: Tensor, slots: Slots, s: Step) -> None:
    # w <- (1 - lr weight_decay) w, with the learning rate of the rest where that applies
    e, d, rate = _hidden(s), s.decayed, s.lr * s.hp["weight_decay"]
    rest = rate * s.hp["adam_ratio"]
    s.w[:, :e].mul_(1.0 - rate)
    s.w[:, e:d].mul_(1.0 - rest)
    if s.bias_decay is not None:
        s.w[:, d:].mul_(1.0 - rest * s.bias_decay)


def _muon(g: Tensor, slots: Slots, s: Step) -> None:
    # Hidden matrices: m <- momentum m + (1 - momentum) g; step along
    # sqrt(max(1, out / in)) NewtonSchulz((1 - momentum) g + momentum m).
    # The rest: as Adam, with the learning rate lr adam_ratio.
    e, mean, momentum = _hidden(s), slots["mean"], s.hp["momentum"]
    if e:
        own = g[:, :e]
        mean[:, :e].lerp_(own, (1.0 - momentum).expand_as(own))
        own.lerp_(mean[:, :e], momentum.expand_as(own))
        for part in s.parts:
            if part.stop <= e:
                view = part.view(g)
                n_in, n_out = view.shape[-1], view.shape[-2]
                if part.unit_axis == -2:
                    n_in, n_out = n_out, n_in
                view.copy_(orthogonalised(view)).mul_(math.sqrt(max(1.0, n_out / n_in)))
    adam_direction(g[:, e:], mean[:, e:], slots["square"][:, e:], s)
    g[:, e:].mul_(s.hp["adam_ratio"])


MUON_DECAY = Transform((), _decay)
MUON_STEP = Transform(("mean", "square"), _muon)

MUON = Optimizer(
    "muon",
    "hidden matrices: w <- w - lr sqrt(max(1, out / in)) orthogonalised Nesterov momentum; output "
    "layer, biases and norms: AdamW with lr adam_ratio (Jordan et al. 2024)",
    {
        "lr": knobs.rate(2e-2),
        **knobs.ADAM_KNOBS,
        "momentum": Knob(0.95, 0.0, 0.9999, doc="momentum of the hidden matrices"),
        "adam_ratio": Knob(
            0.1, 0.0, 1e3, log=True, doc="learning rate of the other parameters over lr"
        ),
    },
    (MUON_DECAY, MUON_STEP),
)
