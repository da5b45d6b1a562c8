"""The contract of every move: legal children that carry the parent's weights and learn."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from programs import make_arrays, make_candidates, make_program, make_spec
from torch import Tensor, nn

from adanet_py.architectures import ARCHITECTURES, Architecture, layers
from adanet_py.architectures.names import ACTIVATIONS, NORMS
from adanet_py.data.spec import DataSpec
from adanet_py.records import Candidate, Scalar
from adanet_py.refine import MOVES, Move, pruning, readers
from adanet_py.refine.inheritance import TOLERANCE
from adanet_py.refine.move import Probe
from adanet_py.refine.sites import sites
from adanet_py.training.engines import make_engine
from adanet_py.training.engines.program import build_module, switch
from adanet_py.training.general import GENERAL
from adanet_py.training.losses import choose_loss

ROWS, STEPS = 64, 8
EMBEDDINGS = ("none", "piecewise_linear", "periodic")
WIDTH = 8


def networks() -> list[tuple[str, dict[str, Scalar]]]:
    """Every norm, activation and embedding of every architecture, not all of their pairs."""
    found: list[tuple[str, dict[str, Scalar]]] = []
    for name, architecture in ARCHITECTURES.items():
        norms = sorted(NORMS) if "norm" in architecture.static else [""]
        for i, activation in enumerate(sorted(ACTIVATIONS)):
            for j, norm in enumerate(norms):
                if j == i % len(norms) or (norm in ("none", "batch") and activation[-3:] == "glu"):
                    static: dict[str, Scalar] = {"norm": norm} if norm else {}
                    static |= {"activation": activation, "embedding": EMBEDDINGS[(i + j) % 3]}
                    found.append((name, static))
        found += [(name, {"norm": n, "activation": "relu"} if n else {}) for n in norms]
        found += [(name, {"width": 32, "norm": "group"})] if norms != [""] else []
        if "blocks" in architecture.static:
            found += [(name, {"blocks": 1, "norm": n} if n else {"blocks": 1}) for n in norms]
            found.append((name, {"blocks": 2, "skip": True}))
    found += [("mlp", {"rank": 2, "blocks": 1, "norm": "batch"}), ("resnet", {"rank": 2})]
    found += [("mlp", {"depth": 0}), ("mlp", {"depth": 0, "skip": True})]
    return [(n, {"width": WIDTH, "depth": 2, "members": 3} | s) for n, s in found]


NETWORKS = networks()
CASES = [
    pytest.param(move, i, id=f"{move}-" + "-".join(map(str, (name, *static.values()))))
    for i, (name, static) in enumerate(NETWORKS)
    for move in MOVES
]


@cache
def trained(number: int) -> tuple[Candidate, nn.Module]:
    """Network `number`, for all moves; none of them may change it."""
    return make_parent(*NETWORKS[number], make_spec("multiclass"))


def make_parent(
    name: str, static: dict[str, Scalar], spec: DataSpec, steps: int = STEPS
) -> tuple[Candidate, nn.Module]:
    """A network trained for some steps, in single precision."""
    known = {k: v for k, v in static.items() if k in ARCHITECTURES[name].static}
    candidates = make_candidates(name, [{"lr": 0.02, "dropout": 0.25}], **known)
    program = make_program(candidates, spec, steps=steps, dtype=torch.float32)
    engine = make_engine("stacked", program)
    engine.advance(0, steps, lambda step: False)
    module = program.build(0)
    state = {k.removeprefix("0/"): v for k, v in engine.snapshot(0).items()}
    module.load_state_dict(dict(module.state_dict()) | state)
    return candidates[0], module.eval()


def make_probe(candidate: Candidate, spec: DataSpec, rows: int = ROWS, seed: int = 5) -> Probe:
    arrays = make_arrays(spec, rows, seed)
    return Probe(
        torch.from_numpy(arrays["quantile"]),
        torch.from_numpy(arrays["category"]),
        torch.from_numpy(arrays["y"]).float(),
        choose_loss(candidate.static, spec),
    )


def make_children(
    move: Move, candidate: Candidate, parent: nn.Module, spec: DataSpec, probe: Probe, seed: int = 1
) -> list[tuple[Candidate, nn.Module]]:
    architecture = ARCHITECTURES[candidate.architecture]
    out = []
    for static in move.children(candidate, architecture):
        child = replace(candidate, static=static, parent=candidate.id, move=move.name)
        module = build_module(architecture, child, spec, seed).eval()
        move.transfer()(parent, module, probe, np.random.default_rng(seed))
        out.append((child, module))
    return out


def train(module: nn.Module, probe: Probe, steps: int, lr: float = 0.01) -> list[float]:
    switch(module, frozenset())
    optimizer = torch.optim.Adam(module.parameters(), lr)
    losses = []
    for _ in range(steps):
        outputs = module.train()(probe.numeric, probe.category)
        outputs = outputs.unsqueeze(-2) if outputs.dim() == 2 else outputs
        loss = probe.loss.rows(outputs.unsqueeze(0), probe.target.unsqueeze(0), defaults()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def certify(parent: nn.Module, child: nn.Module, probe: Probe) -> float:
    """Largest difference of outputs in evaluation, in units of the largest where above 1."""
    with torch.no_grad():
        old, new = (m.eval()(probe.numeric, probe.category) for m in (parent, child))
    return float((new - old).abs().amax() / old.abs().amax().clamp(min=1.0))


def defaults() -> dict[str, Tensor]:
    return {n: torch.full((1, 1), float(k.default)) for n, k in GENERAL.items()}  # type: ignore[arg-type]


def test_the_key_is_the_name() -> None:
    for name, move in MOVES.items():
        assert move.name == name
        assert move.summary
        assert callable(move.transfer())


@pytest.mark.parametrize(("move", "number"), CASES)
def test_children_are_legal_and_learn_and_keep_the_function_where_they_say_so(
    move: str, number: int
) -> None:
    spec = make_spec("multiclass")
    candidate, parent = trained(number)
    architecture = ARCHITECTURES[candidate.architecture]
    probe, other = make_probe(candidate, spec), make_probe(candidate, spec, seed=9)
    before = {n: v.clone() for n, v in parent.state_dict().items()}
    for child, module in make_children(MOVES[move], candidate, parent, spec, probe):
        assert set(child.static) == set(architecture.static)
        for knob, value in child.static.items():
            assert architecture.static[knob].allows(value), (knob, value)
        for name, buffer in module.named_buffers():
            if name.endswith("knob_dropout"):
                assert float(buffer) == 0.25
        assert not any(v.isnan().any() for v in module.state_dict().values())
        if MOVES[move].preserves:
            # On the rows the move has seen, and on others.
            assert certify(parent, module, probe) <= TOLERANCE
            assert certify(parent, module, other) <= TOLERANCE
        if move.startswith("prune") or move == "factorise":
            check_smaller(architecture, candidate, child, parent, module, spec)
        losses = train(module, probe, 10, lr=0.003)
        assert losses[-1] < losses[0]
    assert all(torch.equal(v, parent.state_dict()[n]) for n, v in before.items())


def check_smaller(
    architecture: Architecture,
    candidate: Candidate,
    child: Candidate,
    parent: nn.Module,
    module: nn.Module,
    spec: DataSpec,
) -> None:
    """Fewer parameters, fewer multiply-adds, and no tensor that is larger."""
    old, new = ([p.numel() for p in m.parameters()] for m in (parent, module))
    assert sum(new) < sum(old)
    assert max(new) <= max(old)
    assert architecture.multiply_adds is not None
    costs = [
        architecture.multiply_adds(architecture.complete(c.static), spec)
        for c in (candidate, child)
    ]
    assert costs[1] < costs[0]
    for buffer in module.buffers():
        assert buffer.untyped_storage().nbytes() == buffer.nbytes


# What a move offers a network of 8 units and 2 layers: the knobs that change.
OFFERS: dict[str, list[tuple[str, dict[str, Scalar], list[dict[str, Scalar]]]]] = {
    "widen": [
        ("mlp", {}, [{"width": 12}, {"width": 16}]),
        ("mlp", {"norm": "batch", "activation": "glu"}, [{"width": 12}, {"width": 16}]),
        ("mlp", {"norm": "rms"}, [{"width": 16}]),
        ("mlp", {"norm": "group"}, []),  # 2 groups of 4 units would be 4
        ("mlp", {"norm": "group", "width": 32}, [{"width": 64}]),
        ("mlp", {"norm": "group", "width": 16, "activation": "glu"}, [{"width": 32}]),
        ("mlp", {"depth": 0}, []),
        ("mlp", {"width": 65536}, []),
        ("mlp", {"rank": 1}, []),
        ("resnet", {"norm": "group"}, [{"expansion": 3.0}, {"expansion": 4.0}]),
        ("resnet", {"expansion": 6.0}, []),
        ("tabm", {}, [{"width": 12}, {"width": 16}]),
    ],
    "deepen": [
        ("mlp", {}, [{"depth": 3}, {"blocks": 1}]),
        ("mlp", {"norm": "batch", "activation": "geglu"}, [{"depth": 3}, {"blocks": 1}]),
        ("mlp", {"norm": "layer"}, [{"blocks": 1}]),
        ("mlp", {"rank": 1}, [{"blocks": 1}]),
        ("mlp", {"activation": "gelu", "blocks": 3}, [{"blocks": 4}]),
        ("mlp", {"depth": 32, "blocks": 32}, []),
        ("mlp", {"depth": 0}, [{"depth": 1, "skip": True}]),
        ("resnet", {}, [{"depth": 3}]),
        ("tabm", {"activation": "tanh"}, [{"blocks": 1}]),
        ("tabm", {"activation": "relu"}, [{"depth": 3}, {"blocks": 1}]),
    ],
}
OFFERS |= {
    "add_skip": [
        ("mlp", {}, [{"skip": True}]),
        ("mlp", {"skip": True}, []),
        ("mlp", {"depth": 0}, []),
        ("mlp", {"depth": 0, "blocks": 1}, [{"skip": True}]),
        ("resnet", {}, []),
        ("tabm", {}, [{"skip": True}]),
    ],
    "factorise": [
        ("mlp", {}, [{"rank": 2}, {"rank": 1}]),
        ("mlp", {"activation": "glu", "width": 64}, [{"rank": 16}, {"rank": 8}]),
        ("mlp", {"depth": 1, "width": 64}, []),
        ("mlp", {"depth": 1, "width": 64, "blocks": 1}, [{"rank": 16}, {"rank": 8}]),
        ("mlp", {"rank": 1}, []),
        ("mlp", {"width": 2}, []),
        ("resnet", {"width": 64, "expansion": 0.5}, [{"rank": 8}, {"rank": 4}]),
        ("tabm", {}, []),
    ],
}
OFFERS |= {
    name: [
        ("mlp", {}, [{"width": 5}, {"width": 3}]),
        ("mlp", {"width": 128}, [{"width": 88}, {"width": 40}]),
        ("mlp", {"width": 1}, []),
        ("mlp", {"depth": 0}, []),
        ("mlp", {"depth": 0, "blocks": 1}, [{"width": 5}, {"width": 3}]),
        ("resnet", {"width": 9, "expansion": 1.0}, [
            {"width": 6}, {"expansion": 6 / 9}, {"width": 3}, {"expansion": 3 / 9},
        ]),
        ("resnet", {"width": 2, "expansion": 0.5}, [{"width": 1, "expansion": 1.0}]),
        ("tabm", {}, [{"width": 5}, {"width": 3}]),
    ]
    for name in MOVES
    if name.startswith("prune")
}  # fmt: skip


@pytest.mark.parametrize("move", OFFERS)
def test_what_a_move_offers(move: str) -> None:
    for name, static, expected in OFFERS[move]:
        given = {"width": WIDTH, "depth": 2} | static
        whole = ARCHITECTURES[name].complete(given)
        found = MOVES[move].children(Candidate(name, given), ARCHITECTURES[name])
        changes = [{k: v for k, v in child.items() if whole[k] != v} for child in found]
        assert changes == expected, (name, static)
        assert MOVES[move].children(Candidate("mine", given), mine(name)) == ()


def mine(name: str) -> Architecture:
    """An architecture of the user, whose layers nobody knows."""
    return replace(ARCHITECTURES[name], name="mine")


@pytest.mark.parametrize("task", ["regression", "multiclass"])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_copies_of_units_part_under_adam(name: str, task: str) -> None:
    """Also where one output reads them: parts of one sign would then give them the same steps."""
    spec = make_spec(task)
    candidate, parent = make_parent(name, {"width": WIDTH, "depth": 1, "members": 2}, spec)
    probe = make_probe(candidate, spec)
    for _, module in make_children(MOVES["widen"], candidate, parent, spec, probe):
        old, new = sites(parent)[-1], sites(module)[-1]
        weight = module.get_parameter(new.own[0].tensor)
        before = weight.detach().clone()
        gap = (before.unsqueeze(0) - before.unsqueeze(1)).abs().amax(2)
        copies = (gap == 0.0).nonzero()
        copies = copies[copies[:, 0] < copies[:, 1]]
        assert len(copies) >= new.width - old.width
        train(module, probe, 5)
        moved = (weight.detach() - before).norm(dim=1)
        a, b = copies.T
        apart = (weight.detach()[a] - weight.detach()[b]).norm(dim=1)
        alive = (moved[a] > 0) & (moved[b] > 0)
        assert alive.any()
        assert (apart > 0.3 * torch.maximum(moved[a], moved[b]))[alive].all()


def test_what_reads_copies_adds_up_to_what_read_the_unit() -> None:
    candidate, parent = trained(0)
    spec = make_spec("multiclass")
    probe = make_probe(candidate, spec)
    _, module = make_children(MOVES["widen"], candidate, parent, spec, probe)[-1]
    for old, new in zip(sites(parent), sites(module), strict=True):
        assert new.width == 2 * old.width
        for entry, wide in zip(old.read, new.read, strict=True):
            weight, whole = (m.get_parameter(entry.tensor) for m in (parent, module))
            pairs = whole.unflatten(wide.dim, (old.width, 2)).sum(wide.dim + 1)
            rows = pairs[::2] if len(pairs) > len(weight) else pairs
            torch.testing.assert_close(rows, weight)


PRUNED: dict[str, tuple[str, dict[str, Scalar]]] = {
    "mlp": ("mlp", {"activation": "tanh"}),
    "mlp, gated": ("mlp", {"activation": "swiglu"}),
    "mlp, batch norm": ("mlp", {"norm": "batch", "activation": "gelu"}),
    "mlp, blocks": ("mlp", {"blocks": 1, "norm": "batch"}),
    "resnet": ("resnet", {"norm": "none", "expansion": 1.0, "activation": "silu"}),
    "resnet, batch norm": ("resnet", {"norm": "batch", "expansion": 1.0}),
    "tabm": ("tabm", {"activation": "gelu"}),
    "tabm, gated, blocks": ("tabm", {"activation": "reglu", "blocks": 1}),
}


@pytest.mark.parametrize("name", PRUNED)
@pytest.mark.parametrize("move", [m for m in MOVES if m.startswith("prune")])
def test_useless_units_go_and_nothing_changes(move: str, name: str) -> None:
    """Six of nine units of every site are read by zeros: a third of them stays."""
    architecture, static = PRUNED[name]
    spec = make_spec("multiclass")
    candidate, parent = make_parent(architecture, {"width": 9, "members": 2} | static, spec)
    probe = make_probe(candidate, spec)
    useful = torch.tensor([1, 4, 8])
    useless = torch.tensor([i for i in range(9) if i not in useful])
    with torch.no_grad():
        for site in sites(parent):
            for entry in site.read:
                parent.get_parameter(entry.tensor).index_fill_(entry.dim, useless, 0.0)
    found = [
        (sites(module), module)
        for _, module in make_children(MOVES[move], candidate, parent, spec, probe)
    ]
    smallest = [module for own, module in found if {site.width for site in own} == {3}]
    assert len(smallest) == 1
    assert certify(parent, smallest[0], probe) <= TOLERANCE
    entry = sites(parent)[0].own[0]
    index = entry.index(useful, 9)
    first = parent.get_parameter(entry.tensor).index_select(entry.dim, index)
    assert torch.equal(smallest[0].get_parameter(entry.tensor), first)


@pytest.mark.parametrize("name", PRUNED)
@pytest.mark.parametrize("move", ["prune:saliency", "prune:output"])
def test_constant_units_go_into_the_bias(move: str, name: str) -> None:
    """Units that say the same of every row matter to nothing, however large their weights."""
    architecture, static = PRUNED[name]
    if architecture == "resnet" or "blocks" in static:
        pytest.skip("the units of a stream are not those of one layer")
    spec = make_spec("multiclass")
    given = {"width": 9, "members": 2, "depth": 1} | static
    candidate, parent = make_parent(architecture, given, spec)
    probe = make_probe(candidate, spec)
    site = sites(parent)[0]
    constant = torch.tensor([0, 2, 3, 5, 6, 7])
    with torch.no_grad():
        weight, rows = parent.get_parameter(site.own[0].tensor), site.own[0].index(constant, 9)
        weight[rows] = 0.0
        if site.norms:
            parent.get_buffer(f"{site.norms[0]}.running_mean")[constant] = 0.5
        for entry in site.read:
            reading = parent.get_parameter(entry.tensor)
            reading.index_copy_(
                entry.dim, constant, 5.0 * reading.index_select(entry.dim, constant)
            )
    *_, module = (m for _, m in make_children(MOVES[move], candidate, parent, spec, probe))
    assert sites(module)[0].width == 3
    assert certify(parent, module, probe) <= TOLERANCE


def test_saliency_is_the_first_order_change_of_the_loss() -> None:
    """Against a difference quotient: the unit moved a little towards its mean."""
    spec = make_spec("multiclass")
    candidate, parent = make_parent("mlp", {"width": WIDTH, "activation": "tanh"}, spec)
    probe = make_probe(candidate, spec)
    parent = parent.double()
    probe = replace(probe, numeric=probe.numeric.double(), target=probe.target.double())
    site = sites(parent)[1]
    reader = parent.get_submodule(site.readers[0])

    def losses(unit: int, step: float) -> Tensor:
        def move(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            x = inputs[0].clone()
            x[:, unit] += step * (x[:, unit].mean() - x[:, unit])
            return (x,)

        hook = reader.register_forward_pre_hook(move)
        with torch.no_grad():
            outputs = parent(probe.numeric, probe.category)
        hook.remove()
        target = probe.target.long()
        return nn.functional.cross_entropy(outputs, target, reduction="none")

    change = [float((losses(u, 1e-5) - losses(u, -1e-5)).abs().mean() / 2e-5) for u in range(WIDTH)]
    for count in range(1, WIDTH):
        kept = pruning._by_saliency(parent, site, count, probe)
        assert kept.tolist() == sorted(np.argsort(change)[-count:].tolist())


def test_the_cheapest_unit_goes_and_the_others_make_up_for_it() -> None:
    """Against every single removal with a least-squares fit of what is left."""
    spec = make_spec("multiclass")
    candidate, parent = make_parent("mlp", {"width": WIDTH, "activation": "tanh"}, spec)
    probe = make_probe(candidate, spec, rows=300)
    site = sites(parent)[1]
    with torch.no_grad():
        values = readers.inputs_of(parent, site.readers, probe)[0][site.readers[0]].double()
    x = (values - values.mean(0)).numpy()
    wanted = x @ parent.get_parameter(site.read[0].tensor).detach().double().numpy().T
    damp = np.sqrt(readers.DAMPING * (x**2).sum(0))
    weight = parent.get_parameter(site.read[0].tensor).detach().double().numpy().T
    costs = []
    for unit in range(WIDTH):
        rest = [i for i in range(WIDTH) if i != unit]
        a = np.vstack([x[:, rest], np.diag(damp[rest])])
        b = np.vstack([wanted, damp[rest, None] * weight[rest]])
        fit = np.linalg.lstsq(a, b, rcond=None)[0]
        costs.append(((a @ fit - b) ** 2).sum() + (damp[unit] ** 2 * weight[unit] ** 2).sum())
    kept = pruning._by_output(parent, site, WIDTH - 1, probe)
    assert kept.tolist() == [i for i in range(WIDTH) if i != int(np.argmin(costs))]


FACTORISED: dict[str, tuple[str, dict[str, Scalar]]] = {
    "mlp": ("mlp", {"activation": "silu"}),
    "mlp, gated": ("mlp", {"activation": "glu", "norm": "layer"}),
    "mlp, batch norm": ("mlp", {"norm": "batch"}),
    "mlp, blocks, path": ("mlp", {"norm": "batch", "blocks": 1, "skip": True}),
    "resnet": ("resnet", {"norm": "batch", "expansion": 1.0}),
}


@pytest.mark.parametrize("name", FACTORISED)
def test_factors_are_exact_at_the_rank_that_the_weights_have(name: str) -> None:
    architecture, static = FACTORISED[name]
    spec = make_spec("multiclass")
    candidate, parent = make_parent(architecture, {"width": 16, "depth": 2} | static, spec)
    probe = make_probe(candidate, spec)
    assert certify(parent, make_factors(candidate, parent, spec, probe), probe) > TOLERANCE
    with torch.no_grad():
        for key, value in parent.named_parameters():
            if value.dim() == 2 and key.startswith("body.") and min(value.shape) > 4:
                left, size, right = torch.linalg.svd(value, full_matrices=False)
                value.copy_(left[:, :4] * size[:4] @ right[:4])
    module = make_factors(candidate, parent, spec, probe)
    assert certify(parent, module, probe) <= TOLERANCE
    assert certify(parent, module, make_probe(candidate, spec, seed=9)) <= TOLERANCE


def make_factors(
    candidate: Candidate, parent: nn.Module, spec: DataSpec, probe: Probe
) -> nn.Module:
    """The child of rank 4."""
    child, module = make_children(MOVES["factorise"], candidate, parent, spec, probe)[0]
    assert child.static["rank"] == 4
    return module


def test_factors_are_the_closest_on_the_rows_there_are() -> None:
    """No worse there than the truncated singular value decomposition of the weights."""
    spec = make_spec("multiclass")
    candidate, parent = make_parent("mlp", {"width": 16, "activation": "tanh"}, spec)
    probe = make_probe(candidate, spec, rows=400)
    module = make_factors(candidate, parent, spec, probe)
    name = sites(parent)[0].readers[0]
    x = readers.inputs_of(parent, [name], probe)[0][name]
    layer = parent.get_submodule(name)
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    left, size, right = torch.linalg.svd(weight, full_matrices=False)
    with torch.no_grad():
        whole = x @ weight.T + bias
        plain = whole - (x @ (left[:, :4] * size[:4] @ right[:4]).T + bias)
        body = [m for m in module.body if isinstance(m, layers.Linear)]
        pair = next(i for i, m in enumerate(body) if m.weight.shape == (4, 16))
        ours = whole - body[pair + 1](body[pair](x))
    assert ours.square().sum() < 0.9 * plain.square().sum()


@pytest.mark.parametrize("number", range(len(NETWORKS)))
def test_smaller_networks_of_a_size_are_as_large_as_it_allows(number: int) -> None:
    spec = make_spec("multiclass")
    name, static = NETWORKS[number]
    architecture = ARCHITECTURES[name]
    known = {k: v for k, v in static.items() if k in architecture.static} | {"width": 48}
    candidate = Candidate(name, known)
    assert architecture.parameters is not None
    count = architecture.parameters(architecture.complete(known), spec)
    for move in (MOVES["prune:output"], MOVES["factorise"]):
        assert move.sized is not None
        offered = move.sized(candidate, architecture, spec, count // 2)
        if move.name != "factorise" and known.get("depth") != 0 and "rank" not in known:
            assert offered
        for child in offered:
            assert set(child) == set(architecture.static)
            assert all(architecture.static[k].allows(v) for k, v in child.items())
            assert architecture.parameters(child, spec) <= count // 2
        assert move.sized(candidate, architecture, spec, 1) == ()
