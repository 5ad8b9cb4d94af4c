"""What guests import: the functions of `pie:core`, linked to Python.

Each WIT interface is one module of `interfaces/` with a table from WIT names to functions `(process, *arguments)`.
Whatever happens in one becomes an error record; nothing is ever raised through wasmtime.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from ctypes import CFUNCTYPE, c_size_t, c_void_p, cast, create_string_buffer
from dataclasses import dataclass
from typing import Any

from wasmtime import Engine, WasmtimeError
from wasmtime import _ffi as ffi
from wasmtime.component import Component, ComponentInstanceType, FuncType, Linker, LinkerInstance, ResultType, ValType

from pie_engine.errors import Internal, InvalidProgram, PieError
from pie_engine.host import surroundings, tap
from pie_engine.host.plain import plain_of
from pie_engine.host.runner import GuestOver, Nobody, Owner
from pie_engine.host.values import (
    VALUE_BYTES,
    Encoder,
    ResultEncoder,
    decoder_of,
    encoder_of,
    error_address,
)

log = logging.getLogger(__name__)

NAMESPACE = "pie:"
WASI = "wasi:"
WAIT = ("pie:core/futures@0.1.0", "wait-any")
"""The one call that waits; how is the runner's business."""
NO_FINALIZER = cast(0, CFUNCTYPE(None, c_void_p))

# wasmtime_component_func_callback_t with plain addresses: ctypes makes an object of every typed pointer.
_Callback = CFUNCTYPE(c_size_t, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t)

Function = Callable[..., Any]

ERROR_CODES = frozenset(
    [
        "invalid-input",
        "not-found",
        "unsupported",
        "context-too-long",
        "out-of-pages",
        "limit-exceeded",
        "busy",
        "cancelled",
        "core-lost",
        "internal",
    ]
)


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """`types.error`"""

    code: str
    message: str
    retry: bool


def error_record(error: BaseException) -> ErrorRecord:
    """Any exception of a host function as its guest gets it; a foreign one is our bug and is logged."""
    if not isinstance(error, PieError):
        log.error("host function failed", exc_info=error)
    return plain_error(error)


def plain_error(error: BaseException) -> ErrorRecord:
    """The same, and not a word about it."""
    if not isinstance(error, PieError):
        error = Internal(f"{type(error).__name__}: {error}")
    # A code that the WIT does not have, such as `invalid_config`, travels as its class's nearest ancestor that has one.
    codes = [error.code, *(cls.code for cls in type(error).__mro__ if issubclass(cls, PieError))]
    known = (code.replace("_", "-") for code in codes)
    code = next((code for code in known if code in ERROR_CODES), "internal")
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    return ErrorRecord(code, message, error.retry)


def result_type(kind: FuncType) -> ResultType:
    """Of a function that can fail."""
    result = kind.result
    assert isinstance(result, ResultType)
    return result


def raise_on(error: Any) -> None:
    """Raise what a function of the C API has returned, unless it is null."""
    if error:
        raise WasmtimeError._from_ptr(error)


def short_name(interface: str) -> str:
    """`context` of `pie:core/context@0.1.0`."""
    return interface.rpartition("/")[2].partition("@")[0]


class Imports:
    """All functions, and the guest that is running, for whom they are called."""

    def __init__(self, interfaces: Mapping[str, Mapping[str, Function]], *, with_surroundings: bool = False) -> None:
        """`interfaces`: by full name (`pie:core/log@0.1.0`), then by the function's name.

        with_surroundings: time and chance come from the owner's `surroundings`, not from the machine.
        """
        self._interfaces = interfaces
        self._with_surroundings = with_surroundings
        self._callbacks: list[Any] = []  # wasmtime holds only their addresses
        self.owner: Owner

    def begin_instance(self) -> None:
        """A new guest comes: what its start code calls is on behalf of nobody."""
        self.owner = Nobody()

    def link(self, linker: Linker, component: Component, link_wait: Callable[[LinkerInstance, FuncType], None]) -> None:
        """Define every import of `component` that is ours; WASI is defined already."""
        for name, functions in imported(linker.engine, component, NAMESPACE):
            with linker.root() as root, root.add_instance(name) as instance:
                for function_name, kind in functions.items():
                    if (name, function_name) == WAIT:
                        link_wait(instance, kind)
                    else:
                        watched = _watched(name, function_name, kind)
                        self.define(instance, function_name, self._find(name, function_name), kind, watched)

        if self._with_surroundings:
            self._link_surroundings(linker, component)

    def _link_surroundings(self, linker: Linker, component: Component) -> None:
        """In place of WASI's own."""
        linker.allow_shadowing = True
        for name, functions in imported(linker.engine, component, WASI):
            if surroundings.replaces(name):
                with linker.root() as root, root.add_instance(name) as instance:
                    for function_name, kind in functions.items():
                        body = surroundings.body_of(name, function_name, kind, lambda: self.owner)
                        self._add(instance, function_name, body)

    def _find(self, interface: str, function: str) -> Function:
        try:
            return self._interfaces[interface][function]
        except KeyError:
            raise InvalidProgram(
                f"the program imports {interface}#{function}, which this engine does not have",
                hint="build it for this version of Pie",
            ) from None

    def define(
        self, instance: LinkerInstance, name: str, function: Function, kind: FuncType, watched: tap.Import | None = None
    ) -> None:
        """Link one function, called as `function(owner, *arguments)`; with `watched` the owner's tap is told."""
        self._add(instance, name, self._body(name, function, kind, watched))

    def _add(self, instance: LinkerInstance, name: str, body: Callable[..., int]) -> None:
        callback = _Callback(body)
        self._callbacks.append(callback)
        raw = name.encode()
        typed = cast(callback, ffi.wasmtime_component_func_callback_t)
        raise_on(
            ffi.wasmtime_component_linker_instance_add_func(
                instance.ptr(), create_string_buffer(raw), len(raw), typed, None, NO_FINALIZER
            )
        )

    def _body(self, name: str, function: Function, kind: FuncType, watched: tap.Import | None) -> Callable[..., int]:
        decoders = [(decoder_of(parameter), i * VALUE_BYTES) for i, (_, parameter) in enumerate(kind.params)]
        encode, refuse = _endings(name, kind.result)

        def body(_env: Any, _context: Any, _type: Any, args: int, _nargs: int, results: int, _nresults: int) -> int:
            try:
                owner = self.owner
                owner.num_calls += 1
                arguments = [decode(args + offset) for decode, offset in decoders]
                if owner.tap is None or watched is None:
                    value = function(owner, *arguments)
                else:
                    value = tap.call(watched, function, owner, arguments)
                if encode is not None:
                    encode(value, results)
            except GuestOver as over:
                return error_address(str(over))
            except BaseException as error:
                return refuse(error, results)
            return 0

        return body


def _watched(interface: str, function: str, kind: FuncType) -> tap.Import | None:
    """What a tap is told when it is called; None: nothing."""
    found = tap.Import(short_name(interface), function, plain_of(kind.result))
    return None if found.name in tap.UNTAPPED else found


def _endings(name: str, result: ValType | None) -> tuple[Encoder | None, Callable[[BaseException, int], int]]:
    """How a function gives its result (None: it has none), and how it fails: the address of what ends the guest is
    returned, or 0 where the guest is told."""
    if isinstance(result, ResultType):
        encoder = ResultEncoder(result)

        def refuse(error: BaseException, results: int) -> int:
            encoder.error(error_record(error), results)
            return 0

        return encoder.ok, refuse
    encode = None if result is None else encoder_of(result)
    # Its type has no room for an error: this guest ends.
    return encode, lambda error, results: error_address(f"{name}: {error_record(error).message}")


def imported(engine: Engine, component: Component, namespace: str) -> Iterator[tuple[str, dict[str, FuncType]]]:
    """Interfaces of a namespace, with their functions."""
    for name, item in component.type.imports(engine).items():
        kind = item.ty
        if name.startswith(namespace) and isinstance(kind, ComponentInstanceType):
            exports = ((key, export.ty) for key, export in kind.exports(engine).items())
            yield name, {key: function for key, function in exports if isinstance(function, FuncType)}
