"""Values at the C boundary: codecs between `wasmtime_component_val_t` and Python, made once for each function.

wasmtime-py walks a function's type on every call, which costs more than the call itself. Here a type becomes a pair of
closures over addresses. Records decode to dicts and encode from attributes, both under snake-case names; enums are
their kebab-case names, a list of numbers a list, `option` its payload or None. Memory rules of the C API: arguments
stay wasmtime's, so decoding copies and frees nothing; results become wasmtime's, so encoding uses its allocator.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ctypes import (
    PYFUNCTYPE,
    addressof,
    c_bool,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
    cast,
    memmove,
    sizeof,
    string_at,
)
from operator import attrgetter
from typing import Any

from wasmtime import _ffi as ffi
from wasmtime import component as wit
from wasmtime.component import ValType

Decoder = Callable[[int], Any]
"""The value at an address."""
Encoder = Callable[[Any, int], None]
"""Writes a value to an address."""

Value = ffi.wasmtime_component_val_t
VALUE_BYTES = sizeof(Value)
PAYLOAD = Value.of.offset
_ENTRY = ffi.wasmtime_component_valrecord_entry
_ENTRY_BYTES = sizeof(_ENTRY)
_ENTRY_VALUE = _ENTRY.val.offset
_SECOND_WORD = PAYLOAD + 8
_Result = ffi.wasmtime_component_valresult


def _bind(name: str, *arguments: Any, returns: Any = None) -> Callable[..., Any]:
    """A small C function, called without giving the interpreter lock away: that would cost more than the call."""
    return PYFUNCTYPE(returns, *arguments)((name, ffi.dll))


_new_bytes = _bind("wasm_byte_vec_new", c_void_p, c_size_t, c_char_p)
_new_list = _bind("wasmtime_component_vallist_new_uninit", c_void_p, c_size_t)
_new_record = _bind("wasmtime_component_valrecord_new_uninit", c_void_p, c_size_t)
_new_tuple = _bind("wasmtime_component_valtuple_new_uninit", c_void_p, c_size_t)
_box_value = _bind("wasmtime_component_val_new", c_void_p, returns=c_void_p)
delete_value = _bind("wasmtime_component_val_delete", c_void_p)

_word_at = c_uint64.from_address
_byte_at = c_uint8.from_address


class _Primitive:
    """A type that lies in the value itself: its C type, its kind, and its code for `struct`."""

    def __init__(self, c_type: Any, kind: Any, code: str) -> None:
        self.at = c_type.from_address
        self.kind: int = kind.value
        self.code = code

    def decode(self, address: int) -> Any:
        return self.at(address + PAYLOAD).value

    def encode(self, value: Any, address: int) -> None:
        _byte_at(address).value = self.kind
        self.at(address + PAYLOAD).value = value


_PRIMITIVES: dict[type[ValType], _Primitive] = {
    wit.Bool: _Primitive(c_bool, ffi.WASMTIME_COMPONENT_BOOL, "?"),
    wit.U8: _Primitive(c_uint8, ffi.WASMTIME_COMPONENT_U8, "B"),
    wit.U32: _Primitive(c_uint32, ffi.WASMTIME_COMPONENT_U32, "I"),
    wit.U64: _Primitive(c_uint64, ffi.WASMTIME_COMPONENT_U64, "Q"),
    wit.S32: _Primitive(c_int32, ffi.WASMTIME_COMPONENT_S32, "i"),
    wit.S64: _Primitive(c_int64, ffi.WASMTIME_COMPONENT_S64, "q"),
    wit.F32: _Primitive(c_float, ffi.WASMTIME_COMPONENT_F32, "f"),
    wit.F64: _Primitive(c_double, ffi.WASMTIME_COMPONENT_F64, "d"),
}


def decoder_of(kind: ValType) -> Decoder:
    """Reads values of this type."""
    primitive = _PRIMITIVES.get(type(kind))
    if primitive is not None:
        return primitive.decode
    maker = _DECODERS.get(type(kind))
    if maker is None:
        raise TypeError(f"no decoder for {type(kind).__name__}")
    return maker(kind)


def encoder_of(kind: ValType) -> Encoder:
    """Writes values of this type."""
    primitive = _PRIMITIVES.get(type(kind))
    if primitive is not None:
        return primitive.encode
    maker = _ENCODERS.get(type(kind))
    if maker is None:
        raise TypeError(f"no encoder for {type(kind).__name__}")
    return maker(kind)


def error_address(message: str) -> int:
    """A new error of the C API, for wasmtime to take."""
    return int(cast(ffi.wasmtime_error_new(message.encode()), c_void_p).value or 0)


def snake(name: str) -> str:
    return name.replace("-", "_")


# Strings and enums: (size, data) of UTF-8.


def decode_text(address: int) -> str:
    size = _word_at(address + PAYLOAD).value
    return string_at(_word_at(address + _SECOND_WORD).value, size).decode() if size else ""


def encode_text(text: str, address: int) -> None:
    raw = text.encode("utf-8", "replace")
    _byte_at(address).value = _STRING
    _new_bytes(address + PAYLOAD, len(raw), raw)


_STRING: int = ffi.WASMTIME_COMPONENT_STRING.value
_ENUM: int = ffi.WASMTIME_COMPONENT_ENUM.value
_LIST: int = ffi.WASMTIME_COMPONENT_LIST.value
_RECORD: int = ffi.WASMTIME_COMPONENT_RECORD.value
_TUPLE: int = ffi.WASMTIME_COMPONENT_TUPLE.value
_OPTION: int = ffi.WASMTIME_COMPONENT_OPTION.value
_RESULT: int = ffi.WASMTIME_COMPONENT_RESULT.value


def _enum_encoder(kind: wit.EnumType) -> Encoder:
    names = {name: name.encode() for name in kind.names}

    def encode(value: str, address: int) -> None:
        raw = names[value]
        _byte_at(address).value = _ENUM
        _new_bytes(address + PAYLOAD, len(raw), raw)

    return encode


# Lists: (size, data) of values.


def _list_decoder(kind: wit.ListType) -> Decoder:
    primitive = _PRIMITIVES.get(type(kind.element))
    return _items_decoder(decoder_of(kind.element)) if primitive is None else _numbers_decoder(primitive.code)


def _numbers_decoder(code: str) -> Decoder:
    """All payloads at once: a strided view of the copied array."""
    number_bytes = struct.calcsize(code)
    start, stride = PAYLOAD // number_bytes, VALUE_BYTES // number_bytes

    def decode(address: int) -> list[Any]:
        size = _word_at(address + PAYLOAD).value
        if not size:
            return []
        raw = string_at(_word_at(address + _SECOND_WORD).value, size * VALUE_BYTES)
        numbers: Any = memoryview(raw).cast(code)  # type: ignore[call-overload]
        return list(numbers[start::stride])

    return decode


def _items_decoder(decode_item: Decoder) -> Decoder:
    def decode(address: int) -> list[Any]:
        size, data = _word_at(address + PAYLOAD).value, _word_at(address + _SECOND_WORD).value
        return [decode_item(data + index * VALUE_BYTES) for index in range(size)]

    return decode


def _list_encoder(kind: wit.ListType) -> Encoder:
    primitive = _PRIMITIVES.get(type(kind.element))
    return _items_encoder(encoder_of(kind.element)) if primitive is None else _numbers_encoder(primitive)


def _numbers_encoder(primitive: _Primitive) -> Encoder:
    item = struct.Struct(f"<B{PAYLOAD - 1}x{primitive.code}")
    pack, tag, padding = item.pack, primitive.kind, bytes(VALUE_BYTES - item.size)

    def encode(numbers: list[Any], address: int) -> None:
        _byte_at(address).value = _LIST
        _new_list(address + PAYLOAD, len(numbers))
        if numbers:
            raw = b"".join([pack(tag, number) + padding for number in numbers])
            memmove(_word_at(address + _SECOND_WORD).value, raw, len(raw))

    return encode


def _items_encoder(encode_item: Encoder) -> Encoder:
    def encode(values: list[Any], address: int) -> None:
        _byte_at(address).value = _LIST
        _new_list(address + PAYLOAD, len(values))
        data = _word_at(address + _SECOND_WORD).value
        for index, value in enumerate(values):
            encode_item(value, data + index * VALUE_BYTES)

    return encode


# Records: (size, data) of entries, each a name and a value.


def _record_decoder(kind: wit.RecordType) -> Decoder:
    fields = [
        (snake(name), decoder_of(field), index * _ENTRY_BYTES + _ENTRY_VALUE)
        for index, (name, field) in enumerate(kind.fields)
    ]

    def decode(address: int) -> dict[str, Any]:
        data = _word_at(address + _SECOND_WORD).value
        return {name: decode_field(data + offset) for name, decode_field, offset in fields}

    return decode


def _record_encoder(kind: wit.RecordType) -> Encoder:
    fields = [
        (name.encode(), attrgetter(snake(name)), encoder_of(field), index * _ENTRY_BYTES)
        for index, (name, field) in enumerate(kind.fields)
    ]

    def encode(record: Any, address: int) -> None:
        _byte_at(address).value = _RECORD
        _new_record(address + PAYLOAD, len(fields))
        data = _word_at(address + _SECOND_WORD).value
        for name, get, encode_field, offset in fields:
            _new_bytes(data + offset, len(name), name)
            encode_field(get(record), data + offset + _ENTRY_VALUE)

    return encode


# Tuples: (size, data) of values, as lists.


def _tuple_encoder(kind: wit.TupleType) -> Encoder:
    encoders = [encoder_of(element) for element in kind.elements]

    def encode(values: Any, address: int) -> None:
        _byte_at(address).value = _TUPLE
        _new_tuple(address + PAYLOAD, len(encoders))
        data = _word_at(address + _SECOND_WORD).value
        for index, (encode_item, value) in enumerate(zip(encoders, values, strict=True)):
            encode_item(value, data + index * VALUE_BYTES)

    return encode


# Options and results: a pointer to a boxed value.


def _option_decoder(kind: wit.OptionType) -> Decoder:
    decode_payload = decoder_of(kind.payload)

    def decode(address: int) -> Any:
        boxed = _word_at(address + PAYLOAD).value
        return decode_payload(boxed) if boxed else None

    return decode


def _option_encoder(kind: wit.OptionType) -> Encoder:
    encode_payload = encoder_of(kind.payload)

    def encode(value: Any, address: int) -> None:
        _byte_at(address).value = _OPTION
        _word_at(address + PAYLOAD).value = 0 if value is None else _boxed(encode_payload, value)

    return encode


_nothing = Value()  # owns nothing, so it can be moved into any number of boxes
_NOTHING_ADDRESS = addressof(_nothing)


def _boxed(encode: Encoder, value: Any) -> int:
    """The address of a new value on wasmtime's heap, written in place."""
    boxed: int = _box_value(_NOTHING_ADDRESS)
    encode(value, boxed)
    return boxed


class ResultEncoder:
    """Either side of a `result<T, E>`, with or without a payload."""

    def __init__(self, kind: wit.ResultType) -> None:
        self._ok = None if kind.ok is None else encoder_of(kind.ok)
        self._error = None if kind.err is None else encoder_of(kind.err)

    def ok(self, value: Any, address: int) -> None:
        self._write(address, True, 0 if self._ok is None else _boxed(self._ok, value))

    def error(self, value: Any, address: int) -> None:
        self._write(address, False, 0 if self._error is None else _boxed(self._error, value))

    def _write(self, address: int, is_ok: bool, boxed: int) -> None:
        _byte_at(address).value = _RESULT
        _byte_at(address + PAYLOAD).value = is_ok
        _word_at(address + _SECOND_WORD).value = boxed


def decode_text_result(address: int) -> tuple[bool, str]:
    """What the exports of a program return: `result<string, string>`."""
    is_ok = bool(_byte_at(address + PAYLOAD).value)
    boxed = _word_at(address + _SECOND_WORD).value
    return is_ok, decode_text(boxed)


_DECODERS: dict[type[ValType], Callable[[Any], Decoder]] = {
    wit.String: lambda _kind: decode_text,
    wit.EnumType: lambda _kind: decode_text,
    wit.ListType: _list_decoder,
    wit.RecordType: _record_decoder,
    wit.OptionType: _option_decoder,
}
_ENCODERS: dict[type[ValType], Callable[[Any], Encoder]] = {
    wit.String: lambda _kind: encode_text,
    wit.EnumType: _enum_encoder,
    wit.ListType: _list_encoder,
    wit.RecordType: _record_encoder,
    wit.TupleType: _tuple_encoder,
    wit.OptionType: _option_encoder,
}

# The layout that the closures rely on.
assert VALUE_BYTES % 8 == PAYLOAD % 8 == _ENTRY_VALUE % 8 == 0
assert [vars(kind)[name].offset for kind, name in ((ffi.wasm_byte_vec_t, "data"), (_Result, "val"))] == [8, 8]
