"""What the speed benchmarks compare with: two ways of searching that people write by hand.

(a) `Study` and `train_plain`: an Optuna TPE study in memory, asked before and told after every
    candidate; nn.Sequential, torch.optim.Adam, a DataLoader that shuffles a TensorDataset.
(b) `train_strong`: the same network in a loop by someone who knows where the time goes: data on the
    device, batches by index, the fused Adam, one permutation per epoch, no DataLoader, no study.
`search_tables` is (a) as a whole search with a clock: early stopping, pruning, a schedule.

All is float32. Neither (a) nor (b) reads a training loss back or writes a file. Nothing here
imports adanet_py: what is measured against is plain PyTorch and Optuna.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
LOSSES: dict[str, Callable[[], nn.Module]] = {
    "multiclass": nn.CrossEntropyLoss,
    "binary": nn.BCEWithLogitsLoss,
    "regression": nn.MSELoss,
}


@dataclass(frozen=True)
class Setting:
    """One configuration of a multilayer perceptron trained with Adam."""

    width: int
    depth: int
    batch: int
    lr: float
    weight_decay: float
    seed: int


@dataclass(frozen=True)
class Data:
    """x [N, D] and y [N] (codes of classes, int64, or float32) of training and validation rows."""

    x: Tensor
    y: Tensor
    x_valid: Tensor
    y_valid: Tensor
    outputs: int

    def to(self, device: torch.device) -> Data:
        """The data on a device."""
        parts = (self.x, self.y, self.x_valid, self.y_valid)
        return Data(*(t.to(device) for t in parts), self.outputs)


def network(
    columns: int, outputs: int, width: int, depth: int, activation: str = "relu", dropout: float = 0
) -> nn.Sequential:
    """`depth` times linear, activation (and dropout); a linear head."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(columns, width), ACTIVATIONS[activation]()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        columns = width
    return nn.Sequential(*layers, nn.Linear(columns, outputs))


def scored_at(steps: int, evaluations: int) -> set[int]:
    """The steps after which the validation rows are scored: evenly spread, and the last."""
    every = max(1, steps // evaluations)
    return {*range(every, steps, every), steps}


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """Share of the validation rows whose class is found."""
    model.eval()
    found = (model(data.x_valid).argmax(1) == data.y_valid).float().mean().item()
    model.train()
    return found


class Study:
    """An Optuna TPE study in memory over width, depth, batch size, learning rate, weight decay.

    What it suggests is thrown away and a given candidate is trained in its place, so that all sides
    train the same ones; the score told is that candidate's. The cost is the study's own.
    """

    def __init__(self, settings: Sequence[Setting], seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._widths = sorted({s.width for s in settings})
        self._depths = sorted({s.depth for s in settings})
        self._batches = sorted({s.batch for s in settings})
        sampler = optuna.samplers.TPESampler(seed=seed)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)

    def ask(self) -> optuna.Trial:
        """A trial with all its parameters suggested."""
        trial = self._study.ask()
        trial.suggest_categorical("width", self._widths)
        trial.suggest_int("depth", self._depths[0], self._depths[-1])
        trial.suggest_categorical("batch", self._batches)
        trial.suggest_float("lr", 1e-4, 1e-2, log=True)
        trial.suggest_float("weight_decay", 1e-6, 1e-3, log=True)
        return trial

    def tell(self, trial: optuna.Trial, score: float) -> None:
        """The score of what was trained."""
        self._study.tell(trial, score)


def train_plain(
    setting: Setting, data: Data, steps: int, evaluations: int, device: torch.device
) -> list[float]:
    """(a): one candidate as people write it; its validation accuracies. `data` is on the CPU."""
    torch.manual_seed(setting.seed)
    train = TensorDataset(data.x, data.y)
    loader = DataLoader(train, batch_size=setting.batch, shuffle=True, drop_last=True)
    held_out = data.to(device)
    columns = data.x.shape[1]
    model = network(columns, data.outputs, setting.width, setting.depth).to(device)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=setting.lr, weight_decay=setting.weight_decay
    )
    criterion = nn.CrossEntropyLoss()
    scores, due = [], scored_at(steps, evaluations)
    for done, (x, y) in enumerate(_forever(loader), start=1):
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        if done in due:
            scores.append(accuracy(model, held_out))
        if done == steps:
            break
    return scores


def train_strong(
    setting: Setting, data: Data, steps: int, evaluations: int, device: torch.device
) -> list[float]:
    """(b): one candidate in a strong loop; its validation accuracies. `data` is on the device."""
    torch.manual_seed(setting.seed)
    rows, b = len(data.x), setting.batch
    model = network(data.x.shape[1], data.outputs, setting.width, setting.depth).to(device)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=setting.lr, weight_decay=setting.weight_decay, fused=True
    )
    cross_entropy = nn.functional.cross_entropy
    scores, due = [], scored_at(steps, evaluations)
    order, at = torch.randperm(rows, device=device), 0
    for done in range(1, steps + 1):
        if at + b > rows:
            order, at = torch.randperm(rows, device=device), 0
        batch = order[at : at + b]
        at += b
        cross_entropy(model(data.x[batch]), data.y[batch]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if done in due:
            scores.append(accuracy(model, data))
    return scores


def _forever(loader: DataLoader[Any]) -> Iterator[Any]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


# ---------------------------------------------------------------- a whole search, by (a)

EPOCHS, PATIENCE = 100, 8  # at most; epochs without improvement


@dataclass(frozen=True)
class Found:
    """The best score, the seconds at which it was reached, and all that improved on the way."""

    score: float
    seconds: float
    trials: int
    improvements: tuple[tuple[float, float], ...]  # (seconds, score)


def search_tables(
    data: Data,
    task: str,
    score: Callable[[np.ndarray], float],
    higher: bool,
    seconds: float,
    seed: int,
    device: torch.device,
) -> Found:
    """Search by TPE for `seconds`: the best `score` of raw outputs [N, C] on validation rows.

    What a good engineer writes: AdamW, dropout, the learning rate lowered when validation stalls,
    early stopping on the validation score, scored every epoch, Optuna's median pruner. The clock is
    asked after every epoch; a score that comes too late does not count.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize" if higher else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    held_out = data.x_valid.to(device)
    begun = time.monotonic()
    improvements: list[tuple[float, float]] = []

    def better(value: float, than: float | None) -> bool:
        return than is None or (value > than if higher else value < than)

    def objective(trial: optuna.Trial) -> float:
        torch.manual_seed(seed * 100_003 + trial.number)
        model = network(
            data.x.shape[1],
            data.outputs,
            trial.suggest_categorical("width", [64, 96, 128, 192, 256, 384]),
            trial.suggest_int("depth", 1, 5),
            trial.suggest_categorical("activation", list(ACTIVATIONS)),
            trial.suggest_float("dropout", 0.0, 0.5),
        ).to(device)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=trial.suggest_float("lr", 1e-4, 5e-2, log=True),
            weight_decay=trial.suggest_float("weight_decay", 1e-4, 1.0, log=True),
        )
        batch = trial.suggest_categorical("batch", [64, 128, 256, 512, 1024])
        loader = DataLoader(TensorDataset(data.x, data.y), batch_size=batch, shuffle=True)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="max" if higher else "min", factor=0.3, patience=3
        )
        criterion = LOSSES[task]()
        best: float | None = None
        stale = 0
        for epoch in range(EPOCHS):
            model.train()
            for x, y in loader:
                x, y = x.to(device), y.to(device)
                optimizer.zero_grad()
                outputs = model(x)
                loss = criterion(outputs if task == "multiclass" else outputs.squeeze(1), y)
                loss.backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                value = score(model(held_out).cpu().numpy())
            at = time.monotonic() - begun
            if at > seconds or not np.isfinite(value):
                break
            if better(value, improvements[-1][1] if improvements else None):
                improvements.append((at, value))
            stale = 0 if better(value, best) else stale + 1
            best = value if better(value, best) else best
            schedule.step(value)
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
            if stale >= PATIENCE:
                break
        if best is None:
            raise optuna.TrialPruned
        return best

    study.optimize(objective, timeout=seconds)
    if not improvements:
        raise SystemExit(f"The peer finished no epoch in {seconds:g} s. Give it more --seconds.")
    at, found = improvements[-1]
    return Found(found, at, len(study.trials), tuple(improvements))
