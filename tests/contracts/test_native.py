"""The engine `native`: beyond the contract of every engine, what its compiled code could get wrong.

Plain PyTorch (`separate`) is the oracle: to 1e-9 in float64, losses to 1e-5 in float32. What must
not matter (grouping, order, calls, resumption) does not change a bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from programs import TASKS, lowest, make_candidates, make_program, make_spec, make_split

from adanet_py.architectures import ARCHITECTURES
from adanet_py.records import Candidate
from adanet_py.space import load_space, sample
from adanet_py.tasks import has_several_targets, is_regression
from adanet_py.training.engines import make_engine
from adanet_py.training.engines.native import is_installed
from adanet_py.training.engines.program import Program
from adanet_py.training.losses import LOSSES
from adanet_py.training.optimizers import OPTIMIZERS

pytestmark = [
    pytest.mark.skipif(not is_installed(), reason="needs numba (the extra native)"),
    pytest.mark.usefixtures("compiled"),
]

STEPS = 6
NUMERIC: list[dict[str, float]] = [
    {"lr": 3e-3, "weight_decay": 0.1, "dropout": 0.3, "label_smoothing": 0.1, "focal_gamma": 1.0},
    {"lr": 5e-3, "clip_norm": 0.5, "warmup": 0.4, "focal_gamma": 0.0, "huber_delta": 0.3},
    {"lr": 1e-3, "label_smoothing": 0.3, "focal_gamma": 3.0, "huber_delta": 3.0},
]
FAST = tuple(sorted(n for n, o in OPTIMIZERS.items() if not o.engine))


def never(step: int) -> bool:
    return False


def trace(engine: str, program: Program, keep: list[int] | None = None) -> dict[str, torch.Tensor]:
    """Losses, outputs and weights of a training in two parts; `keep` go on after the first."""
    made = make_engine(engine, program)
    out = {}
    for part, (start, stop) in enumerate(((0, STEPS // 2), (STEPS // 2, STEPS))):
        _, out[f"loss {part}"], out[f"norm {part}"] = made.advance(start, stop, never)
        out[f"outputs {part}"] = made.predict(make_split(60, program.folds).valid)
        if part == 0 and keep:
            made.select(keep)
    for position in range(len(made.alive)):
        for name, value in made.snapshot(position).items():
            out[f"{position}:{name}"] = value
    return out


def check_oracle(program: Program, keep: list[int] | None = None) -> None:
    # torch.optim.NAdam keeps a product in float32; the stacked engine's own does not.
    oracle = "stacked" if program.optimizer.name == "nadam" else "separate"
    got, want = trace("native", program, keep), trace(oracle, program, keep)
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(
            got[name], want[name], rtol=1e-9, atol=1e-9, equal_nan=True, msg=name
        )


# ------------------------------------------------------------------ losses


def loss_program(name: str, task: str, architecture: str, extra: str) -> Program:
    """A loss with all that can be at a row: its weight, its exposure, weights of its labels."""
    outputs = TASKS[task]
    ratio = (5.0, 4.0)[:outputs] if is_regression(task) else ()
    spec = replace(make_spec(task), quantile=0.8, target_ratio=ratio)
    candidates = make_candidates(architecture, NUMERIC, loss=name)
    program = make_program(candidates, spec, steps=STEPS, folds=2, weighted=extra == "weight")
    if extra == "offset":
        offset = torch.linspace(-0.5, 0.5, 60, dtype=program.dtype)
        program = replace(program, data=replace(program.data, offset=offset))
    if extra == "label_weight":
        weight = torch.tensor([[0.5, 2.0], [1.5, 0.75]], dtype=program.dtype)
        program = replace(program, label_weight=weight)
    return program


LOSS_CASES = [
    (name, task, extra)
    for name, loss in sorted(LOSSES.items())
    for task in loss.tasks
    for extra in ("weight", "offset", "label_weight")
    if extra != "offset" or is_regression(task)
    if extra != "label_weight" or (has_several_targets(task) and not is_regression(task))
]


@pytest.mark.parametrize("architecture", ["mlp", "tabm"])
@pytest.mark.parametrize(("name", "task", "extra"), LOSS_CASES, ids=map("-".join, LOSS_CASES))
def test_every_loss_on_every_task(name: str, task: str, extra: str, architecture: str) -> None:
    program = loss_program(name, task, architecture, extra)
    check_oracle(program, [0, 2])
    if extra != "weight":
        plain = trace("native", loss_program(name, task, architecture, ""), [0, 2])
        assert not torch.allclose(plain["loss 0"], trace("native", program, [0, 2])["loss 0"])


# ------------------------------------------------------------------ optimizers

CONSTRAINED = {
    "l1": 0.01, "clip_value": 0.02, "clip_norm": 0.05, "agc": 0.05, "decoupled_decay": 0.5,
    "weight_decay": 0.3, "bias_decay": 0.5, "max_norm": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("optimizer", FAST)
def test_every_optimizer_with_averages_and_constraints(optimizer: str) -> None:
    numeric = [
        {"ema": 0.8} | CONSTRAINED, {"swa": 0.7, "weight_decay": 0.1}, CONSTRAINED, {"ema": 0.5},
    ]  # fmt: skip
    candidates = make_candidates(
        "mlp", numeric, optimizer=optimizer, norm="layer", schedules=["cosine", "linear"],
        embedding="piecewise_linear",
    )  # fmt: skip
    program = make_program(candidates, make_spec(), steps=STEPS, folds=2)
    check_oracle(replace(program, pieces=2), [0, 1, 3])


OWN = {
    "a new name": replace(OPTIMIZERS["momentum"], name="mine"),
    "the name of another": replace(OPTIMIZERS["lion"], name="adamw"),  # which is compiled
}


@pytest.mark.parametrize("which", OWN)
def test_an_optimizer_of_the_user(which: str) -> None:
    optimizer = OWN[which]
    program = make_program(make_candidates("mlp", NUMERIC), make_spec(), steps=STEPS)
    check_oracle(replace(program, optimizer=optimizer), [0, 2])


# ------------------------------------------------------------------ tables and networks


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("embedding", ["none", "piecewise_linear", "periodic"])
@pytest.mark.parametrize(
    ("numbers", "codes"), [(3, ()), (0, (4, 12)), (1, ()), (0, (2,)), (1, (2,))]
)
def test_tables_of_one_kind(
    architecture: str, embedding: str, numbers: int, codes: tuple[int, ...]
) -> None:
    static = {} if numbers == 0 else {"embedding": embedding}
    perturbed = [NUMERIC[0] | {"input_noise": 0.1, "mixup": 1.0, "cutmix": 1.0}, *NUMERIC[1:]]
    candidates = make_candidates(architecture, perturbed, **static)
    check_oracle(make_program(candidates, make_spec("multiclass", numbers, codes), steps=STEPS))


NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "no hidden layer": ("mlp", {"depth": 0}),
    "one unit": ("mlp", {"width": 1, "depth": 2, "norm": "layer"}),
    "one unit, gated": ("mlp", {"width": 1, "depth": 1, "activation": "glu"}),
    "one unit of a stream": ("resnet", {"width": 1, "depth": 2, "norm": "batch"}),
    "one member": ("tabm", {"members": 1}),
    "no norm, gated": ("resnet", {"norm": "none", "activation": "swiglu", "depth": 3}),
    "nothing at the end": ("resnet", {"zero_last": True, "norm": "group"}),
    "one row": ("mlp", {"sampling": "one_sample", "norm": "batch"}),
    "all rows": ("resnet", {"sampling": "full_batch", "norm": "batch"}),
    "blocks": ("mlp", {"blocks": 2, "norm": "batch", "embedding": "piecewise_linear"}),
    "blocks, gated": ("mlp", {"blocks": 1, "norm": "rms", "activation": "geglu"}),
    "blocks on a table's features": ("mlp", {"depth": 0, "blocks": 1}),
    "blocks on embedded features": ("mlp", {"depth": 0, "blocks": 2, "embedding": "periodic"}),
    "blocks of members": ("tabm", {"blocks": 2, "activation": "gelu"}),
    "factors": ("mlp", {"rank": 1, "norm": "batch", "blocks": 1, "activation": "glu"}),
    "factors in blocks": ("resnet", {"rank": 1, "norm": "none"}),
    "path": ("mlp", {"skip": True}),
    "path, embedded features": ("mlp", {"skip": True, "embedding": "periodic", "blocks": 1}),
    "path, no hidden layer": ("mlp", {"skip": True, "depth": 0, "embedding": "piecewise_linear"}),
    "path, blocks on features": ("mlp", {"skip": True, "depth": 0, "blocks": 1}),
    "path of members": ("tabm", {"skip": True, "activation": "reglu"}),
    "path of members, embedded": ("tabm", {"skip": True, "blocks": 1, "embedding": "periodic"}),
    "wider than a vector": ("mlp", {"width": 67, "depth": 3, "norm": "rms", "activation": "mish"}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_at_their_limits(name: str) -> None:
    architecture, static = NETWORKS[name]
    known = ARCHITECTURES[architecture].static
    if any(k not in known for k in static):
        pytest.skip("it has no such knob")
    drops = "drop_path" in ARCHITECTURES[architecture].numeric
    numeric = [NUMERIC[0] | ({"drop_path": 0.5} if drops else {}), *NUMERIC[1:]]
    candidates = make_candidates(architecture, numeric, **static)
    check_oracle(make_program(candidates, make_spec(), steps=STEPS, folds=2), [0, 2])


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_smallest_network(architecture: str) -> None:
    static = lowest(ARCHITECTURES[architecture]) | {"batch_size": 7}
    candidates = tuple(
        Candidate(architecture, static, "adamw", "constant", n, seed=i)
        for i, n in enumerate(NUMERIC)
    )
    check_oracle(make_program(candidates, make_spec("regression"), steps=STEPS))


# ------------------------------------------------------------------ whatever a search may propose


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_that_are_read_where_the_table_has_them(name: str) -> None:
    """Numbers alone, and nobody mixes rows or adds noise: the first layers read the table."""
    architecture, static = NETWORKS[name]
    candidates = make_candidates(architecture, NUMERIC[1:], **static)
    check_oracle(make_program(candidates, make_spec("multiclass", 3, ()), steps=STEPS, folds=2))


def test_no_bit_depends_on_whether_rows_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "adanet_py.training.engines.native.engine"
    candidates = make_candidates("mlp", [{"lr": 1e-2}, {"lr": 3e-3}], width=40, depth=2)
    spec = make_spec("multiclass", 5, ())
    program = make_program(candidates, spec, steps=12, folds=2, dtype=torch.float32)
    want = bits(program, whole)

    def copying(engine: Any) -> Any:
        assert engine._in_order
        engine._in_order = False
        return whole(engine)

    check_bits(bits(program, copying), want)
    # In parts, of training and of evaluation, that begin anywhere in memory.
    monkeypatch.setattr(f"{module}.FIRST_STEPS", 5)
    monkeypatch.setattr(f"{module}.BLOCK_BYTES", 1000)
    rows = np.random.default_rng(0).integers(60, size=700)
    engine = whole(make_engine("native", program))
    found = engine.predict([rows])
    check_bits(bits(program, whole), want)
    one_by_one = torch.stack([engine.predict([rows[i : i + 1]])[:, 0] for i in (0, 256, 699)], 1)
    torch.testing.assert_close(found[:, [0, 256, 699]], one_by_one, rtol=1e-5, atol=1e-6)


def drawn(seed: int) -> Program:
    """A candidate of the space `table`, its sizes cut, on a table and task of its own."""
    rng = np.random.default_rng(seed)
    space = load_space("table")
    while OPTIMIZERS[(candidate := sample(space, rng)).optimizer].engine:
        pass
    sizes = {"width": 5, "members": 3, "embedding_width": 3, "category_width": 2, "batch_size": 16}
    static = {
        k: min(int(v), sizes[k] + int(rng.integers(3))) if k in sizes else v
        for k, v in candidate.static.items()
    }
    task = sorted(TASKS)[seed % len(TASKS)]
    if (
        task not in LOSSES.get(str(static["loss"]), LOSSES["huber"]).tasks
        or static["loss"] == "auto"
    ):
        static.pop("loss")
    numeric = dict(candidate.numeric) | {"lr": min(candidate.numeric["lr"], 1e-2)}
    pair = [
        replace(candidate, static=static, numeric=numeric | other, seed=seed + i)
        for i, other in enumerate(({}, {"input_noise": 0.1, "clip_norm": 0.3}))
    ]
    spec = make_spec(task, int(rng.integers(1, 4)), ((), (3,), (4, 12))[seed % 3])
    return make_program(pair, spec, steps=STEPS, folds=1 + seed % 2, weighted=bool(seed % 2))


@pytest.mark.parametrize("seed", range(24))
def test_what_a_search_proposes(seed: int) -> None:
    check_oracle(drawn(seed))


# ------------------------------------------------------------------ single precision

SINGLE: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("mlp", {"activation": "silu", "embedding": "piecewise_linear"}),
    "mlp, batch norm": ("mlp", {"norm": "batch", "activation": "gelu"}),
    "mlp, layer norm, gated": ("mlp", {"norm": "layer", "activation": "swiglu"}),
    "mlp, periodic": ("mlp", {"embedding": "periodic", "activation": "tanh"}),
    "resnet, group norm": ("resnet", {"norm": "group"}),
    "resnet, rms norm": ("resnet", {"norm": "rms", "activation": "silu"}),
    "tabm": ("tabm", {"embedding": "piecewise_linear"}),
}


@pytest.mark.parametrize(
    "optimizer", ["adamw", "momentum", "rmsprop", "muon", "schedule_free_adamw"]
)
@pytest.mark.parametrize("name", SINGLE)
def test_losses_in_single_precision(name: str, optimizer: str) -> None:
    architecture, static = SINGLE[name]
    numeric = [{"lr": 1e-3, "weight_decay": 0.01}, {"lr": 3e-3, "dropout": 0.2}]
    candidates = make_candidates(
        architecture, numeric, optimizer=optimizer, width=16, schedules=["cosine"], **static
    )
    program = make_program(candidates, make_spec(), steps=20, dtype=torch.float32)
    found = {}
    for engine in ("separate", "stacked", "native"):
        made = make_engine(engine, program)
        losses = [made.advance(s, s + 1, never)[1].clone() for s in range(20)]
        found[engine] = torch.stack(losses)
    for engine in ("stacked", "native"):
        torch.testing.assert_close(found[engine], found["separate"], rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------ what must not change a bit


def bits(program: Program, advance: Callable[[Any], Any]) -> list[dict[str, torch.Tensor]]:
    """Of each candidate, by its seed: its weights and outputs."""
    engine = advance(make_engine("native", program))
    outputs = engine.predict([np.arange(60)])
    found = {}
    for position, c in enumerate(engine.alive):
        found[program.candidates[c].seed] = engine.snapshot(position) | {"out": outputs[position]}
    return [found[seed] for seed in sorted(found)]


def varied(architecture: str, chosen: list[int] | None = None, **static: Any) -> Program:
    numeric = [
        {"lr": 3e-3 * (1 + i % 3), "dropout": 0.1 * (i % 2), "mixup": 0.5 * (i % 2),
         "input_noise": 0.05 * (i % 3), "weight_decay": 0.1}
        for i in range(6)
    ]  # fmt: skip
    candidates = make_candidates(architecture, numeric, schedules=["cosine", "linear"], **static)
    picked = [candidates[i] for i in chosen or range(6)]
    return make_program(picked, make_spec(), steps=12, folds=2, dtype=torch.float32)


def whole(engine: Any) -> Any:
    engine.advance(0, 12, never)
    return engine


def check_bits(got: list[dict[str, torch.Tensor]], want: list[dict[str, torch.Tensor]]) -> None:
    assert len(got) == len(want)
    for mine, other in zip(got, want, strict=True):
        assert all(torch.equal(mine[name], other[name]) for name in other)


PROGRAMS: dict[str, dict[str, Any]] = {
    "mlp": {"width": 19, "norm": "batch", "embedding": "piecewise_linear"},
    "resnet": {"width": 17, "norm": "layer", "embedding": "periodic"},
    "tabm": {"width": 13},
}


@pytest.mark.parametrize("architecture", PROGRAMS)
def test_no_bit_depends_on_who_trains_beside(architecture: str) -> None:
    static = PROGRAMS[architecture]
    want = bits(varied(architecture, **static), whole)
    for chosen in ([5, 3, 1, 0, 2, 4], [2], [4, 1]):
        got = bits(varied(architecture, chosen, **static), whole)
        check_bits(got, [want[i] for i in sorted(chosen)])


@pytest.mark.parametrize("architecture", PROGRAMS)
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "schedule_free_adamw"])
def test_no_bit_depends_on_calls_or_resumption(
    architecture: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adanet_py.training.engines.native import engine as module

    program = varied(architecture, optimizer=optimizer, **PROGRAMS[architecture])
    want = bits(program, whole)

    def stepwise(engine: Any) -> Any:
        for step in range(12):
            engine.advance(step, step + 1, never)
            engine.predict([np.arange(7)])
            engine.measure()
        return engine

    def resumed(engine: Any) -> Any:
        engine.advance(0, 5, never)
        other = make_engine("native", program)
        other.load(engine.alive, {n: v.clone() for n, v in engine.state().items()})
        other.advance(5, 12, never)
        return other

    for advance in (stepwise, resumed):
        check_bits(bits(program, advance), want)
    for seconds, first in ((0.0, 1), (10.0, 3)):
        monkeypatch.setattr(module, "CALL_SECONDS", seconds)
        monkeypatch.setattr(module, "FIRST_STEPS", first)
        check_bits(bits(program, whole), want)


def test_no_bit_depends_on_who_has_left() -> None:
    program = varied("mlp", **PROGRAMS["mlp"])
    want = bits(program, whole)

    def dwindling(engine: Any) -> Any:
        engine.advance(0, 4, never)
        engine.select([1, 3, 5])
        engine.advance(4, 8, never)
        engine.select([0, 2])
        engine.advance(8, 12, never)
        return engine

    check_bits(bits(program, dwindling), [want[1], want[5]])
