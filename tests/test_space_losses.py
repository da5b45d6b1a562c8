"""Losses in search spaces: what does not suit the data is dropped, what the run fixes is fixed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adanet_py.data.spec import DataSpec
from adanet_py.errors import SpaceError
from adanet_py.own import make_own
from adanet_py.records import Candidate
from adanet_py.space import contains, default_registries, load_space, sample, with_own
from adanet_py.space_losses import with_losses
from adanet_py.training.general import GENERAL
from adanet_py.training.losses import LOSSES

LOSS = "architectures.mlp.loss"
VALUES = DataSpec("regression", 1, 3, loss="mean_squared_error", target_low=-1.0)
COUNTS = replace(VALUES, target_low=0.0)
CLASSES = DataSpec("binary", 1, 3, loss="binary_cross_entropy")


def space(loss, general=None, start=()):
    mlp = {"width": {"choice": [8, 16]}}
    if loss is not None:
        mlp["loss"] = loss
    return load_space(
        {
            "name": "losses",
            "architectures": {"mlp": mlp},
            "optimizers": {"adam": {"lr": {"float": [1e-3, 1e-2], "log": True}}},
            "general": general or {},
            "start": list(start),
        }
    )


def domain(found):
    return found.by_name[LOSS].domain


def test_choices_that_do_not_suit_are_dropped() -> None:
    every = space({"choice": ["auto", *LOSSES]})
    assert domain(with_losses(every, VALUES)) == (
        "mean_squared_error", "half_squared_error", "mean_absolute", "huber", "quantile",
    )  # fmt: skip
    assert {"poisson"} == set(domain(with_losses(every, COUNTS))) - set(
        domain(with_losses(every, VALUES))
    )
    assert domain(with_losses(every, CLASSES)) == ("binary_cross_entropy", "focal")
    exposed = with_losses(every, replace(COUNTS, loss="poisson", exposure=True))
    assert domain(exposed) == ("poisson",)


def test_the_loss_of_the_run_is_written_into_every_candidate() -> None:
    for loss in (None, "auto"):
        found = with_losses(space(loss), replace(VALUES, loss="huber"))
        candidate = sample(found, np.random.default_rng(0))
        assert candidate.static["loss"] == "huber"
        assert contains(found, candidate) is None
    unsaid = with_losses(space(None), replace(VALUES, loss="auto"))  # the task says it
    assert sample(unsaid, np.random.default_rng(0)).static["loss"] == "mean_squared_error"


def test_a_loss_of_the_run_replaces_what_the_space_says() -> None:
    run = replace(VALUES, loss="quantile")
    for loss in (None, "huber", "focal", {"choice": ["auto", "huber"]}):
        found = with_losses(space(loss), run, pinned=True)
        assert sample(found, np.random.default_rng(0)).static["loss"] == "quantile"


def test_none_left_is_an_error() -> None:
    words = r"architectures\.mlp\.loss: .*found 'focal' \(focal: .*task is regression\).*huber"
    with pytest.raises(SpaceError, match=words):
        with_losses(space("focal"), VALUES)
    with pytest.raises(SpaceError, match="'focal', 'cross_entropy'"):
        with_losses(space({"choice": ["focal", "cross_entropy"]}), VALUES)
    with pytest.raises(SpaceError, match="target of 0 or more, but the least here is -1"):
        with_losses(space("poisson"), VALUES)


def test_shares_of_the_choices_left_sum_to_one() -> None:
    prior = {"auto": 4, "huber": 2, "focal": 3, "mean_squared_error": 2}
    found = with_losses(space({"choice": list(prior), "prior": list(prior.values())}), VALUES)
    assert domain(found) == ("mean_squared_error", "huber")
    assert found.by_name[LOSS].prior == pytest.approx((0.75, 0.25))


def test_hyperparameters_of_losses_that_cannot_be_are_not_searched() -> None:
    general = {
        "huber_delta": {"float": [0.1, 2.0], "log": True},
        "focal_gamma": {"float": [0.0, 4.0]},
        "label_smoothing": {"choice": [0.0, 0.1]},
        "warmup": {"choice": [0.0, 0.1]},
    }

    def searched(loss, spec):
        found = with_losses(space(loss, general), spec)
        candidate = sample(found, np.random.default_rng(1))
        names = {d.name.removeprefix("general.") for d in found.decisions}
        for name in set(general) - names:
            assert candidate.numeric[name] == GENERAL[name].default
        return set(general) & names

    assert searched(None, VALUES) == {"warmup"}
    assert searched({"choice": ["auto", "huber"]}, VALUES) == {"warmup", "huber_delta"}
    assert searched(None, CLASSES) == {"warmup", "label_smoothing"}
    both = {"choice": ["auto", "focal"]}
    assert searched(both, CLASSES) == {"warmup", "label_smoothing", "focal_gamma"}
    assert searched("focal", CLASSES) == {"warmup", "focal_gamma"}


def test_starting_points_have_a_loss_that_suits() -> None:
    start = [
        {"architecture": "mlp", "optimizer": "adam", "numeric": {"lr": 0.01}},
        {"architecture": "mlp", "optimizer": "adam", "static": {"loss": "huber"}},
        {"architecture": "mlp", "optimizer": "adam", "static": {"loss": "focal"}},
    ]
    choice = {"choice": ["auto", "huber", "focal"]}
    found = with_losses(space(choice, start=start), VALUES)
    assert [c.static["loss"] for c in found.start] == ["mean_squared_error", "huber"]
    pinned = with_losses(space(choice, start=start), VALUES, pinned=True)
    assert [c.static["loss"] for c in pinned.start] == ["mean_squared_error"] * 3
    assert all(isinstance(c, Candidate) for c in found.start)


def test_the_spaces_of_the_package_suit_every_task() -> None:
    for name in ("table", "tiny"):
        for spec in (VALUES, CLASSES, replace(CLASSES, task="multiclass", loss="cross_entropy")):
            found = with_losses(load_space(name), spec)
            assert all(c.static["loss"] == spec.loss for c in found.start)


def test_a_loss_of_the_user_is_searched_beside_that_of_the_run() -> None:
    mine = replace(LOSSES["mean_squared_error"], name="mine")
    own = make_own(losses=[mine])
    open_space = with_own(space(None), own)
    assert domain(open_space) == ("auto", "mine")
    assert with_own(open_space, own).text == open_space.text
    found = with_losses(open_space, VALUES, own.all_losses())
    assert domain(found) == ("mean_squared_error", "mine")
    named = load_space(
        {
            "name": "named",
            "architectures": {"mlp": {"loss": "mine"}, "tabm": {}},
            "optimizers": {"adam": {}},
        },
        default_registries(own),
    )
    assert with_own(named, own).text == named.text
    with pytest.raises(SpaceError, match="mine"):
        space("mine")
