"""From launch to end: input, output, waits, and guests that are ahead of need."""

from __future__ import annotations

import json
import textwrap
import time

from pie_engine.protocol.program import Bundle, Manifest
from pie_engine.protocol.to_gateway import Described
from pie_engine.protocol.to_host import (
    Deliver,
    Describe,
    EventsSeen,
    EventsStored,
    Launch,
)
from tests.integration.host.inline_host import SLEEPER, WAITER, bundle

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


def test_a_module_that_nothing_imports_has_to_compile_where_that_is_asked_for(inline):
    files = {
        "main.py": "async def main(): ...\n",
        "pkg/newer.py": 'NAME = t"{1}"\n',
        "pkg/tests/data.py": "x = =\n",
        "pkg/late.py": "def late():\n    return = 3\n",
    }
    whole = Bundle(Manifest(name="whole"), files={path: files[path] for path in list(files)[:3]})
    broken = Bundle(Manifest(name="broken"), files=files)
    inline.host.receive_order(Describe(1, whole.digest, whole, compiles=True))
    inline.host.receive_order(Describe(2, broken.digest, broken, compiles=True))
    inline.host.receive_order(Describe(3, broken.digest, broken))
    inline.run_to_end()
    described = {report.request: report for report in inline.reports if isinstance(report, Described)}
    assert described[1].error is described[3].error is None
    error = described[2].error
    assert error is not None
    assert (error.code, error.message) == ("invalid_program", "SyntaxError in pkg/late.py, line 2: invalid syntax")
    assert (
        error.traceback == '  File "pkg/late.py", line 2\n    return = 3\n           ^\nSyntaxError: invalid syntax\n'
    )


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


# Guests ahead of need.


def test_a_warm_guest_is_as_good_as_new(inline):
    while not inline.host.guests.is_warm:
        inline.host.guests.warm_up()
    assert inline.host.guests.num_warm == 2
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
    assert inline.host.guests.num_warm == 0
