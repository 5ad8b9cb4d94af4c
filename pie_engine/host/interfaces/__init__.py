"""What a program can call, one module for each interface of `sdk/wit/core.wit`.

Each has a table from the names of the WIT to functions `(process, *arguments)`. They return at once; errors are raised
as `PieError` and reach the guest as records.
"""

from __future__ import annotations

from pie_engine.host.imports import Function
from pie_engine.host.interfaces import (
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

VERSION = "0.1.0"

INTERFACES: dict[str, dict[str, Function]] = {
    f"pie:core/{name}@{VERSION}": functions
    for name, functions in {
        "futures": futures.FUNCTIONS,
        "model": model.FUNCTIONS,
        "context": context.FUNCTIONS,
        "generate": generate.FUNCTIONS,
        "forward": forward.FUNCTIONS,
        "matcher": matcher.FUNCTIONS,
        "scheduling": scheduling.FUNCTIONS,
        "session": session.FUNCTIONS,
        "runtime": runtime.FUNCTIONS,
        "log": log.FUNCTIONS,
    }.items()
}
