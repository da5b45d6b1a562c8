"""The options of a search: times, defaults, and what is said about values that cannot be used."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from adanet_py.config import REWARD_OPTIONS, SearchConfig, parse_time
from adanet_py.errors import ConfigError
from adanet_py.reward import RewardRule


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("90s", 90), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("1h1m1s", 3661), ("1.5h", 5400),
        (" 90S ", 90), ("60", 60), ("0.5", 0.5), (60, 60), (2.5, 2.5), (timedelta(minutes=2), 120),
    ],
)  # fmt: skip
def test_times_are_read_as_people_write_them(given, seconds):
    assert parse_time(given) == seconds


@pytest.mark.parametrize(
    "given",
    ["", "0", "0s", "-5", "-5s", "soon", "5x", "m", "1m1h", "nan", "inf", "1 h", 0, -1, None, True,
     float("nan"), float("inf"), timedelta(0)],
)  # fmt: skip
def test_a_time_of_zero_or_nonsense_is_refused_with_an_example(given):
    with pytest.raises(ConfigError, match="90s, 10m or 1h30m, found"):
        parse_time(given)


def test_without_a_bound_a_search_takes_a_minute():
    assert SearchConfig().time == 60
    assert SearchConfig(time="10m").time == 600
    assert SearchConfig(candidates=3).time is None
    both = SearchConfig(candidates=3, time="5s")
    assert (both.candidates, both.time) == (3, 5)


def test_options_survive_a_round_trip():
    config = SearchConfig(data=Path("a.csv"), target="y", time="10m", drop=["a", "b"], seed=3)
    again = SearchConfig.from_json(config.to_json())
    assert again == config
    assert again.data == "a.csv"
    assert again.drop == ("a", "b")


def test_one_column_to_drop_is_one_name_not_its_letters():
    assert SearchConfig(drop="id").drop == ("id",)


def test_options_cannot_be_changed_afterwards():
    config = SearchConfig()
    with pytest.raises(Exception, match="frozen"):
        config.seed = 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 0}, r"--candidates: expected a whole number of 1 or more, found 0"),
        ({"candidates": "many"}, r"--candidates: expected a whole number, found 'many'"),
        ({"folds": 0}, r"--folds: expected a whole number of 1 or more, found 0"),
        ({"seed": -1}, r"--seed: expected a whole number of 0 or more"),
        ({"workers": -1}, r"--workers: .*0 or more"),
        ({"task": "regresion"}, r"'regression', found 'regresion'\. Did you mean 'regression'\?"),
        ({"class_weight": "equal"}, r"--class-weight: expected balanced, none, or weights such"),
        ({"device": "gpu"}, r"--device: expected auto, cpu, cuda or cuda:0, found 'gpu'"),
        ({"metric": "acuracy"}, r"Unknown metric 'acuracy'\. Did you mean 'accuracy'\?"),
        ({"targt": "y"}, r"Unknown option 'targt'\. Did you mean 'target'\?"),
        ({"time": 0}, "Time budget"),
        ({"target": 3}, r"--target: expected text, found 3"),
        ({"target": " "}, r"--target: expected a value, found ' '\. Leave the option out"),
        ({"complexity": "size"}, r"--complexity: expected 'parameters', .*found 'size'"),
        ({"complexity_weight": -1}, r"--complexity-weight: expected a number of 0 or more"),
        ({"complexity_weight": "much"}, r"--complexity-weight: .*found 'much'"),
        ({"complexity_target": 0}, r"--complexity-target: expected a number above zero"),
        ({"complexity": "capacity", "complexity_target": 3}, r"--complexity-target: .*no unit"),
        ({"fidelity": "none", "fidelity_by": "rows"}, r"--fidelity-by rows: .*with rungs"),
        ({"batch_order": "mine"}, r"--batch-order: .*'shared' or 'own'"),
        ({"max_params": "few"}, r"--max-params: expected .*50k or 1.5M, found 'few'"),
        ({"max_params": 0.5}, r"--max-params: .*found 0.5"),
        ({"max_latency": "5 minutes"}, r"--max-latency: expected milliseconds .*5ms or 800us"),
        ({"max_size": "2MBit"}, r"--max-size: expected .*500kB, 2MB or 1MiB, found '2MBit'"),
        ({"max_size": True}, r"--max-size: .*found True"),
        ({"out": ""}, r"--out: expected a value, found ''"),
        ({"data": ""}, r"--data: expected a value, found ''"),
    ],
)
def test_a_value_that_cannot_be_used_is_answered_in_our_words(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        SearchConfig(**options)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "given", "value"),
    [
        ("max_params", "50k", 50_000), ("max_params", "1.5M", 1_500_000), ("max_params", 7, 7),
        ("max_params", "50,000", 50_000), ("max_params", "2e5", 200_000),
        ("max_latency", "5", 5.0), ("max_latency", "800us", 0.8), ("max_latency", "0.1s", 100),
        ("max_size", "2MB", 2_000_000), ("max_size", "1MiB", 2**20), ("max_size", "5 kB", 5000),
        ("complexity_target", "50k", 50_000), ("complexity_target", 0.5, 0.5),
        ("complexity_weight", 0, 0.0),
    ],
)  # fmt: skip
def test_bounds_and_targets_are_read_as_people_write_them(option, given, value):
    config = SearchConfig(**{option: given})
    assert getattr(config, option) == pytest.approx(value, abs=1e-9)
    assert SearchConfig.from_json(config.to_json()) == config


def test_the_options_of_an_older_run_can_be_read():
    older = SearchConfig().to_json()
    for name in REWARD_OPTIONS:
        del older[name]
    assert SearchConfig.from_json(older) == SearchConfig()
    assert SearchConfig().reward == RewardRule()


def test_from_json_of_a_newer_version_names_what_is_not_known():
    with pytest.raises(ConfigError, match="Unknown option 'teleport'"):
        SearchConfig.from_json(SearchConfig().to_json() | {"teleport": True})
