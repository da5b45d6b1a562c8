"""The rung loop: who stays, what is kept, and that stopping and resuming change nothing."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from programs import (
    METRICS,
    TASKS,
    make_candidates,
    make_program,
    make_run,
    make_scorer,
    make_spec,
    make_split,
)
from safetensors import safe_open

from adanet_py.architectures import ARCHITECTURES
from adanet_py.errors import RunError
from adanet_py.journal import StorageError
from adanet_py.records import Candidate, Group, Result, Status
from adanet_py.training import finishing, groups, jobs
from adanet_py.training.cost import measure
from adanet_py.training.denormals import flushes
from adanet_py.training.engines import ENGINES
from adanet_py.training.engines.program import Program
from adanet_py.training.groups import Plan, Track, train
from adanet_py.training.scoring import Scorer
from adanet_py.training.setting import load_tensors
from adanet_py.training.setting import make_program as program_of_group

NO_SCORER = Scorer.make("log_loss", "binary", np.zeros(0), None, (0.0, 1.0))
RATES = (0.003, 0.03, 0.0001, 0.01)
STEPS, EVERY = 12, 3


def family(rates: tuple[float, ...] = RATES, **static: Any) -> tuple[Candidate, ...]:
    numeric = [{"lr": lr, "dropout": 0.1 * i} for i, lr in enumerate(rates)]
    return make_candidates("mlp", numeric, schedules=("cosine",), **static)


def make_group(candidates: tuple[Candidate, ...], **changes: Any) -> Group:
    return replace(Group(0, candidates, STEPS, evaluate_every=EVERY, order_seed=7), **changes)


def run(
    group: Group, *, folds: int = 1, task: str = "binary", dtype: torch.dtype = torch.float64,
    **plan: Any,
) -> tuple[list[Track], Program, Plan]:  # fmt: skip
    program = make_program(
        group.candidates, make_spec(task), steps=group.steps, folds=folds, dtype=dtype
    )
    valid = make_split(60, folds).valid
    whole = Plan(group, valid, make_scorer(program, valid), **plan)
    return train(program, whole), program, whole


def check_equal(got: list[Track], want: list[Track]) -> None:
    """Everything but the clock, bit for bit."""
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        mine, theirs = a.to_json(), b.to_json()
        mine.pop("seconds"), theirs.pop("seconds")
        assert mine == theirs
        assert a.weights.keys() == b.weights.keys()
        assert all(torch.equal(v, b.weights[n]) for n, v in a.weights.items())
        assert (a.outputs is None) == (b.outputs is None)
        if a.outputs is not None and b.outputs is not None:
            np.testing.assert_array_equal(a.outputs, b.outputs)


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_all_planned_steps_without_rungs_or_patience(engine: str, folds: int) -> None:
    tracks, program, _ = run(make_group(family(), engine=engine), folds=folds)
    for track in tracks:
        assert track.status is Status.COMPLETE
        assert track.steps == STEPS
        assert [e.step for e in track.curve] == [3, 6, 9, 12]
        assert track.curve[-1].epoch == pytest.approx(STEPS / program.order.steps_per_epoch)
        values = np.array([e.validation for e in track.curve])
        assert track.best_error == pytest.approx(values.min(), rel=1e-8)
        assert track.best_step == track.curve[int(values.argmin())].step
        assert all(math.isfinite(e.train_loss) and e.grad_norm > 0 for e in track.curve)
    rates = program.rates()
    for c, track in enumerate(tracks):
        assert [e.lr for e in track.curve] == pytest.approx(
            [rates[s - 1, c] for s in (3, 6, 9, 12)]
        )


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_kept_outputs_are_those_of_the_kept_weights(task: str) -> None:
    tracks, program, plan = run(make_group(family(norm="batch")), folds=2, task=task)
    for track in tracks:
        outputs = []
        for fold, module in enumerate(finishing.load_members(track, program)):
            rows = plan.valid[fold]
            with torch.no_grad():
                outputs.append(module(program.data.numeric[rows], program.data.category[rows]))
        assert track.outputs is not None
        np.testing.assert_allclose(torch.cat(outputs), track.outputs, rtol=1e-9, atol=1e-9)
        value, _ = plan.scorer.track(track.outputs)
        assert value == pytest.approx(track.best_error, rel=1e-3)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_halving_keeps_the_best_at_every_rung(engine: str) -> None:
    group = make_group(family(), rungs=(3, 9), keep=(2, 1), engine=engine)
    tracks, _, _ = run(group)
    assert sorted(t.steps for t in tracks) == [3, 3, 9, 12]
    full, _, _ = run(make_group(family(), engine=engine))
    alive = set(range(4))
    for step, keep in zip(group.rungs, group.keep, strict=True):
        best = {c: min(e.validation for e in full[c].curve if e.step <= step) for c in alive}
        stay = set(sorted(best, key=best.__getitem__)[:keep])
        for c in alive - stay:
            assert tracks[c].status is Status.PRUNED
            assert tracks[c].steps == step
        alive = stay
    (winner,) = alive
    assert tracks[winner].status is Status.COMPLETE
    # What happened before a candidate left is what would have happened without rungs.
    for track, whole in zip(tracks, full, strict=True):
        for got, want in zip(track.curve, whole.curve, strict=False):
            assert got.validation == pytest.approx(want.validation, rel=1e-9)


def test_early_stopping_keeps_the_best_weights() -> None:
    rates = (0.3, 0.0, 0.001)
    group = make_group(family(rates, width=32), steps=120, evaluate_every=2, patience=4)
    tracks, _, _ = run(group)
    overfitted, still, slow = tracks
    assert overfitted.status is still.status is Status.CONVERGED
    assert overfitted.steps < slow.steps
    assert still.best_step == 2
    assert still.steps == 2 + 4 * 2
    for track in tracks:
        values = [e.validation for e in track.curve]
        assert track.best_error == pytest.approx(min(values), rel=1e-8)
        if track.status is Status.CONVERGED:
            assert track.curve[-1].step == track.best_step + 4 * 2
    # The kept weights are those of the best step, not of the last.
    assert min(e.validation for e in overfitted.curve) < overfitted.curve[-1].validation
    shorter = make_group(family(rates, width=32), steps=120, evaluate_every=2)
    at_best, _, _ = run(replace(shorter, stop_at=overfitted.best_step))
    for name, value in at_best[0].weights.items():
        torch.testing.assert_close(overfitted.weights[name], value, rtol=1e-9, atol=1e-9)


class FakeEngine:
    """Only who is alive."""

    def __init__(self, count: int) -> None:
        self.alive = list(range(count))

    def select(self, keep: list[int]) -> None:
        assert keep
        self.alive = [self.alive[k] for k in keep]


def leave(
    errors: list[float], keep: int, changes: Any = None, **status: Status
) -> tuple[list[Track], list[int]]:
    """A rung at which candidates with these errors meet; `c1=Status...` has left already."""
    changes = changes or {}
    candidates = family((0.1,) * len(errors))
    tracks = [Track(c, best_error=e) for c, e in zip(candidates, errors, strict=True)]
    engine = FakeEngine(len(errors))
    for name, value in status.items():
        tracks[int(name[1:])].status = value
    diverged_now = [c for c, t in enumerate(tracks) if t.status is Status.DIVERGED]
    gone = [c for c, t in enumerate(tracks) if t.status is not None and c not in diverged_now]
    engine.alive = [c for c in engine.alive if c not in gone]
    group = make_group(candidates, rungs=(3,), keep=(keep,), **changes)
    groups._leave(engine, tracks, Plan(group, (), NO_SCORER), 3)
    return tracks, engine.alive


def test_a_converged_candidate_competes_for_a_place_at_a_rung() -> None:
    tracks, alive = leave([0.1, 0.3, 0.2, 0.4], keep=2, c0=Status.CONVERGED)
    assert alive == [2]
    assert [t.status for t in tracks] == [Status.CONVERGED, Status.PRUNED, None, Status.PRUNED]


def test_a_diverged_candidate_takes_no_place_at_a_rung() -> None:
    tracks, alive = leave([0.1, 0.3, 0.2, 0.4], keep=2, c0=Status.DIVERGED)
    assert alive == [1, 2]
    assert [t.status for t in tracks] == [Status.DIVERGED, None, None, Status.PRUNED]


def test_a_candidate_competes_with_what_earlier_groups_had_at_the_rung() -> None:
    tracks, alive = leave([0.1, 0.3, 0.2, 0.4], keep=3, changes={"bars": (0.2,)})
    assert alive == [0, 2]
    assert [t.status for t in tracks] == [None, Status.PRUNED, None, Status.PRUNED]
    assert leave([0.3, 0.4], keep=2, changes={"bars": (0.2,)})[1] == []


def test_nobody_left_at_a_rung() -> None:
    tracks, alive = leave([0.1, 0.2], keep=1, c0=Status.CONVERGED)
    assert alive == []
    assert tracks[1].status is Status.PRUNED


def test_equal_scores_are_told_apart_by_identity_not_by_position() -> None:
    candidates = family((0.1,) * 3)
    for order in ([0, 1, 2], [2, 0, 1]):
        tracks = [Track(candidates[i], best_error=0.5) for i in order]
        engine = FakeEngine(3)
        group = make_group(tuple(candidates[i] for i in order), rungs=(3,), keep=(1,))
        groups._leave(engine, tracks, Plan(group, (), NO_SCORER), 3)
        (survivor,) = engine.alive
        assert tracks[survivor].candidate.id == min(c.id for c in candidates)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_diverged_member_leaves_the_others_bit_identical(engine: str) -> None:
    def tracks(bad: float) -> list[Track]:
        numeric = [{"lr": 0.01}, {"lr": bad}, {"lr": 0.02, "dropout": 0.3}]
        candidates = make_candidates("mlp", numeric, optimizer="sgd", norm="layer")
        return run(make_group(candidates, engine=engine), dtype=torch.float32)[0]

    first, second, healthy = tracks(1e20), tracks(1e25), tracks(0.01)
    for got in (first, second):
        assert got[1].status is Status.DIVERGED
        assert got[1].steps == EVERY
    check_equal([first[0], first[2]], [second[0], second[2]])
    for k in (0, 2):
        assert first[k].status is Status.COMPLETE
        # One more or fewer member in a batched product may round differently, not more.
        got, want = ([e.validation for e in t.curve] for t in (first[k], healthy[k]))
        assert got[0] == want[0]
        assert got == pytest.approx(want, rel=1e-4)


def test_all_diverged_ends_the_group() -> None:
    candidates = make_candidates("mlp", [{"lr": 1e30}, {"lr": 1e28}], optimizer="sgd")
    tracks, _, _ = run(make_group(candidates), dtype=torch.float32)
    assert [t.status for t in tracks] == [Status.DIVERGED] * 2
    assert [t.steps for t in tracks] == [EVERY] * 2


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_resuming_at_every_evaluation_gives_identical_tracks(
    engine: str, folds: int, tmp_path: Path
) -> None:
    group = make_group(
        family(RATES[:3], norm="batch"), engine=engine, steps=8, rungs=(4,), keep=(2,), patience=2,
        evaluate_every=2,
    )  # fmt: skip
    whole, _, _ = run(group, folds=folds)
    assert {t.status for t in whole} >= {Status.PRUNED}
    for kill in range(1, 5):
        path = tmp_path / f"{kill}.safetensors"
        events: list[dict[str, Any]] = []

        def emit(
            event: dict[str, Any], events: list[dict[str, Any]] = events, kill: int = kill
        ) -> None:
            events.append(event)
            if len(events) == kill:
                raise Killed

        settings: dict[str, Any] = {"checkpoint": path, "checkpoint_seconds": -1.0}
        with pytest.raises(Killed):
            run(group, folds=folds, emit=emit, **settings)
        assert path.exists() == (kill > 1)
        later: list[dict[str, Any]] = []
        resumed, _, _ = run(group, folds=folds, emit=later.append, **settings)
        # It really went on, from the evaluation before the kill.
        assert later[0]["step"] == 2 * kill
        check_equal(resumed, whole)


def test_a_changed_byte_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    settings: dict[str, Any] = {"checkpoint": path, "checkpoint_seconds": -1.0}
    group = make_group(family(RATES[:2]), steps=6, evaluate_every=2)
    events: list[dict[str, Any]] = []

    def emit(event: dict[str, Any]) -> None:
        events.append(event)
        if len(events) == 2:
            raise Killed

    with pytest.raises(Killed):
        run(group, emit=emit, **settings)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        run(group, **settings)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_resumes_after_everybody_has_left(engine: str, tmp_path: Path) -> None:
    group = make_group(family((0.0, 0.0)), steps=60, patience=1, engine=engine)
    settings: dict[str, Any] = {"checkpoint": tmp_path / "x", "checkpoint_seconds": -1.0}
    first, _, _ = run(group, **settings)
    assert [t.status for t in first] == [Status.CONVERGED] * 2
    again, _, _ = run(group, **settings)
    check_equal(again, first)


@pytest.mark.parametrize("ticks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_stop_at_repeats_a_stop_by_the_deadline(engine: str, ticks: int) -> None:
    group = make_group(family(), rungs=(6,), keep=(2,), engine=engine)
    calls = 0

    def should_stop() -> bool:
        nonlocal calls
        calls += 1
        return calls >= ticks

    # Engines ask as often as they like.
    stopped, _, _ = run(group, should_stop=should_stop)
    last = max(t.steps for t in stopped)
    assert 1 <= last < group.steps
    assert {t.status for t in stopped} <= {Status.DEADLINE, Status.PRUNED}
    replayed, _, _ = run(replace(group, stop_at=last))
    check_equal(replayed, stopped)


def test_a_track_survives_json() -> None:
    tracks, _, _ = run(make_group(family((0.01, 1e30)), engine="stacked"))
    tracks[0].best_error, tracks[0].seconds = math.inf, 3.0
    for track in tracks:
        value = json.loads(json.dumps(track.to_json(), allow_nan=False))
        again = Track(track.candidate)
        again.load(value)
        assert again.to_json() == track.to_json()
        assert again.status is track.status
        assert isinstance(again.best_step, int)
        assert isinstance(again.seconds, float)


def test_every_evaluation_is_reported() -> None:
    events: list[dict[str, Any]] = []
    run(make_group(family(), rungs=(6,), keep=(1,)), emit=events.append)
    assert [e["kind"] for e in events] == ["rung"] * 4
    assert [e["step"] for e in events] == [3, 6, 9, 12]
    assert [e["alive"] for e in events] == [4, 1, 1, 1]
    assert json.dumps(events, allow_nan=False)


# Groups on prepared data: files, scores, memory.


def job_group(rates: tuple[float, ...] = RATES, **changes: Any) -> Group:
    return make_group(family(rates), controllers=tuple("abcd"[: len(rates)]), **changes)


@pytest.mark.parametrize("engine", ["stacked", "separate"])
def test_own_orders_are_those_of_the_candidates_alone(engine: str, tmp_path: Path) -> None:
    setting = make_run(tmp_path, make_spec(), folds=2, dtype=torch.float64)
    group = job_group((0.1, 0.2), engine=engine, own_order=True)
    assert Group.from_json(json.loads(json.dumps(group.to_json()))) == group
    both = jobs.run_group(group, setting)
    alone = jobs.run_group(replace(group, candidates=group.candidates[1:]), setting)
    shared = jobs.run_group(replace(group, own_order=False), setting)
    score = both[1].metrics["validation"]
    assert alone[0].metrics["validation"] == pytest.approx(score, rel=1e-9)
    assert shared[1].metrics["validation"] != pytest.approx(score, rel=1e-9)


def test_until_a_rung_a_share_of_the_rows_is_seen(tmp_path: Path) -> None:
    setting = make_run(tmp_path, make_spec(), rows=100, folds=2)
    group = job_group(rungs=(3, 6), keep=(4, 4), row_shares=(0.25, 0.5))
    assert Group.from_json(json.loads(json.dumps(group.to_json()))) == group
    program = program_of_group(group, setting)
    assert program.order.stages == ((0, 0.25), (3, 0.5), (6, 1.0))
    plain = program_of_group(replace(group, row_shares=()), setting)
    assert plain.order.stages == ((0, 1.0),)
    results = jobs.run_group(group, setting)
    assert all(r.status is Status.COMPLETE for r in results)


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_job_writes_weights_predictions_and_scores(task: str, folds: int, tmp_path: Path) -> None:
    spec = make_spec(task)
    setting = make_run(tmp_path, spec, rows=100, folds=folds, audit=10, target=(5.0, 2.0))
    group = job_group()
    results = jobs.run_group(group, setting)
    assert [r.candidate for r in results] == list(group.candidates)
    assert [r.controller for r in results] == list("abcd")
    assert not list((tmp_path / "checkpoints").iterdir())
    program = program_of_group(group, setting)
    for result in results:
        assert result.status is Status.COMPLETE
        assert set(result.metrics) == {"train", "validation", "audit"}
        assert all(math.isfinite(v) for v in result.metrics.values())
        assert result.parameters == folds * sum(p.numel() for p in program.build(0).parameters())
        assert result.latency_ms > 0
        value = result.to_json()
        assert Result.from_json(json.loads(json.dumps(value, allow_nan=False))).to_json() == value
        path = tmp_path / "candidates" / f"{result.candidate.id}.safetensors"
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        assert Candidate.from_json(about["candidate"]) == result.candidate
        assert about["folds"] == folds
        prefix = "weights/"
        weights = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        track = Track(result.candidate, weights=weights)
        modules = finishing.load_members(track, program)
        parts = [
            finishing.mean_outputs([module], program, rows)
            for module, rows in zip(modules, setting.split.valid, strict=True)
        ]
        stored = tensors["predictions/validation"].numpy()
        np.testing.assert_allclose(np.concatenate(parts), stored, rtol=1e-5, atol=1e-6)
        scorer = setting.scorer(np.concatenate(setting.split.valid))
        assert result.metrics["validation"] == scorer.cross_fitted(stored)
        audit = tensors["predictions/audit"].numpy()
        want = setting.scorer(setting.split.audit)(audit, about["temperature"])
        assert result.metrics["audit"] == want


@pytest.mark.parametrize("embedding", ["none", "piecewise_linear", "periodic"])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_measured_cost_is_what_torch_counts(architecture: str, embedding: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    candidates = make_candidates(architecture, [{}], embedding=embedding)
    program = make_program(candidates, make_spec(), folds=2)
    cost = measure(program)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        program.build(0).eval()(program.data.numeric, program.data.category)
    rows = len(program.data.target)
    assert cost.multiply_adds == 2 * (counter.get_total_flops() // 2 // rows)
    assert cost.multiply_adds > 0


def test_class_weights_and_row_weights_have_mean_one_over_the_training_rows(
    tmp_path: Path,
) -> None:
    setting = make_run(tmp_path, make_spec("multiclass"), class_weight=[1.0, 5.0, 0.5])
    data = load_tensors(setting, "quantile")
    assert data.weight is not None
    rows = np.unique(np.concatenate(setting.split.train))
    assert float(data.weight[rows].mean()) == pytest.approx(1.0, rel=1e-5)
    ratio = data.weight[data.target == 1][0] / data.weight[data.target == 2][0]
    assert float(ratio) == pytest.approx(10.0, rel=1e-5)


def out_of_memory_above(count: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Training more than `count` candidates at once raises `error`; the sizes that were tried."""
    tried: list[int] = []

    def fake(program: Program, plan: Plan) -> list[Track]:
        tried.append(len(program.candidates))
        if len(program.candidates) > count:
            raise error
        return train(program, plan)

    monkeypatch.setattr(jobs, "train", fake)
    return tried


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError("no more"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_goes_on_in_halves_with_the_same_results(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[dict[str, Any]] = []

    def emit(event: dict[str, Any]) -> None:
        if event["kind"] == "note":
            notes.append(event)

    setting = make_run(tmp_path, make_spec(), folds=2, emit=emit, dtype=torch.float64)
    group = job_group()
    whole = jobs.run_group(group, setting)
    tried = out_of_memory_above(1, error, monkeypatch)
    halves = jobs.run_group(group, setting)
    assert tried == [4, 2, 1, 1, 2, 1, 1]
    assert len(notes) == 3
    assert all("did not fit into memory" in n["message"] for n in notes)
    assert [r.candidate for r in halves] == [r.candidate for r in whole]
    assert [r.controller for r in halves] == list("abcd")
    for got, want in zip(halves, whole, strict=True):
        assert got.status is want.status is Status.COMPLETE
        assert got.step == want.step
        for name, value in want.metrics.items():
            assert got.metrics[name] == pytest.approx(value, rel=1e-6)


def test_one_candidate_too_large_is_a_result_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []

    def emit(event: dict[str, Any]) -> None:
        notes.append(event["message"])

    setting = make_run(tmp_path, make_spec(), emit=emit)
    out_of_memory_above(0, torch.OutOfMemoryError("no room\nfor this"), monkeypatch)
    results = jobs.run_group(job_group((0.1, 0.2)), setting)
    assert [r.status for r in results] == [Status.OUT_OF_MEMORY] * 2
    assert all(r.message == "no room" for r in results)
    assert [r.controller for r in results] == ["a", "b"]
    cuts = [n.split()[-1] for n in notes if "cut into" in n]
    assert cuts == ["2.", "4.", "8.", "16.", "32.", "64."] * 2


def test_one_candidate_too_large_goes_on_in_micro_batches_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(program: Program, plan: Plan) -> list[Track]:
        if program.pieces < 4:
            raise torch.OutOfMemoryError("no room")
        return train(program, plan)

    setting = make_run(tmp_path, make_spec(), dtype=torch.float64)
    (whole,) = jobs.run_group(job_group((0.1,)), setting)
    monkeypatch.setattr(jobs, "train", fake)
    (cut,) = jobs.run_group(job_group((0.1,)), setting)
    assert cut.status is whole.status is Status.COMPLETE
    for name, value in whole.metrics.items():
        assert cut.metrics[name] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_candidate_may_have_its_own_patience(engine: str) -> None:
    candidates = [replace(c, numeric={"lr": 0.0, "patience": p}) for c, p in zip(
        family((0.0, 0.1, 0.2)), (0.0, 1.0, 3.0), strict=True)]  # fmt: skip
    group = make_group(candidates, steps=20, evaluate_every=2, patience=5, engine=engine)
    (never, soon, later), _, _ = run(group)
    assert [t.steps for t in (never, soon, later)] == [20, 4, 8]
    unbounded, _, _ = run(replace(group, patience=0))
    assert [t.steps for t in unbounded] == [20, 20, 20]


def test_other_errors_are_not_taken_for_want_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = make_run(tmp_path, make_spec())
    tried = out_of_memory_above(0, RuntimeError("shapes cannot be multiplied"), monkeypatch)
    with pytest.raises(RuntimeError, match="shapes"):
        jobs.run_group(job_group(), setting)
    assert tried == [4]


def test_weights_that_cannot_be_written_are_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, written = make_run(tmp_path, make_spec()), list[Path]()

    def refuse(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) == 2:
            raise StorageError("the disk is full")

    monkeypatch.setattr(jobs, "write_atomic", refuse)
    with pytest.raises(StorageError, match="the disk is full"):
        jobs.run_group(job_group((0.1, 0.2, 0.3)), setting)
    assert len(written) == 3


def test_a_job_ends_at_its_deadline_with_the_best_weights_so_far(tmp_path: Path) -> None:
    make_run(tmp_path, make_spec())
    group = job_group((0.01, 0.02), steps=100_000, evaluate_every=50_000)
    job = {
        "group": group.to_json(),
        "run": str(tmp_path),
        "metric": METRICS["binary"],
        "deadline_s": 0.05,
    }
    answer = jobs.run_job(json.loads(json.dumps(job)), lambda event: None, lambda: False)
    results = [Result.from_json(r) for r in json.loads(json.dumps(answer))["results"]]
    assert [r.status for r in results] == [Status.DEADLINE] * 2
    assert all(0 < r.steps < 50_000 and "validation" in r.metrics for r in results)


def test_a_job_reads_the_data_that_is_there_now(tmp_path: Path) -> None:
    def metrics(folder: Path, rows: int) -> dict[str, float]:
        make_run(folder, make_spec(), rows=rows)
        job = {"group": job_group((0.01,)), "run": str(folder), "metric": METRICS["binary"]}
        return jobs.run_job(job, lambda event: None, lambda: False)["results"][0]["metrics"]

    first, second = metrics(tmp_path / "a", 60), metrics(tmp_path / "a", 90)
    assert second == metrics(tmp_path / "b", 90)
    assert second != first


def test_another_plan_does_not_go_on_from_this_plans_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same candidates with other steps are another training."""
    setting = make_run(tmp_path, make_spec(), checkpoint_seconds=-1.0)
    group = job_group((0.01, 0.02))
    fresh = jobs.run_group(replace(group, steps=6), setting)

    def killed(event: dict[str, Any]) -> None:
        if event["step"] == 9:
            raise Killed

    with pytest.raises(Killed):
        jobs.run_group(group, replace(setting, emit=killed))
    assert list((tmp_path / "checkpoints").iterdir())
    shorter = jobs.run_group(replace(group, steps=6), setting)
    assert [r.steps for r in shorter] == [6, 6]
    assert [r.metrics for r in shorter] == [r.metrics for r in fresh]


def test_modules_built_in_threads_at_once_have_their_own_weights():
    program = make_program(make_candidates("mlp", [{}] * 4, width=64), make_spec())
    alone = [program.build(m).state_dict() for m in range(4)]
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(program.build, [0, 1, 2, 3] * 12))
    for place, module in enumerate(built):
        for name, value in module.state_dict().items():
            assert torch.equal(value, alone[place % 4][name])


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_no_weight_decays_into_numbers_that_are_slow(engine: str) -> None:
    # Half of a weight is left each step: after 135, those of a column of zeros are denormal.
    candidates = make_candidates(
        "mlp", [{"lr": 0.5, "decoupled_decay": 1.0, "clip_norm": 1e-3}], optimizer="sgd"
    )
    program = make_program(candidates, make_spec(), steps=135, dtype=torch.float32)
    program.data.numeric[:, 0] = 0.0
    valid = make_split(60, 1).valid
    group = make_group(candidates, steps=135, engine=engine)
    before = flushes()
    [track] = train(program, Plan(group, valid, make_scorer(program, valid), keep_last=True))
    assert flushes() == before
    matrices = [v for v in track.weights.values() if v.ndim == 2]
    assert any(bool((v == 0).any()) for v in matrices)
    least = torch.finfo(torch.float32).tiny
    assert all(bool(((v == 0) | (v.abs() >= least)).all()) for v in matrices)


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("task", sorted(TASKS))
def test_rows_fetched_in_pieces_change_no_bit(
    task: str, folds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    group = make_group(family(), engine="native")
    whole = run(group, folds=folds, task=task)[0]
    monkeypatch.setattr("adanet_py.training.engines.native.engine.BLOCK_BYTES", 2000)
    monkeypatch.setattr("adanet_py.training.engines.native.engine.CACHE_BYTES", 0)
    check_equal(run(group, folds=folds, task=task)[0], whole)
