"""A real daemon and a real gateway with hosts and cores that only speak the protocol.

`python tests/integration/fake_engine.py` runs it; `FakeEngine` is one for a test.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pie_client import NoDaemon, PieClient
from pie_client.errors import Interrupted
from pie_engine.daemon import COMMANDS, main

HERE = Path(__file__).parent
PATIENCE_S = 30.0


class FakeEngine:
    """Started in a home of its own. `settings` go over the configuration."""

    def __init__(self, **settings: Any) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="pie-f-"))
        self.settings = {"models": [{"name": "tiny", "driver": "fake"}], **settings}
        self.own_group = False
        """Whether a signal to its process group reaches it and its children only."""
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(HERE / "fake_engine.py"), "--config-json", json.dumps(self.settings)]
        env = {**os.environ, "PIE_HOME": str(self.home), "PIE_CONFIG": str(self.home / "config.toml")}
        (self.home / "config.toml").touch()
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, start_new_session=self.own_group)
        return self.process

    async def start(self) -> PieClient:
        self.spawn()
        client = PieClient(home=self.home)
        await self.until_health(client, lambda health: health["status"] == "ok")
        return client

    async def until_health(self, client: PieClient, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                health = await client.health()
                if is_so(health):
                    return health
            except (NoDaemon, Interrupted) as error:
                health = {"error": error}
            assert time.monotonic() < end, health
            await asyncio.sleep(0.02)

    async def kill(self, client: PieClient, name: str) -> None:
        """SIGKILL to one member; returns when another one has taken its seat and is ready."""
        victim = member(await client.health(), name)["os_pid"]
        os.kill(victim, signal.SIGKILL)
        await self.until_health(
            client, lambda health: health["status"] == "ok" and member(health, name)["os_pid"] != victim
        )

    def incidents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.home / "logs" / "incidents.jsonl").read_text().splitlines()]

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def remove(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.home, ignore_errors=True)


def member(health: dict[str, Any], name: str) -> dict[str, Any]:
    return next(member for member in health["members"] if member["name"] == name)


if __name__ == "__main__":
    stand_ins = {role: (sys.executable, str(HERE / f"fake_{role}.py")) for role in ("host", "core")}
    sys.exit(main(commands={**COMMANDS, **stand_ins}))
