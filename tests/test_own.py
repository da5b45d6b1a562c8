"""What a user brings as objects: found by name everywhere, asked for again, or refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

import adanet_py
from adanet_py.architectures import ARCHITECTURES
from adanet_py.data.spec import DataSpec
from adanet_py.errors import ConfigError, SpaceError
from adanet_py.folder import Described, check_objects, describe_objects
from adanet_py.knob import Knob
from adanet_py.own import Own, make_own
from adanet_py.records import Candidate, Status
from adanet_py.space import load_space, with_own
from adanet_py.training.losses import LOSSES
from adanet_py.training.optimizers import OPTIMIZERS

MINE = replace(OPTIMIZERS["adam"], name="mine", summary="a copy")
NET = replace(ARCHITECTURES["mlp"], name="net")
LOSS = replace(LOSSES["mean_squared_error"], name="errors")
OWN = make_own([NET], [MINE], [LOSS])


def test_own_objects_are_known_beside_the_built_in() -> None:
    assert not Own()
    assert OWN
    assert OWN.names() == {"architectures": ["net"], "optimizers": ["mine"], "losses": ["errors"]}
    assert set(OWN.all_architectures()) == {*ARCHITECTURES, "net"}
    assert OWN.all_architectures()["net"].build is NET.build
    assert make_own([NET]).all_architectures() == {**ARCHITECTURES, "net": NET}
    assert OWN.all_optimizers() == {**OPTIMIZERS, "mine": MINE}
    assert OWN.all_losses() == {**LOSSES, "errors": LOSS}


def test_a_model_needs_the_objects_it_computes_with() -> None:
    spec = DataSpec("regression", 1, 3)
    assert OWN.needed_by(Candidate("net"), spec)
    assert OWN.needed_by(Candidate("mlp", {"loss": "errors"}), spec)
    assert OWN.needed_by(Candidate("mlp", {"loss": "auto"}), replace(spec, loss="errors"))
    assert not OWN.needed_by(Candidate("mlp", optimizer="mine"), spec)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"architectures": ["mlp"]}, "architecture with a name"),
        ({"optimizers": [MINE, MINE]}, "Two objects are called optimizer 'mine'"),
        ({"optimizers": [replace(MINE, numeric={})]}, "'lr'"),
        ({"architectures": [replace(NET, static={})]}, "batch_size"),
        ({"losses": [replace(LOSS, name="auto")]}, "cannot be called 'auto'"),
        ({"losses": [replace(LOSS, tasks="regression")]}, "tasks: expected a tuple"),
        ({"losses": [replace(LOSS, tasks=())]}, "expected the tasks it is for"),
        ({"losses": [replace(LOSS, knobs=("hubert",))]}, "huber_delta.*found .*hubert"),
        ({"losses": [replace(LOSS, needs=("rows",))]}, "quantile.*found .*rows"),
        ({"losses": [replace(LOSS, metric="rsme")]}, "Did you mean 'rmse'"),
    ],
)
def test_what_cannot_be_used_is_refused(given, words) -> None:
    with pytest.raises(ConfigError, match=words):
        make_own(**given)


@pytest.mark.parametrize("kind", ["architectures", "optimizers", "losses"])
def test_the_objects_of_a_run_are_asked_for_again(kind) -> None:
    one = {"architectures": "architecture", "optimizers": "optimizer", "losses": "loss"}[kind]
    described = Described(adanet_py.SearchConfig(), {}, describe_objects(None, OWN), {})
    check_objects(described, OWN)
    with pytest.raises(adanet_py.RunError, match=rf"the {one} .*{kind}=\.\.\."):
        check_objects(described, replace(OWN, **{kind: {}}))


def test_an_own_optimizer_is_searched_around_its_learning_rate() -> None:
    space = with_own(load_space("tiny"), OWN)
    assert space.by_name["optimizers.mine.lr"].domain == (1e-4, 1e-2)
    assert "mine" in space.by_name["optimizer"].domain
    assert with_own(space, OWN).text == space.text
    odd = replace(MINE, name="odd", numeric={"lr": Knob(0.0, 0.0, 1.0)})
    assert "optimizers.odd.lr" not in with_own(load_space("tiny"), make_own([], [odd])).by_name


def test_an_own_optimizer_trains_as_its_equal_does() -> None:
    small = {"depth": 1, "width": 4, "batch_size": 32}
    candidates = [Candidate("mlp", small, name) for name in ("adam", "mine")]
    x = [[float(i), float(i % 7)] for i in range(60)]
    options = {"y": [float(i % 5) for i in range(60)], "epochs": 2, "folds": 1}
    one, other = adanet_py.train(candidates, x, optimizers=[MINE], **options)
    assert one.status is other.status is Status.COMPLETE
    assert one.metrics == other.metrics
    with pytest.raises(SpaceError, match="mine"):
        adanet_py.train(candidates, x, **options)
