"""The parts of a host that need no sandbox."""

from __future__ import annotations

import base64
import random
import struct
import time
from importlib import import_module

import msgspec
import pytest

from pie_engine.config import HostSection
from pie_engine.errors import (
    Busy,
    InvalidConfig,
    InvalidInput,
    InvalidProgram,
    LimitExceeded,
    Lost,
    NotFound,
    OutOfPages,
)
from pie_engine.gateway import hosts as gateway_hosts
from pie_engine.host.engine import Ticker
from pie_engine.host.events import EventLog, TooMuchOutput, one_line, without_surrogates
from pie_engine.host.futures import TERMINATION, Future, FutureTable
from pie_engine.host.imports import error_record
from pie_engine.host.limits import GrantedLimits
from pie_engine.host.mailbox import Mailbox, Receive
from pie_engine.host.models import pack_tokens, unpack_tokens
from pie_engine.host.noted import NOTED
from pie_engine.host.programs import MIN_CODE_CHARS, Program, ProgramCache
from pie_engine.host.timers import Timers
from pie_engine.protocol.program import Bundle, Limits, Manifest


def bundle(**files: str) -> Bundle:
    return Bundle(Manifest(name="p", version="1.2.3"), files={f"{name}.py": text for name, text in files.items()})


class StreamFuture(Future):
    is_stream = True


# Events.


def test_events_are_numbered_and_kept_until_they_are_stored():
    log = EventLog("pid", 100)
    log.add("started", "{}")
    log.output("message", "1")
    first = log.take_unsent()
    assert [(event.seq, event.kind) for event in first] == [(1, "started"), (2, "message")]
    log.end("return", "null")
    assert [event.seq for event in log.unstored()] == [1, 2, 3]
    log.stored(2)
    assert [event.seq for event in log.unstored()] == [3]
    assert not log.is_stored
    log.stored(3)
    assert log.is_stored


def test_what_is_printed_in_one_turn_is_one_event_in_order_with_messages():
    log = EventLog("pid", 1000)
    for text in ("a", "b\n"):
        log.write("stdout", text)
    log.output("message", '"m"')
    log.write("stdout", "c")
    log.write("stderr", "d")
    events = [(event.kind, msgspec.json.decode(event.data)) for event in log.take_unsent()]
    assert events == [("stdout", "ab\n"), ("message", "m"), ("stdout", "c"), ("stderr", "d")]


def test_output_is_bounded_in_bytes_of_all_kinds_together():
    log = EventLog("pid", 10)
    log.write("stdout", "ééé")  # 6 bytes
    log.output("message", "1234")
    with pytest.raises(TooMuchOutput):
        log.write("stderr", "x")
    log.end("error", "{}")
    assert [event.kind for event in log.take_unsent()] == ["stdout", "message", "error"]


def test_there_is_one_terminal_event():
    log = EventLog("pid", 10)
    log.end("return", "1")
    with pytest.raises(AssertionError):
        log.end("error", "{}")


def test_json_of_a_program_travels_on_one_line():
    assert one_line('{"a":\n 1}', "it") == '{"a":1}'
    assert one_line('{"a": "x\\ny"}', "it") == '{"a": "x\\ny"}'
    assert one_line(r'"\ud83d\ude00 \\ud801"', "it") == r'"\ud83d\ude00 \\ud801"'
    with pytest.raises(InvalidInput, match=r"the message is not JSON: .*byte 1"):
        one_line("{nothing", "the message")


@pytest.mark.parametrize(
    "text", [r'"\ud801"', r'["\ud83d\ude00", {"a\ud801": 1}]', r'"\ud801 \ud801"', r'"\\ud802 \ud801"']
)
def test_half_a_character_is_named(text):
    with pytest.raises(InvalidInput) as caught:
        one_line(text, "the message")
    assert caught.value.message == r"the message holds `\ud801`, half of a surrogate pair, which is no character"
    assert msgspec.json.decode(without_surrogates(text)) is not None


# Futures and mailbox.


def test_a_future_is_reported_once_and_a_stream_again():
    table = FutureTable()
    table.add(Future(1))
    table.add(StreamFuture(2))
    for handle in (1, 2, 2):
        table.notify(handle)
    assert table.take_ready() == [1, 2]
    assert table.take_ready() == []
    assert table.has_pending
    table.remove(2)
    assert not table.has_pending


def test_an_unknown_future_is_not_reported_but_termination_is():
    table = FutureTable()
    assert not table.notify(7)
    assert table.notify(TERMINATION)
    assert table.take_ready() == [TERMINATION]


def test_a_future_is_asked_for_by_kind():
    table = FutureTable()
    table.add(Future(1))
    with pytest.raises(NotFound, match="not a receive"):
        table.get(1, Receive)


def test_messages_go_to_receives_in_order_and_duplicates_are_ignored():
    notified: list[int] = []
    mailbox = Mailbox(notified.append)
    first, second = Receive(1, mailbox), Receive(2, mailbox)
    mailbox.wait(first)
    mailbox.deliver(1, '"a"')
    mailbox.deliver(1, '"a"')
    mailbox.deliver(2, '"b"')
    mailbox.wait(second)
    assert (first.take(), second.take()) == ('"a"', '"b"')
    assert notified == [1, 2]


def test_a_forgotten_receive_gives_its_message_back():
    mailbox = Mailbox(lambda _handle: None)
    first, second, third = (Receive(handle, mailbox) for handle in (1, 2, 3))
    mailbox.wait(first)
    mailbox.deliver(1, '"a"')
    mailbox.deliver(2, '"b"')
    first.forget()
    mailbox.wait(second)
    mailbox.wait(third)
    third.take()
    assert second.take() == '"a"'
    waiting = Receive(4, mailbox)
    mailbox.wait(waiting)
    waiting.forget()
    with pytest.raises(Busy):
        waiting.take()


# Time.


def test_timers_run_in_order_of_time():
    now, ran = [0.0], []
    timers = Timers(lambda: now[0])
    timers.after(2, lambda: ran.append("late"))
    timers.after(1, lambda: ran.append("early"))
    assert timers.seconds_left == 1
    now[0] = 1.5
    timers.run_due()
    assert ran == ["early"]
    now[0] = 9.0
    assert timers.seconds_left == 0
    timers.run_due()
    assert ran == ["early", "late"]
    assert timers.seconds_left is None


# Limits and errors.


def granted(engine: HostSection, **asked: float) -> GrantedLimits:
    return GrantedLimits.of(Limits(**asked), engine)  # type: ignore[arg-type]


def test_a_manifest_can_only_lower_the_engines_limits():
    def numbers(limits: GrantedLimits) -> tuple[float, ...]:
        return limits.memory_mb, limits.cpu_s, limits.wall_s, limits.output_mb

    engine = HostSection(memory_mb=100, cpu_s=5, wall_s=0, output_mb=10)
    assert numbers(granted(engine)) == (100, 5, 0, 10)
    assert numbers(granted(engine, memory_mb=50, wall_s=3)) == (50, 5, 3, 10)
    strict = HostSection(memory_mb=100, cpu_s=5, wall_s=7, output_mb=10)
    assert numbers(granted(strict, memory_mb=500, cpu_s=50, wall_s=9, output_mb=100)) == (100, 5, 7, 10)


LIMITS = {"memory_mb": "memory_limit", "cpu_s": "cpu_limit", "wall_s": "wall_limit", "output_mb": "output_limit"}


@pytest.mark.parametrize(("key", "code"), LIMITS.items())
def test_a_hint_says_whose_limit_it_was_and_where_it_is_raised(key, code):
    engine = HostSection(memory_mb=100, cpu_s=100, wall_s=100, output_mb=100)
    for asked in (None, 100, 200):
        error = granted(engine, **{key: asked}).exceeded(key, "too much", otherwise="do less")
        assert (error.code, error.message) == (code, "too much")
        assert error.hint == (
            f"this is the engine's own limit: raise `{key}` under [host] in the configuration, or do less"
        )
    assert granted(engine, **{key: 50}).exceeded(key, "too much").hint == (
        f"this is the program's own limit: raise `{key}` under [limits] in pie.toml, up to the engine's 100"
    )


def test_a_wall_limit_that_only_the_program_has_can_be_raised_at_will():
    hint = granted(HostSection(), wall_s=3).exceeded("wall_s", "too long").hint
    assert hint == "this is the program's own limit: raise `wall_s` under [limits] in pie.toml"


@pytest.mark.parametrize("key", LIMITS)
def test_what_the_engine_cuts_names_both_numbers(key):
    engine = HostSection(memory_mb=100, cpu_s=100, wall_s=100, output_mb=100)
    assert granted(engine, **{key: 100}).cuts() == granted(engine).cuts() == []
    assert granted(engine, **{key: 250}).cuts() == [
        f"pie.toml asks for `{key}` 250, and the engine gives 100; raise `{key}` under [host] in the configuration"
    ]


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (OutOfPages("x"), "out-of-pages", False),
        (Busy("x"), "busy", True),
        (LimitExceeded.of("output_limit", "x"), "limit-exceeded", False),
        (Lost.of("core_lost", "x"), "core-lost", True),
        (InvalidConfig("x"), "invalid-input", False),
        (ZeroDivisionError("x"), "internal", False),
    ],
)
def test_every_error_has_a_code_of_the_wit(error, code, retry):
    record = error_record(error)
    assert (record.code, record.retry) == (code, retry)
    assert "x" in record.message


def test_an_errors_hint_reaches_the_guest():
    assert error_record(InvalidInput("too big", hint="make it smaller")).message == "too big; make it smaller"


# Programs.


def test_a_guest_gets_its_modules_and_the_code_that_was_left():
    program = Program("d", bundle(main="x = 1", util=""))
    assert msgspec.json.decode(program.text()) == {
        "name": "p",
        "version": "1.2.3",
        "entry": "main",
        "files": {"main.py": "x = 1", "util.py": ""},
        "code": {},
    }
    program.store_code("main.py", "first")
    program.store_code("main.py", "second")
    program.store_code("other.py", "x")
    program.store_code("util.py", "y" * (MIN_CODE_CHARS + 1))
    assert msgspec.json.decode(program.text())["code"] == {"main.py": "first"}


def test_data_files_are_written_once_under_the_digest(tmp_path):
    files = Bundle(Manifest(name="p"), files={"main.py": "", "a/b.txt": "text"}, blobs={"c.bin": b"\0\1"})
    program = Program("digest", files)
    assert program.has_data
    folder = program.data_folder(tmp_path)
    assert (folder / "a/b.txt").read_text() == "text"
    assert (folder / "c.bin").read_bytes() == b"\0\1"
    assert not (folder / "main.py").exists()
    assert program.data_folder(tmp_path) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["digest"]


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "a//b", "a\\b", "./x", "a\0b"])
def test_a_path_that_leaves_its_folder_is_refused(path):
    with pytest.raises(InvalidProgram):
        Program("d", Bundle(Manifest(name="p"), blobs={path: b""}))


def test_users_share_no_compiled_code():
    cache, same = ProgramCache(), bundle(main="")
    program = cache.get("ann", same.digest, same)
    assert cache.get("ann", same.digest, same) is program
    assert cache.get("bob", same.digest, same) is not program


def test_what_a_gateway_leaves_out_the_host_still_has():
    """Both count along; whichever components are launched in whatever order."""
    gateway, cache = gateway_hosts.Host("boot", "components-ann", "ann"), ProgramCache()
    random_ = random.Random(5)
    num_left_out = 0
    for _ in range(300):
        name = random_.choice("abcdefg" if random_.random() < 0.5 else "abc")
        whole = Bundle(Manifest(name=name, runtime="component"), blobs={"program.wasm": name.encode()})
        sent = gateway.parcel(name, whole)
        num_left_out += sent != whole
        assert cache.get(random_.choice(["ann", ""]), name, sent).component == name.encode()
    assert num_left_out > 100
    python = Bundle(Manifest(name="p"), {"main.py": ""})
    assert gateway.parcel("p", python) is gateway.parcel("p", python) is python


def test_packed_tokens_are_little_endian_words():
    packed = pack_tokens([1, 2**32 - 1])
    assert base64.b64decode(packed) == struct.pack("<2I", 1, 2**32 - 1)
    assert unpack_tokens(packed) == [1, 2**32 - 1]
    with pytest.raises(InvalidInput):
        unpack_tokens("AAA")
    with pytest.raises(InvalidInput):
        unpack_tokens("!")


# Turns.


class FakeEngine:
    num_ticks = 0

    def increment_epoch(self) -> None:
        self.num_ticks += 1


def until(condition) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_only_a_guest_that_runs_on_is_preempted():
    engine = FakeEngine()
    ticker = Ticker(engine)  # type: ignore[arg-type]
    for _ in range(20):
        ticker.enter()
        ticker.leave()
        time.sleep(0.002)
    assert engine.num_ticks == 0
    ticker.enter()
    until(lambda: engine.num_ticks >= 2)
    ticker.leave()
    ticker.close()


def test_a_guest_that_does_not_even_yield_is_noticed():
    stuck: list[bool] = []
    ticker = Ticker(FakeEngine(), lambda: stuck.append(True), stuck_s=0.05)  # type: ignore[arg-type]
    ticker.enter()
    until(lambda: stuck)
    ticker.leave()
    ticker.close()


@pytest.mark.parametrize("name", NOTED)
def test_what_a_profile_notes_are_functions_that_programs_have(name):
    interface, function = name.split(".")
    assert function in import_module(f"pie_engine.host.interfaces.{interface}").FUNCTIONS
