"""The state of any torch optimizer as tensors alone, for a checkpoint; nothing is pickled.

A value is a tree of dicts, lists, tuples, tensors and plain values. Its tensors are kept as they
are, the tree itself as JSON text in a tensor of bytes, so that it comes back bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_TREE = "tree"  # the name of the tensor that holds the text


class UnstorableError(Exception):
    """Training can go on, but its state cannot be kept to resume from."""


def pack(value: Any) -> dict[str, Tensor]:
    """`value` as named tensors. Raises UnstorableError for what is neither data nor tensor."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_tree(value, tensors, "state"))
    return tensors | {_TREE: torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)}


def _tree(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """Plain values as they are, the rest as [kind, content]."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor) and value.layout is torch.strided:
        name = str(len(tensors))
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
        return ["tensor", name]
    if type(value) in (list, tuple):
        content = [_tree(v, tensors, f"{where}[{i}]") for i, v in enumerate(value)]
        return [type(value).__name__, content]
    if isinstance(value, dict) and all(type(k) in (bool, int, float, str) for k in value):
        return ["dict", [[k, _tree(v, tensors, f"{where}[{k!r}]")] for k, v in value.items()]]
    raise UnstorableError(f"{where} of the optimizer is a {type(value).__name__}, not plain data")


def unpack(packed: Mapping[str, Tensor]) -> Any:
    """Inverse of `pack`, on the device of the tensors."""
    return _value(json.loads(packed[_TREE].cpu().numpy().tobytes()), packed)


def _value(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(tree, list):
        return tree
    kind, content = tree
    if kind == "tensor":
        return tensors[content].clone()
    if kind == "dict":
        return {key: _value(v, tensors) for key, v in content}
    values = [_value(v, tensors) for v in content]
    return tuple(values) if kind == "tuple" else values


def put_back(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what `optimizer.state_dict()` gave, in the types it had.

    The method of torch casts the state of a parameter to its type; a resumed run must go on with
    exactly what there was.
    """
    optimizer.load_state_dict(state)
    if type(optimizer).load_state_dict is not torch.optim.Optimizer.load_state_dict:
        return  # the class knows better
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, value in state["state"].items():
        loaded = optimizer.state[parameters[index]]
        optimizer.state[parameters[index]] = _retyped(loaded, value)


def _retyped(loaded: Any, stored: Any) -> Any:
    """`loaded`, where it is, in the types of `stored`."""
    if isinstance(stored, Tensor):
        same = loaded.dtype == stored.dtype
        return loaded if same else stored.to(loaded.device)
    if isinstance(stored, dict):
        return {k: _retyped(loaded[k], v) for k, v in stored.items()}
    if isinstance(stored, list | tuple):
        return type(stored)(_retyped(a, b) for a, b in zip(loaded, stored, strict=True))
    return stored
