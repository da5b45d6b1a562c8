"""The native engine's matrix products, and that nothing is compiled that was not foreseen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from programs import make_candidates, make_program, make_spec

pytest.importorskip("numba", reason="the native engine needs numba")

from adanet_py.training.engines import make_engine
from adanet_py.training.engines.native import blas
from adanet_py.training.engines.native.training import work

STEPS = 6


def outputs(architecture: str = "mlp", task: str = "multiclass", folds: int = 1) -> torch.Tensor:
    numeric = [{"lr": 1e-2}, {"lr": 3e-3, "dropout": 0.2, "weight_decay": 0.1}]
    candidates = make_candidates(architecture, numeric)
    engine = make_engine(
        "native", make_program(candidates, make_spec(task), steps=STEPS, folds=folds)
    )
    engine.advance(0, STEPS, lambda step: False)
    return engine.predict([np.arange(20)])


def test_the_blas_of_scipy_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = outputs()
    monkeypatch.setattr(blas, "library", lambda: None)
    blas.address.cache_clear()
    try:
        torch.testing.assert_close(outputs(), expected, rtol=1e-9, atol=1e-9)
    finally:
        blas.address.cache_clear()


def test_one_compiled_function_serves_everything() -> None:
    """Arrays of another kind or layout would be compiled for once more, which takes a minute."""
    for architecture in ("mlp", "resnet", "tabm"):
        for task in ("binary", "multiclass", "regression"):
            outputs(architecture, task, folds=2)
    for sampling in ("full_batch", "one_sample"):
        candidates = make_candidates("mlp", [{"mixup": 0.2, "ema": 0.9}], sampling=sampling)
        engine = make_engine("native", make_program(candidates, make_spec(), steps=STEPS))
        engine.advance(0, STEPS, lambda step: False)
        engine.measure()
    assert len(work.signatures) <= 2  # float64 here, float32 elsewhere
