"""A host with the real runtime in the real sandbox, inline: no sockets, and a core that the test plays.

Everything runs on both runners: what hosts use, and the fallback behind the same seam.
"""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from pie_engine.config import MIB, EngineConfig, HostSection, ModelSection
from pie_engine.errors import ErrorInfo
from pie_engine.host.components import ComponentRunners
from pie_engine.host.engine import Ticker, new_engine
from pie_engine.host.fibres import FibreRunner
from pie_engine.host.host import Host
from pie_engine.host.imports import Imports
from pie_engine.host.interfaces import INTERFACES
from pie_engine.host.models import HostModel
from pie_engine.host.runtime import load_runtime
from pie_engine.host.threads import ThreadRunner
from pie_engine.host.warm import WarmGuests
from pie_engine.protocol.program import Bundle, Limits, Manifest
from pie_engine.protocol.to_core import CoreMessage, Flush, Generate, Save
from pie_engine.protocol.to_gateway import Described, Event, HostReport, Registered
from pie_engine.protocol.to_host import (
    Chunk,
    CoreResult,
    Deliver,
    Describe,
    EventsSeen,
    EventsStored,
    Flushed,
    Launch,
    Saved,
    SaveFailed,
    Terminate,
)

CACHE = Path(__file__).parents[2] / "build" / "test-cache"
TIMEOUT_S = 30
CONFIG = EngineConfig(models=(ModelSection(name="tiny"),), host=HostSection(cancel_grace_s=0.3, gateway_grace_s=0.2))
SLEEPER = """
import asyncio
async def main(turns: int = 20) -> int:
    for _ in range(turns):
        await asyncio.sleep(0.01)
    return turns
"""
WAITER = """
from inferlet import session
async def main() -> str:
    return await session.receive()
"""
BUSY = "async def main() -> None:\n    while True:\n        pass\n"


def bundle(source: str, files: dict[str, str] | None = None, **limits: float) -> Bundle:
    main = {"main.py": textwrap.dedent(source)}
    return Bundle(Manifest(name="p", version="1.0", limits=Limits(**limits)), files=main | (files or {}))  # type: ignore[arg-type]


def resident_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


class InlineHost:
    """A host, its gateway and, if asked for, a core, in one thread."""

    def __init__(self, runner_class, engine, component, data: Path) -> None:
        self.ticker = Ticker(engine)

        def new_runner(component):
            return runner_class(self.ticker, component, Imports(INTERFACES), CONFIG.host.memory_mb * MIB)

        warm = WarmGuests(new_runner(component), data, 2)
        self.host = Host(CONFIG, warm, ComponentRunners(engine, data, new_runner))
        self.reports: list[HostReport] = []
        self.asked: list[CoreMessage] = []
        self._numbers = count(1)

    def launch(self, source: str | Bundle, **arguments: object) -> str:
        pid = f"p{next(self._numbers)}"
        program = bundle(source) if isinstance(source, str) else source
        self.host.receive_order(Launch(pid, "ann", program.digest, program, json.dumps(arguments)))
        return pid

    def turn(self) -> None:
        self.host.run(0.002)
        self.reports += self.host.take_reports()
        for messages in self.host.take_messages().values():
            self.asked += messages
        self.host.bury()

    def until(self, condition) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end, "not in time"
            self.turn()
            if not self.host.has_ready:
                time.sleep(0.001)

    def run_to_end(self) -> None:
        self.until(lambda: not self.host.processes)
        self.turn()

    def events(self, pid: str) -> list[tuple[str, object]]:
        events = [report for report in self.reports if isinstance(report, Event) and report.pid == pid]
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        return [(event.kind, json.loads(event.data)) for event in events]

    def ending(self, pid: str) -> tuple[str, object]:
        """The terminal event, which there is exactly one of, and which is the last."""
        events = self.events(pid)
        assert [kind for kind, _ in events if kind in ("return", "error")] == [events[-1][0]]
        return events[-1]

    def run(self, source: str | Bundle, **arguments: object) -> tuple[str, object]:
        pid = self.launch(source, **arguments)
        self.run_to_end()
        return self.ending(pid)

    def error(self, source: str | Bundle, **arguments: object) -> ErrorInfo:
        kind, data = self.run(source, **arguments)
        assert kind == "error", data
        assert isinstance(data, dict)
        return ErrorInfo(**data)

    def add_core(self) -> None:
        self.host.add_core("boot", HostModel("tiny", 1000, 1000, 16, None, None))  # type: ignore[arg-type]

    def answer(self, *results: CoreResult) -> None:
        self.host.receive_results("boot", results)

    def close(self) -> None:
        self.host.close()
        self.ticker.close()


@pytest.fixture(scope="module")
def engine():
    return new_engine()


@pytest.fixture(scope="module")
def component(engine):
    return load_runtime(engine, CACHE, lambda _text, _fraction: None)


@pytest.fixture(params=[FibreRunner, ThreadRunner], ids=["fibres", "threads"])
def inline(request, engine, component, tmp_path) -> Iterator[InlineHost]:
    inline = InlineHost(request.param, engine, component, tmp_path)
    yield inline
    inline.close()


# From launch to end.


def test_a_program_runs_with_its_input_and_its_output_is_in_order(inline):
    source = """
    from inferlet import session
    async def main(n: int) -> int:
        print("first")
        session.send({"second": n})
        print("third")
        return n + 1
    """
    pid = inline.launch(source, n=41)
    inline.run_to_end()
    assert inline.events(pid) == [
        ("started", {"program": "p", "version": "1.0"}),
        ("stdout", "first\n"),
        ("message", {"second": 41}),
        ("stdout", "third\n"),
        ("return", 42),
    ]


def test_launching_twice_runs_once(inline):
    program = bundle("async def main() -> int:\n    return 1\n")
    order = Launch("pid", "ann", program.digest, program, "{}")
    for _ in range(2):
        inline.host.receive_order(order)
    inline.run_to_end()
    inline.host.receive_order(order)
    inline.host.receive_order(EventsStored("pid", 2))
    inline.host.receive_order(order)
    inline.run_to_end()
    assert inline.events("pid") == [("started", {"program": "p", "version": "1.0"}), ("return", 1)]


def test_an_exception_ends_its_own_program_only(inline):
    neighbour = inline.launch(SLEEPER)
    error = inline.error("async def main() -> None:\n    {}['key']\n")
    assert (error.code, error.message) == ("exception", "KeyError: 'key'")
    assert 'File "main.py", line 2, in main' in error.traceback
    assert inline.ending(neighbour) == ("return", 20)


def test_compiled_code_is_kept_for_the_next_launch(inline):
    program = bundle("import util\nasync def main() -> int:\n    return util.N\n", {"util.py": "N = 5\n"})
    for _ in range(2):
        assert inline.run(program) == ("return", 5)
    kept = inline.host._programs.get("ann", program.digest, program)
    assert json.loads(kept.text())["code"].keys() == {"main.py", "util.py"}


def test_data_files_are_there_and_read_only(inline):
    source = """
    async def main() -> list:
        try:
            open("words.txt", "w")
        except OSError as error:
            return [open("words.txt").read(), open("/sub/more.bin", "rb").read().hex(), type(error).__name__]
    """
    program = Bundle(
        Manifest(name="p"),
        files={"main.py": textwrap.dedent(source), "words.txt": "one two"},
        blobs={"sub/more.bin": b"\0\xff"},
    )
    kind, value = inline.run(program)
    assert kind == "return", value
    assert value[:2] == ["one two", "00ff"]


def test_nothing_of_this_machine_can_be_seen(inline):
    source = """
    import os
    async def main() -> list:
        return [os.listdir("/"), dict(os.environ)]
    """
    assert inline.run(source) == ("return", [[], {}])


def test_a_program_is_described_without_a_process(inline):
    program = bundle('async def main(n: int, name: str = "x") -> int:\n    """Count."""\n    return n\n')
    inline.host.receive_order(Describe(5, program.digest, program))
    inline.host.receive_order(Describe(6, "other", bundle("x = 1\n")))
    inline.run_to_end()
    described = {report.request: report for report in inline.reports if isinstance(report, Described)}
    assert len(inline.reports) == 2
    signature, error = described[5].signature, described[6].error
    assert signature is not None
    assert [(p.name, p.required) for p in signature.parameters] == [("n", True), ("name", False)]
    assert error is not None
    assert error.code == "invalid_program"


def test_a_bundle_with_a_bad_path_still_ends_properly(inline):
    program = Bundle(Manifest(name="p"), files={"main.py": "", "../x.txt": ""})
    assert inline.error(program).code == "invalid_program"


# Waiting.


def test_many_timers_of_many_programs(inline):
    started = time.monotonic()
    pids = [inline.launch(SLEEPER, turns=10) for _ in range(20)]
    inline.run_to_end()
    assert {inline.ending(pid) for pid in pids} == {("return", 10)}
    assert time.monotonic() - started < 10


def test_messages_wake_a_program_and_are_kept_until_it_asks(inline):
    pid = inline.launch(WAITER)
    inline.host.receive_order(Deliver(pid, 1, '"early"'))
    later = inline.launch(WAITER)
    for _ in range(20):
        inline.turn()
    inline.host.receive_order(Deliver(later, 1, '"late"'))
    inline.run_to_end()
    assert (inline.ending(pid), inline.ending(later)) == (("return", "early"), ("return", "late"))


def test_drain_waits_until_a_client_has_seen_everything(inline):
    source = """
    from inferlet import session
    async def main() -> None:
        session.send("a")
        print("b")
        await session.drain()
    """
    pid = inline.launch(source)
    inline.until(lambda: any(kind == "stdout" for kind, _ in inline.events(pid)))
    inline.host.receive_order(EventsSeen(pid, 2))
    for _ in range(20):
        inline.turn()
    assert inline.host.processes
    inline.host.receive_order(EventsSeen(pid, 3))
    inline.run_to_end()
    assert inline.ending(pid) == ("return", None)


def test_waiting_for_nothing_is_an_error(inline):
    error = inline.error("import asyncio\nasync def main() -> None:\n    await asyncio.Event().wait()\n")
    assert "deadlock" in error.message


# Limits.


def test_a_busy_program_is_ended_at_its_cpu_limit_and_its_neighbours_go_on(inline):
    neighbours = [inline.launch(SLEEPER, turns=30) for _ in range(4)]
    error = inline.error(bundle(BUSY, cpu_s=0.3))
    assert error.code == "cpu_limit"
    assert {inline.ending(pid) for pid in neighbours} == {("return", 30)}


def test_calls_to_the_host_are_what_a_busy_program_is_measured_by(inline):
    source = """
    import asyncio, time
    async def main() -> int:
        n, end = 0, time.monotonic() + 0.8
        while time.monotonic() < end:
            n += 1
            if n % 1000 == 0:
                await asyncio.sleep(0)
                print("here")
        return 1
    """
    assert inline.run(bundle(source, cpu_s=0.4)) == ("return", 1)


def test_memory_is_bounded_and_the_limit_is_named(inline):
    source = "async def main() -> int:\n    return len(bytearray(100_000_000))\n"
    error = inline.error(bundle(source, memory_mb=64))
    assert error.code == "memory_limit"
    assert "64 MB" in error.message
    assert "`memory_mb` under [limits] in pie.toml, up to the engine's 256" in error.hint
    assert inline.run(source) == ("return", 100_000_000)


def test_a_program_that_asks_for_more_than_the_engine_gives_is_warned_and_told_whose_limit_it_met(inline):
    source = "async def main() -> int:\n    return len(bytearray(300_000_000))\n"
    pid = inline.launch(bundle(source, memory_mb=512))
    inline.run_to_end()
    (_, warning), (_, error) = inline.events(pid)[1:]
    assert warning == {
        "level": "warning",
        "message": "pie.toml asks for `memory_mb` 512, and the engine gives 256; "
        "raise `memory_mb` under [host] in the configuration",
    }
    assert error["code"] == "memory_limit"
    assert "256 MB" in error["message"]
    assert "`memory_mb` under [host]" in error["hint"]
    assert "pie.toml" not in error["hint"]


def test_output_over_the_limit_ends_the_program_even_if_it_does_not_mind(inline):
    source = """
    from inferlet import session
    async def main() -> str:
        for n in range(100):
            try:
                session.send("x" * 10_000)
            except Exception:
                pass
        return "swallowed"
    """
    pid = inline.launch(bundle(source, output_mb=0.1))
    inline.run_to_end()
    kind, data = inline.ending(pid)
    assert (kind, data["code"]) == ("error", "output_limit")
    assert len(inline.events(pid)) == 12


def test_wall_time_is_bounded(inline):
    assert inline.error(bundle(SLEEPER, wall_s=0.1)).code == "wall_limit"


# Ends that the program does not choose.


def test_a_terminated_program_may_clean_up(inline):
    source = """
    import asyncio
    async def main() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            print("tidy")
    """
    pid = inline.launch(source)
    inline.until(lambda: not inline.host.has_ready and inline.host.processes[pid].is_waiting)
    for _ in range(2):
        inline.host.receive_order(Terminate(pid))
    inline.run_to_end()
    kind, data = inline.ending(pid)
    assert ("stdout", "tidy\n") in inline.events(pid)
    assert (kind, data["code"]) == ("error", "cancelled")


@pytest.mark.parametrize(
    "source",
    [
        BUSY,
        """
        import asyncio
        async def main() -> None:
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass
        """,
    ],
    ids=["busy", "stubborn"],
)
def test_one_that_does_not_end_is_killed_after_the_grace(inline, source):
    pid = inline.launch(source)
    for _ in range(20):
        inline.turn()
    inline.host.receive_order(Terminate(pid))
    inline.run_to_end()
    kind, data = inline.ending(pid)
    assert (kind, data["code"]) == ("error", "cancelled")
    assert inline.run("async def main() -> int:\n    return 1\n") == ("return", 1)


def test_one_that_has_not_begun_is_not_begun(inline):
    pid = inline.launch("async def main() -> None:\n    print('ran')\n")
    inline.host.receive_order(Terminate(pid))
    inline.run_to_end()
    assert [kind for kind, _ in inline.events(pid)] == ["started", "error"]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("os.abort()", "unreachable"),
        ("os._exit(0)", "exit status 0"),
        ("os._exit(3)", "exit status other than 0"),
    ],
)
def test_a_trap_ends_its_own_program_only(inline, how, words):
    neighbour = inline.launch(SLEEPER)
    error = inline.error(f"import os\nasync def main() -> None:\n    {how}\n")
    assert error.code == "exception"
    assert "broke off" in error.message
    assert words in error.message
    assert inline.ending(neighbour) == ("return", 20)


@pytest.mark.parametrize("how", ["session.send('a\\ud801')", "return 'a\\ud801'", "raise ValueError('a\\ud801')"])
def test_half_a_character_is_named_whichever_way_it_leaves(inline, how):
    error = inline.error(f"from inferlet import session\nasync def main() -> str:\n    {how}\n    return ''\n")
    assert "\\ud801" in error.message or error.message == "ValueError: a?"
    assert "truncated" not in error.message


def test_endless_recursion_is_an_exception(inline):
    error = inline.error("def f() -> int:\n    return f() + 1\nasync def main() -> int:\n    return f()\n")
    assert "RecursionError" in error.message


def test_guests_come_and_go_without_a_trace(inline):
    program = bundle("async def main() -> None:\n    pass\n")
    for _ in range(20):
        inline.run(program)
    before = resident_kb()
    for _ in range(60):
        inline.run(program)
    assert resident_kb() - before < 6000


def test_the_memory_of_a_crowd_goes_back(inline):
    before = resident_kb()
    for _ in range(60):
        inline.launch(SLEEPER, turns=1000)
    inline.until(lambda: not inline.host.has_ready)
    inline.host.end_all(ErrorInfo("lost", "all at once"))
    inline.turn()
    inline.host.tidy_up()
    assert resident_kb() - before < 10_000


def test_programs_in_every_state_can_be_dropped_at_once(inline):
    for source in (SLEEPER, WAITER, BUSY, SLEEPER, WAITER, BUSY):
        inline.launch(source)
    for _ in range(20):
        inline.turn()
    inline.launch(WAITER)
    inline.host.end_all(ErrorInfo("lost", "all at once"))
    inline.turn()
    endings = [report for report in inline.reports if isinstance(report, Event) and report.is_terminal]
    assert len(endings) == 7
    assert not inline.host.processes


def test_a_save_that_failed_behind_its_answer_is_logged(inline):
    inline.add_core()
    source = """
    from inferlet import Context, session
    async def main() -> None:
        ctx = Context()
        ctx.append([1])
        await ctx.save("tale", durable=False)
        await session.receive()
    """
    pid = inline.launch(source)
    inline.until(lambda: any(isinstance(message, Save) for message in inline.asked))
    save = next(message for message in inline.asked if isinstance(message, Save))
    assert not save.durable
    full = ErrorInfo("disk_limit", "the disk is full")
    inline.answer(Saved(save.op), SaveFailed(save.op, pid, "tale", full), SaveFailed(9, "p-ended", "tale", full))
    inline.host.receive_order(Deliver(pid, 1, "1"))
    inline.run_to_end()
    logged = {"level": "error", "message": "context `tale` could not be saved: the disk is full"}
    assert inline.events(pid)[1:] == [("log", logged), ("return", None)]


# Neighbours that die.


def test_a_dead_core_ends_the_programs_that_hold_something_there(inline):
    inline.add_core()
    source = """
    from inferlet import Context
    async def main() -> None:
        with Context() as ctx:
            ctx.append([1, 2, 3])
            await ctx.flush()
    """
    bystander = inline.launch(WAITER)
    holder = inline.launch(source)
    inline.until(lambda: any(isinstance(message, Flush) for message in inline.asked))
    inline.host.lose_core("boot")
    inline.turn()
    kind, data = inline.ending(holder)
    assert (kind, data["code"]) == ("error", "core_lost")
    assert "tiny" in data["message"]
    inline.answer(Flushed(1))
    inline.host.receive_order(Deliver(bystander, 1, '"on"'))
    inline.run_to_end()
    assert inline.ending(bystander) == ("return", "on")


def test_a_stream_reaches_the_program_chunk_by_chunk(inline):
    inline.add_core()
    source = """
    from inferlet import Context
    async def main() -> list:
        with Context() as ctx:
            ctx.append([1])
            return [chunk.text async for chunk in ctx.generate(max_tokens=3)] + [ctx.length]
    """
    pid = inline.launch(source)
    inline.until(lambda: any(isinstance(message, Generate) for message in inline.asked))
    op = next(message.op for message in inline.asked if isinstance(message, Generate))
    inline.answer(Chunk(op, 0, [5], "a", 0))
    for _ in range(10):
        inline.turn()
    inline.answer(Chunk(op, 0, [6], "b", 1), Chunk(op, 0, [7], "c", 2, finish="length"))
    inline.run_to_end()
    kind, value = inline.ending(pid)
    assert kind == "return", value
    assert "".join(value[:-1]) == "abc"
    assert value[-1] == 4


def test_a_new_gateway_hears_everything_that_may_not_be_stored(inline):
    pid = inline.launch(WAITER)
    done = inline.launch("async def main() -> int:\n    return 1\n")
    inline.until(lambda: len(inline.host.processes) == 1)
    inline.turn()
    inline.host.receive_order(EventsStored(pid, 1))
    inline.host.lose_gateway()
    inline.host.receive_order(Deliver(pid, 1, "2"))
    inline.run_to_end()
    registered, *events = inline.host.gain_gateway()
    assert isinstance(registered, Registered)
    assert set(registered.pids) == {pid, done}
    assert {(event.pid, event.seq) for event in events} == {(pid, 2), (done, 1), (done, 2)}
    for known in (pid, done):
        inline.host.receive_order(EventsStored(known, 2))
    assert inline.host.gain_gateway() == [Registered([])]


def test_without_a_gateway_programs_end_after_the_grace(inline):
    pid = inline.launch(WAITER)
    inline.turn()
    inline.host.lose_gateway()
    inline.run_to_end()
    kind, data = inline.ending(pid)
    assert (kind, data["code"]) == ("error", "lost")


# Guests ahead of need.


def test_a_warm_guest_is_as_good_as_new(inline):
    while not inline.host.is_warm:
        inline.host.warm_up()
    assert inline.host.num_warm == 2
    source = """
    import random, sys
    async def main() -> list:
        print("hi")
        return ["main" in sys.modules, "part" in sys.modules, random.random()]
    """
    pids = [inline.launch(source) for _ in range(4)]  # two warm ones, two new ones
    inline.run_to_end()
    values = [inline.ending(pid)[1] for pid in pids]
    assert [value[:2] for value in values] == [[True, False]] * 4
    assert len({value[2] for value in values}) == 4
    assert inline.events(pids[0]) == [*inline.events(pids[3])[:2], inline.events(pids[0])[2]]
    assert inline.host.num_warm == 0


# Standalone components.

STANDALONE = """
(component
  (core module $module
    (memory (export "memory") 1)
    (data (i32.const 64) "[42]")
    (data (i32.const 96) "{\\22doc\\22:\\22Answer.\\22}")
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func $text (param $data i32) (param $size i32) (result i32)
      (i32.store (i32.const 4) (local.get $data))
      (i32.store (i32.const 8) (local.get $size))
      (i32.const 0))
    (func (export "describe") (param i32 i32) (result i32) (call $text (i32.const 96) (i32.const 17)))
    (func (export "run") (param i32 i32 i32 i32) (result i32) (call $text (i32.const 64) (i32.const 4)))
  )
  (core instance $core (instantiate $module))
  (alias core export $core "memory" (core memory $memory))
  (alias core export $core "realloc" (core func $realloc))
  (alias core export $core "describe" (core func $describe'))
  (alias core export $core "run" (core func $run'))
  (func $describe (param "bundle" string) (result (result string (error string)))
    (canon lift (core func $describe') (memory $memory) (realloc $realloc)))
  (func $run (param "bundle" string) (param "input" string) (result (result string (error string)))
    (canon lift (core func $run') (memory $memory) (realloc $realloc)))
  (instance $program (export "describe" (func $describe)) (export "run" (func $run)))
  (export "pie:core/program@0.1.0" (instance $program))
)
"""


def standalone(wasm: bytes) -> Bundle:
    return Bundle(Manifest(name="p", version="1.0", runtime="component"), blobs={"program.wasm": wasm})


def test_a_standalone_component_is_compiled_once_and_run(inline, tmp_path):
    program = standalone(bytes(wat2wasm(STANDALONE)))
    inline.host.receive_order(Describe(1, program.digest, program))
    pids = [inline.launch(program) for _ in range(3)]
    inline.run_to_end()
    assert [inline.ending(pid) for pid in pids] == [("return", [42])] * 3
    described = next(report for report in inline.reports if isinstance(report, Described))
    assert described.signature is not None
    assert described.signature.doc == "Answer."
    assert len(list((tmp_path / "components").iterdir())) == 1


@pytest.mark.parametrize(
    ("wasm", "words"),
    [(b"no wasm", "no WebAssembly component"), (bytes(wat2wasm("(component)")), "does not export"), (b"", "no WebAss")],
)
def test_what_is_no_program_is_refused(inline, wasm, words):
    error = inline.error(standalone(wasm))
    assert error.code == "invalid_program"
    assert words in error.message


def test_a_bundle_without_its_component_is_refused(inline):
    error = inline.error(Bundle(Manifest(name="p", runtime="component")))
    assert (error.code, "program.wasm" in error.message) == ("invalid_program", True)
