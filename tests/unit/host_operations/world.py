"""A process of a host with one core, whose messages the test reads and whose answers it gives."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path

import msgspec

from pie_engine.config import HostSection
from pie_engine.host.cores import Cores
from pie_engine.host.interfaces import context as contexts
from pie_engine.host.interfaces import generate
from pie_engine.host.models import HostModel, unpack_tokens
from pie_engine.host.process import Job, Process
from pie_engine.host.programs import Program
from pie_engine.protocol.plan import Plan, Usage
from pie_engine.protocol.program import Bundle, Limits, Manifest
from pie_engine.protocol.to_core import (
    CreateContext,
    Generate,
    OpenProcess,
)
from pie_engine.protocol.to_host import Chunk
from pie_engine.store.contexts import SavedContexts

PLAN = {
    "sampler": {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "more": None},
    "max_tokens": 9,
    "stop": ["x"],
    "stop_tokens": [],
    "ignore_eos": False,
    "seed": None,
    "logprobs": False,
    "top_logprobs": 0,
    "entropy": False,
    "chunk_ms": 20,
}


class Services:
    """A host for one process."""

    def __init__(self) -> None:
        self.cores = Cores(["tiny", "other"])
        self.saved = SavedContexts(Path(tempfile.mkdtemp(prefix="pie-t-")))
        self.ids = count(1)
        self.ready: list[Process] = []

    def next_id(self) -> int:
        return next(self.ids)

    def make_ready(self, process: Process) -> None:
        self.ready.append(process)

    def wake_after(self, process: Process, timeout_us: int) -> None:
        raise AssertionError

    def has_output(self, process: Process) -> None:
        pass


class World:
    """A process with one core, whose messages are read and whose answers are given by the test."""

    def __init__(self, **limits: float) -> None:
        self.services = Services()
        self.services.cores.add("boot", HostModel("tiny", 100, 64, 16, None, None, "id-1"))  # type: ignore[arg-type]
        self.core = self.services.cores.of_model("")
        program = Program("d", Bundle(Manifest(name="p", limits=Limits(**limits)), files={"main.py": ""}))  # type: ignore[arg-type]
        job = Job("pid", "ann", program, "run", ("{}",), lambda _process, _ending: None)
        self.process = Process(job, self.services, HostSection())
        self.ctx = contexts.create(self.process, "", 7, "")
        assert self.sent() == [OpenProcess("pid", "p", "ann", endowment=0), CreateContext(self.ctx, "pid", 7)]

    def sent(self):
        return self.core.take_outgoing()

    def answer(self, result) -> None:
        operation = self.core.operations.get(result.op)
        if operation is not None:
            operation.receive(result)

    def chunk(self, op, ids, index, *, epoch=0, text=None, finish=None) -> None:
        usage = Usage(3, 0, index + len(ids)) if finish else None
        words = "".join(f"<{token}>" for token in ids) if text is None else text
        self.answer(Chunk(op, epoch, ids, words, index, finish=finish, usage=usage))

    def stream(self) -> int:
        op = generate.start(self.process, self.ctx, msgspec.to_builtins(PLAN))
        assert self.sent()[-1] == Generate(op, self.ctx, Plan(max_tokens=9, stop=["x"]))
        return op

    def tokens(self, ctx=None) -> list[int]:
        return unpack_tokens(contexts.tokens(self.process, ctx or self.ctx, 0, 1000))

    def ready(self) -> list[int]:
        return self.process.futures.take_ready()
