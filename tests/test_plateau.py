"""Schedules that follow the evaluations: per candidate, on every engine, resumed and replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import make_candidates
from test_groups import EVERY, Killed, check_equal, make_group, run

from adanet_py.records import Group, Status
from adanet_py.training.engines import ENGINES
from adanet_py.training.groups import Track

SCHEDULES = ("reduce_on_plateau", "constant", "reduce_on_plateau")
# High rates, so that validation soon gets no better.
NUMERIC: list[dict[str, float]] = [
    {"lr": 0.5, "gamma": 0.5, "plateau_patience": 0.0},
    {"lr": 0.1, "dropout": 0.2},
    {"lr": 0.2, "gamma": 0.1, "plateau_patience": 1.0, "warmup": 0.2},
]


def make(**changes: Any) -> Group:
    candidates = make_candidates("mlp", NUMERIC, optimizer="adam", schedules=SCHEDULES)
    return make_group(candidates, **{"steps": 36, **changes})


def rates_of_torch(track: Track, planned: float) -> list[float]:
    """What ReduceLROnPlateau would have had at every evaluation of the track, without warm-up."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=planned)
    numeric = track.candidate.numeric
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "min", numeric["gamma"], int(numeric["plateau_patience"]), 1e-9, "rel", eps=0.0
    )
    out = []
    for evaluation in track.curve:
        out.append(float(optimizer.param_groups[0]["lr"]))
        scheduler.step(evaluation.validation)
    return out


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_every_candidate_slows_down_by_its_own_validation(engine: str, folds: int) -> None:
    tracks, program, _ = run(make(engine=engine), folds=folds)
    planned = program.rates()
    for c in (0, 2):
        track = tracks[c]
        assert track.status is Status.COMPLETE
        want = rates_of_torch(track, 1.0)
        assert want[-1] < 1.0
        steps = [e.step for e in track.curve]
        assert steps == list(range(EVERY, 37, EVERY))
        for evaluation, factor in zip(track.curve, want, strict=True):
            rate = planned[evaluation.step - 1, c] * factor
            assert evaluation.lr == pytest.approx(rate, rel=1e-12)
    assert {e.lr for e in tracks[1].curve} == {0.1}


def test_it_is_trained_at_the_rate_that_is_reported() -> None:
    # A drop to almost nothing: from there on the weights stand still.
    numeric = [{"lr": 0.5, "gamma": 1e-4, "plateau_patience": 0.0}]
    schedules = ("reduce_on_plateau",)
    candidates = make_candidates("mlp", numeric, optimizer="sgd", schedules=schedules)
    for engine in sorted(ENGINES):
        (track,), _, _ = run(make_group(candidates, steps=90, engine=engine))
        first = next(i for i, e in enumerate(track.curve) if e.lr < 0.4)
        assert first < len(track.curve) - 2
        frozen = [e.validation for e in track.curve[first - 1 :]]
        assert max(frozen) - min(frozen) < 1e-3 * max(frozen)
        assert len(set(frozen)) > 1


@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"separate"}))
@pytest.mark.parametrize("folds", [1, 2])
def test_the_engines_agree(folds: int, engine: str) -> None:
    group = make(rungs=(15,), keep=(2,))
    one, other = (run(replace(group, engine=e), folds=folds)[0] for e in ("separate", engine))
    for a, b in zip(one, other, strict=True):
        assert (a.status, a.steps, a.best_step) == (b.status, b.steps, b.best_step)
        for x, y in zip(a.curve, b.curve, strict=True):
            assert x.lr == pytest.approx(y.lr, rel=1e-12)
            assert x.validation == pytest.approx(y.validation, rel=1e-7)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_member_does_not_depend_on_the_others(engine: str) -> None:
    group = make(engine=engine)
    together, _, _ = run(group)
    for c, candidate in enumerate(group.candidates):
        (alone,), _, _ = run(replace(group, candidates=(candidate,)))
        assert [e.lr for e in alone.curve] == [e.lr for e in together[c].curve]
        got, want = ([e.validation for e in t.curve] for t in (alone, together[c]))
        assert got == pytest.approx(want, rel=1e-7)


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_resuming_at_every_evaluation_goes_on_at_the_same_rates(
    engine: str, folds: int, tmp_path: Path
) -> None:
    group = make(engine=engine, steps=24, rungs=(12,), keep=(2,))
    whole, _, _ = run(group, folds=folds)
    assert any(t.curve[-1].lr < t.curve[0].lr for t in whole)
    for kill in (2, 5, 8):
        settings: dict[str, Any] = {
            "checkpoint": tmp_path / f"{kill}.safetensors",
            "checkpoint_seconds": -1.0,
        }
        seen = 0

        def emit(event: dict[str, Any], kill: int = kill) -> None:
            nonlocal seen
            seen += 1
            if seen == kill:
                raise Killed

        with pytest.raises(Killed):
            run(group, folds=folds, emit=emit, **settings)
        resumed, _, _ = run(group, folds=folds, **settings)
        check_equal(resumed, whole)


@pytest.mark.parametrize("stop", [7, 18, 29])
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_replay_stops_where_the_run_did_with_the_same_rates(engine: str, stop: int) -> None:
    group = make(engine=engine)
    whole, _, _ = run(group)
    stopped, _, _ = run(replace(group, stop_at=stop))
    check_equal(run(replace(group, stop_at=stop))[0], stopped)
    for part, full in zip(stopped, whole, strict=True):
        assert {t.status for t in stopped} == {Status.DEADLINE}
        on_the_way = [e for e in part.curve if e.step % EVERY == 0]
        assert repr(on_the_way) == repr(full.curve[: len(on_the_way)])  # NaN equals itself here
