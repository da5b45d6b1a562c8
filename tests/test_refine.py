"""Children: where they begin, whether they are accepted, and what becomes of the others."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from programs import make_candidates, make_program, make_run, make_spec, make_split
from tables import check_here, table, timeless
from test_resume import KILLED, forks  # noqa: F401  (a fixture)

import adanet_py
from adanet_py import loop, refine, saving
from adanet_py.architectures import ARCHITECTURES
from adanet_py.choosing import make_choice
from adanet_py.ensemble.pool import read_pool
from adanet_py.errors import ConfigError, RunError, SpaceError
from adanet_py.folder import candidate_file, evict
from adanet_py.metrics import get_metric
from adanet_py.own import Own
from adanet_py.plan import best_of
from adanet_py.proposing import check_candidate
from adanet_py.records import Candidate, Group, History, Result, Status
from adanet_py.refine import bandit
from adanet_py.refine.acceptance import DOUBT, MARGIN, doubts, judged
from adanet_py.refine.inheritance import read_parent, start_of
from adanet_py.refine.move import Move
from adanet_py.refine.refiner import CONTROL, PARENTS, Refiner, possible_parents, shares
from adanet_py.replay import replay
from adanet_py.reward import RewardRule
from adanet_py.space import load_space
from adanet_py.state import read_state
from adanet_py.training.engines import ENGINES, make_engine
from adanet_py.training.jobs import run_group
from adanet_py.training.setting import make_program as program_of_group

STATIC = {"depth": 2, "width": 4, "batch_size": 16}
PARENT = Candidate("mlp", STATIC, "adamw", "constant", {"lr": 0.02}, seed=3)


def child_of(parent=PARENT, move="train_on", lr=0.01, **changes):
    made = Candidate(
        "mlp", parent.static, "adamw", "cosine", {"lr": lr, "warmup": 0.1}, 5, parent.id, move,
        inherits=True,
    )  # fmt: skip
    return replace(made, **changes)


def never(step):
    return False


def group_of(*candidates, index=0, **changes):
    values = {"steps": 12, "evaluate_every": 4, "controllers": ("refine",) * len(candidates)}
    return Group(index, candidates, **(values | changes))


def _shifted(parent, child, probe, rng):
    """A move that promises to preserve the function and does not."""
    refine.train_on.copy(parent, child, probe, rng)
    with torch.no_grad():
        next(p for p in child.parameters() if p.dim() == 1).add_(rng.normal())


def _lost(parent, child, probe, rng):
    raise ValueError("nothing to hold on to")


BROKEN = {
    "shifted": Move("shifted", "", True, refine.train_on.children, "test_refine:_shifted"),
    "shrunk": Move("shrunk", "", False, refine.train_on.children, "test_refine:_shifted"),
    "lost": Move("lost", "", True, refine.train_on.children, "test_refine:_lost"),
}


@pytest.fixture
def broken(monkeypatch):
    for name, move in BROKEN.items():
        monkeypatch.setitem(refine.MOVES, name, move)


@pytest.fixture
def trained(tmp_path):
    """A run of two folds in which `PARENT` was trained, and its result."""
    setting = make_run(tmp_path, make_spec(), rows=90, folds=2, audit=9)
    [result] = run_group(group_of(PARENT), setting)
    assert result.status is Status.COMPLETE
    return setting, result


# ------------------------------------------------------------------ records


def test_children_of_other_parents_or_moves_are_other_experiments():
    other = replace(PARENT, seed=4)
    anew = replace(child_of(), parent=None, move=None, inherits=False)
    different = [child_of(), child_of(other), child_of(move="widen"), anew]
    assert len({c.experiment for c in different}) == 4
    assert len({c.settings for c in different}) == 4
    assert len({c.id for c in different}) == 4
    assert child_of(seed=9).experiment == child_of().experiment
    derived = replace(PARENT, parent="ab", move="change lr")
    assert derived.experiment == PARENT.experiment  # by evolution, say: trained from scratch


def test_ids_of_candidates_that_begin_anew_are_what_they_were():
    assert "inherits" not in PARENT.to_json()
    assert Candidate.from_json(PARENT.to_json()) == PARENT
    assert Candidate.from_json(child_of().to_json()) == child_of()


def test_a_childs_result_survives_its_journal():
    result = Result(
        child_of(), Status.COMPLETE, {"validation": 0.5}, difference=0.0, gain=0.1,
        gain_error=0.05, accepted=True, objective="metric", verdict="accepted: so",
    )  # fmt: skip
    again = Result.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert (again.accepted, again.gain, again.verdict) == (True, 0.1, "accepted: so")
    assert math.isnan(again.drop)
    assert "gain" not in Result(PARENT, Status.COMPLETE).to_json()


def test_controllers_of_the_space_see_no_children_but_know_what_was_proposed():
    results = (Result(PARENT, Status.COMPLETE), Result(child_of(), Status.COMPLETE))
    history = History(results, (child_of(lr=1.0), replace(PARENT, numeric={"lr": 0.5})))
    seen = history.without_children()
    assert [r.candidate for r in seen.results] == [PARENT]
    assert [c.numeric["lr"] for c in seen.pending] == [0.5]
    assert seen.new([PARENT, child_of()]) == []
    assert seen.without_children() is seen
    assert replace(history, children=False).without_children().results == history.results


# ------------------------------------------------------------------ where a child begins


def test_a_child_begins_where_its_parent_ended_in_every_fold(trained):
    setting, _ = trained
    program = program_of_group(group_of(child_of()), setting)
    parent = read_parent(candidate_file(setting.run, PARENT.id), program)
    start = start_of(child_of(), parent, program, setting.split.valid)
    assert start.difference == 0.0
    assert start.after is None
    program = replace(program, starts={child_of().id: start.weights})
    valid = [torch.from_numpy(r) for r in setting.split.valid]
    found = [
        program.build(f).eval()(program.data.numeric[rows], program.data.category[rows])
        for f, rows in enumerate(valid)
    ]
    np.testing.assert_allclose(torch.cat(found).detach().numpy(), parent.outputs, atol=1e-6)
    assert not torch.equal(*(w[next(iter(w))] for w in start.weights))  # a fold's own weights


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_trains_a_child_as_plain_pytorch_does(name):
    candidates = make_candidates("mlp", [{"lr": 0.01}, {"lr": 0.02, "warmup": 0.2}])
    children = [replace(c, parent="p", move="train_on", inherits=True) for c in candidates]
    program = make_program(children, make_spec(), folds=2)
    donor = make_program([replace(candidates[0], seed=77)], make_spec(), folds=2)
    states = [donor.build(f).state_dict() for f in range(2)]
    program = replace(program, starts={c.id: states for c in children})
    outputs = []
    for engine in (make_engine(name, program), make_engine("separate", program)):
        first = engine.predict(make_split(60, 2).valid)
        torch.testing.assert_close(first[0], first[1])
        engine.advance(0, 8, never)
        outputs.append((first, engine.predict(make_split(60, 2).valid)))
    for got, want in zip(*outputs, strict=True):
        torch.testing.assert_close(got, want, atol=1e-9, rtol=1e-9)
    anew = make_engine(name, replace(program, starts={})).predict(make_split(60, 2).valid)
    assert not torch.allclose(anew, outputs[0][0])


def test_a_child_tells_what_it_gained_against_its_parent(trained):
    setting, parent = trained
    group = group_of(child_of(), child_of(lr=0.003), index=1)
    first, second = run_group(group, setting)
    assert first.difference == second.difference == 0.0
    assert math.isnan(first.drop)
    assert first.latency_share > 0.0
    for result in (first, second):
        gained = parent.metrics["validation"] - result.metrics["validation"]
        assert result.gain == pytest.approx(gained, abs=1e-12)
        assert 0.0 < result.gain_error < 1.0
    assert first.gain != second.gain
    again = run_group(group, setting)
    assert [r.metrics for r in again] == [first.metrics, second.metrics]


def test_the_error_of_a_gain_is_that_of_the_paired_difference(trained):
    setting, _ = trained
    scorer = setting.scorer(np.concatenate(setting.split.valid))
    scorer = replace(scorer, metric=get_metric("accuracy"))
    n = len(scorer.y)
    right = np.where(scorer.y == 1, 3.0, -3.0)[:, None]
    wrong = right.copy()
    wrong[:4] *= -1.0
    gain, error = scorer.gain(wrong, right)
    share = 4 / n
    assert gain == pytest.approx(share)
    assert error == pytest.approx(math.sqrt(share * (1 - share) / n), rel=1e-6)
    assert scorer.gain(right, right) == (0.0, 0.0)


@pytest.mark.usefixtures("broken")
def test_a_child_with_a_bad_certificate_fails_and_its_siblings_train_on(trained):
    setting, _ = trained
    bad, good = child_of(move="shifted"), child_of()
    found = run_group(group_of(bad, good, index=1), setting)
    assert [r.candidate for r in found] == [bad, good]
    assert [r.status for r in found] == [Status.FAILED, Status.COMPLETE]
    assert "The move shifted" in found[0].message
    assert "expected the same function" in found[0].message
    alone = run_group(group_of(good, index=2), setting)
    assert found[1].metrics == alone[0].metrics


@pytest.mark.usefixtures("broken")
def test_a_move_that_changes_the_function_tells_the_drop(trained):
    setting, _ = trained
    [result] = run_group(group_of(child_of(move="shrunk"), index=1), setting)
    assert result.status is Status.COMPLETE
    assert result.difference > 1e-3
    assert math.isfinite(result.drop)
    assert result.drop != 0.0


@pytest.mark.usefixtures("broken")
def test_a_move_that_raises_fails_its_child_alone(trained):
    setting, _ = trained
    bad, good = run_group(group_of(child_of(move="lost"), child_of(), index=1), setting)
    assert (bad.status, good.status) == (Status.FAILED, Status.COMPLETE)
    assert "nothing to hold on to" in bad.message


def test_a_child_whose_parent_is_gone_fails_clearly(trained):
    setting, _ = trained
    [result] = run_group(group_of(child_of(replace(PARENT, seed=99)), index=1), setting)
    assert result.status is Status.FAILED
    assert "no longer stored" in result.message


def test_a_parent_of_other_folds_is_refused(trained, tmp_path):
    setting, _ = trained
    other = make_run(tmp_path / "other", make_spec(), folds=3)
    program = program_of_group(group_of(child_of()), other)
    with pytest.raises(RunError, match="2 folds, this group in 3"):
        read_parent(candidate_file(setting.run, PARENT.id), program)


def test_candidates_are_checked_for_their_move_and_parent():
    check_candidate(child_of(), Own())
    with pytest.raises(SpaceError, match="Did you mean 'train_on'"):
        check_candidate(child_of(move="train_one"), Own())
    with pytest.raises(SpaceError, match="expected the id of a parent"):
        check_candidate(replace(child_of(), parent=None), Own())


# ------------------------------------------------------------------ acceptance


def result_of(candidate, reward=-0.5, **values):
    made = {"metrics": {"validation": -reward}, "error": -reward, "reward": reward}
    return Result(candidate, Status.COMPLETE, **(made | {"parameters": 1000} | values))


@pytest.mark.parametrize(
    ("objective", "values", "accepted"),
    [
        ("metric", {"gain": 0.02, "gain_error": 0.01}, True),
        ("metric", {"gain": 0.01, "gain_error": 0.02}, False),
        ("metric", {"gain": 0.0, "gain_error": 0.0}, False),
        ("metric", {"gain": math.nan, "gain_error": 0.01}, False),
        ("size", {"gain": -0.01, "gain_error": 0.02, "parameters": 500}, True),
        ("size", {"gain": -0.03, "gain_error": 0.02, "parameters": 500}, False),
        ("size", {"gain": 0.5, "gain_error": 0.02, "parameters": 950}, False),
        ("latency", {"gain": 0.0, "gain_error": 0.02, "latency_share": 0.5}, True),
        ("latency", {"gain": 0.0, "gain_error": 0.02, "latency_share": 0.95}, False),
        ("latency", {"gain": 0.0, "gain_error": 0.02}, False),
    ],
)
def test_a_child_is_accepted_only_beyond_its_doubt(objective, values, accepted):
    assert MARGIN == 0.1
    parent = result_of(PARENT)
    found = judged(result_of(child_of(), **values), parent, objective)
    assert found.accepted is accepted
    assert found.stands is accepted
    assert found.objective == objective
    assert found.verdict.startswith("accepted" if accepted else "rolled back")


def simulated(rng, rows=200, families=1500, siblings=8, shared=0.0, gain=0.0):
    """Results of children whose rows gain `gain` on average, their noise shared in part."""
    out = []
    for _ in range(families):
        own = rng.normal(size=(siblings, rows))
        rowwise = gain + math.sqrt(shared) * rng.normal(size=rows) + math.sqrt(1 - shared) * own
        found = rowwise.mean(1), rowwise.std(1, ddof=1) / math.sqrt(rows)
        out.append([
            result_of(child_of(lr=0.01 + i), gain=g, gain_error=e)
            for i, (g, e) in enumerate(zip(*found, strict=True))
        ])  # fmt: skip
    return out


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9])
def test_of_many_children_that_gain_nothing_one_is_accepted_no_more_often_than_an_only_child(
    shared,
):
    families = simulated(np.random.default_rng(0), shared=shared)
    parent, alpha = result_of(PARENT), 0.5 * math.erfc(DOUBT / math.sqrt(2.0))

    def accepted(corrected):
        count = 0
        for children in families:
            asked = doubts(children) if corrected else [DOUBT] * len(children)
            pairs = zip(children, asked, strict=True)
            count += any(judged(c, parent, "metric", d).accepted for c, d in pairs)
        return count / len(families)

    noise = 3.0 * math.sqrt(alpha * (1 - alpha) / len(families))
    assert accepted(True) <= alpha + noise
    assert accepted(False) > alpha + noise
    if not shared:  # where children are independent the bound is nearly reached
        assert accepted(True) >= 0.12
        assert accepted(False) == pytest.approx(1 - (1 - alpha) ** 8, abs=0.04)


def test_children_are_judged_in_falling_order_of_their_gains():
    gains = [3.0, 0.5, 1.9, 2.05, math.nan]
    children = [
        result_of(child_of(lr=0.01 + i), gain=g, gain_error=1.0) for i, g in enumerate(gains)
    ]
    other = result_of(child_of(replace(PARENT, seed=9)), gain=1.1, gain_error=1.0)
    found = doubts([*children, result_of(PARENT), other])
    alpha = 0.5 * math.erfc(DOUBT / math.sqrt(2.0))
    four, three, two = (NormalDist().inv_cdf(1 - alpha / m) for m in (4, 3, 2))
    assert found == pytest.approx([four, DOUBT, two, three, DOUBT, DOUBT, DOUBT])
    verdicts = [
        judged(c, result_of(PARENT), "metric", d) for c, d in zip(children, found[:5], strict=True)
    ]
    assert [v.accepted for v in verdicts] == [True, False, True, True, False]
    worse = doubts([children[1], children[1].replace(gain=1.2)])
    assert worse == pytest.approx([two, two])
    text = judged(children[1].replace(gain=1.2), result_of(PARENT), "metric", two).verdict
    assert text.endswith(f"not beyond its doubt, {two:.2g} times that among its siblings")
    assert doubts([other]) == [DOUBT]


def test_only_children_are_judged():
    parent = result_of(PARENT)
    assert judged(parent, None, "metric") is parent
    failed = Result(child_of(), Status.DIVERGED)
    assert judged(failed, parent, "metric") is failed
    assert judged(result_of(child_of(), gain=1.0, gain_error=0.0), None, "metric").stands is False


def test_what_was_rolled_back_is_nowhere_chosen(tmp_path):
    parent = result_of(PARENT, -0.5)
    child = judged(result_of(child_of(), -0.4, gain=0.1, gain_error=0.2), parent, "metric")
    assert best_of([parent, child]) is parent
    assert math.isnan(child.score)
    simplest = make_choice("simplest", get_metric("rmse"), RewardRule(), lambda r: 0.0)
    assert simplest([parent, child], ()) is parent
    assert possible_parents([parent, child]) == [parent]
    (tmp_path / "candidates").mkdir()
    candidate_file(tmp_path, child.candidate.id).write_bytes(b"")
    assert read_pool(tmp_path, [child], lambda r, o: 1.0, lambda o: o).members == ()
    stands = child.replace(accepted=True)
    assert best_of([parent, stands]) is stands
    assert possible_parents([parent, stands]) == [stands, parent]


def test_parents_of_what_waits_are_not_evicted(tmp_path):
    results = [result_of(replace(PARENT, seed=i), -0.1 * i) for i in range(6)]
    results[0] = results[0].replace(accepted=False)  # rolled back: the first to go
    (tmp_path / "candidates").mkdir()
    for r in results:
        candidate_file(tmp_path, r.candidate.id).write_bytes(b"")
    by_id = {r.candidate.id: r for r in results}
    evict(tmp_path, by_id, 2, needed={results[4].candidate.id})
    left = [candidate_file(tmp_path, r.candidate.id).exists() for r in results]
    assert left == [False, True, True, False, True, False]


# ------------------------------------------------------------------ the refiner

SPACE = load_space("tiny")


def family(seed, width=4, reward=-0.5, **values):
    static = {**STATIC, "width": width}
    return result_of(replace(PARENT, static=static, seed=seed), reward, **values)


def test_children_are_of_one_program_and_differ_in_numbers():
    history = History((family(1, 4, -0.5), family(2, 5, -0.4)))
    children = Refiner(("train_on",))(SPACE, history, 8, np.random.default_rng(0))
    assert len(children) == 8
    assert len({c.family for c in children}) == 1
    assert len({c.experiment for c in children}) == 8
    assert {c.parent for c in children} <= {r.candidate.id for r in history.results}
    assert len({c.seed for c in children}) == 1
    assert all(c.inherits and c.by == "refine" and c.numeric["warmup"] > 0 for c in children)
    rates = {round(c.numeric["lr"] / 0.02, 6) for c in children}
    assert {0.1, 0.3, 1.0} <= rates
    for child in children:
        check_candidate(child, Own())


def test_a_refiner_is_pure_and_proposes_nothing_twice():
    history = History((family(1), family(2, 5, -0.4)))
    refiner = Refiner(("train_on",))
    first = refiner(SPACE, history, 4, np.random.default_rng(1))
    assert first == refiner(SPACE, history, 4, np.random.default_rng(1))
    asked = 0
    while new := refiner(SPACE, history, 4, np.random.default_rng(asked)):
        assert history.new(new) == new
        history = replace(history, pending=(*history.pending, *new))
        asked += 1
        assert asked < 50
    assert asked > 2


def test_without_a_network_there_is_nothing_to_refine():
    empty = History((Result(PARENT, Status.DIVERGED),))
    assert Refiner()(SPACE, empty, 8, np.random.default_rng(0)) == []


def test_parents_are_the_best_and_not_all_of_one_program():
    results = [family(i, 4, -0.1 - 0.001 * i) for i in range(6)]
    results += [family(i, 10 + i, -0.3 - 0.001 * i) for i in range(20)]
    found = possible_parents(results)
    assert len(found) == PARENTS
    assert found[:2] == results[:2]
    assert len({r.candidate.family for r in found}) == PARENTS - 1
    assert [r.reward for r in found] == sorted((r.reward for r in found), reverse=True)


def test_moves_that_were_accepted_get_more_and_the_control_keeps_its_part():
    first = shares((), ("train_on", "widen", "prune:a"))
    assert first["train_on"] > first["widen"] > first["prune:a"] > 0.0
    names = ("train_on", "a", "b")
    assert sum(shares((), names).values()) == pytest.approx(1.0)
    children = [
        result_of(child_of(move=m, lr=0.01 + i), accepted=m == "a")
        for i, m in enumerate(("train_on", "a", "b") * 10)
    ]
    found = shares(children, names)
    assert found["a"] > found["b"] > 0.0
    assert found["train_on"] >= CONTROL - 1e-12
    assert sum(found.values()) == pytest.approx(1.0)


def test_chains_are_children_of_children():
    child = judged(result_of(child_of(), -0.3, gain=0.2, gain_error=0.1), family(3), "metric")
    history = History((family(3), child))
    parents = {
        c.parent
        for seed in range(20)
        for c in Refiner(("train_on",))(SPACE, history, 2, np.random.default_rng(seed))
    }
    assert child.candidate.id in parents


def test_for_a_smaller_network_the_control_has_no_place():
    history = History((family(1),))
    assert Refiner(("train_on",), "size")(SPACE, history, 8, np.random.default_rng(0)) == []


# ------------------------------------------------------------------ in a search

OPTIONS = {"space": "tiny", "folds": 2, "candidates": 44, "refine_share": 0.5, "ensemble": "none"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "table.csv"
    table("regression", 150).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A search whose second half refines."""
    out = tmp_path_factory.mktemp("runs") / "refined"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        patch.setattr("adanet_py.plan.EPOCHS", (6, 10))
        adanet_py.search(data, out=out, workers=0, on_note=lambda m: None, **OPTIONS)
    return out


def test_a_search_ends_with_children_of_its_best(run):
    results = read_state(run).finished()
    children = [r for r in results if r.candidate.inherits]
    assert len(results) == OPTIONS["candidates"]
    assert 8 <= len(children) <= 22
    known = {r.candidate.id for r in results}
    for r in children:
        assert r.controller == "refine"
        assert r.candidate.parent in known
        assert r.status is not Status.FAILED
        assert r.difference <= 1e-5 or not refine.MOVES[r.candidate.move].preserves
        assert r.gain > r.gain_error or not r.accepted
        siblings = [
            s for s in children if (s.group, s.candidate.parent) == (r.group, r.candidate.parent)
        ]
        assert r.accepted is (r.gain > r.gain_error) or len(siblings) > 1


def test_the_leaderboard_tells_the_chain_and_ranks_nothing_rolled_back(run):
    board = adanet_py.run.leaderboard(run)
    children = board[board["move"].notna() & (board["controller"] == "refine")]
    back = children[children["accepted"] == False]  # noqa: E712
    assert len(back)
    assert back["rank"].isna().all()
    assert not back["chosen"].any()
    assert (back["why"] == back["verdict"]).all()
    assert children["gain_error"].notna().all()
    ranks = board["rank"].dropna().tolist()
    assert ranks == list(range(1, len(ranks) + 1))


def test_a_run_with_children_is_repeated_bit_by_bit(run):
    found = replay(run)
    assert found["differences"] == []
    assert found["candidates"] == OPTIONS["candidates"]


def test_a_refined_run_that_was_killed_goes_on_to_the_same_leaderboard(
    forks, data, tmp_path  # noqa: F811
):  # fmt: skip
    options = {**OPTIONS, "folds": 1, "candidates": 40, "checkpoint_seconds": 0.0}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert forks.search(data, out=whole, **options)[0] == 0
    children = [r for r in read_state(whole).finished() if r.candidate.inherits]
    assert children
    points = 0
    while True:
        status, _ = forks.search(data, out=cut, fault="kill9@400", **options)
        if status == 0:
            break
        assert status == KILLED
        points += 1
        assert points < 20
    assert points >= 1
    assert timeless(cut) == timeless(whole)


@pytest.mark.usefixtures("here")
def test_turns_by_what_was_earned_are_the_same_after_an_interrupt(data, tmp_path, monkeypatch):
    monkeypatch.setattr(bandit, "ENOUGH", 8)
    monkeypatch.setattr(bandit, "SHARE", 0.7)
    options = {**OPTIONS, "folds": 1, "candidates": 56, "refine_share": "auto", "workers": 0}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    adanet_py.search(data, out=whole, on_note=lambda m: None, **options)
    groups = read_state(whole).groups
    turns = [g.candidates[0].inherits for g in groups.values()]
    assert True in turns
    assert False in turns[turns.index(True) :]  # not the last part, but in turns
    names = {n for g in groups.values() for n in g.controllers if g.candidates[0].inherits}
    assert names == {"refine"}
    ends = iter([True])

    def submit(self, group, submit=loop.Search._submit):
        if group.index == turns.index(True) + 1 and next(ends, False):
            raise KeyboardInterrupt
        submit(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Search, "_submit", submit)
        with pytest.raises(KeyboardInterrupt):
            adanet_py.search(data, out=cut, on_note=lambda m: None, **options)
    adanet_py.run.resume(cut, **QUIET)
    assert timeless(cut) == timeless(whole)
    assert replay(whole)["identical"]


# ------------------------------------------------------------------ a run that has ended

QUIET = {"on_event": lambda event: None}


def _copy(run, path):
    shutil.copytree(run, path)
    return path


@pytest.fixture(scope="module")
def ended(data, tmp_path_factory):
    """A search that refined nothing."""
    out = tmp_path_factory.mktemp("runs") / "ended"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        patch.setattr("adanet_py.plan.EPOCHS", (6, 10))
        options = {"space": "tiny", "folds": 2, "candidates": 16, "ensemble": "none"}
        adanet_py.search(data, out=out, workers=0, on_note=lambda m: None, **options)
    return out


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(saving, "start_check", check_here)
    monkeypatch.setattr("adanet_py.plan.EPOCHS", (6, 10))


def _judge_all(monkeypatch, accepted):
    def judged_so(child, parent, objective, doubt):
        if not child.candidate.inherits:
            return child
        return child.replace(accepted=accepted, objective=objective, verdict="by the test")

    monkeypatch.setattr(loop, "judged", judged_so)


@pytest.mark.usefixtures("here")
def test_a_finished_run_is_refined_in_its_own_journal(ended, tmp_path):
    run = _copy(ended, tmp_path / "run")
    before = read_state(run)
    found = adanet_py.refine_run(run, candidates=10, moves=["train_on"], **QUIET)
    after = read_state(run)
    assert after.stopped == "26 candidates were trained"
    children = [r for i, rs in after.results.items() if i not in before.results for r in rs]
    assert len(children) == 10
    assert all(r.candidate.inherits and r.difference <= 1e-5 for r in children)
    assert {r.candidate.parent for r in children} <= {r.candidate.id for r in before.finished()}
    assert len(found.leaderboard) == len(before.all_results()) + 10
    assert not (run / "cache").exists()
    assert replay(run)["identical"]
    again = adanet_py.refine_run(run, candidates=4, **QUIET)
    assert len(again.leaderboard) == len(found.leaderboard) + 4


@pytest.mark.usefixtures("here")
def test_the_model_is_a_child_only_if_it_was_accepted(ended, tmp_path, monkeypatch):
    best = adanet_py.run.SearchResult(ended, read_state(ended), {}, Own()).best
    run = _copy(ended, tmp_path / "rolled back")
    _judge_all(monkeypatch, False)
    found = adanet_py.refine_run(run, candidates=8, **QUIET)
    assert found.best.candidate == best.candidate
    assert (run / "model.adanet").read_bytes() == (ended / "model.adanet").read_bytes()
    assert not any(r.candidate.inherits for r in possible_parents(found.state.finished()))

    run = _copy(ended, tmp_path / "accepted")
    _judge_all(monkeypatch, True)
    found = adanet_py.refine_run(run, candidates=8, **QUIET)
    ahead = max(found.state.finished(), key=lambda r: r.reward)
    assert found.best.candidate == ahead.candidate
    if ahead.candidate.inherits:
        assert found.model.about["candidate"] == ahead.candidate.id


def test_the_end_of_a_chain_of_smaller_networks_is_the_choice():
    first, other = family(1, reward=-0.3), family(2, reward=-0.4)
    half = result_of(child_of(first.candidate), -0.31, parameters=500, accepted=True)
    small = result_of(child_of(half.candidate), -0.32, parameters=200, accepted=True)
    lost = result_of(child_of(half.candidate, lr=0.5), -0.2, parameters=100, accepted=False)
    stray = result_of(child_of(other.candidate), -0.4, parameters=10, accepted=True)
    results = [r.replace(objective="size") if r.objective == "" and r.candidate.inherits else r
               for r in (first, other, half, small, lost, stray)]  # fmt: skip
    choice = make_choice("best", get_metric("rmse"), RewardRule(), lambda r: 0.0, objective="size")
    assert choice(results, ()).candidate == small.candidate
    assert choice(results[:3], ()).candidate == half.candidate
    assert choice(results, {small.candidate.id}).candidate == half.candidate
    parents = Refiner((), "size").parents(results)
    assert [r.candidate for r in parents] == [small.candidate, half.candidate, first.candidate]


def test_with_a_size_the_best_of_those_that_have_it_is_the_choice():
    first = family(1, reward=-0.3)
    half = result_of(child_of(first.candidate), -0.31, parameters=500)
    small = result_of(child_of(half.candidate), -0.33, parameters=330)
    direct = result_of(child_of(first.candidate, lr=0.3), -0.32, parameters=333)
    tiny = result_of(child_of(first.candidate, lr=0.4), -0.4, parameters=10)
    children = [r.replace(accepted=True, objective="size") for r in (half, small, direct, tiny)]
    choice = make_choice(
        "best", get_metric("rmse"), RewardRule(), lambda r: 0.0, objective="size", share=1 / 3
    )
    assert choice([first, *children], ()).candidate == direct.candidate
    assert choice([first, *children], {direct.candidate.id}).candidate == small.candidate
    assert choice([first, *children[:1]], ()).candidate == half.candidate
    refiner = Refiner((), "size", size=1 / 3)
    parents = [r.candidate for r in refiner.parents([first, *children])]
    assert parents == [direct.candidate, half.candidate, first.candidate]
    assert [r.candidate for r in refiner.parents([first])] == [first.candidate]


@pytest.mark.parametrize("move", ["prune:output", "factorise"])
def test_children_of_a_size_have_at_most_its_parameters_all_the_way_first(move):
    mlp, spec = ARCHITECTURES["mlp"], make_spec()
    static = {**STATIC, "width": 64, "embedding": "periodic"}
    parent = result_of(replace(PARENT, static=static))
    count = mlp.parameters(mlp.complete(static), spec)
    refiner = Refiner((move,), "size", spec=spec, size=1 / 2)
    children = refiner(SPACE, History((parent,)), 8, np.random.default_rng(0))
    sizes = {mlp.parameters(c.static, spec) for c in children}
    assert len(children) == 8
    assert all(0.4 * count < size <= count / 2 for size in sizes)
    first = parent.replace(parameters=count)
    small = result_of(children[0], parameters=max(sizes), accepted=True, objective="size")
    after = refiner(SPACE, History((first, small)), 8, np.random.default_rng(0))
    assert {c.parent for c in after} == {parent.candidate.id}  # what has the size is no parent


@pytest.mark.usefixtures("here")
def test_a_refinement_for_a_size_comes_to_it_or_says_what_came_nearest(ended, tmp_path):
    run, notes = _copy(ended, tmp_path / "sized"), []
    best = adanet_py.run.SearchResult(ended, read_state(ended), {}, Own()).best
    found = adanet_py.refine_run(
        run, candidates=16, objective="size", size="1/2", on_event=notes.append
    )
    share = found.best.parameters / best.parameters
    told = [n["message"] for n in notes if "parameters was accepted" in n.get("message", "")]
    children = [r for r in found.state.finished() if r.candidate.inherits]
    assert any(r.parameters <= best.parameters / 2 for r in children)
    assert (share <= 0.5) is not bool(told)
    assert read_state(run).refining["size"] == 0.5


@pytest.mark.usefixtures("here")
def test_an_interrupted_refinement_goes_on_to_the_same_leaderboard(ended, tmp_path, monkeypatch):
    whole, cut = _copy(ended, tmp_path / "whole"), _copy(ended, tmp_path / "cut")
    adanet_py.refine_run(whole, candidates=24, **QUIET)
    ends = iter([True])

    def submit(self, group, submit=loop.Search._submit):
        if len(self.state.groups) == len(read_state(ended).groups) + 2 and next(ends, False):
            raise KeyboardInterrupt
        submit(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Search, "_submit", submit)
        with pytest.raises(KeyboardInterrupt):
            adanet_py.refine_run(cut, candidates=24, **QUIET)
    assert read_state(cut).stopped is None
    with pytest.raises(RunError, match="resume"):
        adanet_py.refine_run(cut, candidates=24, **QUIET)
    adanet_py.run.resume(cut, **QUIET)
    assert read_state(cut).stopped
    assert timeless(cut) == timeless(whole)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"moves": ["train_one"]}, SpaceError, "Did you mean 'train_on'"),
        ({"objective": "latncy"}, ConfigError, "Did you mean 'latency'"),
        ({"candidates": 0}, ConfigError, "candidates"),
        ({"size": "1/3"}, ConfigError, "Add --objective size"),
        ({"objective": "size", "size": "3"}, ConfigError, "1/3, 0.33 or 33%, found '3'"),
        ({"objective": "size", "size": 0.95}, ConfigError, "at most 0.9"),
    ],
)
def test_what_cannot_be_asked_of_a_refinement_is_said(ended, options, error, words):
    before = (ended / "journal.jsonl").read_bytes()
    with pytest.raises(error, match=words) as raised:
        adanet_py.refine_run(ended, **options, **QUIET)
    assert raised.value.exit_code == 2
    assert (ended / "journal.jsonl").read_bytes() == before


def test_moves_are_named_by_what_stands_before_the_colon(monkeypatch):
    for name in ("shrink:a", "shrink:b"):
        monkeypatch.setitem(refine.MOVES, name, BROKEN["shrunk"])
    assert refine.find_moves("shrink") == ["shrink:a", "shrink:b"]
    assert refine.find_moves("shrink:b") == ["shrink:b"]
    assert refine.find_moves("train_on") == ["train_on"]


def test_a_native_run_of_children_needs_no_more_than_the_registry():
    assert ARCHITECTURES["mlp"].complete(PARENT.static) == dict(
        refine.MOVES["train_on"].children(PARENT, ARCHITECTURES["mlp"])[0]
    )


@pytest.mark.usefixtures("here")
def test_the_simplest_is_looked_for_among_smaller_children_of_the_best(data, tmp_path, monkeypatch):
    monkeypatch.setattr("adanet_py.plan.EPOCHS", (6, 10))
    options = {k: v for k, v in OPTIONS.items() if k != "refine_share"} | {"folds": 1, "workers": 0}
    out = tmp_path / "simplest"
    found = adanet_py.search(data, out=out, choose="simplest", **options)
    results = {r.candidate.id: r for r in found.state.finished()}
    children = [r for r in results.values() if r.candidate.inherits]
    assert children
    assert {r.objective for r in children if r.status.usable} == {"size"}
    for r in children:
        assert r.parameters < results[r.candidate.parent].parameters
    others = [r for r in results.values() if not r.candidate.inherits]
    assert len(others) >= 0.6 * OPTIONS["candidates"]
    assert replay(out)["differences"] == []
    none = {**options, "refine_share": 0, "candidates": 8}
    found = adanet_py.search(data, out=tmp_path / "none", choose="simplest", **none)
    assert not any(r.candidate.inherits for r in found.state.finished())
