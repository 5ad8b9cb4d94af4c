"""The only way from the SDK to the host.

`host` has one attribute for each interface of the WIT (`host.futures`, `host.context`, …), with its functions and
records under their snake-case names. In the sandbox these are the generated bindings; `inferlet.testing` connects a
fake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from inferlet import errors

T = TypeVar("T")


class _NoHost:
    """Stands in where no host is connected, and says what to do about it."""

    def __getattr__(self, interface: str) -> NoReturn:
        raise RuntimeError(
            "this runs outside of Pie, so there is no model and no client here; "
            "start it with `pie run`, or test it with `inferlet.testing.run_inferlet`"
        )


class _NoFailure(Exception):
    """Never raised: a fake host raises `PieError` itself."""


_Failure: type[Exception] = _NoFailure
host: Any = _NoHost()
note: Callable[[Callable[..., Any]], None] | None = None
"""Told of each function that is called, before it is, in runs that are watched: see `_runtime.places`."""


def connect(new_host: Any) -> Any:
    """Use `new_host` (None: none) from now on; returns the one before."""
    global host
    old, host = host, _NoHost() if new_host is None else new_host
    return old


def call(function: Callable[..., T], *args: Any) -> T:
    """The result of a host function; its error record is raised as the `PieError` of its code."""
    if note is not None:
        note(function)
    try:
        return function(*args)
    except _Failure as failure:
        raise errors.from_wire(failure.value) from None  # type: ignore[attr-defined]


def _connect_sandbox() -> None:
    global host, _Failure
    try:
        from componentize_py_types import Err
        from wit_world import imports
        from wit_world.imports import (  # noqa: F401
            context,
            forward,
            futures,
            generate,
            log,
            matcher,
            model,
            runtime,
            scheduling,
            session,
        )
    except ImportError:
        return
    host, _Failure = imports, Err


_connect_sandbox()
