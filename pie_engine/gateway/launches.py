"""What is written down of a launch."""

from __future__ import annotations

import secrets
import time
from typing import get_args

import msgspec

from pie_engine.errors import InvalidInput
from pie_engine.protocol.http import LaunchRequest
from pie_engine.protocol.program import Manifest
from pie_engine.protocol.to_host import TraceKind
from pie_engine.store.records import ProcessRecord


def record_of(
    number: int, user: str, digest: str, manifest: Manifest, request: LaunchRequest, endowment: int = 0
) -> ProcessRecord:
    """Of a new process, which has no host. Raises `InvalidInput` where its input is no JSON object."""
    return ProcessRecord(
        id=number,
        pid=secrets.token_hex(8),
        user=user,
        program=manifest.name,
        version=manifest.version,
        digest=digest,
        input=checked_input(request.input),
        on_disconnect=request.on_disconnect,
        idempotency_key=request.idempotency_key,
        host_boot=None,
        host=None,
        is_terminating=False,
        created=time.time(),
        ended=None,
        outcome=None,
        trace=",".join(request.trace),
        native=request.native,
        endowment=endowment,
    )


def trace_kinds(text: str) -> tuple[TraceKind, ...]:
    """As the store has them. Those of another version of Pie are left out."""
    known: tuple[TraceKind, ...] = get_args(TraceKind)
    return tuple(kind for kind in known if kind in text.split(","))


def checked_input(raw: msgspec.Raw) -> str:
    text = bytes(raw).decode()
    if not text.lstrip().startswith("{"):
        raise InvalidInput("`input` is not a JSON object", hint='like {"prompt": "Hello"}')
    return text
