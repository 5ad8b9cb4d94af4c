"""Values and callbacks at the C boundary, for both ways of running alike.

wasmtime-py looks a function's type up on every call and never wraps the async half of the C API, so both runners
register raw callbacks and convert the few types of `program.wit` here.
"""

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, byref, c_void_p, cast, create_string_buffer

from wasmtime import WasmtimeError
from wasmtime import _bindings as ffi
from wasmtime.component._linker import LinkerInstance

INTERFACE = "pie:experiment/core@0.1.0"
NO_FINALIZER = cast(0, CFUNCTYPE(None, c_void_p))
VAL = ffi.wasmtime_component_val_t
VAL_SIZE = ctypes.sizeof(VAL)
PAYLOAD_OFFSET = VAL.of.offset
U64, STRING, LIST = 8, 12, 13  # WASMTIME_COMPONENT_* kinds of a value


def raise_on(error) -> None:
    if error:
        raise WasmtimeError._from_ptr(error)


def decode_string(value) -> str:
    text = value.of.string
    return ctypes.string_at(text.data, text.size).decode()


def decode_u64s(value) -> list[int]:
    items = value.of.list
    if not items.size:
        return []
    words = memoryview(ctypes.string_at(items.data, items.size * VAL_SIZE)).cast("Q")
    return words[PAYLOAD_OFFSET // 8 :: VAL_SIZE // 8].tolist()


def decode_optional_u32(value) -> int | None:
    inner = value.of.option
    return inner[0].of.u32 if inner else None


def encode_string(text: str, out) -> None:
    raw = text.encode()
    out.kind = STRING
    ffi.wasm_byte_vec_new_uninitialized(byref(out.of.string), len(raw))
    ctypes.memmove(out.of.string.data, raw, len(raw))


def encode_u64(number: int, out) -> None:
    out.kind = U64
    out.of.u64 = number


def encode_u64s(numbers: list[int], out) -> None:
    out.kind = LIST
    ffi.wasmtime_component_vallist_new_uninit(byref(out.of.list), len(numbers))
    for index, number in enumerate(numbers):
        encode_u64(number, out.of.list.data[index])


def add_func(instance: LinkerInstance, name: str, body: Callable) -> object:
    """Registers `body(args, results)`; the returned callback must outlive the linker."""

    @ffi.wasmtime_component_func_callback_t
    def callback(_env, _context, _type, args, _nargs, results, _nresults):
        try:
            body(args, results)
            return 0
        except BaseException as error:
            return error_address(repr(error))

    raw = name.encode()
    raise_on(
        ffi.wasmtime_component_linker_instance_add_func(
            instance.ptr(), create_string_buffer(raw), len(raw), callback, None, NO_FINALIZER
        )
    )
    return callback


def error_address(message: str) -> int:
    """Ownership goes to wasmtime, which ends the call with it."""
    return cast(ffi.wasmtime_error_new(message.encode()), c_void_p).value
