"""How kernels are compiled: by numba, when their module is imported, for exactly this processor, and kept on disk.

Set up before numba is imported for the first time. LLVM keeps to 256-bit vectors on processors that once lowered their
clock for wider ones; these kernels are made of 512-bit ones where the processor has them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import FunctionType
from typing import Any

import llvmlite.binding as llvm

from pie_engine.model.kernels.cache import kernel_folder

os.environ["NUMBA_CPU_FEATURES"] = f"{llvm.get_host_cpu_features().flatten()},-prefer-256-bit"
os.environ["NUMBA_CACHE_DIR"] = str(kernel_folder())

from numba import cfunc, njit


def compiled(*signatures: str, name: str = "", **parts: Any) -> Callable[[Any], Any]:
    """Compile for these argument types, now. Without the interpreter lock, without checks.

    Floating-point operations keep their order, so a result does not depend on how the compiler cut a loop. A kernel of
    which there are several gets a `name` of its own and its `parts` as globals: numba would compile a closure anew in
    each process.
    """

    def compile_one(function: Any) -> Any:
        if name:
            function = _with_parts(function, name, parts)
        return njit(list(signatures), nogil=True, cache=True, error_model="numpy")(function)

    return compile_one


def callback(signature: str, *, name: str, **parts: Any) -> Callable[[Any], Any]:
    """As `compiled`, to be called by its `address`, which is good for as long as what this returns is kept."""

    def compile_one(function: Any) -> Any:
        return cfunc(signature, cache=True, error_model="numpy")(_with_parts(function, name, parts))

    return compile_one


def _with_parts(function: Any, name: str, parts: dict[str, Any]) -> Any:
    with_parts = FunctionType(function.__code__, {**function.__globals__, **parts}, name)
    with_parts.__qualname__ = name
    return with_parts
