"""Importance agrees with Optuna's PED-ANOVA; chance is no importance; advice has its reasons."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import optuna
import pytest

from adanet_py.advice import IMPORTANCE_COLUMNS, advice, importance_rows
from adanet_py.controllers.columns import columns_of
from adanet_py.importance import FEWEST, MOST, importances, ped_anova, short
from adanet_py.records import Result, Status
from adanet_py.space import assemble, fill, load_space, project

SPACE = load_space(
    {
        "name": "surface",
        "architectures": {
            "mlp": {
                "width": {"int": [4, 64], "log": True},
                "activation": {"choice": ["relu", "tanh", "silu"]},
                "dropout": {"float": [0.0, 0.5]},
                "batch_size": 64,
            },
            "resnet": {"width": {"int": [16, 640]}, "batch_size": 64},
        },
        "optimizers": {
            "adamw": {
                "lr": {"float": [1e-4, 1e-1], "log": True},
                "weight_decay": {"float": [1e-5, 1e-1], "log": True},
            }
        },
    }
)
NAMES = [short(d) for d in SPACE.decisions]


def results(count, surface, seed=0, **fields):
    """Random candidates with the reward of a function of their assignment by short names."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        candidate = assemble(SPACE, fill(SPACE, {}, rng), seed=i)
        values = {short(SPACE.by_name[n]): v for n, v in project(SPACE, candidate).items()}
        reward = float(surface(values))
        fields = {"status": Status.CONVERGED, "steps": 100, "step": 50} | fields
        out.append(Result(candidate, reward=reward, error=-reward, **fields))
    return out


def by_rate(values):
    return -abs(math.log10(values["adamw.lr"] / 1e-2))


def found_of(rows):
    return {short(i.decision): i for i in importances(SPACE, rows)}


def test_the_formula_is_that_of_optuna():
    """Raw values, where every decision is judged by all results, against Optuna's evaluator."""
    surface = lambda v: by_rate(v) - 2.0 * (v["architecture"] == "resnet") - v.get("mlp.dropout", 0)  # noqa: E731
    rows = results(300, surface)
    columns = columns_of(SPACE)
    points = np.stack([columns.encode(project(SPACE, r.candidate)) for r in rows])
    rewards = np.array([r.reward for r in rows])
    top = np.zeros(len(rows), dtype=bool)
    top[np.argsort(-rewards)[:30]] = True
    mine = {short(d): ped_anova(d, points[:, j], top) for j, d in enumerate(SPACE.decisions)}

    kinds = optuna.distributions
    study = optuna.create_study(direction="maximize")
    for row in rows:
        params = project(SPACE, row.candidate)
        domains = {}
        for name in params:
            d = SPACE.by_name[name]
            domains[name] = (
                kinds.CategoricalDistribution(d.domain)
                if d.kind == "choice"
                else (kinds.IntDistribution if d.kind == "int" else kinds.FloatDistribution)(
                    *d.ends, log=d.log
                )
            )
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=domains, value=row.reward)
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.1)
    theirs = evaluator.evaluate(study)
    theirs = {short(SPACE.by_name[n]): v for n, v in theirs.items()}
    ranges = [short(d) for d in SPACE.decisions if d.kind != "choice"]
    names = [n for n in ranges if theirs.get(n, 0) > 0]
    assert len(names) >= 4
    a, b = np.array([mine[n] for n in names]), np.array([theirs[n] for n in names])
    # All of the best are of one of two architectures, which half of all have; 1 of n + 1 is prior.
    p, q = 30.5 / 31, np.mean([r.candidate.architecture == "mlp" for r in rows])
    exact = 0.1**2 * (q * (p / q - 1) ** 2 + (1 - q) * ((1 - p) / (1 - q) - 1) ** 2)
    assert mine["architecture"] == pytest.approx(exact, rel=0.02)
    # Densities differ in the width of their kernels, by design; order and size must not.
    assert [names[i] for i in np.argsort(-a)[:2]] == [names[i] for i in np.argsort(-b)[:2]]
    assert np.corrcoef(a, b)[0, 1] > 0.95
    np.testing.assert_allclose(a[np.argsort(-b)[:2]], np.sort(b)[::-1][:2], rtol=0.5)


def test_what_matters_has_all_the_importance_and_chance_has_none():
    found = found_of(results(200, by_rate))
    assert found["adamw.lr"].share > 0.8
    assert found["adamw.lr"].p_value < 0.05
    assert sum(i.share for i in found.values()) == pytest.approx(1.0)
    others = [i.p_value for n, i in found.items() if n != "adamw.lr"]
    assert np.mean(others) > 0.2
    assert found["adamw.lr"].usual == pytest.approx(1e-2, rel=0.5)


def test_p_values_of_nothing_are_spread_evenly():
    values = []
    for seed in range(20):
        rng = np.random.default_rng(1000 + seed)
        rows = [r.replace(reward=rng.random()) for r in results(80, by_rate, seed)]
        values += [i.p_value for i in importances(SPACE, rows)]
    assert 0.4 < np.mean(values) < 0.6  # of about 120, whose mean is 0.5 within 0.05
    assert np.mean(np.array(values) <= 0.05) < 0.12


def test_the_program_is_judged_by_the_best_of_its_settings():
    """Resnets are better, but each was tried with many poor rates beside the one that is good."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(40):
        program = fill(SPACE, {}, rng)
        good = program["architecture"] == "resnet"
        for k in range(8 if good else 1):
            assignment = {**program, "optimizers.adamw.lr": 0.01 if k == 0 else 1e-4 * (k + 1)}
            candidate = assemble(SPACE, assignment, seed=0)
            reward = (1.0 if good else 0.5) if k == 0 else 0.0
            rows.append(Result(candidate, Status.COMPLETE, reward=reward))
    found = found_of(rows)
    assert found["architecture"].usual == "resnet"
    assert found["architecture"].p_value < 0.05
    assert found["architecture"].tried == len({r.candidate.family for r in rows})


def test_nothing_is_said_of_few_results_and_time_is_bounded_for_many():
    assert importances(SPACE, results(FEWEST - 1, by_rate)) == ()
    many = results(3 * MOST, by_rate)
    found = importances(SPACE, many)
    assert found == importances(SPACE, many)  # the same again
    assert max(i.tried for i in found) <= MOST
    failed = [r.replace(status=Status.DIVERGED) for r in results(50, by_rate)]
    assert importances(SPACE, failed) == ()


# ---------------------------------------------------------------- advice


def sentences(rows):
    return advice(importance_rows(SPACE, rows), most=99)


def test_an_end_of_a_range_that_most_of_the_best_lie_at_is_to_be_widened():
    said = sentences(results(150, lambda v: math.log10(v["adamw.lr"])))
    assert any(
        s
        == "adamw.lr: most of the best are at the high end of 0.0001 to 0.1: try values above 0.1."
        for s in said
    )
    said = sentences(results(150, lambda v: -v.get("mlp.dropout", 1.0)))
    # No dropout below 0 exists.
    assert not any("try values" in s and "dropout" in s for s in said)


def test_networks_that_still_improved_need_more_time():
    early = results(40, by_rate, status=Status.COMPLETE, step=95)
    assert "10 of the best 10 networks were still improving" in sentences(early)[0]
    assert not any("improving" in s for s in sentences(results(40, by_rate)))


def test_few_networks_diverged_ones_and_broken_bounds_are_told():
    assert sentences([]) == [
        "Only 0 networks were scored, too few to say what mattered: give more time."
    ]
    rows = results(40, by_rate)
    bad = [replace(r, status=Status.DIVERGED, reward=-math.inf) for r in rows[:10]]
    assert any("10 of 40 networks diverged, 10 of them with adamw" in s for s in
               sentences(bad + rows[10:]))  # fmt: skip
    broken = [replace(r, status=Status.INFEASIBLE, reward=-1.5) for r in results(50, by_rate, 1)]
    assert any("50 of 90 candidates broke a bound" in s for s in sentences(rows + broken))


def test_what_made_no_difference_can_be_fixed():
    said = sentences(results(200, by_rate))
    [fixed] = [s for s in said if s.startswith("Made no difference")]
    assert "adamw.lr" not in fixed
    assert any(s.startswith("adamw.lr: the best are around 0.0") for s in said)


def test_rows_have_the_columns_of_the_file():
    for row in importance_rows(SPACE, results(60, by_rate)):
        assert row.keys() <= IMPORTANCE_COLUMNS.keys()
        assert row.get("next") is None or row["next"].endswith(".")
