"""AdaNet with subnetworks of its own: training, rounds, selection, variants, saved models."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from tables import table
from typer.testing import CliRunner

import adanet_py
from adanet_py.checks import check
from adanet_py.cli import app
from adanet_py.data.spec import DataSpec
from adanet_py.ensemble.growth import Member
from adanet_py.ensemble.losses import LOSSES
from adanet_py.errors import ConfigError, RunError
from adanet_py.records import Candidate
from adanet_py.subnetworks.architecture import SUBNETWORK, read_widths, widths_below, write_widths
from adanet_py.subnetworks.folder import COLUMNS, TABLE, same_members
from adanet_py.subnetworks.growing import Growing
from adanet_py.subnetworks.networks import Grown
from adanet_py.subnetworks.options import SELECTIONS, VARIANTS, GrowthOptions, with_variants
from adanet_py.subnetworks.problem import Problem, Task
from adanet_py.subnetworks.rounds import grow
from adanet_py.subnetworks.tables import grow_table
from adanet_py.subnetworks.training import train
from adanet_py.training.batches import BatchOrder, member_seed
from adanet_py.training.engines.program import build_module, switch

SMALL = GrowthOptions(
    rounds=3, widths=(6,), learning_rates=(1e-2,), epochs=4, batch_size=32, lambda_=1e-4, beta=1e-4
)


@cache
def problem(task="binary", rows=150, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    codes = rng.integers(0, 4, (rows, 1)).astype(np.int32)
    z = np.sin(2 * x[:, :1]) * x[:, 1:2] + (codes == 2) + 0.1 * rng.normal(size=(rows, 1))
    outputs = {"binary": 1, "multiclass": 3, "multilabel": 2, "regression": 1, "multioutput": 2}
    both = np.concatenate([z, -z + x[:, 2:]], 1)
    y = {
        "binary": (z[:, 0] > 0).astype(np.int64),
        "multiclass": np.digitize(z[:, 0], [-0.3, 0.4]).astype(np.int64),
        "multilabel": (both > 0).astype(np.int64),
        "regression": z[:, 0].astype(np.float32),
        "multioutput": both.astype(np.float32),
    }[task]
    spec = DataSpec(task, outputs[task], 3, (4,))
    return Problem(spec, x, codes, y)


def rows_of(data):
    return np.arange(len(data.y))


@cache
def grown(task="binary", seed=0, **changes):
    data = problem(task)
    [found] = grow(data, [Task(rows_of(data), replace(SMALL, **changes), seed)])
    return found


def weights_of(growing):
    return [{n: v.clone() for n, v in m.state_dict().items()} for m in growing.modules]


# -------------------------------------------------------------------------------- the network


def test_the_network_is_the_weighted_sum_of_subnetworks_that_read_each_other_by_hand():
    data, found = problem(), grown()
    module, _ = found.network()
    numeric = torch.from_numpy(data.numeric)
    flags = np.stack([data.category[:, 0] == c for c in (1, 2, 3)], 1)
    x = np.concatenate([data.numeric, flags], 1).astype(np.float64)
    total, before = np.zeros((len(x), 1)) + found.base.weights.bias, []
    for own, w in zip(found.modules, found.base.weights.mixture, strict=True):
        state = {n: v.double().numpy() for n, v in own.state_dict().items()}
        layer, hidden = x, []
        for k in range(len(own.layers)):
            if k:
                layer = np.concatenate([layer, *(h[k - 1] for h in before if len(h) >= k)], 1)
            layer = layer @ state[f"layers.{k}.0.weight"].T + state[f"layers.{k}.0.bias"]
            layer = np.maximum(layer, 0.0)
            hidden.append(layer)
        before.append(hidden)
        total += w * (layer @ state["head.weight"].T + state["head.bias"])
    with torch.inference_mode():
        z = module(numeric, torch.from_numpy(data.category)).numpy()
    assert len(found.modules) == 3
    np.testing.assert_allclose(z, total, atol=1e-5)
    np.testing.assert_allclose(found.combined(), total, atol=1e-5)


@pytest.mark.parametrize(
    ("read", "below"), [("all", (12, 7)), ("previous", (4, 0)), ("none", (0, 0))]
)
def test_what_is_read_of_frozen_subnetworks(read, below):
    assert widths_below([(8, 7), (4,)], 3, read) == below
    assert read_widths(write_widths([(8, 7), (), (4,)])) == [(8, 7), (), (4,)]


def test_subnetworks_of_no_weight_that_nobody_reads_are_left_out():
    found = grown(deepest=1)
    assert [len(w) for w in found.widths] == [1, 1, 1]
    weights = found.base.weights
    zero = replace(weights, mixture=weights.mixture * np.array([1.0, 0.0, 1.0]))
    without = replace(found, base=replace(found.base, weights=zero))
    module, candidate = without.network()
    assert candidate.static["subnetworks"] == "6|6"
    with torch.inference_mode():
        z = module(torch.from_numpy(problem().numeric), torch.from_numpy(problem().category))
    np.testing.assert_allclose(z.numpy(), without.combined(), atol=1e-5)
    deep = grown()
    none = replace(deep.base.weights, mixture=np.array([0.0, 0.0, 1.0]))
    kept = replace(deep, base=replace(deep.base, weights=none)).network()[0]
    assert len(kept.subnetworks) == 3  # the last one reads the others


# -------------------------------------------------------------------------------- training


def plain_loop(request, spec, seed, rate):
    """A subnetwork trained by torch.optim, from the same start over the same batches."""
    static = {**request.static, "widths": ",".join(map(str, request.widths)),
              "below": ",".join(map(str, request.reads))}  # fmt: skip
    candidate = Candidate(SUBNETWORK.name, static, numeric=request.numbers)
    module = build_module(SUBNETWORK, candidate, spec, member_seed(0, seed)).train()
    switch(module, frozenset())
    matrices = [p for p in module.parameters() if p.dim() > 1]
    others = [p for p in module.parameters() if p.dim() == 1]
    decay = request.numbers["weight_decay"]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}],
        lr=rate,
    )
    order = BatchOrder((np.arange(len(request.target)),), request.batch_size, seed)
    columns = torch.cat([request.numeric, request.below, request.before], 1)
    for step in range(request.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * step / request.steps)) / 2
        rows = torch.from_numpy(order.take(step, step + 1)[0, 0])
        z = module(columns[rows], request.category[rows])[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(z, request.target[rows].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.subnetwork


def test_candidates_trained_together_are_those_of_plain_loops():
    data = problem()
    # Two AdaNets whose frozen subnetworks differ in size: what they read is filled up.
    tasks = [Task(rows_of(data), replace(SMALL, widths=(w,)), s) for s, w in ((0, 6), (1, 4))]
    ends = grow(data, [replace(t, options=replace(t.options, rounds=1)) for t in tasks])
    requests = []
    for end in ends:
        end.task = replace(
            end.task, options=replace(SMALL, widths=(5,), learning_rates=(1e-2, 1e-3))
        )
        requests += end.requests(2)
    assert len({r.reads for r in requests}) > 1
    together = train(requests, data.spec, torch.device("cpu"))
    for request, trained in zip(requests, together, strict=True):
        for one, rate in zip(trained, request.rates, strict=True):
            plain = plain_loop(request, data.spec, request.seed, rate)
            for name, value in plain.state_dict().items():
                torch.testing.assert_close(
                    one.module.state_dict()[name], value, atol=2e-4, rtol=2e-3
                )


def test_the_moving_average_is_that_of_the_losses_of_batches():
    data = problem()
    task = Task(rows_of(data), replace(SMALL, rounds=1))
    [request, _] = Growing.start(data, task).requests(1)
    request = replace(request, steps=10)  # one mean of ten batches
    [[trained]] = train([request], data.spec, torch.device("cpu"))
    order = BatchOrder((np.arange(len(request.target)),), request.batch_size, request.seed)
    z = np.broadcast_to(request.before.numpy().astype(np.float64), (len(data.y), 1))
    rows = LOSSES["binary"].rows(z, data.y)[order.take(0, 10)[:, 0]]
    assert trained.before == pytest.approx(rows.mean(), rel=1e-6)
    assert trained.average < trained.before


def test_a_seed_decides_everything_and_company_nothing():
    data = problem()
    one, two = (Task(rows_of(data), SMALL, s) for s in (0, 1))
    [first, second] = grow(data, [one, two])
    alone = grown(seed=1)
    assert second.widths == alone.widths
    np.testing.assert_allclose(second.outputs[-1], alone.outputs[-1], atol=1e-3)
    assert not np.allclose(first.outputs[0], second.outputs[0], atol=1e-3)


# -------------------------------------------------------------------------------- rounds


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_frozen_subnetworks_are_bit_identical_after_a_round(norm):
    data, seen = problem(), []
    task = Task(rows_of(data), replace(SMALL, norm=norm))
    grow(data, [task], on_round=lambda number, live: seen.append(weights_of(live[0])))
    assert len(seen[-1]) == 3
    if norm == "batch":
        assert any("running_mean" in name for name in seen[0][0])
    for earlier in seen[:-1]:
        for old, new in zip(earlier, seen[-1], strict=False):
            assert old.keys() == new.keys()
            assert all(torch.equal(old[n], new[n]) for n in old)


@pytest.mark.parametrize("kind", ["scalar", "vector", "matrix"])
@pytest.mark.parametrize(
    "task", ["binary", "multiclass", "multilabel", "regression", "multioutput"]
)
def test_growth_never_raises_f_on_the_training_rows(task, kind):
    found = grown(task, kind=kind)
    values = [step.value for step in found.steps]
    assert values == sorted(values, reverse=True)
    assert len(values) > 1
    # F of the end, from what the network puts out
    data = problem(task)
    z = found.combined()
    loss = LOSSES[task].rows(z, data.y).mean()
    gamma = [found.setting.lambda_ * m.complexity + found.setting.beta for m in found.members]
    paid = float(np.array(gamma) @ found.base.weights.sizes())
    assert found.base.value == pytest.approx(loss + paid, abs=1e-12)
    for trial in found.trials:
        assert trial.why
        if trial.accepted:
            assert trial.change < 0 or kind != "scalar"


def test_a_round_offers_the_current_depth_and_one_more():
    found = grown(widths=(4, 6), learning_rates=(1e-2, 3e-3))
    deepest = 1
    for number in (1, 2, 3):
        offered = [t for t in found.trials if t.round == number]
        assert {(t.depth, t.width, t.rate) for t in offered} == {
            (d, w, r) for d in (deepest, deepest + 1) for w in (4, 6) for r in (1e-2, 3e-3)
        }
        [taken] = [t for t in offered if t.accepted]
        assert taken.score == min(t.score for t in offered)
        deepest = max(deepest, taken.depth)


def test_a_penalty_that_nothing_is_worth_ends_it_at_once():
    data = problem()
    [found] = grow(data, [Task(rows_of(data), replace(SMALL, lambda_=100.0))])
    assert found.members == []
    assert found.stopped == "no candidate lowers what they are selected by"
    assert {t.why for t in found.trials} == {"F is least without it"}


def test_held_out_rows_choose_where_they_are_asked_to():
    data = problem()
    options = replace(SMALL, selection="held_out", rounds=2)
    rows = rows_of(data)
    [fair] = grow(data, [Task(rows[:100], options, 0, rows[100:])])
    assert fair.members
    wrong = replace(data, y=np.where(rows < 100, data.y, 1 - data.y))
    [misled] = grow(wrong, [Task(rows[:100], options, 0, rows[100:])])
    assert misled.members == []


@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_selection_accepts_what_lowers_what_it_looks_at(selection):
    data = problem()
    rows = rows_of(data)
    options = replace(SMALL, selection=selection, rounds=2)
    [found] = grow(data, [Task(rows[:100], options, 0, rows[100:])])
    assert found.steps
    assert SELECTIONS[selection].forfeits


def test_the_uniform_mean_weighs_all_the_same():
    found = grown(uniform=True, goal="alone", rounds=2, epochs=12)
    np.testing.assert_allclose(found.base.weights.mixture, 1 / len(found.members))
    assert found.base.value <= found.steps[0].value


def test_random_widths_are_between_the_given_ones():
    found = grown(widths=(4, 12), random_widths=2, rounds=2)
    widths = {t.width for t in found.trials}
    assert widths <= set(range(4, 13))
    assert len(widths) > 2
    assert [t.width for t in grown(widths=(4, 12), random_widths=2, rounds=2).trials] == [
        t.width for t in found.trials
    ]


def test_nothing_begins_when_it_is_late():
    data = problem()
    [found] = grow(data, [Task(rows_of(data), SMALL)], left=lambda: 0.0)
    assert (found.members, found.stopped) == ([], "no time for another round")


# -------------------------------------------------------------------------------- variants


def test_variants_change_what_their_names_say():
    assert with_variants(SMALL, ["R"]).penalised
    assert with_variants(SMALL, ["P", "D"]).read == "previous"
    assert with_variants(SMALL, ["D"]).connection_dropout == 0.1
    assert with_variants(SMALL, ["SD"]).complexity == "spread"
    with pytest.raises(ConfigError, match="Unknown variant 'S'"):
        with_variants(SMALL, ["S"])


def test_r_makes_output_weights_smaller():
    plain, penalised = (
        grown(rounds=1, deepest=1, penalised=p, lambda_=0.05, epochs=20) for p in (False, True)
    )
    sizes = [float(f.modules[0].head.weight.abs().sum()) for f in (plain, penalised)]
    assert sizes[1] < 0.8 * sizes[0]


def test_d_acts_in_training_on_connections_only():
    plain, dropped = grown(), grown(connection_dropout=0.5)
    np.testing.assert_array_equal(plain.outputs[0], dropped.outputs[0])  # nothing to read yet
    assert not np.allclose(plain.outputs[-1], dropped.outputs[-1], atol=1e-3)
    module, _ = dropped.network()
    inputs = torch.from_numpy(problem().numeric), torch.from_numpy(problem().category)
    with torch.inference_mode():
        assert torch.equal(module(*inputs), module(*inputs))


def test_sd_is_the_standard_deviation_of_the_last_hidden_layer():
    found = grown(complexity="spread")
    for member, hidden in zip(found.members, found.hidden, strict=True):
        own = hidden[-1].double().numpy().std(axis=0).mean()
        assert member.complexity == pytest.approx(own / found.unit)


def test_a_function_of_the_user_may_measure_complexity():
    found = grown(complexity=lambda result, last: float(result.layers == 1), rounds=1)
    assert found.unit == 0.5
    assert {t.complexity for t in found.trials} == {0.0, 2.0}


def test_every_variant_has_a_meaning():
    for name in VARIANTS:
        found = grown(rounds=2, **VARIANTS[name].changes)
        assert len(found.steps) == 2


# -------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_model_of_a_table_is_saved_and_predicts_what_was_weighed(task, tmp_path):
    frame = table(task)
    seen = []
    found = grow_table(
        frame, target="target", options=replace(SMALL, rounds=2, lambda_=0.001),
        on_round=lambda number, growing: seen.append(number),
    )  # fmt: skip
    path = found.save(tmp_path)
    assert seen == [1, 2]
    model = adanet_py.load(tmp_path)
    np.testing.assert_array_equal(model.predict(frame), found.model.predict(frame))
    rows = pd_read(tmp_path / TABLE)
    assert list(rows) == list(COLUMNS)
    assert rows["accepted"].sum() == len(found.growing.members)
    assert path.name == "model.adanet"
    assert found.summary["forfeits"].startswith("nothing")
    scores = model.evaluate(frame, "target")
    assert math.isfinite(scores[found.summary["metric"]])


@pytest.mark.parametrize("loss", ["mean_absolute", "gamma"])
def test_a_table_may_have_another_convex_loss(loss, tmp_path):
    frame = table("regression")
    found = grow_table(frame, target="target", loss=loss, options=replace(SMALL, lambda_=0.0))
    found.save(tmp_path)
    predicted = adanet_py.load(tmp_path).predict(frame)
    assert np.isfinite(predicted).all()
    values = [step.value for step in found.growing.steps]
    assert values == sorted(values, reverse=True)


def pd_read(path):
    import pandas as pd

    return pd.read_csv(path)


def test_the_score_of_a_table_is_that_of_its_validation_rows():
    frame = table("binary", rows=200)
    frame["part"] = np.where(np.arange(200) < 140, "train", "valid")
    found = grow_table(frame, target="target", split="part", options=replace(SMALL, rounds=2))
    valid = frame[frame["part"] == "valid"].drop(columns="part")
    assert found.scores["validation"] == pytest.approx(found.model.evaluate(valid)["log_loss"])
    assert math.isnan(found.scores["audit"])


def test_a_model_that_does_not_predict_what_was_weighed_is_not_saved(tmp_path, monkeypatch):
    found = grow_table(table(), target="target", options=replace(SMALL, rounds=1))
    arrays = dict(found.model.members[0].arrays)
    arrays["0/bias"] = arrays["0/bias"] + 1.0
    wrong = replace(found.model, members=(replace(found.model.members[0], arrays=arrays),))
    with pytest.raises(RunError, match="predictions differ by"):
        replace(found, model=wrong).save(tmp_path)
    assert not (tmp_path / "model.adanet").exists()


def test_a_table_where_nothing_is_worth_its_penalty_is_an_error():
    with pytest.raises(RunError, match="No AdaNet was grown"):
        grow_table(table(), target="target", options=replace(SMALL, lambda_=100.0))


def test_the_command_grows_saves_and_tells_what_is_forfeited(tmp_path):
    table().to_csv(tmp_path / "data.csv", index=False)
    arguments = [
        "adanet", tmp_path / "data.csv", "--target", "target", "--rounds", "2", "--widths", "4,6",
        "--epochs", "3", "--select", "held_out", "--variant", "P,SD", "--lambda", "0.0001",
        "--goal", "alone", "--dropout", "0.1",
        "--out", tmp_path / "out",
    ]  # fmt: skip
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    assert "this forfeits that F never rises" in " ".join(done.stdout.split())
    done = CliRunner().invoke(app, [str(a) for a in [*arguments, "--json", "--quiet"]])
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["selection"] == "held_out"
    assert summary["members"]
    done = CliRunner().invoke(app, ["predict", summary["model"], str(tmp_path / "data.csv")])
    assert len(done.stdout.splitlines()) == 121
    done = CliRunner().invoke(app, ["check", str(tmp_path / "out")])
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'out'}: fine\n")
    (tmp_path / "out" / "model.adanet").unlink()
    assert CliRunner().invoke(app, ["check", str(tmp_path / "out")]).exit_code == 1


def test_class_weights_are_row_weights_that_no_score_knows_of():
    frame = table("binary", rows=200)
    options = replace(SMALL, rounds=2)
    given = grow_table(frame, target="target", options=options, class_weight={"yes": 3.0})
    heavy = frame.assign(heavy=np.where(frame["target"] == "yes", 3.0, 1.0))
    weighed = grow_table(heavy, target="target", options=options, weight="heavy")
    ours, theirs = (np.asarray(g.model.predict_proba(frame)) for g in (given, weighed))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    plain = grow_table(frame, target="target", options=options)
    assert ours[:, 1].mean() > plain.model.predict_proba(frame)[:, 1].mean() + 0.02
    assert given.scores["validation"] != pytest.approx(weighed.scores["validation"], rel=1e-4)
    told = grow_table(frame, target="target", options=options, class_weight="balanced")
    assert told.prepared.class_weight is not None


def counted(rows=300):
    """Counts of what happens 1 or 4 times a year, over years or parts of one."""
    rng = np.random.default_rng(0)
    frame = table("regression", rows).drop(columns="target")
    frame["years"] = rng.uniform(0.2, 3.0, rows)
    rate = np.where(frame["colour"] == "red", 4.0, 1.0)
    return frame.assign(target=rng.poisson(rate * frame["years"]).astype(float))


@pytest.mark.parametrize("loss", ["poisson", "gamma"])
def test_exposures_multiply_what_is_expected(loss, tmp_path):
    frame = counted()
    if loss == "gamma":
        frame["target"] += 0.5
    frame["part"] = np.where(np.arange(len(frame)) < 200, "train", "valid")
    found = grow_table(
        frame, target="target", loss=loss, exposure="years", split="part",
        options=replace(SMALL, epochs=20),
    )  # fmt: skip
    found.save(tmp_path)
    model, once = adanet_py.load(tmp_path), frame.assign(years=1.0)
    np.testing.assert_allclose(
        model.predict(frame.assign(years=2.0)), 2.0 * model.predict(once), rtol=1e-4
    )
    valid = frame[frame["part"] == "valid"].drop(columns="part")
    scored = model.evaluate(valid)[found.prepared.metric]
    assert found.scores["validation"] == pytest.approx(scored, rel=1e-4)
    if loss == "poisson":
        rates = [model.predict(once)[frame["colour"] == c].mean() for c in ("red", "blue")]
        assert rates[0] > 2 * rates[1]


def test_a_group_is_on_one_side_and_the_latest_rows_validate():
    frame = table(rows=200).assign(shop=np.arange(200) % 20, day=np.arange(200))
    options = replace(SMALL, rounds=1)
    split = grow_table(frame, target="target", group="shop", options=options).prepared.split
    assert not set(split.train[0] % 20) & set(split.valid[0] % 20)
    split = grow_table(frame, target="target", time_column="day", options=options).prepared.split
    assert split.train[0].max() < split.valid[0].min()


def test_the_summary_has_prediction_time_and_size(tmp_path):
    found = grow_table(table(), target="target", options=replace(SMALL, rounds=2))
    path = found.save(tmp_path)
    costs = found.summary["costs"]
    assert costs["ensemble"]["bytes"] == path.stat().st_size
    assert costs["single"]["bytes"] < costs["ensemble"]["bytes"]
    assert all(c["predict_ms"] > 0 for c in costs.values())


def test_the_first_alone_has_its_best_weight():
    found = grow_table(table(), target="target", options=replace(SMALL, rounds=2))
    one = grow_table(table(), target="target", options=replace(SMALL, rounds=1))
    assert found.single == pytest.approx(one.scores, rel=1e-6, nan_ok=True)


def test_check_finds_what_is_wrong_with_a_folder(tmp_path):
    found = grow_table(table(), target="target", options=replace(SMALL, rounds=2))
    path = found.save(tmp_path)
    assert check(tmp_path) == []
    other = grow_table(table(), target="target", options=replace(SMALL, rounds=1, widths=(5,)))
    other.model.save(path)
    [problem] = check(tmp_path)
    assert "tell of other members" in problem
    path.write_bytes(path.read_bytes()[:-100])
    assert len(check(tmp_path)) == 1
    path.rename(tmp_path / "model.adanet.new")
    told = " ".join(check(tmp_path))
    assert "model.adanet is missing" in told
    assert "leftover" in told
    found.save(tmp_path)
    rounds = pd_read(tmp_path / TABLE)
    rounds.drop(columns="why").to_csv(tmp_path / TABLE, index=False)
    assert check(tmp_path) == ["adanet.csv: expected a column 'why', found none"]
    (tmp_path / TABLE).write_text("")
    assert "adanet.csv cannot be read" in check(tmp_path)[0]


def test_check_knows_members_of_no_weight():
    """One that no other reads is not in the model, one that is read is."""
    found = grown()
    sizes = np.abs(found.network()[0].mixture.detach().numpy())
    told = [(tuple(w), float(s)) for w, s in zip(found.widths, sizes, strict=True)]
    assert same_members(told, list(told))
    silent = [(told[0][0], 0.0), *told[1:]]
    assert same_members(silent, silent[1:])
    assert same_members(silent, silent)
    assert not same_members(told, told[1:])
    assert not same_members(told, told[::-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--widths", "a"], "--widths: expected numbers with commas"),
        (["--learning-rates", "0"], "learning_rates: expected numbers above 0"),
        (["--variant", "Q"], "Unknown variant 'Q'"),
        (["--select", "train"], "Unknown selection 'train'. Did you mean 'training'?"),
        (["--goal", "own"], "Unknown goal 'own'"),
        (["--read", "last"], "Unknown connections (read) 'last'"),
        (["--dropout", "1"], "dropout: expected 0 to 0.95, found 1.0"),
        (["--lambda", "-1"], "lambda: expected 0 or more, found -1.0"),
        (["--loss", "huber"], "Expected a loss that is convex in the outputs"),
        (["--exposure", "years"], "--exposure: expected a loss with a log link"),
        (["--class-weight", "balanced"], "--class-weight: expected a target of classes"),
        (["--group", "size", "--time-column", "weight"], "Expected at most one of --split"),
        (["--device", "gpu"], "expected auto, cpu, cuda or cuda:0, found 'gpu'"),
    ],
)
def test_options_that_cannot_be_are_said_clearly(arguments, message, tmp_path):
    table("regression").assign(years=1.0).to_csv(tmp_path / "data.csv", index=False)
    done = CliRunner().invoke(
        app, ["adanet", str(tmp_path / "data.csv"), "--target", "target", *arguments]
    )
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_class_weights_of_several_targets_are_refused():
    frame = table(rows=80).assign(other=lambda f: np.where(f["size"] > 0, "a", "b"))
    with pytest.raises(ConfigError, match="expected one target of classes, found several"):
        grow_table(frame, target=("target", "other"), class_weight="balanced", options=SMALL)


def test_the_member_of_a_round_is_one_of_the_ensemble_package():
    assert all(isinstance(m, Member) for m in grown().members)
    assert isinstance(grown().network()[0], Grown)
