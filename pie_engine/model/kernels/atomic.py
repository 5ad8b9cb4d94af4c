"""What threads of a step agree by: 64-bit words in shared memory."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_WORD = ir.IntType(64)
_WORD_BYTES = 8


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _WORD.as_pointer())


@intrinsic
def load(_typing: Any, address: Any) -> Any:
    """The word, and everything that was written before it was."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_pointer(builder, arguments[0]), "acquire", _WORD_BYTES)

    return types.int64(types.int64), emit


@intrinsic
def store(_typing: Any, address: Any, value: Any) -> Any:
    """Write the word after everything that was written before."""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[1], _pointer(builder, arguments[0]), "release", _WORD_BYTES)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def add(_typing: Any, address: Any, value: Any) -> Any:
    """Add to the word; returns what it was."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, arguments[0]), arguments[1], "acq_rel")

    return types.int64(types.int64, types.int64), emit


@intrinsic
def exchange_if(_typing: Any, address: Any, expected: Any, value: Any) -> Any:
    """Write `value` if the word is `expected`; returns whether it was."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        address, expected, value = arguments
        pair = builder.cmpxchg(_pointer(builder, address), expected, value, "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), emit


@intrinsic
def give_way(_typing: Any) -> Any:
    """`sched_yield`: let another thread have this processor."""

    def emit(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), emit
