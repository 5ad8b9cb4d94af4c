"""What a tap sees of a program, and how it leaves the host."""

from __future__ import annotations

import base64
import io
import json
import zlib

import msgspec
import pytest

from pie_engine.config import HostSection
from pie_engine.host.events import EventLog
from pie_engine.host.tap import Taps
from pie_engine.host.trace import TraceWriter
from pie_engine.protocol.recording import WAIT, Fail, Recording, RecordingWriter, parse
from pie_engine.protocol.to_host import NO_SECRETS, Deliver, Launch, Secrets
from tests.integration.host.inline_host import CONFIG, WAITER, bundle

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


def recording_of(events) -> Recording:
    """Of all events of kind `trace`."""
    file = io.BytesIO()
    writer = RecordingWriter(file)
    for kind, data in events:
        if kind == "trace":
            writer.take(data)
    return parse(file.getvalue(), "the recording")


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
    recording = recording_of(inline.events(pid))
    head, calls = recording.head, recording.calls
    assert (head.digest, head.bundle, head.pid) == (program.digest, program, pid)
    assert head.arguments == ['{"n": 2}']
    assert head.limits.memory_mb == CONFIG.host.memory_mb
    functions = [call.function for call in calls]
    assert functions.count("session.receive") == functions.count("session.finish-receive") == 2
    (sent, _) = (call for call in calls if call.function == "session.send")
    assert (sent.arguments, sent.result, sent.place) == (['[0, "first"]'], None, "main.py:5 in main")
    receives = [call.result for call in calls if call.function == "session.receive"]
    assert [handle for call in calls if call.function == WAIT for handle in call.result] == receives
    failed = calls[-1]
    assert isinstance(failed, Fail)
    assert (failed.function, failed.error[0]) == ("model.encode", "not-found")
    assert "none" in failed.error[1]
    times = [call.at for call in calls]
    assert times == sorted(times), "in the order of the calls"
    assert (recording.end.kind, json.loads(recording.end.value)) == inline.events(pid)[-1]


def test_the_end_of_a_recording_comes_before_the_end_of_the_process(inline):
    pid = launch(inline, bundle("async def main() -> int:\n    1 / 0"))
    inline.run_to_end()
    assert [kind for kind, _ in inline.events(pid)] == ["started", "trace", "trace", "error"]


def test_what_a_program_did_before_it_waits_does_not_wait_with_it(inline):
    pid = launch(inline, bundle(WAITER))
    inline.until(lambda: [kind for kind, _ in inline.events(pid)].count("trace") == 2)
    recording = recording_of(inline.events(pid))
    assert [call.function for call in recording.calls] == ["session.receive"]
    assert recording.end is None


def test_several_taps_are_all_told(inline):
    first, second = Listener(), Listener()
    pid = launch(inline, bundle(TALKER), trace=(), n=0)
    inline.host.processes[pid].tap = Taps([first, second])
    inline.run_to_end()
    assert first.heard == second.heard != []
    assert first.heard[-1] == "ended"


class Listener:
    """A tap that remembers what it was told of."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def called(self, call) -> None:
        self.heard.append(call.function.name)

    def waited(self, wait) -> None:
        self.heard.append("wait")

    def piped(self, text) -> None:
        self.heard.append("piped")

    def ended(self, ending) -> None:
        self.heard.append("ended")


def test_nothing_is_written_down_unless_it_was_asked_for(inline):
    pid = launch(inline, bundle("async def main() -> int:\n    return 1"), trace=())
    inline.run_to_end()
    assert [kind for kind, _ in inline.events(pid)] == ["started", "return"]


# The writer.


def entries_of(log: EventLog) -> list:
    entries = []
    for event in log.take_unsent():
        data = json.loads(event.data)
        part = msgspec.msgpack.decode(zlib.decompress(base64.b64decode(data["data"])))
        assert len(part) == data["entries"]
        entries += part
    return entries


def test_entries_come_in_batches_and_in_order():
    log = EventLog("pid", 0)
    writer = TraceWriter(log, "record", 1, max_mb=1)
    has_events = [writer.add(["entry", i, "x" * 100]) for i in range(2000)]
    assert 2 <= sum(has_events) <= 10
    writer.flush()
    writer.flush()
    assert [entry[1] for entry in entries_of(log)] == list(range(2000))


def test_what_a_tap_has_not_added_yet_goes_out_with_the_rest():
    log, held = EventLog("pid", 0), [["first"], None, ["last"]]
    writer = TraceWriter(log, "profile", 1, max_mb=1, collect=lambda: held.pop(0))
    writer.add(["added"])
    assert [writer.flush(), writer.flush(), writer.flush()] == [True, False, True]
    assert entries_of(log) == [["added"], ["first"], ["last"]]


@pytest.mark.parametrize("count", [1, 15, 16, 65535, 65536])
def test_a_batch_of_any_length_is_one_list(count):
    log = EventLog("pid", 0)
    writer = TraceWriter(log, "record", 1, max_mb=1)
    writer._packed = [b"\x01"] * count
    writer.flush()
    assert entries_of(log) == [1] * count


def test_past_its_limit_a_recording_ends_in_words_and_the_program_goes_on(inline):
    inline.host._config = HostSection(trace_mb=0.01)
    noise = "import random\nasync def main() -> int:\n    print(random.randbytes(40000).hex())\n    return 7"
    pid = launch(inline, bundle(noise))
    inline.run_to_end()
    events = inline.events(pid)
    assert events[-1] == ("return", 7)
    recording = recording_of(events)
    assert (recording.limit_mb, recording.end) == (0.01, None)
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
    recording = recording_of(inline.events("t"))
    results = [call.result for call in recording.calls if call.function == "runtime.secret"]
    assert results == ["[secret KEY]"] * 2
    assert recording.head.secrets == ["KEY"]
    (sent,) = [call.arguments for call in recording.calls if call.function == "session.send"]
    assert sent == ['{"key": "[secret KEY]"}']
    assert recording.end.value == '"[secret KEY]"'
