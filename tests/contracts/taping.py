"""A recording of a step on a CPU, with the rules of a CUDA graph, to test what is recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Operation = tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _Listen(TorchDispatchMode):
    """Writes down every operation with the tensors themselves: addresses, not values."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}  # what was written over, and its copy
        self.new: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        # A graph cannot answer the host, nor read what lies on it.
        if "_local_scalar_dense" in name or "nonzero" in name or "lift_fresh" in name:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        inputs = [v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
        if "native_batch_norm.default" in name:  # writes running statistics, and does not say so
            for running in args[3:5]:
                self._keep(running)
        if func._schema.is_mutable:
            given = kwargs | dict(zip([a.name for a in func._schema.arguments], args, strict=False))
            for argument in func._schema.arguments:
                if argument.alias_info is not None and argument.alias_info.is_write:
                    for written in tree_leaves(given.get(argument.name)):
                        if isinstance(written, Tensor):
                            self._keep(written)
        result = func(*args, **kwargs)
        shared = {_storage(v) for v in inputs}
        made = [v for v in tree_leaves(result) if isinstance(v, Tensor)]
        made = [v for v in made if _storage(v) not in shared]
        self.new |= {_storage(v) for v in made}
        self.operations.append((func, args, kwargs, made))
        return result

    def _keep(self, tensor: Tensor) -> None:
        key = _storage(tensor)
        if key not in self.before and key not in self.new:
            whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())  # type: ignore[call-overload]
            self.before[key] = whole, whole.clone()


class Tape:
    """Operations on the same memory, repeated without any Python of the step."""

    recorded = 0  # recordings
    repeated = 0  # steps that were repeated

    def aside(self, device: torch.device) -> AbstractContextManager[None]:
        return nullcontext()

    def record(self, step: Callable[[], None], device: torch.device) -> Callable[[], None]:
        listen = _Listen()
        try:
            with listen:
                step()
        finally:
            for whole, copy in listen.before.values():  # a recording computes nothing
                whole.copy_(copy)
        self.recorded += 1

        @torch.no_grad()
        def replay() -> None:
            self.repeated += 1
            for func, args, kwargs, made in listen.operations:
                result = func(*args, **kwargs)
                if not made:
                    continue
                shared = {_storage(v) for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)}
                found = [v for v in tree_leaves(result) if isinstance(v, Tensor)]
                found = [v for v in found if _storage(v) not in shared]
                for place, value in zip(made, found, strict=True):
                    place.copy_(value)

        return replay
