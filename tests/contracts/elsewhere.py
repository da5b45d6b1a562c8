"""A pretended device: tensors that compute on the CPU and say they lie elsewhere.

As on a GPU, an operation on tensors of both places is an error, and so is reading memory without
bringing it to the host. Streams, events and graphs are not pretended.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("elsewhere")
ELSEWHERE = torch.device("elsewhere", 0)
_MOVES = ("aten._to_copy", "aten.copy_", "aten._foreach_copy_")


class Remote(Tensor):
    """A tensor that says it lies elsewhere; `held` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Remote:
        made: Remote = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=ELSEWHERE,
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Remote({self.held!r})"

    def tolist(self) -> Any:
        """As on a GPU, this brings the numbers to the host."""
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _carry_out(func, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """While it is on, tensors can be made on the device `ELSEWHERE`."""

    def __enter__(self) -> Elsewhere:
        # `torch.tensor` makes its tensor on the host and moves it where the mode sees it.
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _carry_out(func, args, kwargs or {})


def _carry_out(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = str(func)
    tensors = [v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
    remote = any(isinstance(v, Remote) for v in tensors)
    target = kwargs.get("device")
    if remote and not name.startswith(_MOVES):
        host = [v for v in tensors if not isinstance(v, Remote) and v.device.type == "cpu"]
        if any(v.dim() for v in host):
            raise RuntimeError(f"Expected all tensors to be on the same device: {name}")
    if target is not None and target.type == ELSEWHERE.type:
        away = True
        kwargs = kwargs | {"device": torch.device("cpu")}
    else:
        away = remote and target is None
    if name.startswith(_MOVES[1]):
        away = isinstance(args[0], Remote)
    inner = tree_map_only(Remote, lambda v: v.held, (args, kwargs))
    result = func(*inner[0], **inner[1])
    if not away:
        return result
    result = tree_map_only(Tensor, Remote, result)
    return return_and_correct_aliasing(func, args, kwargs, result)
