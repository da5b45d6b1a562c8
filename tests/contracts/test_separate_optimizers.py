"""The contract of optimizers that run on `separate` only, the package's and library classes."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import make_candidates, make_program, make_run, make_spec, make_split

from adanet_py.errors import SpaceError
from adanet_py.own import Own
from adanet_py.records import Group, Status
from adanet_py.training.cost import cost_note
from adanet_py.training.engines import make_engine
from adanet_py.training.engines.program import Program
from adanet_py.training.engines.separate import SeparateEngine
from adanet_py.training.jobs import run_group
from adanet_py.training.optimizers import OPTIMIZERS, Optimizer
from adanet_py.training.optimizers.library import by_name, from_class

STEPS = 4
CURVED = sorted(n for n, o in OPTIMIZERS.items() if o.engine == "separate")
TORCH = ["AdamW", "ASGD", "LBFGS", "Rprop"]
PACKAGE = ["AdaBelief", "ScheduleFreeAdamW", "Shampoo"]
absent = pytest.mark.skipif(
    importlib.util.find_spec("pytorch_optimizer") is None,
    reason="pytorch-optimizer is not installed (the extra `optimizers`)",
)
NAMES = [
    *CURVED,
    *(f"torch.optim.{n}" for n in TORCH),
    *(pytest.param(f"pytorch_optimizer.{n}", marks=absent) for n in PACKAGE),
]
NUMERIC: list[dict[str, float]] = [
    {"weight_decay": 0.1, "dropout": 0.3},
    {"l1": 0.01, "warmup": 0.3},
    {"dropout": 0.5, "decoupled_decay": 0.05, "clip_norm": 1.0},
]


def never(step: int) -> bool:
    return False


@pytest.fixture(params=NAMES)
def optimizer(request: pytest.FixtureRequest) -> Optimizer:
    return Own().optimizer(request.param)


def program(
    optimizer: Optimizer, numeric: list[dict[str, float]] | None = None, **static: Any
) -> Program:
    """A few members with batch norm and dropout in two folds."""
    rows = [
        {k: v for k, v in n.items() if k != "weight_decay" or k in optimizer.numeric}
        for n in numeric or NUMERIC
    ]
    options: dict[str, Any] = {"norm": "batch", "depth": 1, **static}
    candidates = make_candidates("mlp", rows, optimizer=optimizer.name, **options)
    whole = replace(
        make_program(
            [replace(c, optimizer="adam") for c in candidates], make_spec(), folds=2, steps=STEPS
        ),
        candidates=candidates,
        optimizer=optimizer,
    )
    return whole


def trained(made: Program, steps: int = STEPS) -> SeparateEngine:
    engine: SeparateEngine = make_engine("separate", made)
    engine.advance(0, steps, never)
    return engine


def weights(engine: SeparateEngine, position: int) -> dict[str, torch.Tensor]:
    return engine.snapshot(position)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[n]) for n, v in a.items())


def test_knobs_have_legal_defaults_and_the_cost_is_at_least_a_gradient(
    optimizer: Optimizer,
) -> None:
    assert optimizer.summary
    assert "lr" in optimizer.numeric
    assert all(knob.allows(knob.default) for knob in optimizer.numeric.values())
    hp = optimizer.complete({})
    assert all(1.0 <= optimizer.passes(p, hp) < 1e9 for p in (1, 100, 10_000))


def test_it_trains(optimizer: Optimizer) -> None:
    made = program(optimizer, [{}], norm="none")
    start, engine = make_engine("separate", made), make_engine("separate", made)
    _, loss, norm = engine.advance(0, STEPS, never)
    assert not equal(weights(engine, 0), weights(start, 0))
    assert torch.isfinite(loss).all()
    assert (norm > 0).all()


def test_state_resumes_at_every_step(optimizer: Optimizer) -> None:
    made = program(optimizer)
    whole = trained(made)
    for at in range(STEPS):
        first = trained(made, at)
        if at == 2:
            first.predict(make_split(60, 2).valid)  # to look changes nothing
        state = {n: v.clone() for n, v in first.state().items()}
        second: SeparateEngine = make_engine("separate", made)
        second.load([0, 1, 2], state)
        second.advance(at, STEPS, never)
        for k in range(3):
            assert equal(weights(second, k), weights(whole, k))


def test_a_member_trains_alone_as_among_others(optimizer: Optimizer) -> None:
    made = program(optimizer)
    together = trained(made)
    for k in (0, 2):
        alone = trained(replace(made, candidates=(made.candidates[k],)))
        assert equal(weights(alone, 0), weights(together, k))


def test_dropping_members_leaves_the_others_alone(optimizer: Optimizer) -> None:
    made = program(optimizer)
    whole, some = trained(made), trained(made, 2)
    some.select([2])
    some.advance(2, STEPS, never)
    assert equal(weights(some, 0), weights(whole, 2))


def test_a_diverged_member_leaves_the_others_bit_identical(optimizer: Optimizer) -> None:
    made = program(optimizer)
    plain, bad = trained(made, 1), trained(made, 1)
    with torch.no_grad():
        for module in bad.modules[1::3]:
            next(module.parameters()).fill_(torch.nan)
    for engine in (plain, bad):
        _, loss, _ = engine.advance(1, STEPS, never)
    assert not torch.isfinite(loss.reshape(2, 3)[:, 1]).any()
    for k in (0, 2):
        assert equal(weights(plain, k), weights(bad, k))


def test_learning_rate_zero_changes_nothing(optimizer: Optimizer) -> None:
    if optimizer.name in ("torch.optim.Rprop",):
        pytest.skip("its learning rate is the first step length only")
    made = program(optimizer, [{"lr": 0.0}], norm="none")
    assert equal(weights(trained(made), 0), weights(trained(made, 0), 0))


@pytest.mark.parametrize("pieces", [1, 3])
def test_micro_batches_change_nothing(optimizer: Optimizer, pieces: int) -> None:
    made = program(optimizer, [{}], norm="layer")
    whole, parts = trained(made, 2), trained(replace(made, pieces=pieces), 2)
    for name, value in weights(whole, 0).items():
        torch.testing.assert_close(weights(parts, 0)[name], value, rtol=1e-3, atol=1e-5)


# ------------------------------------------------------------------ what a step sees


def test_running_statistics_move_once_a_step() -> None:
    made = program(OPTIMIZERS["lbfgs"], [{"lr": 0.0}])
    plain = program(OPTIMIZERS["sgd"], [{"lr": 0.0}])
    ours, once = trained(made, 2), trained(plain, 2)
    found = {n: v for n, v in weights(ours, 0).items() if "running" in n}
    assert found
    assert equal(found, {n: v for n, v in weights(once, 0).items() if "running" in n})


def test_a_full_batch_step_without_noise_lowers_the_loss(optimizer: Optimizer) -> None:
    if optimizer.name not in CURVED:
        pytest.skip("first order")
    made = program(optimizer, [{}], norm="none", batch_size=64)
    engine = make_engine("separate", made)
    losses = [engine.advance(s, s + 1, never)[1] for s in range(STEPS)]
    assert (losses[-1] < losses[0]).all()


def test_torch_classes_do_what_the_built_in_ones_do() -> None:
    for name, own, numeric in (
        ("torch.optim.AdamW", "adamw", {"lr": 0.01, "weight_decay": 0.1, "beta2": 0.9}),
        ("torch.optim.SGD", "momentum", {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.8}),
    ):
        rows = [numeric | {"clip_norm": 0.5, "l1": 0.01}]
        found = weights(trained(program(by_name(name), rows)), 0)
        want = weights(trained(program(OPTIMIZERS[own], rows)), 0)
        for n, value in want.items():
            torch.testing.assert_close(found[n], value, rtol=1e-10, atol=1e-12)


class Wandering(torch.optim.Optimizer):
    """Follows a closure of its own accord, and draws noise."""

    def __init__(self, params: Any, lr: float = 0.1, noise: float = 0.5, tries: int = 2) -> None:
        super().__init__(params, {"lr": lr})
        self.noise, self.tries = noise, tries

    def step(self, closure: Any) -> None:
        for _ in range(self.tries):
            closure()
            for group in self.param_groups:
                for p in group["params"]:
                    p.sub_(group["lr"] * (p.grad + self.noise * torch.randn_like(p)))


def test_what_an_optimizer_draws_is_the_members_own() -> None:
    made = program(from_class(Wandering))
    torch.manual_seed(1)
    together = trained(made)
    before = torch.get_rng_state()
    alone = trained(replace(made, candidates=(made.candidates[2],)))
    assert equal(weights(alone, 0), weights(together, 2))
    assert torch.equal(torch.get_rng_state(), before)


class Deaf(torch.optim.Optimizer):
    """Never asks for the loss."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(0.9)


def test_an_optimizer_that_never_asks_for_the_loss_fails_with_the_reason() -> None:
    with pytest.raises(RuntimeError, match="Deaf never called the closure"):
        trained(program(from_class(Deaf)))


# ------------------------------------------------------------------ as a job


def run(folder: Path, name: str, rows: list[dict[str, float]], **static: Any) -> tuple[Any, Any]:
    candidates = make_candidates("mlp", rows, optimizer=name, depth=1, **static)
    events: list[dict[str, Any]] = []
    setting = make_run(folder, make_spec("regression"), emit=events.append)
    group = Group(0, candidates, 6, evaluate_every=2, engine="separate")
    return run_group(group, setting), events


@pytest.mark.parametrize("name", CURVED)
def test_a_job_says_what_a_step_costs_before_it_starts(name: str, tmp_path: Path) -> None:
    results, events = run(tmp_path, name, [{}, {}])
    assert [r.status for r in results] == [Status.COMPLETE] * 2
    first = events[0]
    assert first["kind"] == "note"
    assert first["message"].startswith(f"{name}: ")
    assert "gradients of the batch" in first["message"]
    if name == "newton":
        count = results[0].parameters
        assert f"exact Hessian of {count} parameters" in first["message"]
        assert f"up to {count + 2} gradients" in first["message"]


def test_cheap_steps_need_no_word() -> None:
    assert cost_note(program(OPTIMIZERS["adam"])) == ""
    assert cost_note(program(by_name("torch.optim.Rprop"))) == ""


@pytest.mark.parametrize("name", CURVED)
def test_gradients_that_are_not_numbers_end_as_diverged(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import adanet_py.training.engines.separate as separate

    original = separate.SeparateEngine._forward

    def broken(self: SeparateEngine, m: int, *rest: Any) -> Any:
        found = original(self, m, *rest)
        outputs = found.outputs * (float("nan") if m == 1 else 1.0)
        return found._replace(outputs=outputs)

    monkeypatch.setattr(separate.SeparateEngine, "_forward", broken)
    results, _ = run(tmp_path, name, [{}, {}])
    assert [r.status for r in results] == [Status.COMPLETE, Status.DIVERGED]


class Odd(torch.optim.Optimizer):
    """Keeps a function in its state."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any) -> None:
        closure()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["rule"] = abs
                p.sub_(p.grad, alpha=group["lr"])


def test_state_that_cannot_be_stored_means_no_checkpoint_and_a_note(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    own = Own(optimizers={"Odd": from_class(Odd)})
    candidates = make_candidates("mlp", [{}], optimizer="Odd", depth=1)
    setting = make_run(tmp_path, make_spec(), emit=events.append, own=own, checkpoint_seconds=0.0)
    group = Group(0, candidates, 6, evaluate_every=2, engine="separate")
    (result,) = run_group(group, setting)
    assert result.status is Status.COMPLETE
    notes = [e["message"] for e in events if e["kind"] == "note"]
    assert len(notes) == 1
    assert "'rule'" in notes[0]
    assert "cannot be resumed" in notes[0]


# ------------------------------------------------------------------ names and classes


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torch.optim.Adan", "Did you mean 'Adam'"),
        ("torch.optim.Optimizer", "Unknown optimizer of torch.optim"),
        ("torch.optim.Muon", "only supports 2D parameters"),
        ("torch.optim.lr_scheduler.StepLR", "Unknown optimizer"),
        ("os.path", "Unknown optimizer"),
        ("newtn", "Did you mean 'newton'"),
        pytest.param("pytorch_optimizer.SAM", "base_optimizer, which has no default", marks=absent),
    ],
)
def test_what_cannot_be_an_optimizer_is_named(name: str, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        Own().optimizer(name)


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import adanet_py.training.optimizers.library as library

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(library, "import_module", missing)
    with pytest.raises(SpaceError, match=r"adanet_py\[optimizers\]"):
        by_name("pytorch_optimizer.NoSuch")


def test_knobs_come_from_the_signature() -> None:
    class Mine(Wandering):
        """Mine.

        More words.
        """

        def __init__(
            self, params: Any, lr: float, betas: Any = (0.8, 0.9), warmup: int = 7,
            weight_decay: float = 0.2, fast: bool = True, kind: str = "a", *, eps: float = 1e-8,
        ) -> None:  # fmt: skip
            assert isinstance(warmup, int)
            super().__init__(params, lr)
            self.got = (betas, warmup, eps, fast, kind)

    entry = from_class(Mine)
    assert entry.name == "Mine"
    assert entry.summary == "Mine."
    assert {n: k.default for n, k in entry.numeric.items()} == {
        "lr": 1e-3, "beta1": 0.8, "beta2": 0.9, "optimizer_warmup": 7, "weight_decay": 0.2,
        "eps": 1e-8,
    }  # fmt: skip
    p = torch.nn.Parameter(torch.zeros(2))
    assert entry.reference is not None
    made = entry.reference(
        [{"params": [p], "weight_decay": 0.3}, {"params": [], "weight_decay": 0.0}],
        entry.complete({"beta2": 0.5, "optimizer_warmup": 3.0}),
    )
    assert made.got == ((0.8, 0.5), 3, 1e-8, True, "a")
    assert made.param_groups[0]["weight_decay"] == 0.3
    assert len(made.param_groups) == 1


@absent
def test_weights_to_evaluate_with_are_those_that_are_scored() -> None:
    made = program(by_name("pytorch_optimizer.ScheduleFreeSGD"), [{"lr": 0.1}], norm="none")
    engine = trained(made)
    module, optimizer = engine.modules[0], engine.optimizers[0]
    before = {n: v.clone() for n, v in module.state_dict().items()}
    scored = {n.removeprefix("0/"): v for n, v in weights(engine, 0).items() if n[0] == "0"}
    assert equal(before, module.state_dict())
    optimizer.eval()  # type: ignore[attr-defined]
    assert equal(scored, module.state_dict())
    assert not equal(scored, before)


@pytest.mark.parametrize("name", [*CURVED, "torch.optim.ASGD"])
def test_a_killed_group_goes_on_from_its_checkpoint(name: str, tmp_path: Path) -> None:
    candidates = make_candidates("mlp", [{}, {"dropout": 0.3}], optimizer=name, norm="batch")
    group = Group(0, candidates, 6, evaluate_every=1, engine="separate")

    class Killed(BaseException):
        pass

    def kill(event: dict[str, Any]) -> None:
        if event["kind"] == "rung" and event["step"] == 4:
            raise Killed

    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    whole = run_group(group, make_run(folders[0], make_spec(), checkpoint_seconds=0.0))
    with pytest.raises(Killed):
        run_group(group, make_run(folders[1], make_spec(), checkpoint_seconds=0.0, emit=kill))
    assert list((folders[1] / "checkpoints").iterdir())
    resumed = run_group(group, make_run(folders[1], make_spec()))
    assert [r.metrics for r in resumed] == [r.metrics for r in whole]
    assert repr([r.curve for r in resumed]) == repr([r.curve for r in whole])
