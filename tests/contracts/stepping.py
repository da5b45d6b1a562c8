"""Stepping an optimizer on a small made-up layout of parameters, K members at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanet_py.training.optimizers import Optimizer, Part, Step, make_parts

K, STEPS = 5, 100
SHAPES = {
    "inputs.weight": (2, 1, 2),
    "hidden.weight": (3, 2),
    "hidden.bias": (3,),
    "norm.scale": (2, 2),
    "head.weight": (2, 2),
    "head.bias": (2,),
}
PARTS = make_parts(SHAPES, {name: name.endswith("weight") for name in SHAPES})
P = PARTS[-1].stop
DECAYED = sum(p.stop - p.start for p in PARTS if p.decayed)

# Centres of the drawn values where the default is 0, or hides what the knob does.
CENTRES = {"momentum": 0.7, "dampening": 0.5, "momentum_decay": 0.1, "weight_decay": 0.02}

State = tuple[Tensor, dict[str, Tensor]]
Values = dict[str, Tensor]


def hyperparameters(optimizer: Optimizer, dtype: torch.dtype = torch.float64) -> Values:
    """A different value for each member, inside the knob's domain."""
    rng = np.random.default_rng(1)
    out = {}
    for name, knob in optimizer.numeric.items():
        low, high = float(knob.low or 0.0), float(knob.high or 1.0)
        centre = CENTRES.get(name, float(knob.default))
        values = np.clip(centre * rng.uniform(0.5, 1.05, K), low, high)
        assert all(knob.allows(float(v)) for v in values)
        out[name] = torch.tensor(values, dtype=dtype).reshape(K, 1)
    return out


def filled(value: float) -> Tensor:
    return torch.full((K, 1), value, dtype=torch.float64)


def noisy(step: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Gradients of step `step`, of very different sizes."""
    generator = torch.Generator().manual_seed(step)
    g = torch.randn(K, P, dtype=torch.float64, generator=generator)
    return (g * torch.logspace(-3, 1, P, dtype=torch.float64)).to(dtype)


def start(optimizer: Optimizer, dtype: torch.dtype = torch.float64) -> State:
    generator = torch.Generator().manual_seed(10**6)
    w = torch.randn(K, P, dtype=torch.float64, generator=generator).to(dtype)
    return w, optimizer.start(w)


def take(state: State, hp: Values, index: Any) -> tuple[State, Values]:
    """Some of the members."""
    slots = {n: s[index] for n, s in state[1].items()}
    return (state[0][index], slots), {n: v[index] for n, v in hp.items()}


def rates(step: int, hp: Values) -> Tensor:
    """A learning rate that moves from step to step."""
    return hp["lr"] * (1.0 + 0.5 * np.cos(step / 7))


def run(
    optimizer: Optimizer,
    state: State,
    hp: Values,
    steps: range,
    gradient: Callable[[int, Tensor], Tensor] = lambda t, w: noisy(t, w.dtype),
    *,
    rate: Callable[[int, Values], Tensor] = rates,
    parts: tuple[Part, ...] = PARTS,
    **more: Any,
) -> State:
    """Take steps from a copy of `state`."""
    w, slots = state[0].clone(), {n: s.clone() for n, s in state[1].items()}
    decayed = sum(p.stop - p.start for p in parts if p.decayed)
    for t in steps:
        count = torch.tensor([[t + 1.0]], dtype=w.dtype)
        step = Step(w, hp, rate(t, hp), count, decayed, parts, **more)
        optimizer.update(gradient(t, w).clone(), slots, step)
    return w, slots


def evaluated(optimizer: Optimizer, state: State, hp: Values) -> Tensor:
    return optimizer.evaluated(*state, hp) if optimizer.evaluated else state[0]
