"""All of Pie: a daemon of its own and inferlets. Tokens are stamped when the client learns of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from common import Wave
from load import run_workload
from workloads import Request, Workload

PROGRAMS = Path(__file__).parent / "programs"
PROGRAM_OF_TIER = {"plan": PROGRAMS / "generate", "pass": PROGRAMS / "forward"}


class WholePie:
    """A client of the daemon in `home`, with one inferlet for each request."""

    def __init__(self, home: Path, tier: str) -> None:
        self._home = home
        self._program = PROGRAM_OF_TIER[tier]
        self.capabilities = asyncio.run(self._describe())
        self.num_pages: int = self.capabilities.pop("num_pages")

    def run(self, workload: Workload, *, in_waves: bool) -> list[Wave]:
        return asyncio.run(self._run(workload, in_waves))

    async def _describe(self) -> dict[str, Any]:
        from pie_client import PieClient

        async with PieClient(home=self._home) as client:
            return (await client.models())[0]

    async def _run(self, workload: Workload, in_waves: bool) -> list[Wave]:
        from pie_client import PieClient

        async with PieClient(home=self._home) as client:
            engine = _Launching(client, self._program)
            return await run_workload(engine, workload, self.capabilities["vocab_size"], in_waves=in_waves)


class _Launching:
    """A request is the launch of a program: one with forks of a program that forks."""

    def __init__(self, client: Any, program: Path) -> None:
        self._client = client
        self._program = program

    async def stream(self, request: Request) -> AsyncIterator[tuple[int, int]]:
        arguments = {
            "prompt": request.prompt,
            "max_tokens": request.output_len,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
        }
        if request.num_forks == 1:
            process = await self._client.launch_process(self._program, arguments)
            async for num_tokens in process.messages():
                yield 0, num_tokens
        else:
            process = await self._client.launch_process(
                PROGRAMS / "fork", {**arguments, "num_forks": request.num_forks}
            )
            async for index, num_tokens in process.messages():
                yield index, num_tokens
