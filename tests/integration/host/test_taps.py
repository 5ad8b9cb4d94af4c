"""What a tap sees of a program, and how it leaves the host."""

from __future__ import annotations

import base64
import json
import zlib

import msgspec
import pytest

from pie_engine.config import HostSection
from pie_engine.host.events import EventLog
from pie_engine.host.trace import TraceWriter
from pie_engine.protocol.to_host import NO_SECRETS, Deliver, Launch, Secrets
from tests.integration.host.inline_host import bundle

TALKER = """
from inferlet import session, Model
async def main(n: int = 1) -> str:
    for i in range(n):
        session.send([i, await session.receive()])
    try:
        Model("none").tokenizer.encode("x")
    except Exception as error:
        return str(error)
"""


def entries_of(events) -> list[list]:
    """Of all events of kind `trace`."""
    entries = []
    for kind, data in events:
        if kind == "trace":
            assert (data["tap"], data["version"]) == ("record", 1)
            part = msgspec.msgpack.decode(zlib.decompress(base64.b64decode(data["data"])))
            assert len(part) == data["entries"]
            entries += part
    return entries


def launch(inline, program, trace=("record",), **arguments) -> str:
    pid = f"t{len(inline.reports)}"
    inline.host.receive_order(Launch(pid, "ann", program.digest, program, json.dumps(arguments), NO_SECRETS, trace))
    return pid


def test_a_recording_has_every_call_its_result_and_the_waits(inline):
    program = bundle(TALKER)
    pid = launch(inline, program, n=2)
    inline.host.receive_order(Deliver(pid, 1, '"first"'))
    inline.host.receive_order(Deliver(pid, 2, '"second"'))
    inline.run_to_end()
    head, *entries = entries_of(inline.events(pid))
    assert head[0] == "head"
    assert head[1]["digest"] == program.digest
    assert head[1]["arguments"] == ['{"n": 2}']
    assert head[1]["bundle"]["files"] == program.files
    calls = [(entry[0], entry[3]) for entry in entries if entry[0] in ("call", "fail")]
    assert calls.count(("call", "session.receive")) == calls.count(("call", "session.finish-receive")) == 2
    assert calls[-1] == ("fail", "model.encode")
    (sent, _) = (entry for entry in entries if entry[3] == "session.send")
    assert sent[4:] == [['[0, "first"]'], None]
    waits = [entry for entry in entries if entry[0] == "wait"]
    receives = [entry[5] for entry in entries if entry[3] == "session.receive"]
    assert [handle for wait in waits for handle in wait[4]] == receives
    failed = entries[-1]
    assert failed[5][0] == "not-found"
    assert "none" in failed[5][1]
    times = [entry[1] for entry in entries]
    assert times == sorted(times), "in the order of the calls"
    assert all(entry[2] >= 0 for entry in entries)


def test_the_end_of_a_recording_comes_before_the_end_of_the_process(inline):
    pid = launch(inline, bundle("async def main() -> int:\n    1 / 0"))
    inline.run_to_end()
    assert [kind for kind, _ in inline.events(pid)] == ["started", "trace", "error"]


def test_nothing_is_written_down_unless_it_was_asked_for(inline):
    pid = launch(inline, bundle("async def main() -> int:\n    return 1"), trace=())
    inline.run_to_end()
    assert [kind for kind, _ in inline.events(pid)] == ["started", "return"]


# The writer.


def test_entries_come_in_batches_and_in_order():
    log = EventLog("pid", 0)
    writer = TraceWriter(log, "record", 1, max_mb=1)
    has_events = [writer.add(["entry", i, "x" * 100]) for i in range(2000)]
    assert 2 <= sum(has_events) <= 10
    writer.flush()
    writer.flush()
    entries = entries_of((event.kind, json.loads(event.data)) for event in log.take_unsent())
    assert [entry[1] for entry in entries] == list(range(2000))


@pytest.mark.parametrize("count", [1, 15, 16, 65535, 65536])
def test_a_batch_of_any_length_is_one_list(count):
    log = EventLog("pid", 0)
    writer = TraceWriter(log, "record", 1, max_mb=1)
    writer._entries = [b"\x01"] * count
    writer.flush()
    assert entries_of((event.kind, json.loads(event.data)) for event in log.take_unsent()) == [1] * count


def test_past_its_limit_a_recording_ends_in_words_and_the_program_goes_on(inline):
    inline.host._config = HostSection(trace_mb=0.01)
    noise = "import random\nasync def main() -> int:\n    print(random.randbytes(40000).hex())\n    return 7"
    pid = launch(inline, bundle(noise))
    inline.run_to_end()
    events = inline.events(pid)
    assert events[-1] == ("return", 7)
    (stop,) = [data for kind, data in events if kind == "trace" and "full_mb" in data]
    assert (stop["full_mb"], stop["data"]) == (0.01, "")
    (warning,) = [data for kind, data in events if kind == "log"]
    assert "raise `trace_mb` under [host]" in warning["message"]


# Secrets.


def test_a_recording_holds_no_secret(inline):
    source = """
    from inferlet import runtime, session
    async def main() -> str:
        session.send({"key": runtime.secret("KEY")})
        return runtime.secret("KEY")
    """
    program = bundle(source)
    secrets = Secrets({"KEY": "AAE"})
    inline.host.receive_order(Launch("t", "ann", program.digest, program, "{}", secrets, ("record",)))
    inline.run_to_end()
    entries = entries_of(inline.events("t"))
    assert [entry[4:] for entry in entries if entry[3:4] == ["runtime.secret"]] == [[["KEY"], "[secret KEY]"]] * 2
    (sent,) = [entry[4] for entry in entries if entry[3:4] == ["session.send"]]
    assert sent == ['{"key":"[secret KEY]"}']
