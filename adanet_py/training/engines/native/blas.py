"""Matrix products inside compiled code: a call of the BLAS that is there already.

torch's own library holds MKL on x86, the fastest for small matrices: its `sgemm_` is called
where it is exported. Elsewhere SciPy's BLAS is, which is public API (`scipy.linalg.cython_blas`).
Measured for 16 shapes of 32 to 256 units and 32 to 1,024 rows, forward and both backward products
on one core with AVX-512: MKL 123 to 154 GFLOP/s from 64 units on, SciPy's OpenBLAS 76 to 129.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

KEEP, TURN = 78, 84  # "N" and "T": a matrix as it is, and transposed


@functools.cache
def library() -> Any:
    """torch's library where it holds a BLAS with 32-bit sizes, else None."""
    import torch

    found = sorted((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"))
    try:
        loaded = ctypes.CDLL(str(found[0])) if found else None
        return loaded if hasattr(loaded, "sgemm_") and hasattr(loaded, "dgemm_") else None
    except OSError:
        return None


@functools.cache
def address(double: bool) -> int:
    """Where the machine code of sgemm (dgemm if `double`) begins."""
    if (held := library()) is not None:
        function = held.dgemm_ if double else held.sgemm_
        return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
    name = "dgemm" if double else "sgemm"
    return int(get_cython_function_address("scipy.linalg.cython_blas", name))


@contextmanager
def one_thread() -> Iterator[None]:
    """Products called by this thread use no other thread, so bits never depend on their number."""
    limit = getattr(library(), "MKL_Set_Num_Threads_Local", None)
    if limit is None:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):
            yield
        return
    before = limit(1)
    try:
        yield
    finally:
        limit(before)


@intrinsic
def _call(
    typing: Any, address: Any, ta: Any, tb: Any, m: Any, n: Any, k: Any, alpha: Any,
    a: Any, lda: Any, b: Any, ldb: Any, beta: Any, c: Any, ldc: Any,
) -> Any:  # fmt: skip
    """The Fortran interface of BLAS (column-major), by address; pointers are integers."""
    size, place = types.int64, types.uintp
    signature = types.void(
        size, size, size, size, size, size, alpha, place, size, place, size, alpha, place, size
    )

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = context.get_value_type(alpha)
        whole, letter, matrix = ir.IntType(32), ir.IntType(8), number.as_pointer()

        def place(value: Any, kind: Any) -> Any:
            slot = cgutils.alloca_once(builder, kind)
            builder.store(value if kind == number else builder.trunc(value, kind), slot)
            return slot

        function, ta, tb, m, n, k, alpha_, a, lda, b, ldb, beta_, c, ldc = args
        kinds = [letter] * 2 + [whole] * 3 + [number, number, whole, number, whole, number]
        kinds += [number, whole]
        shape = ir.FunctionType(ir.VoidType(), [kind.as_pointer() for kind in kinds])
        builder.call(
            builder.inttoptr(function, shape.as_pointer()),
            [
                place(ta, letter), place(tb, letter),
                place(m, whole), place(n, whole), place(k, whole),
                place(alpha_, number), builder.inttoptr(a, matrix), place(lda, whole),
                builder.inttoptr(b, matrix), place(ldb, whole),
                place(beta_, number), builder.inttoptr(c, matrix), place(ldc, whole),
            ],
        )  # fmt: skip
        return context.get_dummy_value()

    return signature, generate


call: Any = _call
