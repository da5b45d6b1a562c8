"""AdaNet with subnetworks of its own, `grow_table`, as scikit-learn estimators.

As in estimators.py, but with the options of the command `adanet`; `random_state` is its `--seed`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from adanet_py.estimator_input import EXPOSURE, WEIGHT, value_errors, with_columns
from adanet_py.estimators import AdaNetClassifier, AdaNetRegressor, _AdaNet, keep_arguments
from adanet_py.subnetworks.options import GrowthOptions, with_variants

_OPTIONS = (
    "rounds", "widths", "random_widths", "learning_rates", "epochs", "dropout", "weight_decay",
    "kind", "complexity", "selection", "goal", "read",
)  # fmt: skip


class _Grown(_AdaNet):
    """What both estimators share: the options, and the growth in place of a search."""

    def _ends_by_the_clock(self) -> bool:
        return self.time is not None

    def _search(
        self,
        frame: pd.DataFrame,
        y: np.ndarray,
        task: str,
        sample_weight: Any,
        class_weight: Any = None,
        exposure: Any = None,
    ) -> None:
        """Grow, and keep `model_`, `rounds_` and `summary_`."""
        from adanet_py.subnetworks.folder import rounds_of
        from adanet_py.subnetworks.tables import grow_table

        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        frame, names = with_columns(frame, y, sample_weight, exposure)
        with value_errors():
            options = GrowthOptions(
                lambda_=self.adanet_lambda,
                beta=self.adanet_beta,
                **{name: getattr(self, name) for name in _OPTIONS},
            )
            found = grow_table(
                frame,
                target=names[0] if len(names) == 1 else tuple(names),
                options=with_variants(options, self.variants),
                task=task,
                metric=self.metric,
                loss=self.loss,
                quantile=getattr(self, "quantile", None),
                weight=None if sample_weight is None else WEIGHT,
                exposure=None if exposure is None else EXPOSURE,
                class_weight=class_weight,
                time=self.time,
                seed=seed,
                device=self.device,
            )
            if self.out is not None:
                found.save(self.out)
        self.model_ = found.model
        self.rounds_ = rounds_of(found.growing)
        self.summary_ = found.summary


class GrownClassifier(_Grown, AdaNetClassifier):
    """Grow an AdaNet of its own subnetworks for a classification and predict with it.

    Options as of the command `adanet` and of `GrowthOptions`; `variants` are those of the paper,
    `out` a folder to save to. `class_weight` is None, "balanced" or a dict from label to a factor
    above 0, for one target. After `fit`: `classes_`, `model_`, `rounds_` (a DataFrame), `summary_`
    (plain values), `n_features_in_`. Raises ValueError for data that cannot be used, and where no
    subnetwork is worth its penalty.
    """

    def __init__(
        self,
        *,
        time: str | float | None = None,
        rounds: int = 8,
        widths: Sequence[int] = (64,),
        random_widths: int = 0,
        learning_rates: Sequence[float] = (3e-3,),
        epochs: float = 20.0,
        dropout: float = 0.0,
        weight_decay: float = 1e-4,
        adanet_lambda: float = 1e-3,
        adanet_beta: float = 1e-4,
        kind: str = "scalar",
        complexity: str = "depth",
        selection: str = "training",
        goal: str = "ensemble",
        read: str = "all",
        variants: Sequence[str] = (),
        metric: str | None = None,
        loss: str = "auto",
        class_weight: str | Mapping[Any, float] | None = None,
        device: str = "cpu",
        out: str | os.PathLike[str] | Path | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        keep_arguments(self, locals())


class GrownRegressor(_Grown, AdaNetRegressor):
    """Grow an AdaNet of its own subnetworks for a regression and predict with it.

    Options as of the command `adanet` and of `GrowthOptions`; `variants` are those of the paper,
    `out` a folder to save to. After `fit`: `model_`, `rounds_` (a DataFrame), `summary_` (plain
    values), `n_features_in_`. Raises ValueError for data that cannot be used, and where no
    subnetwork is worth its penalty.
    """

    def __init__(
        self,
        *,
        time: str | float | None = None,
        rounds: int = 8,
        widths: Sequence[int] = (64,),
        random_widths: int = 0,
        learning_rates: Sequence[float] = (3e-3,),
        epochs: float = 20.0,
        dropout: float = 0.0,
        weight_decay: float = 1e-4,
        adanet_lambda: float = 1e-3,
        adanet_beta: float = 1e-4,
        kind: str = "scalar",
        complexity: str = "depth",
        selection: str = "training",
        goal: str = "ensemble",
        read: str = "all",
        variants: Sequence[str] = (),
        metric: str | None = None,
        loss: str = "auto",
        quantile: float | None = None,
        device: str = "cpu",
        out: str | os.PathLike[str] | Path | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        keep_arguments(self, locals())
