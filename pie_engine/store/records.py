"""What the store keeps, as it gives it back."""

from __future__ import annotations

import msgspec

from pie_engine.protocol.http import OnDisconnect


class ProgramRecord(msgspec.Struct, frozen=True):
    digest: str
    name: str
    version: str
    signature: str | None
    """JSON of `Signature`; None until a host has read it."""
    created: float


class ProcessRecord(msgspec.Struct, frozen=True):
    id: int
    """Row id: what events and messages refer to. Grows with time."""
    pid: str
    user: str
    program: str
    version: str
    digest: str
    input: str
    on_disconnect: OnDisconnect
    idempotency_key: str | None
    host_boot: str | None
    """Boot id of the host it was given to; None while it is queued."""
    host: str | None
    is_terminating: bool
    created: float
    ended: float | None
    outcome: str | None
    trace: str = ""
    """Kinds of trace that its launch asked for, separated by commas."""
    native: str = ""
    """Socket of the Python that runs it; empty: it runs in the sandbox."""
    endowment: int = 0
    """Micro-credits."""
    bid: int | None = None
    """What its owner bids for all its contexts, in micro-credits for a page and a step; None: it bids for itself."""
    parent: str | None = None
    """Process id of the program that has launched it; None: a client has."""
    request: int = 0
    """Of a child: which of its parent's launches it is."""
    inherits: int | None = None
    """Of a child: micro-credits out of its parent's, in each model; None: an eighth of what is left there. Its
    `endowment` is what its owner has given it besides."""
    usage: str = "[]"
    """JSON of `Usage`; empty until it has ended."""
    last_seq: int = 0
    """Its newest stored event."""


class EventRow(msgspec.Struct, frozen=True):
    seq: int
    kind: str
    data: str
    time: float
