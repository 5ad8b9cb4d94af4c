"""The examples of docs/http.md, run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import msgspec
import pytest

from pie_engine.protocol.program import Bundle, Manifest
from tests.integration.fake_engine import PATIENCE_S, FakeEngine

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
HELLO = Bundle(Manifest(name="hello", version="0.1.0"), {"main.py": "async def main(): ...\n"})


def examples():
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_examples_work():
    engine = FakeEngine()
    try:
        async with await engine.start() as client:
            await client.upload(HELLO)
            (engine.home / "bundle.json").write_bytes(msgspec.json.encode(HELLO))
            process = await client.launch_process(HELLO, {"do": [["hang"]]}, on_disconnect="detach")
            script = engine.home / "examples.sh"
            script.write_text("set -e -o pipefail\n" + "\n".join(examples()))
            env = {**os.environ, "PIE_HOME": str(engine.home), "PID": process.pid}
            shell = await asyncio.create_subprocess_exec(
                "bash",
                str(script),
                cwd=engine.home,
                env=env,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            printed, _ = await asyncio.wait_for(shell.communicate(), PATIENCE_S)
            assert shell.returncode == 0, printed.decode()
            for part in (
                "event: started",
                '"digest":',
                '"seq":1',
                "cancelled",
                '"num_free_pages":',
                '"daemon_os_pid":',
            ):
                assert part in printed.decode()
            assert await asyncio.to_thread(engine.process.wait, PATIENCE_S) == 0
    finally:
        engine.remove()
