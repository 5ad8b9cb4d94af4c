"""Launch programs on a Pie daemon and talk to them.

    async with PieClient() as client:
        process = await client.launch_process("path/to/program", {"prompt": "Hello"})
        async for event, value in process:
            if event is Event.Message:
                print(value, end="")

Errors are the classes of `pie_engine.errors`, and `NoDaemon` when nobody answers.
"""

from pie_client.bundle import pack
from pie_client.client import PieClient
from pie_client.errors import EndOfEvents, NoDaemon
from pie_client.events import Event
from pie_client.manifest import read_manifest
from pie_client.process import Process

__all__ = ["EndOfEvents", "Event", "NoDaemon", "PieClient", "Process", "pack", "read_manifest"]
