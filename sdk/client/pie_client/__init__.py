"""Launch programs on a Pie daemon and talk to them.

    async with PieClient() as client:
        process = await client.launch_process("./hello", {"prompt": "Hello!"})
        async for text in process.messages():
            print(text, end="")

docs/python-client.md shows the rest. The error classes are those of `pie_engine.errors`, every one the same class under
either name; `NoDaemon`, `Interrupted` and `EndOfEvents` are the client's own.
"""

from pie_client.bundle import pack
from pie_client.client import PieClient
from pie_client.errors import EndOfEvents, Interrupted, NoDaemon
from pie_client.events import Event
from pie_client.manifest import read_manifest
from pie_client.process import Process
from pie_engine.errors import (
    Busy,
    Cancelled,
    ContextTooLong,
    ErrorInfo,
    Internal,
    InvalidInput,
    InvalidProgram,
    LimitExceeded,
    Lost,
    NotFound,
    OutOfPages,
    PieError,
    ProtocolMismatch,
    Unsupported,
)
from pie_engine.protocol.http import AdapterView, Collected, ContextView, ProgramView, SecretView
from pie_engine.protocol.program import Bundle, Manifest
from pie_engine.protocol.stats import ContextState, Snapshot

__all__ = [
    "AdapterView",
    "Bundle",
    "Busy",
    "Cancelled",
    "Collected",
    "ContextState",
    "ContextTooLong",
    "ContextView",
    "EndOfEvents",
    "ErrorInfo",
    "Event",
    "Internal",
    "Interrupted",
    "InvalidInput",
    "InvalidProgram",
    "LimitExceeded",
    "Lost",
    "Manifest",
    "NoDaemon",
    "NotFound",
    "OutOfPages",
    "PieClient",
    "PieError",
    "Process",
    "ProgramView",
    "ProtocolMismatch",
    "SecretView",
    "Snapshot",
    "Unsupported",
    "pack",
    "read_manifest",
]
