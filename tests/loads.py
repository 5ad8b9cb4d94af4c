"""Streams of snapshots as an engine under load gives them, made without one: always the same for the same arguments.

Three loads: `idle` (most programs wait for their clients), `saturated` (every batch is full, the pages are enough) and
`contended` (more context than pages: prices, rents, contexts that are moved out).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.stats import (
    Batches,
    Histogram,
    HostState,
    MarketState,
    ModelState,
    Pages,
    ProgramState,
    Requests,
    Snapshot,
)

Load = Literal["idle", "saturated", "contended"]
BEGIN = 1_800_000_000.0
NUM_PAGES = 4096
MAX_TOKENS, MAX_ROWS = 512, 64
STEP_S = {"idle": 0.009, "saturated": 0.034, "contended": 0.041}
PROGRAMS = ("chat", "agent", "tree-search", "summarise", "extract", "rag-cache", "debate")
OWNERS = ("ada", "grace", "edsger", "barbara", "alan")
BOUNDS = tuple(0.001 * 2**i for i in range(16))


@dataclass
class _Program:
    number: int
    born: float
    life_s: float
    state: str = "queued"
    why: str = ""
    until: float = 0.0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    num_pages: int = 0
    num_contexts: int = 1
    bid: int = 0
    balance: int = 1000 * CREDIT


COUNTS = ("prompt", "cached", "generated", "drafted", "accepted", "batch", "rent", "dividends", "made", "moved")


class Engine:
    """One model and two hosts; `step` moves the time on."""

    def __init__(self, load: Load, num_programs: int, *, seed: int = 0) -> None:
        self._load: Load = load
        self._random = random.Random(f"{load} {num_programs} {seed}")
        self._now = BEGIN
        self._num_made = 0
        self._programs: list[_Program] = []
        self._batches = dict.fromkeys(("steps", "prefill", "decode", "draft", "rows"), 0)
        self._step_s = self._gap_s = 0.0
        self._rent = self._price = self._made_pages = self._moved = self._preempted = 0
        self._hits = self._misses = 0
        self._ended = {"returned": 0, "failed": 0}
        self._ttft, self._tpot, self._queue = ([0] * (len(BOUNDS) + 1) for _ in range(3))
        self._num_programs = num_programs
        self.last: Snapshot | None = None
        """The newest one."""
        for _ in range(num_programs):
            self._launch(age_s=self._random.uniform(5, 400))

    def stream(self, num: int, every_s: float = 0.1) -> Iterator[Snapshot]:
        for _ in range(num):
            yield self.step(every_s)

    def step(self, seconds: float) -> Snapshot:
        self._now += seconds
        self._churn()
        self._change_states()
        self._run(seconds)
        self.last = self._snapshot()
        return self.last

    def _launch(self, age_s: float = 0.0) -> None:
        self._num_made += 1
        program = _Program(self._num_made, self._now - age_s, age_s + self._random.uniform(20, 600))
        program.bid = round(self._random.lognormvariate(0, 0.8) * 0.02 * CREDIT)
        if age_s:
            self._begin(program, age_s)
        self._programs.append(program)

    def _begin(self, program: _Program, age_s: float = 0.0) -> None:
        draw, counts = self._random, program.counts
        program.state, program.until = "running", self._now + draw.uniform(1, 8)
        prompt = draw.randrange(64, 2048)
        cached = 16 * draw.randrange(0, prompt // 16)
        counts["prompt"] += prompt
        counts["cached"] += cached
        self._hits += cached // 16
        self._misses += (prompt - cached) // 16 + 1
        counts["generated"] += round(age_s * draw.uniform(5, 30))
        # What has run since the core began is in its batches as well, by and by.
        counts["batch"] += counts["generated"]
        if program.number % 4 == 0:
            counts["drafted"] += counts["generated"] // 2
            counts["accepted"] += round(counts["drafted"] * draw.uniform(0.3, 0.8))
        if program.number % 5 == 0:
            program.num_contexts = draw.randrange(2, 24)
        share = {"idle": 0.1, "saturated": 0.6, "contended": 1.05}[self._load] * NUM_PAGES / max(self._num_programs, 1)
        program.num_pages = max(round(share * draw.uniform(0.3, 1.7)), 1)
        counts["made"] += program.num_pages
        self._made_pages += program.num_pages
        program.balance -= min(program.num_pages, 900) * CREDIT
        self._ttft[draw.randrange(4, 9)] += 1
        self._queue[draw.randrange(1, 5)] += 1

    def _churn(self) -> None:
        for program in [each for each in self._programs if self._now - each.born > each.life_s]:
            self._programs.remove(program)
            self._ended["failed" if program.number % 23 == 0 else "returned"] += 1
        while len(self._programs) < self._num_programs:
            self._launch()

    def _change_states(self) -> None:
        draw = self._random
        waits = {
            "idle": ("waiting: timer", "waiting: client", "waiting: client", "computing"),
            "saturated": ("running", "running", "waiting: batch", "waiting: consumer"),
            "contended": ("running", "waiting: pages", "waiting: batch", "waiting: client", "waiting: credits"),
        }[self._load]
        for program in self._programs:
            if program.state == "queued":
                if self._now - program.born > 0.3:
                    self._begin(program)
            elif self._now >= program.until:
                is_new = program.state != "running" or self._load == "idle"
                program.state = draw.choice(waits) if not is_new or draw.random() < 0.5 else "running"
                program.until = self._now + draw.uniform(1, 6)
                program.why = ""
                if program.state == "waiting: client":
                    program.why = "to send a message"
                if program.state == "waiting: pages":
                    program.why = f"{draw.randrange(2, 40)} pages; most are held by tree-search"
                    program.counts["moved"] += 1
                    self._moved += 1
                    self._preempted += 1

    def _run(self, seconds: float) -> None:
        running = [each for each in self._programs if each.state == "running"]
        steps = max(round(seconds / STEP_S[self._load] * (0.15 if self._load == "idle" else 0.95)), 1) if running else 0
        rows = running[:MAX_ROWS]
        self._batches["steps"] += steps
        self._batches["rows"] += steps * len(rows)
        self._step_s += steps * STEP_S[self._load]
        self._gap_s += steps * 0.0004
        prefill = steps * self._random.randrange(40, 220) if self._load != "idle" else 0
        self._batches["prefill"] += prefill
        for program in rows:
            tokens = steps
            program.counts["generated"] += tokens
            program.counts["batch"] += tokens + prefill // len(rows)
            self._batches["decode"] += tokens
            if program.number % 4 == 0:
                program.counts["drafted"] += 2 * tokens
                program.counts["accepted"] += round(1.1 * tokens)
                self._batches["draft"] += 2 * tokens
                program.counts["batch"] += 2 * tokens
        self._tpot[5 if self._load != "idle" else 3] += len(rows)
        if self._load == "contended":
            self._settle(steps)

    def _settle(self, steps: int) -> None:
        self._price = round((0.02 + 0.01 * self._random.random()) * CREDIT / 100)
        holders = [each for each in self._programs if each.num_pages]
        total = 0
        for program in holders:
            rent = self._price * program.num_pages * steps // 20
            program.counts["rent"] += rent
            program.balance -= rent
            total += rent
        self._rent += total
        for program in self._programs:
            program.counts["dividends"] += total // len(self._programs)
            program.balance += total // len(self._programs)

    def _snapshot(self) -> Snapshot:
        seconds = self._now - BEGIN
        held = sum(each.num_pages for each in self._programs)
        num_used = min(held, NUM_PAGES - 24)
        num_queued = sum(each.state == "queued" for each in self._programs)
        model = ModelState(
            "qwen-3-8b",
            "core-1",
            True,
            "cuda",
            "cuda:0",
            "bfloat16",
            3600 + seconds,
            600 + 0.8 * seconds,
            3 << 30,
            {"idle": 0.12, "saturated": 0.97, "contended": 0.98}[self._load],
            61 << 30,
            self._batches_of(),
            Pages(
                16,
                NUM_PAGES,
                NUM_PAGES - num_used,
                min(NUM_PAGES - num_used, 900),
                1024,
                min(max(held - num_used, 0), 1024),
                self._hits,
                self._misses,
                self._preempted,
                self._preempted // 2,
            ),
            MarketState("market", self._price, self._rent, self._made_pages, self._moved),
            self._batches_of().num_tokens,
        )
        hosts = tuple(
            HostState(name, f"{name}-1", len(self._programs) // 2, 3, cpu * seconds, 400 << 20)
            for name, cpu in (("host-0", 0.4), ("host-1", 0.3))
        )
        requests = Requests(
            self._num_made,
            num_queued,
            len(self._programs) - num_queued,
            self._ended["returned"],
            self._ended["failed"],
            {"cpu_limit": self._ended["failed"]} if self._ended["failed"] else {},
            *(Histogram(BOUNDS, tuple(counts), 0.0) for counts in (self._ttft, self._tpot, self._queue)),
        )
        programs = tuple(map(_state, self._programs))
        return Snapshot(self._now, "gateway-1", 3600 + seconds, "0.1.0", 1, (model,), hosts, programs, requests)

    def _batches_of(self) -> Batches:
        counts = self._batches
        rows = min(sum(each.state == "running" for each in self._programs), MAX_ROWS)
        return Batches(
            counts["steps"],
            counts["prefill"],
            counts["decode"],
            counts["draft"],
            counts["rows"],
            rows,
            self._step_s,
            self._gap_s,
            MAX_TOKENS,
            MAX_ROWS,
        )


def _state(program: _Program) -> ProgramState:
    counts, number = program.counts, program.number
    return ProgramState(
        f"{number * 2654435761 % 2**32:08x}",
        OWNERS[number % len(OWNERS)],
        PROGRAMS[number % len(PROGRAMS)],
        f"1.{number % 3}.0",
        program.state,
        program.born,
        "qwen-3-8b",
        f"host-{number % 2}",
        program.why,
        program.num_contexts,
        program.num_pages,
        program.num_pages // 3 if program.num_contexts > 1 else 0,
        program.num_pages // 2 if program.state == "waiting: pages" else 0,
        counts["prompt"],
        counts["cached"],
        counts["generated"],
        counts["drafted"],
        counts["accepted"],
        counts["batch"],
        program.bid,
        program.balance,
        1000 * CREDIT,
        counts["rent"],
        counts["dividends"],
        counts["made"],
        counts["moved"],
    )
