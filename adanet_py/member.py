"""A member of a model: a network with the weights of all its folds, or a baseline; no torch yet.

A member is only arrays and a description. `Networks` makes modules of a network member, which
load torch and predict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adanet_py.baselines import count_folds, kind_of
from adanet_py.data.preprocess import Features
from adanet_py.data.spec import DataSpec
from adanet_py.errors import RunError, check_known
from adanet_py.own import Own
from adanet_py.records import Candidate
from adanet_py.training.losses import Loss, choose_loss

if TYPE_CHECKING:
    from torch import nn

_CHUNK = 4096  # rows that are predicted together


@dataclass(frozen=True, eq=False)
class Member:
    """One network (in all its folds) or one baseline of a model.

    `arrays` are its weights: for a network "<fold>/<parameter>", for a baseline those of
    `baselines.Baseline.member`. A network's logits are divided by `temperature`.
    """

    kind: str  # "network", "linear", "trees" or "onnx"
    arrays: Mapping[str, np.ndarray]
    candidate: Candidate
    folds: int = 1
    temperature: float = 1.0


def network_member(path: Path) -> Member:
    """The member in the file of a candidate in a run folder."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()["about"])
        names = [n for n in file.keys() if n.startswith("weights/")]
        arrays = {n.removeprefix("weights/"): file.get_tensor(n) for n in names}
    candidate = Candidate.from_json(about["candidate"])
    return Member("network", arrays, candidate, about["folds"], about["temperature"])


def baseline_member(path: Path, candidate: Candidate) -> Member:
    """The member in the file of a baseline in a run folder."""
    from safetensors.numpy import load_file

    arrays = with_prefix(load_file(path), "member/")
    return Member(kind_of(arrays), arrays, candidate, count_folds(arrays))


def with_prefix(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Those whose names begin so, by the rest of their names."""
    return {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}


@dataclass(frozen=True)
class Networks:
    """The modules of a network member, one per fold, ready to predict.

    `scaling` names the numeric inputs they read among `Preprocessor.transform`'s; `loss` is what
    they were trained on, which says how raw outputs are read.
    """

    modules: tuple[nn.Module, ...]
    scaling: str
    task: str
    loss: Loss

    @classmethod
    def of(cls, member: Member, spec: DataSpec, own: Own) -> Networks:
        """Those of a network member, for data described by `spec`.

        Raises RunError for an architecture that is not known, and for weights that do not fit it.
        """
        import torch

        from adanet_py.training.engines.program import build_module, load_weights

        known = own.loadable_architectures()
        candidate, name = member.candidate, member.candidate.architecture
        check_known("architecture", name, known, RunError)
        modules = []
        for fold in range(member.folds):
            module = build_module(known[name], candidate, spec, 0)
            arrays = with_prefix(member.arrays, f"{fold}/")
            state = {n: torch.from_numpy(np.array(v)) for n, v in arrays.items()}
            try:
                load_weights(module, state)
            except RuntimeError:
                raise RunError(
                    f"The model file does not hold the weights of the {name} network it names. "
                    "Use an intact copy."
                ) from None
            modules.append(module.eval())
        scaling = str(known[name].complete(candidate.static)["scaling"])
        loss = choose_loss(candidate.static, spec, own.all_losses())
        return cls(tuple(modules), scaling, spec.task, loss)

    def outputs(self, features: Features, fold: int | None = None) -> np.ndarray:
        """Outputs of every fold, or of one, as they are scored: [F, N, n_outputs] float32."""
        import torch

        from adanet_py.training.engines.program import as_members, merge_members, per_row

        numeric = torch.from_numpy(features[self.scaling]).split(_CHUNK)
        category = torch.from_numpy(features["category"]).split(_CHUNK)
        exposure = features.get("exposure")
        offset = 0.0 if exposure is None else per_row(torch.from_numpy(exposure).log())
        out = []
        with torch.inference_mode():
            for module in self.modules if fold is None else self.modules[fold : fold + 1]:
                parts = [
                    as_members(module(n, c), 1) for n, c in zip(numeric, category, strict=True)
                ]
                merged = merge_members(torch.cat(parts) + offset, self.task, self.loss)
                out.append(merged.numpy())
        return np.stack(out)
