"""Optimizers written from their papers, one member at a time, where torch.optim has none.

Each is built and stepped as one of torch.optim is: from groups of parameters with their weight
decay, and the other hyperparameters by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Reference:
    """Steps every parameter by itself: `move` changes w in place, `state` is the parameter's."""

    def __init__(self, groups: list[dict[str, Any]], hp: Mapping[str, float]) -> None:
        self.param_groups = [{"lr": hp["lr"], **group} for group in groups]
        self.hp = hp
        self.state: dict[Tensor, dict[str, Any]] = {}

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state.setdefault(p, {"t": 0})
                state["t"] += 1
                self.move(p, p.grad, state, float(group["lr"]), group["weight_decay"])

    def move(self, w: Tensor, g: Tensor, state: dict[str, Any], lr: float, decay: float) -> None:
        raise NotImplementedError

    def evaluated(self) -> list[Tensor]:
        """The weights to evaluate with, in the order of the parameters."""
        return [p for group in self.param_groups for p in group["params"]]


class AveragedMomentum(Reference):
    def move(self, w: Tensor, g: Tensor, state: dict[str, Any], lr: float, decay: float) -> None:
        beta = self.hp["momentum"]
        state["v"] = beta * state.get("v", 0.0) + (1 - beta) * (g + decay * w)
        w -= lr * state["v"]


class ValueClippedMomentum(AveragedMomentum):
    def step(self) -> None:
        every = [p for group in self.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_value_(every, self.hp["value_limit"])
        super().step()


class NormClippedMomentum(AveragedMomentum):
    def step(self) -> None:
        every = [p for group in self.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(every, self.hp["norm_limit"])
        super().step()


class Lion(Reference):
    """Chen et al. 2023, algorithm 2."""

    def move(self, w: Tensor, g: Tensor, state: dict[str, Any], lr: float, decay: float) -> None:
        m = state.get("m", torch.zeros_like(w))
        c = self.hp["beta1"] * m + (1 - self.hp["beta1"]) * g
        w *= 1 - lr * decay
        w -= lr * torch.sign(c)
        state["m"] = self.hp["beta2"] * m + (1 - self.hp["beta2"]) * g


class ScheduleFreeAdamW(Reference):
    """Defazio et al. 2024, algorithm 1, with the weights lr_max^2; x and z are kept as they are."""

    def move(self, y: Tensor, g: Tensor, state: dict[str, Any], lr: float, decay: float) -> None:
        beta1, beta2 = self.hp["beta1"], self.hp["beta2"]
        if state["t"] == 1:
            state |= {"x": y.clone(), "z": y.clone(), "v": torch.zeros_like(y), "r": 0.0, "sum": 0}
        state["v"] = beta2 * state["v"] + (1 - beta2) * g * g
        corrected = state["v"] / (1 - beta2 ** state["t"])
        state["z"] = state["z"] - lr * (g / (corrected.sqrt() + self.hp["eps"]) + decay * y)
        state["r"] = max(state["r"], lr)
        state["sum"] += state["r"] ** 2
        c = state["r"] ** 2 / state["sum"] if state["sum"] else 0.0
        state["x"] = (1 - c) * state["x"] + c * state["z"]
        y.copy_((1 - beta1) * state["z"] + beta1 * state["x"])

    def evaluated(self) -> list[Tensor]:
        return [self.state[p]["x"] for group in self.param_groups for p in group["params"]]


class Muon(Reference):
    """Jordan et al. 2024: decayed parameters but the last are hidden, the rest is AdamW's."""

    def step(self) -> None:
        self.hidden = self.param_groups[0]["params"][:-1]
        super().step()

    def move(self, w: Tensor, g: Tensor, state: dict[str, Any], lr: float, decay: float) -> None:
        if not any(w is p for p in self.hidden):
            return self.adamw(w, g, state, lr * self.hp["adam_ratio"], decay)
        mu = self.hp["momentum"]
        m = state["m"] = mu * state.get("m", torch.zeros_like(w)) + (1 - mu) * g
        update = (1 - mu) * g + mu * m
        if w.dim() == 2:
            step = self.orthogonal(update)
        else:  # [n, in, out]
            step = torch.stack([self.orthogonal(each.T).T for each in update])
        w *= 1 - lr * decay
        w -= lr * step

    @staticmethod
    def orthogonal(g: Tensor) -> Tensor:
        """Newton-Schulz of one matrix [out, in], scaled by its shape."""
        n_out, n_in = g.shape
        x = g / max(float(g.norm()), 1e-7)
        for _ in range(5):
            x = 3.4445 * x - 4.7750 * (x @ x.T @ x) + 2.0315 * (x @ x.T @ x @ x.T @ x)
        return x * math.sqrt(max(1.0, n_out / n_in))

    def adamw(self, w: Tensor, g: Tensor, state: dict[str, Any], lr: float, decay: float) -> None:
        beta1, beta2, t = self.hp["beta1"], self.hp["beta2"], state["t"]
        state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
        state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g * g
        w *= 1 - lr * decay
        root = (state["v"] / (1 - beta2**t)).sqrt() + self.hp["eps"]
        w -= lr * state["m"] / (1 - beta1**t) / root


REFERENCES: dict[str, type[Reference]] = {
    "averaged_momentum": AveragedMomentum,
    "value_clipped_momentum": ValueClippedMomentum,
    "norm_clipped_momentum": NormClippedMomentum,
    "lion": Lion,
    "muon": Muon,
    "schedule_free_adamw": ScheduleFreeAdamW,
}
