"""Asking an engine that serves for what a workload says, and stamping what comes.

Everything that is served is measured by this one loop: Pie through its client, the peers over HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from common import Stamps, Wave, flat, waves_of
from workloads import TOKENS_BEFORE_LATE, Request, Workload


class Engine(Protocol):
    """Something that serves a model."""

    def stream(self, request: Request) -> AsyncIterator[tuple[int, int]]:
        """(which continuation of the prompt, how many new tokens), as they come."""


async def run_workload(engine: Engine, workload: Workload, vocab_size: int, *, in_waves: bool) -> list[Wave]:
    """One round. With a late request there are two waves: the decoders, and the late one alone."""
    requests = workload.requests(vocab_size)
    if workload.late_input_len:
        return await _interrupted(engine, requests, workload.late_request(vocab_size))
    return [
        await _run_wave(engine, wave, workload.concurrency)
        for wave in waves_of(requests, workload.concurrency, in_waves)
    ]


async def _run_wave(engine: Engine, requests: Sequence[Request], concurrency: int) -> Wave:
    """Keep `concurrency` requests in flight until all are answered."""
    waiting = deque(requests)
    wave: Wave = []

    async def worker() -> None:
        while waiting:
            request = waiting.popleft()
            stamps = new_stamps(request)
            await follow(engine, request, stamps)
            wave.extend(stamps)

    async with _tasks() as group:
        for _ in range(min(concurrency, len(requests))):
            group.create_task(worker())
    return wave


async def _interrupted(engine: Engine, decoders: Sequence[Request], late: Request) -> list[Wave]:
    """Send `late` when each of the decoders has received some tokens."""
    decoding = asyncio.Event()
    started = [new_stamps(request) for request in decoders]
    wave = flat(started)
    num_before = min([TOKENS_BEFORE_LATE, *(request.output_len for request in decoders)])

    def look() -> None:
        if not decoding.is_set() and all(stamps.num_tokens >= num_before for stamps in wave):
            decoding.set()

    async with _tasks() as group:
        for request, streams in zip(decoders, started, strict=True):
            group.create_task(follow(engine, request, streams, look))
        await decoding.wait()
        interrupting = new_stamps(late)
        group.create_task(follow(engine, late, interrupting))
    return [wave, interrupting]


@asynccontextmanager
async def _tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """Tasks that end together; the first error comes out as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def new_stamps(request: Request) -> Wave:
    """One for each continuation, sent now."""
    now = time.perf_counter()
    return [Stamps(now) for _ in range(request.num_forks)]


async def follow(engine: Engine, request: Request, streams: Wave, look: Callable[[], None] = lambda: None) -> None:
    """Stamp the tokens of `request` as they come, and `look` after each arrival."""
    async for index, num_tokens in engine.stream(request):
        streams[index].add(time.perf_counter(), num_tokens)
        look()
