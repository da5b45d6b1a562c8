"""The contract of every initialisation: the distribution torch.nn.init draws from, map by map."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from programs import make_arrays, make_candidates, make_program, make_spec, small
from torch import Tensor, nn

from adanet_py.architectures import ARCHITECTURES
from adanet_py.architectures.initialisation import _DRAWS, initialise
from adanet_py.architectures.layers import FeatureLinear, Linear, MemberLinear, SharedLinear
from adanet_py.architectures.names import INITS
from adanet_py.errors import SpaceError
from adanet_py.records import Candidate
from adanet_py.training.engines.program import build_module
from adanet_py.training.engines.stacked import StackedEngine

IN, OUT, MAPS = 96, 160, 12
# The layer, and its weights as maps [n, out, in].
LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "torch.nn.Linear": (lambda: nn.Linear(IN, OUT), lambda w: w[None]),
    "Linear": (lambda: Linear(IN, OUT), lambda w: w[None]),
    "SharedLinear": (lambda: SharedLinear(3, IN, OUT, scale_input=True), lambda w: w[None]),
    "FeatureLinear": (lambda: FeatureLinear(MAPS, IN, OUT), lambda w: w.transpose(1, 2)),
    "MemberLinear": (lambda: MemberLinear(MAPS, IN, OUT), lambda w: w.transpose(1, 2)),
}
REFERENCE: dict[str, Callable[[Tensor], Tensor]] = {
    "default": lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)),
    "he_normal": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "he_uniform": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
    "glorot_normal": nn.init.xavier_normal_,
    "glorot_uniform": nn.init.xavier_uniform_,
    "lecun_normal": lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear"),
    "lecun_uniform": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="linear"),
    "orthogonal": nn.init.orthogonal_,
}
BIASES = ("bias", "bias_member")


def start(kind: str, init: str, seed: int = 0, zero_last: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    layer = LAYERS[kind][0]()
    initialise(layer, init, zero_last)
    return {n: p.detach() for n, p in layer.named_parameters()}


@pytest.mark.parametrize("kind", sorted(LAYERS))
@pytest.mark.parametrize("init", sorted(INITS))
def test_weights_have_the_moments_of_torch_nn_init(kind: str, init: str) -> None:
    maps = LAYERS[kind][1](start(kind, init)["weight"])
    torch.manual_seed(1)
    reference = torch.stack([REFERENCE[init](torch.empty(OUT, IN)) for _ in range(64)])
    n, spread = maps.numel(), float(reference.std())
    # Six standard errors of mean and variance; a normal variable has the larger of the variances.
    assert abs(float(maps.mean())) < 6 * spread / math.sqrt(n)
    assert float(maps.var()) == pytest.approx(spread**2, rel=6 * math.sqrt(2 / n))
    bound = float(reference.abs().max())
    if init.endswith("uniform") or init == "default":
        assert 0.99 * bound < float(maps.abs().max()) < 1.01 * bound
    elif init.endswith("normal"):
        kurtosis = float((maps / maps.std()).pow(4).mean())
        assert kurtosis == pytest.approx(3.0, abs=6 * math.sqrt(24 / n))


@pytest.mark.parametrize("kind", sorted(LAYERS))
@pytest.mark.parametrize(("rows", "columns"), [(IN, OUT), (OUT, IN)])
def test_orthogonal_maps_are_orthogonal(kind: str, rows: int, columns: int) -> None:
    maps = LAYERS[kind][1](start(kind, "orthogonal")["weight"]).double()
    if rows > columns:  # the fewer of rows and columns are orthonormal
        product = maps.transpose(-1, -2) @ maps
        identity = torch.eye(IN, dtype=torch.float64).expand_as(product)
        torch.testing.assert_close(product, identity, rtol=0, atol=1e-5)
    else:
        assert torch.linalg.matrix_rank(maps).tolist() == [IN] * len(maps)
    assert len(maps) == 1 or not torch.allclose(maps[0], maps[1])


@pytest.mark.parametrize("kind", sorted(LAYERS))
@pytest.mark.parametrize("init", sorted(INITS))
def test_biases_start_at_zero_and_scales_stay(kind: str, init: str) -> None:
    own, default = start(kind, init), start(kind, "default")
    for name, value in own.items():
        if name in BIASES and init != "default":
            assert not value.any()
        elif name.startswith("scale"):
            assert torch.equal(value, torch.ones_like(value))
        elif init == "default":
            assert torch.equal(value, default[name])
        assert not start(kind, init, zero_last=True)["weight"].any()


@pytest.mark.parametrize("init", sorted(INITS))
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_seed_decides_and_the_global_generator_is_left_alone(name: str, init: str) -> None:
    architecture, spec = ARCHITECTURES[name], make_spec()
    static = small(architecture, init=init, embedding="piecewise_linear")
    before = torch.random.get_rng_state()

    def weights(seed: int) -> dict[str, Tensor]:
        return build_module(architecture, Candidate(name, static), spec, seed).state_dict()

    first, again, other = weights(3), weights(3), weights(4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(v, again[n]) for n, v in first.items())
    drawn = [
        n for n in first if n.endswith("weight") and first[n].dim() > 1 and ".tables." not in n
    ]
    assert len(drawn) >= 4
    assert all(not torch.equal(first[n], other[n]) for n in drawn)


@pytest.mark.parametrize("init", sorted(INITS))
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_network_whose_last_layer_is_zero_gives_zero_and_learns(name: str, init: str) -> None:
    spec = make_spec()
    candidates = make_candidates(name, [{"lr": 0.01}, {}], init=init, zero_last=True)
    program = make_program(candidates, spec, steps=3)
    module = program.build(0).eval()
    arrays = make_arrays(spec, 10)
    numeric, category = torch.from_numpy(arrays["quantile"]), torch.from_numpy(arrays["category"])
    assert not module(numeric.double(), category).any()
    matrices = [p for n, p in module.named_parameters() if n.endswith("weight") and p.dim() > 1]
    assert all(p.any() for p in matrices[:-1])
    engine = StackedEngine(program)
    rows = program.order.rows[0]
    assert not engine.predict([rows]).any()
    engine.advance(0, 3, lambda step: False)
    assert engine.predict([rows])[0].any()


def test_every_name_but_the_default_draws() -> None:
    assert set(_DRAWS) | {"default"} == set(INITS) == set(REFERENCE)
    assert next(iter(INITS)) == "default"


@pytest.mark.parametrize(("init", "zero_last"), [("he_normal", False), ("default", True)])
def test_a_module_without_linear_layers_is_refused(init: str, zero_last: bool) -> None:
    with pytest.raises(SpaceError, match=r"starts linear layers, and LayerNorm has none\. Leave"):
        initialise(nn.LayerNorm(3), init, zero_last)
    initialise(nn.LayerNorm(3), "default", False)
