"""From an ordinary module to the table of operations that the compiled code reads.

Modules made of `architectures.layers`, norms, activations and perturbations are understood, whoever
put them together: a `Network` of `Inputs` and a `Sequential`. Others are not, and are told why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from torch import nn

from adanet_py.architectures import layers, norms
from adanet_py.architectures.activations import Gated, name_of
from adanet_py.architectures.perturbations import Dropout, DropPath
from adanet_py.training.engines import UnsuitedError
from adanet_py.training.engines.native import pointwise, tape
from adanet_py.training.engines.program import noisy_layers
from adanet_py.training.optimizers import Part

NONE = -1
# Layers that can put the gradient of what they read elsewhere than in its place.
_GIVING = (
    layers.Linear, layers.MemberLinear, norms.RMSNorm, norms.LayerNorm, norms.GroupNorm,
    norms.BatchNorm,
)  # fmt: skip
# Layers that nobody asks again what they gave: it may be overwritten.
_LEAVING = (*_GIVING, layers.SharedLinear)


@dataclass(frozen=True)
class Value:
    """Columns [at, at + width) of the arena; its gradient is at `gradient` (NONE: not wanted).

    To a gradient that is `summed` several readers add, as in the stream of residual blocks.
    """

    at: int
    width: int
    gradient: int
    summed: bool = False


@dataclass(frozen=True)
class Translation:
    """A module as compiled code reads it."""

    ops: npt.NDArray[np.int64]  # [n, tape.COLUMNS]
    columns: int  # of the arena
    fixed: int  # numbers of the memory for batch norm
    widest: int  # units of a layer at most
    members: int  # implicit members M
    outputs: int  # C
    constants: npt.NDArray[np.float64]
    running: tuple[str, ...]  # names of the running statistics, one after the other
    knobs: tuple[tuple[str, float], ...]  # names of knob buffers, and by what they are multiplied


@dataclass
class _Translator:
    parts: Mapping[str, Part]
    noisy: Sequence[str]  # noisy layers in the order of their places
    names: Mapping[nn.Module, str]
    drops: bool  # whether anybody drops branches
    mixes: bool  # whether anybody mixes rows
    ops: list[list[int]] = field(default_factory=list)
    columns: int = 0
    fixed: int = 0
    widest: int = 1
    constants: list[float] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)  # places of gradients that several add to
    sizes: int = 0  # of the running statistics so far
    knobs: list[tuple[str, float]] = field(default_factory=list)

    # ------------------------------------------------------------------ places

    def value(self, width: int, gradient: int | None = None) -> Value:
        """New columns of the arena; the gradient lies in the same place unless told."""
        at = self.columns
        self.columns += width
        self.widest = max(self.widest, width)
        return Value(at, width, at if gradient is None else gradient, gradient is not None)

    def parameter(self, module: nn.Module, name: str) -> int:
        """Where a parameter begins; NONE for one the module does not have."""
        if getattr(module, name) is None:
            return NONE
        return self.parts[f"{self.names[module]}.{name}"].start

    def knob(self, module: nn.Module, name: str, factor: float = 1.0) -> int:
        """Place of a number of the member."""
        self.knobs.append((f"{self.names[module]}.knob_{name}", factor))
        return len(self.knobs) - 1

    def layer(self, module: nn.Module) -> int:
        """Place of a noisy layer's window."""
        return self.noisy.index(f"{self.names[module]}.noise")

    def add(self, kind: int, **fields: int) -> None:
        """One more operation; columns that are not given are 0, places of nothing NONE."""
        row = [0] * tape.COLUMNS
        row[tape.KIND] = kind
        for column in (tape.W, tape.B, tape.LAYER, tape.KNOB, tape.GX):
            row[column] = NONE
        for name, number in fields.items():
            row[getattr(tape, name)] = int(number)
        self.ops.append(row)

    # ------------------------------------------------------------------ layers

    def inputs(self, module: layers.Inputs) -> Value:
        """The features, with a gradient only where something before them learns."""
        spec_n = module.cutmix.step_keep.shape[0] - len(module.one_hot) - len(module.embedded)
        learns = bool(len(module.tables)) or (module.numeric is not None)
        features = self.value(module.features)
        at = 0
        noise = {"LAYER": self.layer(module.noise), "KNOB": self.knob(module.noise, "input_noise")}
        target = {"Y": features.at, "GY": features.at, "OUT": features.width}
        if spec_n and module.numeric is None:
            self.add(tape.NUMERIC, IN=spec_n, P1=0, **target, **noise)
            at = spec_n
        elif spec_n:
            raw = self.value(spec_n)
            self.add(tape.NUMERIC, IN=spec_n, Y=raw.at, GY=raw.at, OUT=spec_n, P1=0, **noise)
            at = self.embedding(module.numeric, raw, target)
        for column, size in module.one_hot:
            self.add(tape.ONE_HOT, IN=size, P1=at, P2=column, P3=spec_n, **target)
            at += size - 1
        for column, table in zip(module.embedded, module.tables, strict=True):
            width = int(table.get_parameter("weight").shape[1])
            place = self.parameter(table, "weight")
            self.add(tape.TABLE, IN=width, P1=at, P2=column, P3=spec_n, W=place, **target)
            at += width
        if not self.mixes:
            return Value(features.at, features.width, features.at if learns else NONE)
        mixed = self.value(module.features)
        gradient = features.at if learns else NONE
        self.add(
            tape.MIXUP, X=features.at, Y=mixed.at, GY=mixed.at, IN=mixed.width, OUT=mixed.width,
            GX=gradient,
        )  # fmt: skip
        return Value(mixed.at, mixed.width, mixed.at if learns else NONE)

    def embedding(self, module: nn.Module | None, raw: Value, target: dict[str, int]) -> int:
        """Embedded numeric columns at the start of the features; how many features they are."""
        assert isinstance(module, layers.PiecewiseLinear | layers.Periodic)
        n, size, width = module.linear.weight.shape
        encoded = self.value(n * size)
        own = {
            "X": raw.at, "IN": n, "P1": 0, "P2": size, "P3": width, "P5": encoded.at,
            "W": self.parameter(module.linear, "weight"),
            "B": self.parameter(module.linear, "bias"),
        }  # fmt: skip
        if isinstance(module, layers.PiecewiseLinear):
            place = len(self.constants)
            for part in ("start", "scale", "low", "high"):
                self.constants += getattr(module, f"constant_{part}").double().reshape(-1).tolist()
            self.add(tape.BINS, P4=place, **own, **target)
            return int(n * width)
        frequency, phase = self.parameter(module, "frequency"), self.parameter(module, "phase")
        if phase != frequency + n * size:
            raise UnsuitedError("frequency and phase of its periodic embedding are not neighbours")
        knob = self.knob(module, "frequency")
        self.add(tape.WAVES, P4=frequency, KNOB=knob, **own, **target)
        return int(n * (width + 1))

    def body(self, modules: Sequence[nn.Module], x: Value, members: int) -> tuple[Value, int]:
        """Operations of some layers on x; what they give, and the implicit members M."""
        modules = [m for m in modules if not isinstance(m, nn.Identity)]
        for number, module in enumerate(modules):
            follows = modules[number + 1] if number + 1 < len(modules) else None
            before = modules[number - 1] if number else None
            if isinstance(module, Dropout):
                if before is None or name_of(before) is None:
                    raise UnsuitedError("it has dropout elsewhere than after an activation")
                continue  # done with the activation
            if isinstance(module, layers.Linear):
                x = self.linear(module, x, members, follows)
            elif isinstance(module, layers.Residual):
                x = self.residual(module, x, members)
            elif isinstance(module, layers.Skip):
                x, members = self.skip(module, x, members)
            elif isinstance(module, layers.MemberScale):
                members = module.scale.shape[0]
                x = self.spread(module, x, members)
            elif isinstance(module, layers.SharedLinear):
                x = self.shared(module, x, members)
            elif isinstance(module, layers.MemberLinear):
                x = self.member_linear(module, x, members)
            elif isinstance(module, norms.RMSNorm | norms.LayerNorm | norms.GroupNorm):
                x = self.row_norm(module, x, members)
            elif isinstance(module, norms.BatchNorm) and members == 1:
                x = self.batch_norm(module, x)
            elif (name := name_of(module)) is not None:
                reader = next((m for m in modules[number + 1 :] if type(m) is not Dropout), None)
                x = self.activation(name, module, x, members, before, follows, reader)
            else:
                raise UnsuitedError(f"it has a layer {type(module).__name__}")
        return x, members

    def linear(
        self, module: layers.Linear, x: Value, members: int, follows: nn.Module | None
    ) -> Value:
        out, size = module.weight.shape
        y = self.value(out * members)
        # The bias before an activation is added in its pass.
        later = follows is not None and name_of(follows) is not None and members == 1
        self.add(
            tape.LINEAR, X=x.at, Y=y.at, GX=x.gradient, GY=y.at, SUM=x.summed, IN=size, OUT=out,
            W=self.parameter(module, "weight"), P1=members,
            B=NONE if later else self.parameter(module, "bias"),
        )  # fmt: skip
        return y

    def activation(
        self,
        name: str,
        module: nn.Module,
        x: Value,
        members: int,
        before: nn.Module | None,
        follows: nn.Module | None,
        reader: nn.Module | None,
    ) -> Value:
        gated = isinstance(module, Gated)
        units = x.width // members
        out = units // 2 if gated else units
        y = self.value(out * members)
        known = isinstance(before, _LEAVING) and isinstance(reader, _GIVING)
        if name == "relu" and known and not x.summed:
            y = replace(y, at=x.at)  # in place; the new columns are its gradient's
        drop = isinstance(follows, Dropout)
        biased = isinstance(before, layers.Linear) and members == 1
        self.add(
            tape.ACTIVATION, X=x.at, Y=y.at, GX=x.gradient, GY=y.gradient, IN=units, OUT=out,
            B=self.parameter(before, "bias") if biased and before is not None else NONE,
            LAYER=self.layer(follows) if drop and follows is not None else NONE,
            KNOB=self.knob(follows, "dropout") if drop and follows is not None else NONE,
            P1=pointwise.CODES[name], P2=gated, P3=members,
        )  # fmt: skip
        return y

    def row_norm(self, module: nn.Module, x: Value, members: int) -> Value:
        units = x.width // members
        groups = module.groups if isinstance(module, norms.GroupNorm) else 1
        rms = isinstance(module, norms.RMSNorm)
        kept = self.value(2 * int(groups) * members)
        y = self.value(x.width)
        self.add(
            tape.ROW_NORM, X=x.at, Y=y.at, GX=x.gradient, GY=y.at, SUM=x.summed, IN=units,
            OUT=units, W=self.parameter(module, "scale" if rms else "weight"),
            B=NONE if rms else self.parameter(module, "bias"),
            P1=int(groups), P3=members, P4=kept.at,
        )  # fmt: skip
        return y

    def batch_norm(self, module: norms.BatchNorm, x: Value) -> Value:
        name, size = self.names[module], x.width
        self.running += [f"{name}.running_mean", f"{name}.running_var"]
        y = self.value(size)
        self.add(
            tape.BATCH_NORM, X=x.at, Y=y.at, GX=x.gradient, GY=y.at, SUM=x.summed, IN=size,
            OUT=size, W=self.parameter(module, "weight"), B=self.parameter(module, "bias"),
            P1=self.sizes, P2=self.sizes + size, P4=self.fixed,
        )  # fmt: skip
        self.sizes += 2 * size
        self.fixed += 4 * size
        return y

    def stream(self, x: Value) -> Value:
        """The same value with a gradient in a place of its own, to which several readers add."""
        if x.summed:
            return x
        place, own = self.value(x.width).at, x.at if x.gradient == NONE else x.gradient
        for op in self.ops:
            op[tape.GY] = place if op[tape.GY] == own else op[tape.GY]
        self.streams.append(place)
        return Value(x.at, x.width, place, summed=True)

    def skip(self, module: layers.Skip, x: Value, members: int) -> tuple[Value, int]:
        """y = layers(x) + path(x); gradients of both are that of y, which lies in its place."""
        x = x if x.gradient == NONE else self.stream(x)
        # Of the backward pass the path comes last, for the gradient of residual blocks on x is not
        # theirs alone once it is there; but first where x is lost on the way.
        late = isinstance(module.layers[0], layers.MemberScale)
        path = None if late else self.linear(module.path, x, 1, None)
        body, inside = self.body(list(module.layers), x, members)
        path = self.linear(module.path, x, 1, None) if path is None else path
        if members != 1 or path.width != body.width or body.summed:
            raise UnsuitedError("it has a path beside it of another shape")
        y = self.value(body.width)
        for op in self.ops:
            if op[tape.GY] in (body.gradient, path.gradient):
                op[tape.GY] = y.at
        self.add(tape.ADD, X=body.at, P1=path.at, Y=y.at, GY=y.at, IN=y.width, OUT=y.width, P2=NONE)
        return y, inside

    def residual(self, module: layers.Residual, x: Value, members: int) -> Value:
        """y = x + branch(x). All values of the stream share one gradient."""
        x = self.stream(x)
        parts = list(module.layers)
        dropped = parts[-1] if isinstance(parts[-1], DropPath) else None
        branch, inside = self.body(parts[: len(parts) - (dropped is not None)], x, members)
        if inside != members or branch.width != x.width or branch.summed:
            raise UnsuitedError("it has a residual block of another shape")
        acts = dropped is not None and self.drops
        own = NONE
        if acts:
            own = branch.gradient
        else:
            self.ops[-1][tape.GY] = x.gradient  # the branch's gradient is that of the stream
        y = self.value(x.width, x.gradient)
        self.add(
            tape.ADD, X=x.at, P1=branch.at, Y=y.at, GY=x.gradient, IN=x.width, OUT=x.width, P2=own,
            LAYER=self.layer(dropped) if acts and dropped is not None else NONE,
            KNOB=self.knob(dropped, "drop_path", dropped.share)
            if acts and dropped is not None
            else NONE,
        )  # fmt: skip
        return y

    def spread(self, module: layers.MemberScale, x: Value, members: int) -> Value:
        y = self.value(x.width * members)
        self.add(
            tape.SPREAD, X=x.at, Y=y.at, GX=x.gradient, GY=y.at, IN=x.width, OUT=y.width,
            SUM=x.summed, W=self.parameter(module, "scale"), P1=members,
        )  # fmt: skip
        return y

    def scale(self, module: nn.Module, weight: str, bias: str, x: Value) -> Value:
        y = self.value(x.width)
        self.add(
            tape.SCALE, X=x.at, Y=y.at, GX=x.at, GY=y.at, IN=x.width, OUT=x.width,
            W=self.parameter(module, weight), B=self.parameter(module, bias) if bias else NONE,
        )  # fmt: skip
        return y

    def shared(self, module: layers.SharedLinear, x: Value, members: int) -> Value:
        if module.scale_in is not None:
            if x.summed:
                raise UnsuitedError("it has a layer with scaled inputs at a residual stream")
            x = self.scale(module, "scale_in", "", x)
        out, size = module.weight.shape
        y = self.value(out * members)
        self.add(
            tape.LINEAR, X=x.at, Y=y.at, GX=x.gradient, GY=y.at, IN=size, OUT=out,
            SUM=x.summed, W=self.parameter(module, "weight"), P1=members,
        )  # fmt: skip
        return self.scale(module, "scale_out", "bias_member", y)

    def member_linear(self, module: layers.MemberLinear, x: Value, members: int) -> Value:
        _, size, out = module.weight.shape
        y = self.value(out * members)
        self.add(
            tape.MEMBERS, X=x.at, Y=y.at, GX=x.gradient, GY=y.at, IN=size, OUT=out,
            W=self.parameter(module, "weight"), B=self.parameter(module, "bias_member"), P1=members,
        )  # fmt: skip
        return y


def translate(module: nn.Module, parts: Sequence[Part], drops: bool, mixes: bool) -> Translation:
    """The operations of a module; `drops`, `mixes`: anybody drops branches or mixes rows.

    Raises UnsuitedError.
    """
    found = "it is not a Network of Inputs and a Sequential"
    if type(module) is not layers.Network or type(module.inputs) is not layers.Inputs:
        raise UnsuitedError(found)
    if not isinstance(module.body, nn.Sequential | layers.Skip) or not module.inputs.features:
        raise UnsuitedError(found)
    state = _Translator(
        {p.name: p for p in parts},
        list(noisy_layers(module)),
        {m: n for n, m in module.named_modules()},
        drops,
        mixes,
    )
    body = [module.body] if isinstance(module.body, layers.Skip) else list(module.body)
    x, members = state.body(body, state.inputs(module.inputs), 1)
    for stream in state.streams:
        _first_overwrites(state.ops, stream)
    if x.gradient != x.at:
        raise UnsuitedError("it ends in a residual block")
    _skip_copy(state.ops)
    return Translation(
        np.array(state.ops, np.int64),
        state.columns,
        state.fixed,
        state.widest,
        members,
        x.width // members,
        np.array(state.constants),
        tuple(state.running),
        tuple(state.knobs),
    )


def _skip_copy(ops: list[list[int]]) -> None:
    """Let linear layers read numeric columns where the table has them, if nothing else does."""
    first, *rest = ops
    taken = any(op[tape.KIND] < tape.LINEAR for op in rest)  # other columns, or rows are mixed
    places = {tape.ADD: (tape.X, tape.P1)}
    readers = [op for op in rest if any(op[c] == 0 for c in places.get(op[tape.KIND], (tape.X,)))]
    plain = all(op[tape.KIND] == tape.LINEAR and op[tape.P1] == 1 for op in readers)
    if first[tape.KIND] == tape.NUMERIC and not taken and plain:
        first[tape.P2] = 1


def _first_overwrites(ops: list[list[int]], stream: int) -> None:
    """The last reader of the stream is the first to give its gradient: it adds to nothing.

    Raises UnsuitedError where another reader cannot add.
    """
    readers = [op for op in reversed(ops) if op[tape.GX] == stream]
    if any(op[tape.KIND] not in _ADDING for op in readers[1:]):
        raise UnsuitedError("a layer in it that reads a residual stream cannot add its gradient")
    readers[0][tape.SUM] = 0


_ADDING = frozenset({tape.LINEAR, tape.ROW_NORM, tape.BATCH_NORM, tape.SPREAD})
