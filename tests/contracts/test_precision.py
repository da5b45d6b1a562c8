"""The contract of bfloat16: matrix products in training are; what is kept and scored is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from programs import make_candidates, make_program, make_spec
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adanet_py.architectures import ARCHITECTURES
from adanet_py.architectures.names import NORMS
from adanet_py.training.engines import ENGINES, make_engine
from adanet_py.training.engines.program import Program

# Everything a network can do in training, in one member of two.
NUMERIC: list[dict[str, float]] = [
    {"lr": 1e-3, "dropout": 0.2, "input_noise": 0.1, "mixup": 1.0, "cutmix": 1.0, "drop_path": 0.2},
    {"lr": 1e-3},
]
ABLE = sorted(set(ENGINES) - {"native"})  # which gives such groups to `stacked`
CASES = [
    (name, norm, embedding)
    for name, architecture in sorted(ARCHITECTURES.items())
    for norm in (sorted(NORMS) if "norm" in architecture.static else [""])
    for embedding in ("none", "piecewise_linear", "periodic")
    if norm in ("", "batch") or embedding == "none"
]


class Products(TorchDispatchMode):
    """Notes the precision of every matrix product that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("mm", "bmm", "addmm", "baddbmm"):
            self.found.add(out.dtype)
        return out


def make(name: str, precision: str, *, lr: float | None = None, **static: Any) -> Program:
    numeric = [n | ({} if lr is None else {"lr": lr}) for n in NUMERIC]
    candidates = make_candidates(name, numeric, precision=precision, **static)
    return make_program(candidates, make_spec("multiclass"), dtype=torch.float32, folds=2)


@pytest.fixture(params=ABLE)
def engine_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize(("name", "norm", "embedding"), CASES)
def test_only_products_are_bfloat16_and_little_changes(
    engine_name: str, name: str, norm: str, embedding: str
) -> None:
    static = {"embedding": embedding} | ({"norm": norm} if norm else {})
    losses = {}
    for precision in ("float32", "bfloat16"):
        engine = make_engine(engine_name, make(name, precision, **static))
        with Products() as products:
            _, losses[precision], norms = engine.advance(0, 4, lambda step: False)
        assert products.found == {getattr(torch, precision)}
        assert torch.isfinite(norms).all()
        for value in (*engine.state().values(), losses[precision], norms):
            assert not value.is_floating_point() or value.dtype == torch.float32
    assert not torch.equal(losses["float32"], losses["bfloat16"])
    # Eight bits of significand: a relative error of 2^-9 in each factor.
    torch.testing.assert_close(losses["bfloat16"], losses["float32"], rtol=0.01, atol=0.0)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_engines_agree(name: str) -> None:
    engines = [make_engine(e, make(name, "bfloat16")) for e in ("stacked", "separate")]
    (one, other) = (e.advance(0, 4, lambda step: False)[1] for e in engines)
    torch.testing.assert_close(one, other, rtol=0.01, atol=0.0)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_evaluation_is_in_float32(engine_name: str, name: str) -> None:
    programs = [make(name, p) for p in ("bfloat16", "float32")]
    engines = [make_engine(engine_name, p) for p in programs]
    engines[0].advance(0, 3, lambda step: False)
    engines[1].load([0, 1], engines[0].state())
    rows = programs[0].order.rows[0]
    with Products() as products:
        outputs = [engine.predict([rows]) for engine in engines]
    assert products.found == {torch.float32}
    assert torch.equal(*outputs)


def test_steps_too_small_for_bfloat16_are_not_lost(engine_name: str) -> None:
    engine = make_engine(engine_name, make("mlp", "bfloat16", lr=1e-6))

    def weights() -> Tensor:
        return torch.cat([v.flatten() for n, v in engine.snapshot(1).items() if "weight" in n])

    before = weights()
    engine.advance(0, 4, lambda step: False)
    moved = weights() != before
    assert float(moved.float().mean()) > 0.5  # not the vectors of codes that did not occur
    assert float((weights().bfloat16() == before.bfloat16()).float().mean()) > 0.95
