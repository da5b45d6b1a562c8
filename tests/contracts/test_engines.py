"""The contract of engines: every engine gives what plain PyTorch gives, member by member."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from programs import TASKS, make_candidates, make_program, make_spec, make_split
from references import ScheduleFreeAdamW

from adanet_py.architectures import ARCHITECTURES
from adanet_py.architectures.layers import is_decayed
from adanet_py.architectures.names import ACTIVATIONS, NORMS
from adanet_py.tasks import is_regression, part_of
from adanet_py.training import probe
from adanet_py.training.averaging import averaging_weights
from adanet_py.training.batches import BatchOrder, member_seed, noise_starts
from adanet_py.training.engines import ENGINES, make_engine
from adanet_py.training.engines.program import Program, merge_members
from adanet_py.training.losses import default_loss
from adanet_py.training.optimizers import OPTIMIZERS
from adanet_py.training.schedules import SCHEDULES

STEPS, CHANGE = 8, 5  # steps, and the step after which some candidates are dropped
# Different learning rate, decay, dropout, clipping, smoothing and warm-up for every candidate.
MIXED: list[dict[str, float]] = [
    {"lr": 3e-3, "weight_decay": 0.1, "dropout": 0.3, "warmup": 0.3},
    {"lr": 1e-2, "clip_norm": 0.2, "label_smoothing": 0.2},
    {"lr": 1e-3, "weight_decay": 0.01, "dropout": 0.5, "clip_norm": 1.0},
    {"lr": 5e-3, "label_smoothing": 0.1, "warmup": 0.5, "frequency": 2.0},
]


def never(step: int) -> bool:
    return False


@pytest.fixture(autouse=True)
def _curvature_at_every_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "DUE_EVERY", 1)


def mixed(
    architecture: str, task: str = "binary", *, folds: int = 1, optimizer: str = "adamw",
    weighted: bool = False, order: list[int] | None = None, **static: Any,
) -> Program:  # fmt: skip
    candidates = make_candidates(
        architecture, MIXED, optimizer=optimizer, schedules=sorted(SCHEDULES), **static
    )
    chosen = [candidates[i] for i in order or range(len(candidates))]
    return make_program(chosen, make_spec(task), steps=STEPS, folds=folds, weighted=weighted)


def trace(name: str, program: Program, keep: list[int] | None = None) -> dict[str, torch.Tensor]:
    """Train, drop all but `keep` after some steps, train on; everything an engine gives."""
    engine = make_engine(name, program)
    valid = make_split(60, program.folds).valid
    out = {}
    for part, (start, stop) in enumerate(((0, CHANGE), (CHANGE, STEPS))):
        reached, out[f"loss {part}"], out[f"norm {part}"] = engine.advance(start, stop, never)
        assert reached == stop
        out |= {f"{n} {part}": v for n, v in engine.measure().items()}
        out[f"valid {part}"] = engine.predict(valid)
        out[f"same {part}"] = engine.predict([np.arange(20)])
        if part == 0 and keep is not None:
            engine.select(keep)
    for position in range(len(engine.alive)):
        for n, v in engine.snapshot(position).items():
            out[f"{engine.alive[position]}:{n}"] = v
    out["parameters"] = torch.tensor(engine.parameters)
    return out


def check_same(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor], bound: float) -> None:
    assert got.keys() == want.keys()
    for name in want:
        # A difference of gradients has lost some of their digits, and a ratio of small ones too.
        own = 1e-5 if name.startswith(("curvature", "depth_ratio")) else bound
        torch.testing.assert_close(
            got[name], want[name], rtol=own, atol=own, equal_nan=True, msg=name
        )


def check_oracle(name: str, program: Program) -> None:
    """The engine against the separate one, four candidates of which two go on."""
    keep = [1, 2]
    check_same(trace(name, program, keep), trace("separate", program, keep), 1e-9)


@pytest.fixture(params=sorted(set(ENGINES) - {"separate"}))
def fused(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=sorted(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_equals_plain_pytorch(fused: str, architecture: str, task: str, folds: int) -> None:
    check_oracle(fused, mixed(architecture, task, folds=folds))


@pytest.mark.parametrize("optimizer", sorted(n for n, o in OPTIMIZERS.items() if not o.engine))
def test_equals_torch_optim(fused: str, optimizer: str) -> None:
    check_oracle(fused, mixed("mlp", optimizer=optimizer))


@pytest.mark.parametrize("norm", sorted(NORMS))
def test_equals_plain_pytorch_with_every_norm(fused: str, norm: str) -> None:
    check_oracle(fused, mixed("mlp", norm=norm, folds=2))
    check_oracle(fused, mixed("resnet", norm=norm))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_equals_plain_pytorch_with_every_activation(fused: str, activation: str) -> None:
    check_oracle(fused, mixed("mlp", activation=activation, depth=1))


@pytest.mark.parametrize("embedding", ["piecewise_linear", "periodic"])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_equals_plain_pytorch_with_embeddings(
    fused: str, architecture: str, embedding: str
) -> None:
    check_oracle(fused, mixed(architecture, embedding=embedding))


@pytest.mark.parametrize("folds", [1, 2])
def test_equals_plain_pytorch_with_weighted_rows(fused: str, folds: int) -> None:
    program = mixed("mlp", folds=folds, weighted=True)
    check_oracle(fused, program)
    plain = trace(fused, mixed("mlp", folds=folds))
    assert not torch.allclose(trace(fused, program)["loss 0"], plain["loss 0"])


CONSTRAINTS: dict[str, dict[str, float]] = {
    "l1": {"l1": 0.03},
    "clip_value": {"clip_value": 3e-3},
    "clip_norm": {"clip_norm": 0.05},
    "agc": {"agc": 0.01},
    "decoupled_decay": {"decoupled_decay": 2.0},
    "bias_decay": {"weight_decay": 0.5, "bias_decay": 0.5},
    "max_norm": {"max_norm": 0.4},
}


def constrained(architecture: str, changes: dict[str, float], optimizer: str) -> Program:
    """Every second candidate is constrained."""
    numeric = [m | (changes if i % 2 == 0 else {}) for i, m in enumerate(MIXED)]
    candidates = make_candidates(
        architecture, numeric, optimizer=optimizer, schedules=["constant"],
        embedding="piecewise_linear",
    )  # fmt: skip
    return make_program(candidates, make_spec(), steps=STEPS)


@pytest.mark.parametrize("architecture", ["mlp", "tabm"])
@pytest.mark.parametrize("name", [*CONSTRAINTS, "all"])
def test_equals_plain_pytorch_with_constraints(fused: str, name: str, architecture: str) -> None:
    chosen = CONSTRAINTS.values() if name == "all" else [CONSTRAINTS[name]]
    changes = {k: v for c in chosen for k, v in c.items()}
    program = constrained(architecture, changes, "momentum")
    check_oracle(fused, program)
    free, bound = (trace(fused, p) for p in (constrained(architecture, {}, "momentum"), program))
    moved = [not torch.equal(free["valid 1"][k], bound["valid 1"][k]) for k in range(4)]
    assert moved == [True, False, True, False]


AVERAGES = [{"ema": 0.9}, {}, {"swa": 0.5}, {"ema": 0.5}]


def averaged(folds: int = 1, averages: list[dict[str, float]] | None = None) -> Program:
    """Three of four candidates are evaluated on averages."""
    numeric = [m | a for m, a in zip(MIXED, averages or AVERAGES, strict=True)]
    candidates = make_candidates("mlp", numeric, norm="batch")
    return make_program(candidates, make_spec(), steps=STEPS, folds=folds)


@pytest.mark.parametrize("folds", [1, 2])
def test_equals_plain_pytorch_with_averaged_weights(fused: str, folds: int) -> None:
    check_oracle(fused, averaged(folds))


def test_averaged_weights_and_running_statistics_are_scored_and_kept(engine_name: str) -> None:
    program = averaged()
    engine = make_engine(engine_name, program)
    plain = make_engine(engine_name, averaged(averages=[{}] * 4))
    shares = averaging_weights(program.candidates, STEPS)
    want = [{n: v.clone() for n, v in plain.snapshot(k).items()} for k in range(4)]
    for step in range(STEPS):
        engine.advance(step, step + 1, never)
        plain.advance(step, step + 1, never)
        for k in range(4):
            for n, v in plain.snapshot(k).items():
                want[k][n] += shares[step, k] * (v - want[k][n])
    valid = [np.arange(20)]
    for k in range(4):
        got = engine.snapshot(k)
        for n, v in want[k].items():
            torch.testing.assert_close(got[n], v, rtol=1e-9, atol=1e-9)
        module = program.build(k).eval()
        module.load_state_dict({n.removeprefix("0/"): v for n, v in got.items()})
        outputs = module(program.data.numeric[:20], program.data.category[:20]).detach()
        torch.testing.assert_close(engine.predict(valid)[k], outputs, rtol=1e-9, atol=1e-9)
    moved = [not torch.equal(engine.predict(valid)[k], plain.predict(valid)[k]) for k in range(4)]
    assert moved == [True, False, True, True]


def test_averages_go_on_in_a_fresh_engine(engine_name: str) -> None:
    program = averaged(folds=2)
    first, second = make_engine(engine_name, program), make_engine(engine_name, program)
    first.advance(0, 5, never)
    first.select([0, 2])
    second.load(first.alive, {n: v.clone() for n, v in first.state().items()})
    for engine in (first, second):
        engine.advance(5, STEPS, never)
    for position in range(2):
        for name, value in first.snapshot(position).items():
            assert torch.equal(value, second.snapshot(position)[name])


PERTURBATIONS: dict[str, dict[str, float]] = {
    "dropout": {"dropout": 0.3},
    "drop_path": {"drop_path": 0.4},
    "input_noise": {"input_noise": 0.3},
    "mixup": {"mixup": 0.5},
    "cutmix": {"cutmix": 1.0},
    "mixup and cutmix": {"mixup": 1.0, "cutmix": 0.5},
    "all": {"dropout": 0.2, "drop_path": 0.3, "input_noise": 0.1, "mixup": 1.0, "cutmix": 1.0},
}


def perturbed(
    architecture: str, name: str, order: list[int] | None = None, **static: Any
) -> Program:
    """Every second candidate is perturbed."""
    numeric = [
        {"lr": 3e-3 * (i + 1)} | (PERTURBATIONS[name] if i % 2 == 0 else {}) for i in range(4)
    ]
    candidates = make_candidates(architecture, numeric, **static)
    chosen = [candidates[i] for i in order or range(4)]
    task = {"mlp": "multiclass", "resnet": "binary", "tabm": "regression"}[architecture]
    return make_program(chosen, make_spec(task), steps=STEPS, folds=2, weighted=True)


@pytest.mark.parametrize("embedding", ["none", "periodic"])
@pytest.mark.parametrize("name", sorted(PERTURBATIONS))
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_equals_plain_pytorch_when_perturbed(
    fused: str, architecture: str, name: str, embedding: str
) -> None:
    program = perturbed(architecture, name, embedding=embedding)
    got, want = trace(fused, program, [0, 1, 2]), trace("separate", program, [0, 1, 2])
    check_same(got, want, 1e-9)
    still = make_candidates(
        architecture, [{"lr": 3e-3 * (i + 1)} for i in range(4)], embedding=embedding
    )
    plain = trace(fused, make_program(
        still, program.spec, steps=STEPS, folds=2, weighted=True
    ), [0, 1, 2])  # fmt: skip
    acts = name in ARCHITECTURES[architecture].numeric or name != "drop_path"
    moved = [not torch.equal(got["valid 1"][k], plain["valid 1"][k]) for k in range(3)]
    assert moved == [acts, False, acts]
    for member in range(2):
        alone = trace(fused, perturbed(architecture, name, [member], embedding=embedding))
        torch.testing.assert_close(
            alone["valid 1"][0], got["valid 1"][member], rtol=1e-9, atol=1e-9
        )


def test_perturbations_go_on_after_loading(engine_name: str) -> None:
    program = perturbed("resnet", "all", batch_size=5)
    whole, first = make_engine(engine_name, program), make_engine(engine_name, program)
    whole.advance(0, STEPS, never)
    first.advance(0, 3, never)
    second = make_engine(engine_name, program)
    second.load(first.alive, {n: v.clone() for n, v in first.state().items()})
    second.advance(3, STEPS, never)
    for position in range(4):
        for name, value in whole.snapshot(position).items():
            assert torch.equal(value, second.snapshot(position)[name])


def test_perturbed_micro_batches_equal_plain_pytorch(fused: str) -> None:
    check_oracle(fused, replace(perturbed("resnet", "all"), pieces=3))


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("weighted", [False, True])
def test_micro_batches_add_up_to_the_batch(engine_name: str, norm: str, weighted: bool) -> None:
    numeric = [{k: v for k, v in m.items() if k != "dropout"} for m in MIXED]
    candidates = make_candidates("mlp", numeric, norm=norm)
    whole = make_program(candidates, make_spec(), steps=STEPS, folds=2, weighted=weighted)
    for pieces in (3, 16, 1000):
        cut = replace(whole, pieces=pieces)
        check_same(trace(engine_name, cut, [0, 2]), trace(engine_name, whole, [0, 2]), 1e-9)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_equals_plain_pytorch_in_micro_batches(fused: str, norm: str) -> None:
    check_oracle(fused, replace(mixed("mlp", norm=norm, folds=2), pieces=2))


def test_a_large_batch_is_cut_whatever_the_group(
    engine_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adanet_py.training.engines import program as module

    monkeypatch.setitem(module.MICRO_BYTES, "cpu", 4000)
    for count in (1, 4):
        program = mixed("mlp", order=list(range(count)))
        engine = make_engine(engine_name, program)
        sizes = [p.stop - p.start for p in engine._pieces]
        assert sum(sizes) == 16
        assert 1 < len(sizes) < 16
        assert max(sizes) - min(sizes) <= 1
        assert len(sizes) == len(make_engine("separate", mixed("mlp"))._pieces)


@pytest.mark.parametrize("sampling", ["full_batch", "one_sample"])
def test_equals_plain_pytorch_in_every_sampling_regime(fused: str, sampling: str) -> None:
    program = mixed("mlp", folds=2, sampling=sampling, norm="layer")
    assert program.order.batch_size == {"full_batch": 40, "one_sample": 1}[sampling]
    check_oracle(fused, program)


def test_selecting_one_candidate_equals_plain_pytorch(fused: str) -> None:
    for folds in (1, 2):
        program = mixed("mlp", norm="batch", folds=folds)
        check_same(trace(fused, program, [3]), trace("separate", program, [3]), 1e-9)


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_a_candidate_trains_alone_as_in_a_group(
    engine_name: str, architecture: str, folds: int
) -> None:
    program = mixed(architecture, folds=folds)
    group = trace(engine_name, program)
    for k in (0, 3):
        alone = trace(engine_name, mixed(architecture, folds=folds, order=[k]))
        for part in (0, 1):
            for what in ("valid", "same"):
                torch.testing.assert_close(
                    alone[f"{what} {part}"][0], group[f"{what} {part}"][k], rtol=1e-9, atol=1e-9
                )
        mine = {n.removeprefix("0:"): v for n, v in alone.items() if n.startswith("0:")}
        for name, value in mine.items():
            torch.testing.assert_close(value, group[f"{k}:{name}"], rtol=1e-9, atol=1e-9)


def test_the_order_of_the_candidates_does_not_matter(engine_name: str) -> None:
    order = [3, 0, 1, 2]
    plain = trace(engine_name, mixed("mlp", folds=2))
    moved = trace(engine_name, mixed("mlp", folds=2, order=order))
    for part in (0, 1):
        torch.testing.assert_close(
            moved[f"valid {part}"], plain[f"valid {part}"][order], rtol=1e-9, atol=1e-9
        )


def test_the_number_of_calls_does_not_matter(engine_name: str) -> None:
    program = mixed("mlp", norm="batch", folds=2)
    one, many = make_engine(engine_name, program), make_engine(engine_name, program)
    _, loss, norm = one.advance(0, STEPS, never)
    losses = []
    for step in range(STEPS):
        reached, each, last = many.advance(step, step + 1, never)
        assert reached == step + 1
        losses.append(each)
    for position in range(len(MIXED)):
        for name, value in one.snapshot(position).items():
            assert torch.equal(value, many.snapshot(position)[name])
    torch.testing.assert_close(torch.stack(losses).mean(0), loss)
    torch.testing.assert_close(last, norm)


def test_stops_where_the_tick_says(engine_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine_name == "native":  # asks between calls
        from adanet_py.training.engines.native import engine as native

        monkeypatch.setattr(native, "FIRST_STEPS", 1)
        monkeypatch.setattr(native, "CALL_SECONDS", 0.0)
    program = mixed("mlp")
    stopped, exact = make_engine(engine_name, program), make_engine(engine_name, program)
    seen = []

    def tick(step: int) -> bool:
        seen.append(step)
        return step == 5

    reached, loss, norm = stopped.advance(0, STEPS, tick)
    # One more is taken, which is measured.
    assert (reached, seen) == (6, [1, 2, 3, 4, 5])
    _, loss_exact, norm_exact = exact.advance(0, 6, never)
    assert torch.equal(loss, loss_exact)
    torch.testing.assert_close(norm, norm_exact)
    assert torch.equal(stopped.predict([np.arange(9)]), exact.predict([np.arange(9)]))


@pytest.mark.parametrize("folds", [1, 2])
def test_state_goes_on_in_a_fresh_engine(engine_name: str, folds: int) -> None:
    program = mixed("mlp", norm="batch", folds=folds)
    first = make_engine(engine_name, program)
    first.advance(0, 4, never)
    first.select([1, 2, 3])
    first.advance(4, 6, never)
    state = {n: v.clone() for n, v in first.state().items()}
    second = make_engine(engine_name, program)
    second.load(first.alive, state)
    assert second.alive == [1, 2, 3]
    for engine in (first, second):
        engine.advance(6, STEPS, never)
    for position in range(3):
        for name, value in first.snapshot(position).items():
            assert torch.equal(value, second.snapshot(position)[name])


def in_own_order(program: Program) -> Program:
    """The same, every candidate on batches of its own."""
    order, seeds = program.order, [c.seed for c in program.candidates]
    return replace(program, order=BatchOrder(order.rows, order.batch_size, order.seed, seeds))


@pytest.mark.parametrize("folds", [1, 2])
def test_equals_plain_pytorch_in_orders_of_their_own(fused: str, folds: int) -> None:
    check_oracle(fused, in_own_order(mixed("mlp", norm="batch", folds=folds, weighted=True)))
    check_oracle(fused, in_own_order(perturbed("resnet", "all")))


def test_a_candidate_has_its_order_whoever_trains_beside(engine_name: str) -> None:
    group = trace(engine_name, in_own_order(mixed("mlp", folds=2)), [1, 3])
    shared = trace(engine_name, mixed("mlp", folds=2), [1, 3])
    for place, k in enumerate((1, 3)):
        alone = trace(engine_name, in_own_order(mixed("mlp", folds=2, order=[k])))
        torch.testing.assert_close(
            alone["valid 1"][0], group["valid 1"][place], rtol=1e-9, atol=1e-9
        )
        assert not torch.allclose(shared["valid 1"][place], group["valid 1"][place])


@pytest.mark.parametrize("optimizer", sorted(n for n, o in OPTIMIZERS.items() if not o.engine))
def test_every_optimizer_goes_on_from_its_state(engine_name: str, optimizer: str) -> None:
    candidates = make_candidates("mlp", MIXED, optimizer=optimizer)
    program = make_program(candidates, make_spec(), steps=STEPS, dtype=torch.float32)
    first, second = make_engine(engine_name, program), make_engine(engine_name, program)
    first.advance(0, 4, never)
    first.select([1, 3])
    second.load(first.alive, {n: v.clone() for n, v in first.state().items()})
    rows = [np.arange(20)]
    assert torch.equal(first.predict(rows), second.predict(rows))
    for engine in (first, second):
        engine.advance(4, STEPS, never)
    for position in range(2):
        for name, value in first.snapshot(position).items():
            assert torch.equal(value, second.snapshot(position)[name])


def test_what_schedule_free_averages_is_scored_and_kept(engine_name: str) -> None:
    numeric = [{"lr": lr, "weight_decay": 0.1, "warmup": w} for lr, w in ((0.1, 0.5), (0.03, 0.0))]
    candidates = make_candidates("mlp", numeric, optimizer="schedule_free_adamw", norm="layer")
    program = make_program(candidates, make_spec(), steps=STEPS)
    engine = make_engine(engine_name, program)
    for step in range(STEPS):  # being evaluated in between changes nothing
        engine.advance(step, step + 1, never)
        engine.predict([np.arange(5)])
    order, data, knobs = program.order.take(0, STEPS)[:, 0], program.data, program.hyperparameters()
    for k in range(2):
        hp = {n: float(v[k]) for n, v in knobs.items()}
        module = program.build(k).eval()  # nothing is dropped, and layer norm is as in training
        named = dict(module.named_parameters())
        decayed = [is_decayed(n, tuple(p.shape)) for n, p in named.items()]
        yes, no = (
            [p for p, d in zip(named.values(), decayed, strict=True) if d == w] for w in (1, 0)
        )
        groups = [
            {"params": yes, "weight_decay": hp["weight_decay"]},
            {"params": no, "weight_decay": 0.0},
        ]
        oracle = ScheduleFreeAdamW(groups, hp)
        for step, rows in enumerate(order):
            outputs = module(data.numeric[rows], data.category[rows])
            member = {n: v[k : k + 1] for n, v in knobs.items()}
            loss = program.loss.rows(outputs[None, :, None], data.target[rows][None], member)
            module.zero_grad()
            loss.mean().backward()
            for group in oracle.param_groups:
                group["lr"] = program.rates()[step, k]
            oracle.step()
        average = dict(zip(map(id, [*yes, *no]), oracle.evaluated(), strict=True))
        want = {n: average[id(p)] for n, p in named.items()}
        got = engine.snapshot(k)
        for name, value in want.items():
            torch.testing.assert_close(got[f"0/{name}"], value, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(want["body.0.weight"], named["body.0.weight"], atol=1e-3)
        module.load_state_dict(want, strict=False)
        outputs = module(data.numeric[:20], data.category[:20]).detach()
        torch.testing.assert_close(
            engine.predict([np.arange(20)])[k], outputs, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("bad", [1e30, 1e300])
def test_a_diverging_candidate_leaves_the_others_bit_identical(
    engine_name: str, bad: float
) -> None:
    def outputs(lr: float) -> tuple[torch.Tensor, torch.Tensor]:
        numeric = [*MIXED[:2], {"lr": lr}, *MIXED[2:]]
        candidates = make_candidates("mlp", numeric, optimizer="sgd", norm="layer")
        program = make_program(candidates, make_spec(), steps=STEPS, folds=2)
        engine = make_engine(engine_name, program)
        _, loss, _ = engine.advance(0, STEPS, never)
        return engine.predict(make_split(60, 2).valid), loss.reshape(2, -1)

    (healthy, loss), (mixed_in, bad_loss) = outputs(1e-3), outputs(bad)
    others = [0, 1, 3, 4]
    assert not (mixed_in[2].abs() < 1e10).all()
    assert torch.equal(healthy[others], mixed_in[others])
    assert torch.equal(loss[:, others], bad_loss[:, others])


def test_a_snapshot_is_a_copy_that_fits_an_ordinary_module(engine_name: str) -> None:
    program = mixed("resnet", "multiclass", norm="batch", embedding="piecewise_linear", folds=2)
    engine = make_engine(engine_name, program)
    engine.advance(0, 5, never)
    snapshot = engine.snapshot(1)
    rows = np.arange(15)
    predicted = engine.predict([rows])[1]
    engine.advance(5, STEPS, never)
    outputs = []
    for fold in range(2):
        module = program.build(0).eval()
        prefix = f"{fold}/"
        state = {n.removeprefix(prefix): v for n, v in snapshot.items() if n.startswith(prefix)}
        module.load_state_dict(state)
        with torch.no_grad():
            outputs.append(module(program.data.numeric[rows], program.data.category[rows]))
    torch.testing.assert_close(torch.stack(outputs).mean(0), predicted, rtol=1e-10, atol=1e-10)


def test_prediction_does_not_depend_on_the_size_of_the_pieces(
    fused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adanet_py.training.engines import stacked

    rows = np.tile(np.arange(60), 5)
    whole = make_engine(fused, mixed("tabm", "binary")).predict([rows])
    monkeypatch.setitem(stacked.ACTIVATION_BYTES, "cpu", 1)
    pieces = make_engine(fused, mixed("tabm", "binary")).predict([rows])
    torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("folds", [1, 3])
def test_training_does_not_depend_on_the_size_of_the_blocks(
    fused: str, folds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adanet_py.training.engines import stacked

    outcomes = []
    for limit in (1 << 30, 1):
        monkeypatch.setitem(stacked.ACTIVATION_BYTES, "cpu", limit)
        program = mixed("mlp", "binary", folds=folds)
        engine = make_engine(fused, program)
        _, loss, norm = engine.advance(0, STEPS, lambda step: False)
        outcomes.append((loss, norm, engine.weights.clone()))
    for whole, pieces in zip(*outcomes, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-10)
    if fused == "stacked":
        assert len(engine._blocks) == folds * len(program.candidates)


def test_two_families_are_refused() -> None:
    one, other = make_candidates("mlp", [{}]), make_candidates("mlp", [{}], width=2)
    with pytest.raises(ValueError, match="one family"):
        make_program([*one, *other], make_spec())


def test_seeds_differ_between_candidates_and_folds() -> None:
    seeds = {member_seed(s, f) for s in range(50) for f in range(5)}
    assert len(seeds) == 250
    program = mixed("mlp", folds=3)
    assert len(set(program.seeds())) == 3 * len(MIXED)
    first, second = program.build(0).state_dict(), program.build(len(MIXED)).state_dict()
    assert any(not torch.equal(v, second[n]) for n, v in first.items())


def test_dropout_places_are_a_function_of_step_and_layer() -> None:
    whole = noise_starts(0, 20, 3)
    assert whole.shape == (20, 1, 3)
    np.testing.assert_array_equal(noise_starts(7, 12, 3), whole[7:12])
    assert len(set(whole.ravel().tolist())) == 60
    pieces = noise_starts(0, 20, 3, pieces=4)
    assert pieces.shape == (20, 4, 3)
    np.testing.assert_array_equal(pieces[:, :1], whole)
    assert len(set(pieces.ravel().tolist())) == 240


@pytest.mark.parametrize("batch", [1, 7, 16, 40, 1000])
def test_every_epoch_shows_every_row_once(batch: int) -> None:
    rows = (np.arange(0, 40), np.arange(100, 133))
    order = BatchOrder(rows, batch, seed=3)
    b = order.batch_size
    assert b == min(batch, 33)
    taken = order.take(0, 2 * 40 * 33 // b + 1)
    for fold, own in enumerate(rows):
        flat = taken[:, fold].ravel()
        for epoch in range(2):
            piece = flat[epoch * len(own) : (epoch + 1) * len(own)]
            np.testing.assert_array_equal(np.sort(piece), own)
        assert not np.array_equal(flat[: len(own)], flat[len(own) : 2 * len(own)])


def test_the_batches_are_the_same_however_they_are_asked_for() -> None:
    rows = (np.arange(23), np.arange(50, 81))
    whole = BatchOrder(rows, 8, seed=1).take(0, 30)
    again = BatchOrder(rows, 8, seed=1)
    for start, stop in ((11, 30), (0, 3), (3, 11), (29, 30)):
        np.testing.assert_array_equal(again.take(start, stop), whole[start:stop])
    assert not np.array_equal(BatchOrder(rows, 8, seed=2).take(0, 30), whole)
    assert BatchOrder(rows, 8, seed=1).steps_per_epoch == 3


def test_a_share_of_the_rows_is_seen_until_a_rung() -> None:
    rows = (np.arange(40), np.arange(100, 133))
    order = BatchOrder(rows, 5, 1, stages=((0, 0.25), (4, 0.5), (12, 1.0)))
    taken = order.take(0, 40)
    for fold, own in enumerate(rows):
        parts = [taken[a:b, fold].ravel() for a, b in ((0, 4), (4, 12), (12, 40))]
        met = [set(part.tolist()) for part in parts]
        assert [len(m) for m in met] == [round(0.25 * len(own)), round(0.5 * len(own)), len(own)]
        assert met[0] < met[1] < met[2] == set(own.tolist())
        for part, m in zip(parts, met, strict=True):  # each epoch shows every row of it once
            assert len(set(part[: len(m)].tolist())) == len(m)
    again = BatchOrder(rows, 5, 1, stages=((0, 0.25), (4, 0.5), (12, 1.0)))
    for start, stop in ((11, 14), (0, 5), (39, 40)):
        np.testing.assert_array_equal(again.take(start, stop), taken[start:stop])
    small = BatchOrder(rows, 30, 1, stages=((0, 0.1), (2, 1.0))).take(0, 2)
    assert len(set(small[:, 0].ravel().tolist())) == 30  # a batch at least


def test_orders_of_their_own_are_those_of_the_living() -> None:
    rows, seeds = (np.arange(23), np.arange(50, 81)), [5, 6, 7]
    whole = BatchOrder(rows, 8, 1, seeds).take(0, 30)
    assert whole.shape == (30, 6, 8)
    for stream in range(6):
        own = rows[stream // 3]
        np.testing.assert_array_equal(np.sort(whole[:, stream].ravel()[: len(own)]), own)
    assert len({tuple(whole[:, s].ravel()) for s in range(6)}) == 6
    left = BatchOrder(rows, 8, 1, seeds).take(4, 9, alive=[0, 2])
    np.testing.assert_array_equal(left, whole[4:9, [0, 2, 3, 5]])
    alone = BatchOrder(rows, 8, 1, [7]).take(0, 30)
    np.testing.assert_array_equal(alone, whole[:, [2, 5]])


@pytest.mark.parametrize("task", sorted(TASKS))
def test_implicit_members_are_averaged_as_probabilities(task: str) -> None:
    outputs = torch.randn(4, 6, 3, TASKS[task], dtype=torch.float64)
    merged = merge_members(outputs, task, default_loss(task))
    assert merged.shape == (4, 6, TASKS[task])
    if is_regression(task):
        torch.testing.assert_close(merged, outputs.mean(-2))
    elif part_of(task) == "binary":
        torch.testing.assert_close(merged.sigmoid(), outputs.sigmoid().mean(-2))
    else:
        torch.testing.assert_close(merged.softmax(-1), outputs.softmax(-1).mean(-2))
    one = outputs[..., :1, :]
    assert torch.equal(merge_members(one, task, default_loss(task)), one.squeeze(-2))
