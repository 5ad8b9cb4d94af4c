"""The engine loop without WebAssembly, host and gateway: what the tax of programmability is measured against."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from itertools import count
from typing import Any

from common import Stamps, Wave, waves_of
from own_core import driver_of
from workloads import Request, Workload

from pie_engine.config import ModelSection
from pie_engine.core.loop import Core
from pie_engine.driver.base import Driver, Row, RowResult
from pie_engine.hub.places import resolve
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import Plan
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import (
    Append,
    CloseProcess,
    CoreMessage,
    CreateContext,
    Delivered,
    Forward,
    Generate,
    OpenProcess,
)
from pie_engine.protocol.to_host import Charged, Chunk, CoreResult, Failed, Forwarded

HOST = "bench"


class TimedDriver:
    """A driver that knows how long its last step took and how many rows and tokens it had."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.last_s = 0.0
        self.last_rows = self.last_tokens = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def execute(self, rows: Sequence[Row]) -> list[RowResult]:
        started = time.perf_counter()
        results = self._driver.execute(rows)
        self.last_s = time.perf_counter() - started
        self.last_rows, self.last_tokens = len(rows), sum(len(row.tokens) for row in rows)
        return results


class BareCore:
    """The engine loop, driven inline. A token is stamped when the loop hands it out."""

    def __init__(self, section: ModelSection, tier: str) -> None:
        self._driver = TimedDriver(driver_of(section))
        self.overhead_s: list[float] = []
        """Of each step that decoded for all requests at once: what the loop took besides the driver."""
        self.capabilities = asdict(self._driver.capabilities)
        self._core = Core(self._driver, Tokenizer.load(resolve(section.path)), section)
        self.num_pages = self._core.pool.num_pages
        self._request_type = PlanRequest if tier == "plan" else PassRequest
        self._ids = count(1)

    def run(self, workload: Workload, *, in_waves: bool) -> list[Wave]:
        requests = workload.requests(self.capabilities["vocab_size"])
        waves = waves_of(requests, workload.concurrency, in_waves)
        return [self._run_wave(wave, workload.concurrency) for wave in waves]

    def _run_wave(self, requests: Sequence[Request], concurrency: int) -> Wave:
        waiting = deque(requests)
        running: dict[int, PlanRequest] = {}
        wave: Wave = []
        while waiting or running:
            while waiting and len(running) < concurrency:
                request = self._request_type(next(self._ids), waiting.popleft())
                running[request.id] = request
                self._core.receive(HOST, request.opening())
            now = self._step(concurrency)
            for result in self._core.take_outgoing().get(HOST, []):
                if isinstance(result, Charged):
                    continue
                request = running[result.op]
                self._core.receive(HOST, request.answer(result, now))
                if request.is_done:
                    wave.append(running.pop(result.op).stamps)
        return wave

    def _step(self, concurrency: int) -> float:
        started = time.perf_counter()
        self._core.step()
        now = time.perf_counter()
        if self._driver.last_rows == self._driver.last_tokens == concurrency:
            self.overhead_s.append(now - started - self._driver.last_s)
        self._driver.last_rows = 0
        return now


class PlanRequest:
    """One `generate`; context and operation have the id of the request."""

    def __init__(self, request_id: int, request: Request) -> None:
        self.id = request_id
        self.request = request
        self.sampler = Sampler(request.temperature, top_p=request.top_p) if request.temperature else Sampler()
        self.stamps = Stamps(time.perf_counter())

    @property
    def is_done(self) -> bool:
        return self.stamps.num_tokens >= self.request.output_len

    def opening(self) -> list[CoreMessage]:
        pid = str(self.id)
        return [OpenProcess(pid, "bench"), CreateContext(self.id, pid, self.request.seed), *self.first()]

    def first(self) -> list[CoreMessage]:
        plan = Plan(self.sampler, max_tokens=self.request.output_len, ignore_eos=True)
        return [Append(self.id, self.request.prompt), Generate(self.id, self.id, plan)]

    def answer(self, result: CoreResult, now: float) -> list[CoreMessage]:
        """Stamp what came, and say what a host would say then."""
        match result:
            case Failed():
                raise result.error.raised()
            case Chunk():
                self.stamps.add(now, len(result.ids))
                delivered = Delivered(self.id, result.epoch, self.stamps.num_tokens)
                return [CloseProcess(str(self.id)) if self.is_done else delivered]
            case Forwarded():
                self.stamps.add(now, 1)
                return [CloseProcess(str(self.id)) if self.is_done else self.next_pass([result.token or 0])]
        raise AssertionError(result)

    def next_pass(self, tokens: list[int]) -> CoreMessage:
        return Forward(self.id, self.id, tokens, self.sampler)


class PassRequest(PlanRequest):
    """A pass for each token."""

    def first(self) -> list[CoreMessage]:
        return [self.next_pass(self.request.prompt)]
