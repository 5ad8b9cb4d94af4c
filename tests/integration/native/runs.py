"""Programs in a Python of their own, against an engine in this process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pie_engine.config import ModelSection
from pie_engine.embedded import Embedded, EmbeddedProcess
from pie_engine.protocol.program import Bundle

SDK = str(Path(__file__).parents[3] / "sdk" / "python")
TIMEOUT_S = 60
FAKE = ModelSection(driver="fake", name="fake", num_pages=256, offload_memory_mb=1)
WAITER = """from inferlet import session
async def main() -> str:
    print("here")
    return await session.receive()
"""


class NativeRun:
    """One program: its process at the engine, and the Python that runs it."""

    def __init__(self, engine: Embedded, bundle: Bundle, arguments: dict[str, object], folder: Path, **session: object):
        self.engine = engine
        self._place = tempfile.TemporaryDirectory(prefix="pie-native-")
        path = f"{self._place.name}/host"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        self.process: EmbeddedProcess = engine.launch(bundle, arguments, native=path)
        files = {name: str(folder / name) for name in bundle.files if (folder / name).is_file()}
        wanted = {"socket": path, "fd": listener.fileno(), "folder": str(folder), "files": files, **session}
        config = Path(self._place.name, "session.json")
        config.write_text(json.dumps(wanted))
        self.python = subprocess.Popen(
            [sys.executable, "-m", "inferlet._native", str(config)],
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": SDK},
            text=True,
        )
        listener.close()

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end, (self.process.events, self.python.poll())
            seconds = self.engine.turn()
            time.sleep(min(0.001, seconds if seconds is not None else 0.001))

    def finish(self) -> EmbeddedProcess:
        self.until(lambda: self.process.has_ended)
        return self.process

    def close(self) -> None:
        self.python.kill()
        self.python.communicate()
        self._place.cleanup()
