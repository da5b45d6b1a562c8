"""Portfolios: chosen greedily from past runs, kept in a file, tried first, exact when resumed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spaces import ZOO
from tables import check_here, table

import adanet_py
from adanet_py import saving
from adanet_py.errors import ConfigError, RunError
from adanet_py.portfolio import (
    PRIOR,
    SHIPPED,
    WORST,
    Portfolio,
    build_portfolio,
    choose,
    find_prior,
    make_trained,
    read_portfolio,
    read_trained,
    with_prior,
    write_portfolio,
)
from adanet_py.records import Candidate, History, Result, Status
from adanet_py.run import resume
from adanet_py.space import contains, load_space, project, sample, spaces_folder

QUICK = {"space": "tiny", "workers": 0, "folds": 1, "on_note": lambda m: None}
SPACE = ZOO["all types"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on one table, one on another, and one with numbers to predict."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        for name, data, seed in (
            ("one", table(), 0),
            ("again", table(), 1),
            ("other", table(seed=1), 0),
            ("numbers", table("regression"), 0),
        ):
            options = {**QUICK, "controller": "random", "candidates": 3, "seed": seed}
            adanet_py.search(data, target="target", out=folder / name, **options)
    return folder


def candidates(count, space=SPACE):
    return [sample(space, np.random.default_rng(i)) for i in range(count)]


def trained(name, errors, task="binary"):
    """A record in which every candidate was trained."""
    found = list(zip(candidates(len(errors)), map(float, errors), strict=True))
    return make_trained(name, task, SPACE, found)


def test_the_best_of_a_run_has_no_regret_and_the_median_one():
    record = trained("a", [5.0, 2.0, 3.0, 1.0, 90.0])
    assert record.regrets.tolist() == [WORST, 0.5, 1.0, 0.0, WORST]


def test_each_is_the_one_that_lowers_the_mean_of_the_best_regrets_the_most():
    rng = np.random.default_rng(0)
    records = [trained(str(i), rng.exponential(size=12)) for i in range(6)]
    regrets = np.array([r.regrets for r in records])
    names, expected = [c.experiment for c in records[0].candidates], []
    for _ in range(4):
        reached = regrets[:, expected].min(axis=1) if expected else np.full(6, WORST)
        totals = [np.minimum(reached, regrets[:, j]).mean() for j in range(12)]
        expected.append(int(np.argmin(totals)))
    found = [names.index(e.candidate.experiment) for e in choose(records, 4)]
    assert found == expected


def test_what_a_run_has_not_trained_is_judged_by_its_neighbours_and_else_is_the_median():
    here = candidates(40)
    place = project(SPACE, here[0])
    near = replace(here[0], numeric={**here[0].numeric, "lr": here[0].numeric["lr"] * 1.1})
    assert project(SPACE, near) != place
    record = make_trained("a", "binary", SPACE, [(c, float(i)) for i, c in enumerate(here)])
    assert record.estimate(here[0]) == 0.0
    assert record.estimate(near) < 0.5
    assert record.estimate(Candidate("unheard of")) == 1.0


def test_one_run_gives_its_best_programs():
    record = trained("a", np.arange(30.0))
    entries = choose([record], 5)
    assert entries[0].candidate == record.candidates[0]
    assert len({e.candidate.family for e in entries}) == 5


def test_what_is_worse_than_a_median_on_average_is_left_out():
    records = [trained(name, np.arange(9.0)) for name in "ab"]
    assert [e.candidate for e in choose(records, 9)] == records[0].candidates[:5]


def test_runs_on_the_same_data_count_once_and_tasks_are_kept_apart(runs):
    records = read_trained([runs / n for n in ("one", "again", "other", "numbers")])
    assert [(r.name, r.kind) for r in records] == [
        ("one", "classification"),
        ("other", "classification"),
        ("numbers", "regression"),
    ]
    assert len(records[0].candidates) == 5  # three each, of which both had the start
    portfolio = build_portfolio([runs / "one", runs / "numbers"], size=2)
    assert {k: len(v) for k, v in portfolio.entries.items()} == {
        "classification": 2,
        "regression": 2,
    }
    assert [len(portfolio.of_task(t)) for t in ("multiclass", "multioutput")] == [2, 2]


def test_a_portfolio_is_the_same_after_a_file(tmp_path, runs):
    portfolio = build_portfolio([runs / "one"])
    write_portfolio(portfolio, tmp_path / "p.json")
    again = read_portfolio(tmp_path / "p.json")
    assert again.to_json() == portfolio.to_json()
    assert again.of_task("binary") == portfolio.of_task("binary")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "run folder or a portfolio file at .*p.json.*No such file"),
        ("{", "portfolio file at"),
        ("[1]", 'no "format"'),
        ('{"format": "adanet_py portfolio", "version": 9}', "version 9"),
        (
            '{"format": "adanet_py portfolio", "version": 1, "regression": [{"from": "a"}]}',
            "not a configuration",
        ),
    ],
)
def test_what_is_no_portfolio_is_refused(tmp_path, text, message):
    path = tmp_path / "p.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        find_prior(str(path), "random")


def test_a_folder_without_networks_is_refused(tmp_path):
    with pytest.raises(RunError, match="Expected a run folder"):
        build_portfolio([tmp_path])


def test_only_what_has_a_place_and_suits_the_task_comes_before_the_starts_of_the_space():
    space = ZOO["starts"]
    inside = sample(space, np.random.default_rng(3))
    moved = replace(inside, static={**inside.static, "depth": 99})
    entries = [inside, Candidate("unheard of"), moved, replace(inside, seed=9)]
    portfolio = Portfolio.from_json(
        {
            "format": "adanet_py portfolio",
            "version": 1,
            "classification": [
                {"from": "a", **{k: v for k, v in c.to_json().items() if k in FIELDS}}
                for c in entries
            ],
        }
    )
    found, count = with_prior(space, portfolio, "binary")
    assert count == 3
    assert found.start[0].settings == inside.settings
    assert contains(space, found.start[1]) is None
    assert [c.settings for c in found.start[2:]] == [c.settings for c in space.start]
    after, _ = with_prior(space, portfolio, "binary", first=False)
    assert {c.settings for c in after.start} == {c.settings for c in found.start}
    assert [c.settings for c in after.start[:4]] == [c.settings for c in space.start]
    same, none = with_prior(space, portfolio, "regression")
    assert none == 0
    assert [c.settings for c in same.start] == [c.settings for c in space.start]


FIELDS = ("architecture", "static", "optimizer", "schedule", "numeric")


def test_a_search_begins_with_its_prior_and_goes_on_without_the_file(tmp_path, runs):
    prior = tmp_path / "p.json"
    write_portfolio(build_portfolio([runs / "one", runs / "again"], 2), prior)
    wanted = read_portfolio(prior).of_task("binary")
    options = {**QUICK, "controller": "random", "prior": str(prior), "target": "target"}
    whole = adanet_py.search(table(seed=2), out=tmp_path / "whole", candidates=6, **options)
    tried = [r.candidate.settings[:3] for r in whole.state.finished()]
    for candidate in wanted:  # the loss "auto" is by now what it stands for
        static = {**candidate.static, "loss": "binary_cross_entropy"}
        assert replace(candidate, static=static).settings[:3] in tried[:6]
    credited = [r for r in whole.state.finished() if r.controller == "portfolio"]
    assert len(credited) == 2
    assert {r.controller for r in whole.state.finished()} == {"portfolio", "random"}
    # The journal up to the first group; what was given as the prior is gone.
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut)
    lines = (cut / "journal.jsonl").read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if '"results"' in line)
    (cut / "journal.jsonl").write_text("".join(lines[: first + 1]))
    prior.unlink()
    again = resume(cut, data=table(seed=2))
    assert [r.candidate.id for r in again.state.finished()] == [
        r.candidate.id for r in whole.state.finished()
    ]
    assert json.loads((cut / PRIOR).read_text())["classification"]


def test_a_run_is_a_prior_too_and_what_does_not_suit_is_said(tmp_path, runs):
    notes = []
    options = {**QUICK, "on_note": notes.append, "candidates": 1, "controller": "random"}
    adanet_py.search(
        table("regression", seed=3),
        target="target",
        prior=str(runs / "one"),
        out=tmp_path / "run",
        **options,
    )
    assert any("prior's 0 configurations for regression 0 have" in n for n in notes)


def test_what_was_not_asked_for_comes_after_the_starts_and_without_a_word(tmp_path):
    notes = []
    options = {**QUICK, "on_note": notes.append, "candidates": 2, "controller": "portfolio"}
    found = adanet_py.search(table(), target="target", out=tmp_path / "run", **options)
    start = load_space("tiny").start[0]
    assert found.state.finished()[0].candidate.numeric == start.numeric
    assert (tmp_path / "run" / PRIOR).exists()
    assert not any("prior" in n for n in notes)


def test_the_shipped_portfolio_has_a_place_in_the_shipped_space():
    portfolio = read_portfolio(spaces_folder() / SHIPPED)
    space = load_space("table")
    for task in ("binary", "regression"):
        found = portfolio.of_task(task)
        assert len(found) >= 4
        assert with_prior(space, portfolio, task)[1] == len(found)
    kept_out = {"adult", "letter", "california_housing", "phoneme", "credit_g", "diamonds"}
    sources = {e.source for entries in portfolio.entries.values() for e in entries}
    assert not sources & kept_out


def test_the_shipped_one_is_used_where_the_controller_asks_for_it_or_the_user():
    shipped = read_portfolio(spaces_folder() / SHIPPED).to_json()
    assert find_prior(None, "random") is None
    assert find_prior("none", "portfolio") is None
    for prior, controller in ((None, "portfolio"), ("default", "random")):
        found = find_prior(prior, controller)
        assert found is not None
        assert found.to_json() == shipped


def test_the_script_trains_one_pool_on_every_table_once_and_chooses_from_it(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    import bench_tables
    import build_portfolio as script

    given = {"titanic": table(rows=90), "abalone": table("regression", rows=90)}
    monkeypatch.setattr(bench_tables, "split", lambda data, name: (given[name], None, "target"))
    out = tmp_path / "portfolio.json"
    options = ["--data", "nowhere", "--work", str(tmp_path / "work"), "--out", str(out)]
    options += ["--space", "tiny", "--configurations", "3", "--rows", "80"]
    script.main([*options, "--tables", "titanic", "abalone"])
    printed = capsys.readouterr().out
    assert "titanic: 3 networks, 3 candidates were trained" in printed
    portfolio = read_portfolio(out)
    # Of three, the best and the median.
    assert [len(portfolio.of_task(t)) for t in ("binary", "regression")] == [2, 2]
    pool = read_portfolio(tmp_path / "work" / "pool.json").of_task("binary")
    assert {c.settings[2:] for c in portfolio.of_task("binary")} < {c.settings[2:] for c in pool}
    given.clear()  # nothing is trained again
    script.main([*options, "--tables", "titanic", "abalone"])


def test_the_pools_controller_proposes_the_starts_once_and_nothing_else(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    import build_portfolio as script

    space, results, found = ZOO["starts"], (), []
    while proposed := script.listed(space, History(results), 8, np.random.default_rng(0)):
        assert len({c.family for c in proposed}) == 1
        found += proposed
        results += tuple(Result(c, Status.FAILED) for c in proposed)
    assert {c.experiment for c in found} == {c.experiment for c in space.start}
    assert len(found) == len(space.start)


def test_an_estimator_takes_a_prior(tmp_path, runs):
    data = table(seed=4)
    options = {"space": "tiny", "folds": 1, "workers": 0, "candidates": 1, "random_state": 0}
    model = adanet_py.AdaNetClassifier(
        **options, controller="random", prior=runs / "one", out=tmp_path / "run"
    )
    model.fit(data.drop(columns="target"), data["target"])
    kept = json.loads((tmp_path / "run" / PRIOR).read_text())["classification"]
    assert len(kept) == 2  # of three, the best and the median
