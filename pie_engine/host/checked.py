"""Arguments of host functions from plain data, checked by their WIT types: for callers that no sandbox has checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wasmtime import component as wit
from wasmtime.component import ValType

from pie_engine.errors import InvalidInput
from pie_engine.host.values import snake

Check = Callable[[Any], Any]
"""What the decoder of the same type would read. Raises `InvalidInput` that says what it should be."""


def check_of(kind: ValType) -> Check:
    """For values of this type, as `plain` writes them."""
    maker = _MAKERS.get(type(kind))
    if maker is None:
        raise TypeError(f"no check for {type(kind).__name__}")
    return maker(kind)


def _refuse(wanted: str, value: Any) -> InvalidInput:
    return InvalidInput(f"{wanted} is wanted, and there is {str(value)[:40]!r}")


def _bool(_kind: Any) -> Check:
    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise _refuse("true or false", value)
        return value

    return check


def _whole(least: int, most: int) -> Callable[[Any], Check]:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _refuse(f"a whole number from {least} to {most}", value)
        return value

    return lambda _kind: check


def _float(_kind: Any) -> Check:
    def check(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _refuse("a number", value)
        return float(value)

    return check


def _text(_kind: Any) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise _refuse("a text", value)
        return value if value.isascii() else value.encode("utf-8", "replace").decode()

    return check


def _enum(kind: wit.EnumType) -> Check:
    names = frozenset(kind.names)

    def check(value: Any) -> str:
        if value not in names:
            raise _refuse(f"one of {', '.join(sorted(names))}", value)
        return str(value)

    return check


def _list(kind: wit.ListType) -> Check:
    check_item = check_of(kind.element)

    def check(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _refuse("a list", value)
        return [check_item(item) for item in value]

    return check


def _option(kind: wit.OptionType) -> Check:
    check_payload = check_of(kind.payload)
    return lambda value: None if value is None else check_payload(value)


def _record(kind: wit.RecordType) -> Check:
    checks = {snake(name): check_of(field) for name, field in kind.fields}

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or value.keys() != checks.keys():
            raise _refuse(f"a record of {', '.join(checks)}", value)
        return {name: check_field(value[name]) for name, check_field in checks.items()}

    return check


_MAKERS: dict[type[ValType], Callable[[Any], Check]] = {
    wit.Bool: _bool,
    wit.U8: _whole(0, 2**8 - 1),
    wit.U32: _whole(0, 2**32 - 1),
    wit.U64: _whole(0, 2**64 - 1),
    wit.F64: _float,
    wit.String: _text,
    wit.EnumType: _enum,
    wit.ListType: _list,
    wit.OptionType: _option,
    wit.RecordType: _record,
}
