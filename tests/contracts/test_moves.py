"""The contract of every move: legal children that carry the parent's weights and learn."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from programs import make_arrays, make_candidates, make_program, make_spec
from torch import Tensor, nn

from adanet_py.architectures import ARCHITECTURES, Architecture
from adanet_py.architectures.names import ACTIVATIONS, NORMS
from adanet_py.records import Candidate, DataSpec, Scalar
from adanet_py.refine import MOVES, Move
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
        assert certify(parent, parent, probe) == 0.0
        losses = train(module, probe, 12)
        assert losses[-1] < losses[0]
    assert all(torch.equal(v, parent.state_dict()[n]) for n, v in before.items())


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
        ("resnet", {"norm": "group"}, [{"expansion": 3.0}, {"expansion": 4.0}]),
        ("resnet", {"expansion": 6.0}, []),
        ("tabm", {}, [{"width": 12}, {"width": 16}]),
    ],
    "deepen": [
        ("mlp", {}, [{"depth": 3}, {"blocks": 1}]),
        ("mlp", {"norm": "batch", "activation": "geglu"}, [{"depth": 3}, {"blocks": 1}]),
        ("mlp", {"norm": "layer"}, [{"blocks": 1}]),
        ("mlp", {"activation": "gelu", "blocks": 3}, [{"blocks": 4}]),
        ("mlp", {"depth": 32, "blocks": 32}, []),
        ("mlp", {"depth": 0}, [{"depth": 1, "skip": True}]),
        ("resnet", {}, [{"depth": 3}]),
        ("tabm", {"activation": "tanh"}, [{"blocks": 1}]),
        ("tabm", {"activation": "relu"}, [{"depth": 3}, {"blocks": 1}]),
    ],
}


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
