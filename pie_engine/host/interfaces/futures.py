"""`futures`: `wait-any` is the runner's, since it is the one call that suspends a guest."""

from __future__ import annotations

from pie_engine.host.imports import Function
from pie_engine.host.process import Process


def forget(process: Process, handle: int) -> None:
    future = process.futures.remove(handle)
    if future is not None:
        future.forget()


FUNCTIONS: dict[str, Function] = {"forget": forget}
