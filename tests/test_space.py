"""Search spaces: what a file may say, what goes wrong with it, and points of a space."""

from __future__ import annotations

import copy
import json
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from adanet_py.errors import SpaceError
from adanet_py.knob import Knob
from adanet_py.own import Own
from adanet_py.records import Candidate
from adanet_py.space import (
    Decision,
    Registries,
    contains,
    decode,
    default_registries,
    encode,
    every_assignment,
    json_schema,
    list_spaces,
    load_space,
    mutate,
    project,
    sample,
    with_own,
)
from adanet_py.space_file import MAX_BYTES, read_yaml

sys.path.insert(0, str(Path(__file__).parent))
from spaces import FILES, REGISTRIES, SIZES, ZOO, Entry

GOOD = """\
name: mine
architectures:
  plain:
    depth: {int: [1, 4]}
    width: {choice: [16, 64]}
optimizers:
  sgd: {lr: {float: [1e-4, 1e-1], log: true}}
"""
START = "name: mine\nstart:\n- architecture: plain\n  optimizer: sgd\n"


def written(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def refused(tmp_path, text):
    with pytest.raises(SpaceError) as caught:
        load_space(written(tmp_path, text), REGISTRIES)
    return str(caught.value)


# Files


@pytest.mark.parametrize("name", list_spaces())
def test_every_shipped_space_is_usable_and_its_starts_are_inside(name):
    space = load_space(name)
    assert space.name == name
    assert space.summary
    assert [contains(space, c) for c in space.start] == [None] * len(space.start)
    # a run keeps the text and reads it again
    again = load_space(read_yaml(space.text, "")[0])
    assert again.decisions == space.decisions
    assert again.fixed == space.fixed
    assert again.start == space.start


def test_the_table_space_offers_every_registered_schedule_and_architecture():
    space, registries = load_space("table"), default_registries()
    for kind in ("architectures", "schedules"):
        decided = space.by_name[kind[:-1]].domain
        assert set(decided) == set(registries.entries(kind))
    offered, known = set(space.by_name["optimizer"].domain), set(registries.optimizers)
    # Close variants of others, and one for very small networks.
    assert known - offered == {"amsgrad", "adamw_amsgrad", "rmsprop_centered", "newton"}


def test_the_optimizers_space_offers_every_registered_optimizer_and_nothing_else_varies():
    space = load_space("optimizers")
    names = space.by_name["optimizer"].domain
    assert list(names) == list(default_registries().optimizers)
    varied = {d.name for d in space.decisions if d.size > 1}
    assert varied == {"optimizer", "schedule", *(f"optimizers.{n}.lr" for n in names)}


def test_a_file_and_the_same_values_from_python_give_the_same_space(tmp_path):
    values = {
        "name": "mine",
        "architectures": {"plain": {"depth": {"int": [1, 4]}, "width": {"choice": [16, 64]}}},
        "optimizers": {"sgd": {"lr": {"float": [1e-4, 1e-1], "log": True}}},
    }
    before = copy.deepcopy(values)
    space = load_space(values, REGISTRIES)
    assert values == before
    assert space.decisions == load_space(written(tmp_path, GOOD), REGISTRIES).decisions
    assert load_space(space) is space


def test_what_is_not_given_keeps_its_default_and_a_plain_value_fixes_it():
    space = load_space(
        {
            "name": "fixed",
            "architectures": {"plain": {"depth": 5, "norm": {"choice": ["layer"]}}},
            "optimizers": {"adam": None},
        },
        REGISTRIES,
    )
    candidate = sample(space, np.random.default_rng(0))
    assert candidate.static == {
        "depth": 5, "embedding": "none", "embedding_width": 8, "norm": "layer", "skip": False,
        "width": 64,
    }  # fmt: skip
    assert candidate.numeric == {
        "beta1": 0.9, "clip_norm": 0.0, "dropout": 0.0, "frequency": 1.0, "lr": 1e-3, "warmup": 0.0,
    }  # fmt: skip
    assert candidate.schedule == "constant"


def test_a_scale_is_the_knobs_own_unless_the_file_says_otherwise():
    def is_log(domain):
        values = {"name": "scale", "architectures": {"plain": {}}, "optimizers": {"sgd": domain}}
        return load_space(values, REGISTRIES).by_name["optimizers.sgd.lr"].log

    assert is_log({"lr": {"float": [0.1, 1.0]}})
    assert not is_log({"lr": {"float": [0.0, 1.0], "log": False}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("depth", "dpeth"), "mine.yaml:4: Unknown knob of .*'dpeth'. Did you mean 'depth'"),
        (("  plain", "  plian"), "mine.yaml:3: Unknown architecture 'plian'. Did you mean 'plain'"),
        (("optimizers", "optimisers"), "mine.yaml:6: unknown key .* Did you mean 'optimizers'"),
        (("log: true", "lgo: true"), "mine.yaml:7: unknown key 'lgo'. Did you mean 'log'"),
        (("sgd", "sdg"), "mine.yaml:7: Unknown optimizer 'sdg'. Did you mean 'sgd'"),
        (("{int: [1, 4]}", "[1, 4]"), r"mine.yaml:4: .*found the list \[1, 4\]; write {choice"),
        (("{int: [1, 4]}", "{int: [4, 1]}"), "mine.yaml:4: .*low end 4 is above the high end 1"),
        (("{int: [1, 4]}", "{int: [1]}"), "mine.yaml:4: .*architectures.plain.depth.int"),
        (("{int: [1, 4]}", "{int: [1, 4.5]}"), "mine.yaml:4: .*valid integer.*found 4.5"),
        (("{int: [1, 4]}", "{float: [1, 4]}"), "mine.yaml:4: depth is a whole number; write int"),
        (("{int: [1, 4]}", "{int: [0, 4]}"), "mine.yaml:4: depth cannot be 0; .*from 1 to 16"),
        (("{int: [1, 4]}", "{int: [1, 4], choice: [1]}"), "mine.yaml:4: .*exactly one of"),
        (("{int: [1, 4]}", "{int: [1, 4], when: {norm: bacth}}"), "4: norm can never be 'bacth'"),
        (("{int: [1, 4]}", "{int: [1, 4], when: {width: 65}}"), None),
        (("{int: [1, 4]}", "{int: [1, 4], when: {nrom: batch}}"), "4: .*Did you mean 'norm'"),
        (("[16, 64]", "[16, wide]"), "mine.yaml:5: width cannot be 'wide'; expected a whole"),
        (("[16, 64]", "[16, 16]"), "mine.yaml:5: width lists a choice twice"),
        (("[16, 64]", "[]"), "mine.yaml:5: architectures.plain.width.choice"),
        (("[1e-4, 1e-1]", "[0.0, 1e-1]"), "mine.yaml:7: .*needs a low end above 0, found 0.0"),
        (("[1e-4, 1e-1]", "[1e-4, 1e999]"), "mine.yaml:7: .*finite"),
        (("name: mine\n", ""), "the key 'name' is missing"),
        (("name: mine", "name: mine\nname: mine"), "mine.yaml:2: the key 'name' stands here twice"),
        (("name: mine", "name: &a mine"), "mine.yaml:1: anchors .* are not accepted"),
        (("name: mine", "name: *a"), "mine.yaml:1: aliases .* are not accepted"),
        (("name: mine", "name: !!python/name:os.system x"), "mine.yaml:1: tags .* not accepted"),
        (("name: mine", "name: [mine"), "mine.yaml:[12]: not valid YAML"),
        (("name: mine", "name: mine\n--- {}"), "mine.yaml:2: expected one document"),
        (("name: mine", "name: " + "[" * 50 + "]" * 50), "mine.yaml:1: nested more than"),
        (("name: mine", "{a: b}: c"), "mine.yaml:1: expected a word as key|not valid YAML"),
        (("name: mine", "name: \x00"), "mine.yaml: not valid YAML"),
        (
            ("name: mine", START + "  numeric: {l: 1}"),
            "mine.yaml:5: Unknown numeric knob 'l'",
        ),
        (
            ("name: mine", START + "  static: {depth: 0}"),
            "mine.yaml:5: depth cannot be 0",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line_and_what_was_meant(tmp_path, change, message):
    assert GOOD.count(change[0]) == 1
    text = GOOD.replace(*change)
    if message is None:  # legal, but never true: the knob just keeps its default
        space = load_space(written(tmp_path, text), REGISTRIES)
        assert all(sample(space, np.random.default_rng(i)).static["depth"] == 2 for i in range(20))
        return
    error = refused(tmp_path, text)
    assert re.search(message, error), error


def test_conditions_that_go_in_a_circle_are_refused(tmp_path):
    circle = "{int: [1, 4]}\n    norm: {choice: [none, batch], when: {skip: true}}\n"
    circle += "    skip: {choice: [true, false], when: {norm: none}}"
    error = refused(tmp_path, GOOD.replace("{int: [1, 4]}", circle))
    assert "mine.yaml:5: the conditions go in a circle: norm -> skip" in error


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "words", "3"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    assert "expected a mapping with name, summary, architectures" in refused(tmp_path, text)


def test_a_file_above_the_size_limit_is_refused_unread(tmp_path):
    assert "at most 1,000,000 bytes" in refused(tmp_path, GOOD + "#" * MAX_BYTES)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(SpaceError, match="cannot be read as text"):
        load_space(path, REGISTRIES)


def test_an_unknown_space_names_the_nearest_and_a_missing_file_its_path(tmp_path):
    with pytest.raises(SpaceError, match=r"'tabel'. Did you mean 'table'.*Known: .*table, tiny"):
        load_space("tabel")
    with pytest.raises(SpaceError, match=r"Expected a space file at .*none\.yaml, found none"):
        load_space(tmp_path / "none.yaml")


def test_words_are_words_and_numbers_are_numbers():
    text = "a: 1e-6\nb: no\nc: 'true'\nd: 1_000\ne: -3\nf: .5\ng: 0o17\nh: ~\ni: on\nj: 12:30:45"
    assert read_yaml(text, "")[0] == {
        "a": 1e-6, "b": "no", "c": "true", "d": "1_000", "e": -3, "f": 0.5, "g": "0o17", "h": None,
        "i": "on", "j": "12:30:45",
    }  # fmt: skip


def test_two_parts_with_a_numeric_knob_of_one_name_are_refused():
    clash = Registries(
        {"plain": Entry(numeric={"lr": Knob(0.0, 0.0, 1.0)})},
        REGISTRIES.optimizers, REGISTRIES.schedules, REGISTRIES.general,
    )  # fmt: skip
    values = {"name": "x", "architectures": {"plain": {}}, "optimizers": {"sgd": {}}}
    with pytest.raises(SpaceError, match=r"'lr' belongs to architectures and to optimizers\.sgd"):
        load_space(values, clash)


# JSON schema


def test_the_json_schema_names_every_knob_and_accepts_the_shipped_spaces():
    schema = json_schema()
    knobs = schema["properties"]["architectures"]["properties"]["mlp"]["properties"]
    assert {"depth", "width", "dropout"} <= knobs.keys()
    json.dumps(schema)
    jsonschema = pytest.importorskip("jsonschema", reason="the validator is no dependency")
    for name in list_spaces():
        jsonschema.validate(read_yaml(load_space(name).text, name)[0], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "x", "architectures": {"mpl": {}}, "optimizers": {}}, schema)


# Architectures given by the user


def test_an_architecture_of_the_user_is_searched_over_the_legal_domains_of_its_knobs():
    mine = Entry(
        {"rank": Knob(4, 1, 64, log=True), "name": Knob("a")}, {"noise": Knob(0.1, 0.0, 1.0)}
    )
    space = with_own(load_space("tiny"), Own(architectures={"mine": mine}))
    drawn = [sample(space, np.random.default_rng(i)) for i in range(40)]
    ours = [c for c in drawn if c.architecture == "mine"]
    assert {c.architecture for c in drawn} == {"mlp", "mine"}
    assert len({c.static["rank"] for c in ours}) > 3
    assert {c.static["name"] for c in ours} == {"a"}
    assert all(0.0 <= c.numeric["noise"] <= 1.0 for c in ours)


# Points


@pytest.fixture(params=ZOO)
def space(request):
    return ZOO[request.param]


def draws(space, n=60):
    rng = np.random.default_rng(0)
    return [sample(space, rng) for _ in range(n)]


def test_samples_lie_in_the_space_and_survive_the_unit_cube(space):
    for candidate in draws(space):
        assert contains(space, candidate) is None
        u = encode(space, candidate)
        assert u.shape == (len(space.decisions),)
        assert ((u >= 0.0) & (u <= 1.0)).all()
        assert decode(space, u, candidate.seed) == candidate


def test_every_corner_of_the_unit_cube_is_a_candidate_of_the_space(space):
    for u in (0.0, 0.5, 1.0, np.nextafter(1.0, 0.0)):
        assert contains(space, decode(space, np.full(len(space.decisions), u), 0)) is None


def test_only_active_decisions_have_a_place_others_are_in_the_middle(space):
    for candidate in draws(space, 20):
        assignment, u = project(space, candidate), encode(space, candidate)
        for decision, x in zip(space.decisions, u, strict=True):
            assert decision.name in assignment or x == 0.5


def test_a_mutation_changes_one_decision_and_what_hangs_on_it(space):
    rng = np.random.default_rng(1)
    for candidate in draws(space):
        child = mutate(space, candidate, rng)
        assert contains(space, child) is None
        assert child.parent == candidate.id
        before, after = project(space, candidate), project(space, child)
        changed = {k for k in before.keys() & after.keys() if before[k] != after[k]}
        if SIZES.get(space.name) == 1:
            assert not changed
        else:
            assert child.settings != candidate.settings
            assert len(changed) == 1
            assert child.move == f"change {changed.pop()}"


def test_mutations_reach_every_choice():
    space, rng = ZOO["all types"], np.random.default_rng(2)
    candidate, seen = draws(space, 1)[0], set()
    for _ in range(3000):
        candidate = mutate(space, candidate, rng)
        seen |= {(k, v) for k, v in project(space, candidate).items() if isinstance(v, str | bool)}
    choices = [d for d in space.decisions if d.kind == "choice"]
    wanted = {(d.name, v) for d in choices for v in d.domain if isinstance(v, str | bool)}
    assert seen == wanted


def test_conditions_hold_in_every_sample():
    for candidate in draws(ZOO["conditional"], 300):
        static, numeric = candidate.static, candidate.numeric
        if static["norm"] == "none":
            assert static["embedding"] == "none"
        if static["embedding"] == "none":
            assert static["embedding_width"] == 8
        if static["embedding"] != "periodic":
            assert numeric["frequency"] == 1.0
    assert len({c.static["embedding"] for c in draws(ZOO["conditional"], 300)}) == 3


def test_log_ranges_are_drawn_evenly_over_the_decades():
    lr = np.array([c.numeric["lr"] for c in draws(ZOO["logarithmic"], 1400)])
    decades = np.bincount(np.floor(np.log10(lr)).astype(int).clip(-12, 1) + 12, minlength=14)
    # 100 expected in each of 14 decades, standard deviation below 10: six of them are 60.
    assert (abs(decades - 100) < 60).all()


@pytest.mark.parametrize("log", [False, True])
def test_every_integer_of_a_range_is_drawn_its_ends_too(log):
    decision = Decision("n", ("n",), "int", (1, 6), log=log)
    values = [decision.at(u) for u in np.linspace(0.0, 1.0, 1000)]
    assert set(values) == {1, 2, 3, 4, 5, 6}
    assert [decision.at(decision.unit(v)) for v in range(1, 7)] == [1, 2, 3, 4, 5, 6]
    if not log:
        assert min(values.count(v) for v in range(1, 7)) >= 160


@pytest.mark.parametrize("name", SIZES)
def test_every_assignment_lists_a_finite_space_once(name):
    listed = [tuple(a.items()) for a in every_assignment(ZOO[name])]
    assert len(listed) == len(set(listed)) == SIZES[name]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architecture": "mlp"}, "architecture is 'mlp'; expected one of"),
        ({"optimizer": "adamw"}, "optimizer is 'adamw'"),
        ({"static": {"depth": 9}}, "depth is 9; expected 1 to 8"),
        ({"static": {"norm": "rms"}}, "norm is 'rms'; expected one of"),
        ({"static": {"skip": 1}}, "skip is 1; expected one of"),
        (
            {"static": {"embedding": "linear"}},
            "embedding is 'linear'; the space keeps it at 'none'",
        ),
        ({"static": {"colour": 1}}, "static 'colour' is not a knob"),
        ({"numeric": {"lr": 1.0}}, "lr is 1.0; expected 0.0001 to 0.1"),
        ({"numeric": {"clip_norm": 1.0}}, "clip_norm is 1.0; the space keeps it at 0.0"),
        ({"numeric": {"power": 1.0}}, "numeric 'power' is not a knob of this"),
    ],
)
def test_contains_says_why_a_candidate_is_outside(change, reason):
    space = ZOO["all types"]
    inside = next(c for c in draws(space) if (c.architecture, c.schedule) == ("plain", "constant"))
    assert contains(space, inside) is None
    fields = inside.to_json()
    for name, value in change.items():
        fields[name] = {**fields[name], **value} if isinstance(value, dict) else value
    assert reason in contains(space, Candidate.from_json(fields))


def test_a_candidate_with_a_knob_left_out_is_outside():
    space = ZOO["all types"]
    inside = draws(space, 1)[0]
    numeric = {k: v for k, v in inside.numeric.items() if k != "clip_norm"}
    reason = contains(space, Candidate.from_json({**inside.to_json(), "numeric": numeric}))
    assert reason == "numeric 'clip_norm' is missing."


def test_a_candidate_outside_the_ranges_is_projected_and_a_foreign_one_is_not():
    space = ZOO["starts"]
    outside = space.start[-1]
    assert "depth is 12" in contains(space, outside)
    assert project(space, outside)["architectures.plain.depth"] == 4
    assert project(space, Candidate("unheard of")) is None
    with pytest.raises(ValueError, match="has no place in the space"):
        encode(space, Candidate("unheard of"))
    assert contains(space, mutate(space, Candidate("unheard of"), np.random.default_rng(0))) is None


def test_the_same_generator_state_gives_the_same_sample_and_another_seed_another(space):
    one, two = (sample(space, np.random.default_rng(5)) for _ in range(2))
    assert one == two
    assert one.id != sample(space, np.random.default_rng(6)).id


def test_a_space_travels_between_processes():
    space = ZOO["conditional"]
    again = pickle.loads(pickle.dumps(space))
    assert again.decisions == space.decisions
    assert draws(again) == draws(space)


def test_the_zoo_has_every_kind_of_decision():
    decisions = [d for s in ZOO.values() for d in s.decisions]
    kinds = {(d.kind, d.log, d.static, len(d.when)) for d in decisions}
    assert {k[0] for k in kinds} == {"int", "float", "choice"}
    assert {("int", True), ("float", True)} <= {k[:2] for k in kinds}
    assert {k[3] for k in kinds} >= {0, 1, 2}
    assert set(FILES) < set(ZOO)
