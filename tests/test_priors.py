"""Priors of a search space: how often a choice is drawn, and that results still decide."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest
from spaces import FILES, REGISTRIES, ZOO, Entry

from adanet_py.controllers import CONTROLLERS, find_controller
from adanet_py.errors import SpaceError
from adanet_py.knob import Knob
from adanet_py.own import Own
from adanet_py.records import History, Result, Status
from adanet_py.space import (
    Decision,
    Registries,
    SearchSpace,
    json_schema,
    load_space,
    mutate,
    mutate_assignment,
    project,
    sample,
    with_own,
)
from adanet_py.space_decision import neighbour
from adanet_py.space_sections import LEAST

WEIGHTED = ZOO["weighted"]
FILE = """\
name: mine
architectures:
  plain:
    prior: 3
    norm: {choice: [none, batch, layer], prior: [6, 1, 1]}
  deep: {}
optimizers:
  sgd: {}
"""


def check_shares(values, wanted):
    """Counts of values drawn independently, against shares: within five standard deviations."""
    n, counts = len(values), Counter(values)
    for value, share in wanted.items():
        bound = 5.0 * np.sqrt(n * share * (1.0 - share)) + 1.0
        assert abs(counts[value] - n * share) < bound, (value, counts, wanted)
    assert counts.keys() <= wanted.keys()


def wanted(name):
    decision = WEIGHTED.by_name[name]
    return dict(zip(decision.domain, decision.prior, strict=True))


def test_the_prior_of_a_decision_is_its_weights_as_shares():
    assert WEIGHTED.by_name["architecture"].prior == pytest.approx((5 / 6, 1 / 6))
    assert WEIGHTED.by_name["optimizer"].prior == pytest.approx((1 / 9, 8 / 9))
    assert WEIGHTED.by_name["schedule"].prior == pytest.approx((1 / 4, 3 / 4))
    assert WEIGHTED.by_name["general.warmup"].prior == pytest.approx((6 / 8, 1 / 8, 1 / 8))
    assert all(not d.prior for d in WEIGHTED.decisions if d.kind != "choice")


def test_samples_follow_the_prior():
    rng = np.random.default_rng(0)
    drawn = [project(WEIGHTED, sample(WEIGHTED, rng)) for _ in range(2000)]
    for decision in WEIGHTED.decisions:
        if decision.prior:
            values = [a[decision.name] for a in drawn if decision.name in a]
            check_shares(values, wanted(decision.name))


def test_every_choice_owns_a_part_of_the_unit_interval_as_wide_as_its_prior():
    for decision in WEIGHTED.decisions:
        if not decision.prior:
            continue
        values = [decision.at(u) for u in np.linspace(0.0, 1.0, 20_001)]
        for value, share in wanted(decision.name).items():
            assert values.count(value) / 20_001 == pytest.approx(share, abs=2e-4)
            middle = decision.unit(value)
            assert decision.at(middle) == value
            assert decision.at(middle - 0.49 * share) == value
            assert decision.at(middle + 0.49 * share) == value
        assert decision.at(0.0) == decision.domain[0]
        assert decision.at(1.0) == decision.domain[-1]


def test_the_least_prior_that_is_accepted_is_found_again():
    decision = Decision("x", ("x",), "choice", ("a", "b"), prior=(1.0 - LEAST, LEAST))
    assert [decision.at(decision.unit(v)) for v in "ab"] == ["a", "b"]


def test_a_mutation_to_another_word_is_drawn_by_the_prior():
    norm = WEIGHTED.by_name["architectures.plain.norm"]
    rng = np.random.default_rng(1)
    moved = [neighbour(norm, "layer", rng) for _ in range(2000)]
    check_shares(moved, {"none": 0.5 / 8.5, "batch": 8 / 8.5})
    moved = [neighbour(norm, "batch", rng) for _ in range(2000)]
    check_shares(moved, {"none": 0.5 / 2.5, "layer": 2 / 2.5})


def test_a_mutation_of_rising_numbers_always_moves_and_prefers_what_weighs_more():
    depth = WEIGHTED.by_name["architectures.plain.depth"]
    rng = np.random.default_rng(2)
    for value in depth.domain:
        moved = Counter(neighbour(depth, value, rng) for _ in range(500))
        assert value not in moved
        assert max(moved, key=moved.__getitem__) == {1: 2, 2: 4, 4: 2, 8: 4}[value]


def test_mutations_change_one_decision_however_wide_its_part():
    rng, candidate = np.random.default_rng(3), sample(WEIGHTED, np.random.default_rng(0))
    for _ in range(300):
        child = mutate(WEIGHTED, candidate, rng)
        assert child.settings != candidate.settings
        candidate = child


def test_what_the_prior_settles_is_changed_less_often():
    settled = Decision("a", ("a",), "choice", ("x", "y"), prior=(0.95, 0.05))
    even = Decision("b", ("b",), "choice", ("x", "y"), prior=(0.5, 0.5))
    plain = Decision("c", ("c",), "float", (0.0, 1.0))
    entropy = -(0.95 * math.log(0.95) + 0.05 * math.log(0.05)) / math.log(2)
    assert settled.freedom == pytest.approx(entropy)
    assert even.freedom == pytest.approx(1.0)
    assert plain.freedom == 1.0
    space = SearchSpace("s", "", (settled, even, plain), {}, {})
    rng, moved = np.random.default_rng(0), Counter()
    for _ in range(3000):
        moved[mutate_assignment(space, {"a": "x", "b": "x", "c": 0.5}, rng)[1]] += 1
    assert moved["a"] / 3000 == pytest.approx(entropy / (2 + entropy), abs=0.03)
    assert moved["b"] / 3000 == pytest.approx(1 / (2 + entropy), abs=0.03)


def test_equal_weights_are_no_prior():
    values = {"name": "x", **FILES["all types"]}
    equal = {
        **values,
        "optimizers": {n: {**d, "prior": 7} for n, d in values["optimizers"].items()},
        "general": {"warmup": {"choice": [0.0, 0.1], "prior": [2, 2.0]}},
    }
    plain = load_space(values, REGISTRIES)
    assert load_space(equal, REGISTRIES).decisions == plain.decisions


def test_the_text_of_a_space_keeps_its_priors_also_with_what_a_user_adds():
    space = load_space(
        {
            "name": "x",
            "architectures": {"mlp": {"prior": 4, "norm": {"choice": ["none", "rms"]}}},
            "optimizers": {"adam": {"prior": 2}, "sgd": None},
        }
    )
    mine = Entry({"rank": Knob(4, 1, 64)}, {})
    registries = Registries(
        {"mlp": Entry({"norm": Knob("none", choices=("none", "rms"))}), "mine": mine},
        REGISTRIES.optimizers, REGISTRIES.schedules, REGISTRIES.general,
    )  # fmt: skip
    more = with_own(space, Own(architectures={"mine": mine}), registries)
    assert more.by_name["architecture"].domain == ("mlp", "mine")
    assert more.by_name["architecture"].prior == pytest.approx((0.8, 0.2))
    assert more.by_name["optimizer"].prior == pytest.approx((2 / 3, 1 / 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("prior: 3", "prior: 0"), "mine.yaml:4: architectures.plain.prior: expected a weight a"),
        (("prior: 3", "prior: -1"), "mine.yaml:4: .*above 0, found -1; .* leave it out"),
        (("prior: 3", "prior: many"), "mine.yaml:4: .*found 'many'"),
        (("prior: 3", "prior: true"), "mine.yaml:4: .*found True"),
        (("prior: 3", "prior: 1e999"), "mine.yaml:4: .*found inf"),
        (("prior: 3", "prior: 1e-9"), "mine.yaml:2: the prior 1e-09 is less than a millionth"),
        (("prior: 3", "pror: 3"), "mine.yaml:4: Unknown knob of architectures plain 'pror'"),
        (("[6, 1, 1]", "[6, 1]"), "mine.yaml:5: .*weight in prior for each of the 3 choices, foun"),
        (("[6, 1, 1]", "[6, 1, 0]"), r"mine.yaml:5: .*norm.prior.2: expected a weight above 0"),
        (("[6, 1, 1]", "[6, 1, 1e-8]"), "mine.yaml:5: the prior 1e-08 is less than a millionth"),
        (("[6, 1, 1]", "6"), "mine.yaml:5: .*norm.prior: input should be a valid list, found 6"),
        (("[6, 1, 1]", "{none: 6}"), "mine.yaml:5: .*norm.prior: input should be a valid list"),
        (("prior: [6, 1, 1]", "piror: [6, 1, 1]"), "5: unknown key 'piror'. Did you mean 'prior'"),
        (("norm: {choice: [none, batch, layer]", "depth: {int: [1, 3]"), "5: .*belongs to choice"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_prior_is_named_with_its_line(tmp_path, change, message):
    assert FILE.count(change[0]) == 1
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    assert load_space(path, REGISTRIES).by_name["architecture"].prior == (0.75, 0.25)
    path.write_text(FILE.replace(*change))
    with pytest.raises(SpaceError) as caught:
        load_space(path, REGISTRIES)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_a_knob_called_prior_is_refused():
    taken = Entry(numeric={"prior": Knob(0.1, 0.0, 1.0)})
    registries = Registries(
        {"plain": taken}, REGISTRIES.optimizers, REGISTRIES.schedules, REGISTRIES.general
    )
    values = {"name": "x", "architectures": {"plain": {}}, "optimizers": {"sgd": {}}}
    with pytest.raises(SpaceError, match=r"plain has a knob called prior.*rename the knob"):
        load_space(values, registries)


def test_the_json_schema_knows_priors():
    schema = json_schema(REGISTRIES)
    jsonschema = pytest.importorskip("jsonschema", reason="the validator is no dependency")
    values = {"name": "x", **FILES["weighted"]}
    jsonschema.validate(values, schema)
    for wrong in ({"prior": 0}, {"prior": "3"}, {"norm": {"choice": ["none"], "prior": [0]}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**values, "architectures": {"plain": wrong}}, schema)


# ------------------------------------------------------------------ controllers


def nsga2():
    from optuna.samplers import NSGAIISampler

    return find_controller(NSGAIISampler(seed=1))


def first_proposals(controller, n):
    """The first candidate of `n` searches; of one search for the sequence, which has no other."""
    if controller is CONTROLLERS["quasi_random"]:
        results = ()
        for call in range(n):
            (one,) = controller(WEIGHTED, History(results), 1, np.random.default_rng(call))
            results += (Result(one, Status.COMPLETE, reward=0.0),)
        return [project(WEIGHTED, r.candidate) for r in results]
    calls = (controller(WEIGHTED, History(), 1, np.random.default_rng(i)) for i in range(n))
    return [project(WEIGHTED, one) for (one,) in calls]


@pytest.mark.parametrize("name", [*CONTROLLERS, "nsga2"])
def test_who_knows_nothing_proposes_by_the_prior(name):
    controller = nsga2() if name == "nsga2" else CONTROLLERS[name]
    drawn = first_proposals(controller, 200)
    for decision in WEIGHTED.decisions:
        if decision.prior:
            values = [a[decision.name] for a in drawn if decision.name in a]
            check_shares(values, wanted(decision.name))


def is_rare_optimizer(candidate):
    return candidate.optimizer == "sgd"  # a ninth of the prior


def has_rare_warmup(candidate):
    return candidate.numeric["warmup"] > 0  # a quarter


@pytest.mark.parametrize("name", ["tpe", "evolution"])
def test_results_outweigh_the_prior(name):
    rng = np.random.default_rng(0)
    candidates = [sample(WEIGHTED, rng) for _ in range(60)]
    for good in (is_rare_optimizer, has_rare_warmup):
        results = tuple(
            Result(c, Status.COMPLETE, reward=float(good(c)) + 0.01 * rng.normal())
            for c in candidates
        )
        proposed = []
        for call in range(60):
            generator = np.random.default_rng((1, call))
            proposed += CONTROLLERS[name](WEIGHTED, History(results), 2, generator)
        share = np.mean([good(c) for c in proposed])
        assert share > 2.0 * np.mean([good(c) for c in candidates])
