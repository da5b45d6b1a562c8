"""What happens to gradients before an optimizer's step, and to weights around it.

These compose with every optimizer, in this order: the L1 penalty joins the gradient; the gradient
is clipped by value, by norm, per unit; decoupled weight decay; the optimizer's step; the norm of
each unit's weights is bounded. One value per member [K, 1]; where it is 0 nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from adanet_py.training.optimizers import Part

_NAMES = ("l1", "clip_value", "clip_norm", "agc", "decoupled_decay", "max_norm")
_SMALLEST_WEIGHTS = 1e-3  # so that a unit that starts at zero can move (Brock et al. 2021)
_ROUNDING = 1e-6  # added to a norm that is divided by, as torch.nn.utils.clip_grad_norm_ does


@dataclass(frozen=True)
class Constraints:
    """The constraints of a group: w and g are [K, P], columns laid out as `parts` say."""

    parts: tuple[Part, ...]
    hp: Mapping[str, Tensor]  # name -> [K, 1]
    used: frozenset[str]  # those that any member uses

    @classmethod
    def make(cls, parts: tuple[Part, ...], hp: Mapping[str, Tensor]) -> Constraints:
        """The constraints that these hyperparameters ask for; reads them back from the device."""
        used = (torch.stack([hp[n] for n in _NAMES]) > 0).flatten(1).any(1).tolist()
        return cls(parts, hp, frozenset(n for n, some in zip(_NAMES, used, strict=True) if some))

    @property
    def clips(self) -> bool:
        """Whether any member's gradient is clipped by its norm."""
        return "clip_norm" in self.used

    def penalise(self, g: Tensor, w: Tensor) -> None:
        """g <- g + l1 sign(w) on the weight matrices."""
        if "l1" in self.used:
            d = self._decayed
            g[:, :d].addcmul_(w[:, :d].sign(), self.hp["l1"])

    def clip(self, g: Tensor, w: Tensor, norm: Tensor | None) -> None:
        """Clip by value, then norm, then unit; `norm` [K] is that of g as it comes in."""
        if "clip_value" in self.used:
            limit = self.hp["clip_value"]
            limit = torch.where(limit > 0, limit, torch.full_like(limit, torch.inf))
            torch.minimum(torch.maximum(g, -limit, out=g), limit, out=g)
            norm = None
        if "clip_norm" in self.used:
            norm = g.norm(dim=1) if norm is None else norm
            limit = self.hp["clip_norm"]
            factor = (limit / (norm.unsqueeze(1) + _ROUNDING)).clamp(max=1.0)
            g.mul_(torch.where(limit > 0, factor, torch.ones_like(factor)))
        if "agc" in self.used:
            for part in self.parts:
                if part.decayed and not part.head:
                    self._clip_units(part, g, w)

    def _clip_units(self, part: Part, g: Tensor, w: Tensor) -> None:
        gradient = part.view(g)
        share = self._per_unit("agc", gradient)
        weights = part.view(w).norm(dim=part.unit_axis, keepdim=True).clamp(min=_SMALLEST_WEIGHTS)
        norm = gradient.norm(dim=part.unit_axis, keepdim=True)
        limit = share * weights
        over = (share > 0) & (norm > limit)
        gradient.mul_(torch.where(over, limit / norm, torch.ones_like(norm)))

    def decay(self, w: Tensor, lr: Tensor) -> None:
        """w <- (1 - lr decoupled_decay) w on the weight matrices."""
        if "decoupled_decay" in self.used:
            w[:, : self._decayed].mul_(1.0 - lr * self.hp["decoupled_decay"])

    def project(self, w: Tensor) -> None:
        """Scale every unit's incoming weights down to the norm `max_norm`."""
        if "max_norm" not in self.used:
            return
        for part in self.parts:
            if part.decayed:
                weights = part.view(w)
                limit = self._per_unit("max_norm", weights)
                norm = weights.norm(dim=part.unit_axis, keepdim=True)
                over = (limit > 0) & (norm > limit)
                weights.mul_(torch.where(over, limit / norm, torch.ones_like(norm)))

    @cached_property
    def _decayed(self) -> int:
        return sum(p.stop - p.start for p in self.parts if p.decayed)

    def _per_unit(self, name: str, like: Tensor) -> Tensor:
        return self.hp[name].view(-1, *[1] * (like.dim() - 1))
