"""Results of host functions as plain data, by their WIT types: for those who write them down or send them elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from wasmtime import component as wit
from wasmtime.component import ValType

from pie_engine.host.values import snake

Plain = Callable[[Any], Any]
"""What the encoder of the same type would write: records as dicts, lists as lists."""


def plain_of(kind: ValType | None) -> Plain:
    """For values of this type; of a `result` it is the type of what went well."""
    if isinstance(kind, wit.ResultType):
        return plain_of(kind.ok)
    maker = None if kind is None else _MAKERS.get(type(kind))
    return _as_it_is if maker is None else maker(kind)


def _as_it_is(value: Any) -> Any:
    return value


def _list(kind: wit.ListType) -> Plain:
    item = plain_of(kind.element)
    return list if item is _as_it_is else lambda values: [item(value) for value in values]


def _option(kind: wit.OptionType) -> Plain:
    payload = plain_of(kind.payload)
    return payload if payload is _as_it_is else lambda value: None if value is None else payload(value)


def _record(kind: wit.RecordType) -> Plain:
    names = [(snake(name), attrgetter(snake(name)), plain_of(field)) for name, field in kind.fields]
    return lambda record: {name: plain(get(record)) for name, get, plain in names}


_MAKERS: dict[type[ValType], Callable[[Any], Plain]] = {
    wit.ListType: _list,
    wit.OptionType: _option,
    wit.RecordType: _record,
}
