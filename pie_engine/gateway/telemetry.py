"""Sends traces to a collector of OpenTelemetry. Whatever becomes of that, nothing else notices."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import httpx

from pie_engine.gateway.process import Process
from pie_engine.gateway.spans import Json, export_request, spans_of
from pie_engine.protocol.collector import traces_url
from pie_engine.protocol.to_gateway import Generations
from pie_engine.protocol.version import pie_version

log = logging.getLogger(__name__)

MAX_WAITING = 1000
"""Traces that wait to be sent; of more the oldest are dropped."""
MAX_BATCH = 100
EVERY_S = 1.0
TIMEOUT_S = 5.0


class Telemetry:
    """Traces of processes that have ended."""

    def __init__(self, endpoint: str, *, every_s: float = EVERY_S) -> None:
        """`endpoint`: like `http://127.0.0.1:4318`. Raises `InvalidConfig` when it is none."""
        self._url = traces_url(endpoint)
        self._every_s = every_s
        self._started: dict[str, float] = {}
        self._told: dict[str, Generations] = {}
        self._waiting: deque[list[Json]] = deque(maxlen=MAX_WAITING)
        self._is_failing = False

    def started(self, process: Process, at: float) -> None:
        """Its host has begun with it."""
        self._started[process.pid] = at

    def tell(self, told: Generations) -> None:
        """What its host says of a process, right before its end."""
        self._told[told.pid] = told

    def ended(self, process: Process) -> None:
        started, told = self._started.pop(process.pid, None), self._told.pop(process.pid, None)
        try:
            self._waiting.append(spans_of(process, started, told))
        except Exception:
            log.exception("no trace of process %s", process.pid)

    async def run(self) -> None:
        """Until it is cancelled."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while True:
                await asyncio.sleep(self._every_s)
                while self._waiting:
                    await self._send(client)

    async def _send(self, client: httpx.AsyncClient) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        try:
            answer = await client.post(self._url, json=export_request(batch, pie_version()))
            answer.raise_for_status()
        except Exception as error:
            if not self._is_failing:
                log.warning("traces are lost: %s does not take them: %s", self._url, error or type(error).__name__)
            self._is_failing = True
            return
        if self._is_failing:
            log.warning("%s takes traces again", self._url)
        self._is_failing = False
