"""Programs are recorded in an embedded engine, and run again, as they were or edited, without one."""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import msgspec
import pytest
from wasmtime import wat2wasm

from pie_client import pack
from pie_engine.config import HostSection, ModelSection
from pie_engine.driver.fake_script import FakeScript, Reply
from pie_engine.embedded import Embedded, EmbeddedProcess
from pie_engine.protocol.program import Bundle, Limits, Manifest
from pie_engine.protocol.recording import Call, Recording, RecordingWriter, parse
from pie_engine.replay.run import Replayed, Replays

FAKE = ModelSection(driver="fake", name="fake", num_pages=64, offload_memory_mb=1)
SHIPPED = sorted(path.parent for path in (Path(__file__).parents[2] / "inferlets").glob("*/pie.toml"))
ARGUMENTS = {
    "background": {"documents": ["A text."], "questions": ["What is it?"]},
    "react": {"question": "What is it?"},
}
SAYS = ("stdout", "stderr", "message", "log")
_numbers = count(1)


@pytest.fixture(scope="module")
def engine() -> Iterator[Embedded]:
    with Embedded(HostSection(warm_instances=0, cancel_grace_s=0.1)) as running:
        running.load(FAKE, FakeScript(replies=(Reply("Hello there!"),)))
        yield running


@pytest.fixture(scope="module")
def replays() -> Iterator[Replays]:
    with Replays() as running:
        yield running


def bundle(source: str, files: dict[str, str] | None = None, **limits: float) -> Bundle:
    manifest = Manifest(name="p", version="1.0", limits=Limits(**limits))  # type: ignore[arg-type]
    return Bundle(manifest, {"main.py": textwrap.dedent(source), **(files or {})})


def start(engine: Embedded, program: str | Bundle, **arguments: object) -> EmbeddedProcess:
    made = bundle(program) if isinstance(program, str) else program
    return engine.launch(made, arguments, user=f"user-{next(_numbers)}", trace=("record",))


def recording_of(process: EmbeddedProcess) -> Recording:
    file = io.BytesIO()
    writer = RecordingWriter(file)
    for event in process.events:
        if event.kind == "trace":
            writer.take(json.loads(event.data))
    return parse(file.getvalue(), "the recording")


def record(engine: Embedded, program: str | Bundle, *messages: object, **arguments: object) -> Recording:
    process = start(engine, program, **arguments)
    for message in messages:
        process.send(message)
    process.wait(60)
    return recording_of(process)


def said(process: EmbeddedProcess) -> list[tuple[str, object]]:
    return [(event.kind, json.loads(event.data)) for event in process.events if event.kind in SAYS]


def joined(events: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """With the pieces of each text together: hosts join what is printed in one turn."""
    whole: list[tuple[str, object]] = []
    for kind, value in events:
        if whole and kind in ("stdout", "stderr") and whole[-1][0] == kind:
            whole[-1] = kind, str(whole[-1][1]) + str(value)
        else:
            whole.append((kind, value))
    return whole


# As it was.

CHANCE_AND_TIME = """
import asyncio, datetime, os, random, secrets, time, uuid
from inferlet import log, session

async def work(i):
    await asyncio.sleep(random.random() * 0.01)
    session.send([i, time.time(), str(uuid.uuid4()), time.perf_counter_ns()])
    return id(object())

async def main(n: int = 5) -> list:
    print(await session.receive(), datetime.datetime.now())
    log.info(f"{os.urandom(4)} {hash('x')} {[hash(object()) for _ in range(3)]}")
    done, _ = await asyncio.wait([asyncio.create_task(work(i)) for i in range(n)])
    first = asyncio.as_completed([work(i) for i in range(3)])
    ids = [task.result() for task in done] + [await each for each in first]
    return [*ids, random.random(), secrets.token_hex(4), time.monotonic()]
"""


def test_time_chance_and_the_order_of_waits_are_as_they_were(engine, replays):
    process = start(engine, CHANCE_AND_TIME, n=7)
    process.send("hello")
    process.wait(60)
    shown: list = []
    replayed = replays.replay(recording_of(process), show=lambda kind, value: shown.append((kind, value)))
    assert replayed.departures == []
    assert (replayed.kind, replayed.value) == ("return", process.value), "to the addresses of objects"
    assert joined(shown) == joined(said(process))
    assert (replayed.runtime, replayed.num_extra_reads) == ("same", 0)
    assert replayed.num_calls == len(recording_of(process).calls)


GENERATING = """
import asyncio
from inferlet import Context, Model, Sampler
async def main(prompt: str = "Hi") -> list:
    ctx = Context()
    ctx.user(prompt)
    forks = [ctx.fork() for _ in range(3)]
    whole = await asyncio.gather(*(fork.generate(Sampler.temperature(1.0), max_tokens=5) for fork in forks))
    parts = [chunk.text async for chunk in ctx.generate(max_tokens=5)]
    output = await ctx.forward(Model().tokenizer.encode("a"), top_k=3)
    return [str(whole[0]), "".join(parts), ctx.length, len(output.top)]
"""


def test_a_model_is_not_needed_again(engine, replays):
    recording = record(engine, GENERATING)
    replayed = replays.replay(recording)
    assert replayed.departures == []
    assert (replayed.kind, replayed.value[1]) == ("return", "Hello there!"), replayed.value
    assert recording.end.usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("async def main():\n    raise ValueError('no')", "exception"),
        ("async def main():\n    import os\n    os._exit(3)", "exception"),
        ("async def main():\n    x = []\n    while True:\n        x.append(bytes(10**6))", "memory_limit"),
        ("async def main():\n    return {", "invalid_program"),
        ("async def main():\n    import asyncio\n    await asyncio.Future()", "exception"),
        ("async def main():\n    while True:\n        print('x' * 1000)", "output_limit"),
        ("async def main():\n    print(1)\n    while True:\n        pass", "cpu_limit"),
    ],
    ids=["raises", "exits", "memory", "syntax", "deadlock", "output", "cpu"],
)
def test_programs_that_fail_fail_again(engine, replays, source, code):
    recording = record(engine, bundle(source, memory_mb=96, output_mb=0.05, cpu_s=0.2))
    replayed = replays.replay(recording)
    assert replayed.departures == []
    assert (replayed.kind, replayed.value.code) == ("error", code)
    assert replayed.value.message == json.loads(recording.end.value)["message"]


CLEANS_UP = """
import asyncio
from inferlet import session
async def main() -> None:
    session.send("ready")
    try:
        await asyncio.sleep(1000)
    finally:
        session.send("cleaned up")
        await asyncio.sleep(0 if {stays} == 0 else 1000)
"""


@pytest.mark.parametrize("stays", [0, 1])
def test_one_that_was_terminated_is_again(engine, replays, stays):
    process = start(engine, CLEANS_UP.replace("{stays}", str(stays)))
    while not said(process):
        engine.turn()
    process.terminate()
    process.wait(60)
    shown: list = []
    replayed = replays.replay(recording_of(process), show=lambda kind, value: shown.append(value))
    assert replayed.departures == []
    assert (replayed.kind, replayed.value.code) == ("error", "cancelled")
    assert shown == ["ready", "cleaned up"]


MARKET = """
from inferlet import Context, scheduling
async def main() -> list:
    with Context().bid(0.25) as ctx:
        ctx.user("Hi")
        with ctx.idle():
            before = await scheduling()
        await ctx.generate(max_tokens=5)
        after = await scheduling()
    return [before.bid, after.bid, after.endowment, after.num_free_pages, after.occupancy]
"""


def test_what_was_seen_of_the_market_is_seen_again(engine, replays):
    process = start(engine, MARKET)
    process.wait(60)
    assert process.value[:3] == [0.0, 0.25, 1000.0]
    replayed = replays.replay(recording_of(process))
    assert (replayed.departures, replayed.value) == ([], process.value)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_every_shipped_program_is_replayed_as_it_was(engine, replays, folder):
    recording = record(engine, pack(folder), **ARGUMENTS.get(folder.name, {"prompt": "What is it?"}))
    replayed = replays.replay(recording)
    assert replayed.departures == []
    assert replayed.num_calls == len(recording.calls) > 10


def test_data_files_are_there_with_the_same_times(engine, replays):
    source = "import os\nasync def main():\n    return [open('words.txt').read(), os.stat('words.txt').st_mtime]"
    recording = record(engine, bundle(source, {"words.txt": "one two"}))
    replayed = replays.replay(recording)
    assert (replayed.departures, replayed.value[0]) == ([], "one two")


def test_what_went_past_the_program_is_shown(engine, replays):
    source = """
    from inferlet import Context, session
    async def main():
        ctx = Context()
        ctx.user("Hi")
        await ctx.generate(max_tokens=9).pipe(session)
    """
    process = start(engine, source)
    process.wait(60)
    shown: list = []
    replayed = replays.replay(recording_of(process), show=lambda kind, value: shown.append((kind, value)))
    assert replayed.departures == []
    assert shown == said(process) != []


# Edited.

TALK = """
import asyncio
from inferlet import Context, session

async def main(prompt: str = "Hi") -> str:
    print("asking")
    ctx = Context()
    ctx.user(prompt)
    reply = str(await ctx.generate(max_tokens=4))
    session.send(reply)
    return reply
"""


@pytest.fixture(scope="module")
def talk(engine) -> Recording:
    return record(engine, TALK)


def edited(replays: Replays, recording: Recording, before: str, after: str) -> Replayed:
    source = recording.head.bundle.files["main.py"]
    assert source.count(before) == 1
    return replays.replay(recording, bundle(source.replace(before, after)))


def test_a_change_without_effect_departs_nowhere(replays, talk):
    replayed = edited(replays, talk, "    return reply\n", "    # done\n    return str(reply)\n")
    assert (replayed.departures, replayed.value) == ([], talk_value(talk))


def talk_value(talk: Recording) -> object:
    return msgspec.json.decode(talk.end.value)


CANCELS = """
import asyncio
from inferlet import Context

async def answer(ctx, max_tokens):
    return str(await ctx.generate(max_tokens=max_tokens))

async def main() -> list:
    {}
    ctx = Context()
    ctx.user("Hi")
    await ctx.flush()
    tasks = [asyncio.create_task(answer(ctx.fork(), n)) for n in (2, 40, 50, 60, 70, 80)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    found = [await each for each in asyncio.as_completed([answer(ctx.fork(), n) for n in (1, 2, 3, 4)])]
    try:
        async with asyncio.TaskGroup() as group:
            for n in (40, 50, 60):
                group.create_task(answer(ctx.fork(), n))
            group.create_task(answer(None, 1))
    except* AttributeError:
        found.append("failed")
    return [len(done), *found]
"""


def test_an_edit_does_not_change_the_order_of_sets_of_tasks(engine, replays):
    recording = record(engine, CANCELS.replace("{}", "pass"))
    edits = (f"kept = [object() for _ in range({n})]; words = 'x' * {n} + str(kept)" for n in (3, 40, 500, 6000))
    for edit in edits:
        replayed = replays.replay(recording, bundle(CANCELS.replace("{}", edit)))
        assert replayed.departures == [], edit
        assert replayed.value[-1] == "failed"


def test_the_first_call_that_differs_ends_the_run_and_is_named_with_its_line(replays, talk):
    replayed = edited(replays, talk, "ctx.user(prompt)", "ctx.user(prompt + '!')")
    (departure,) = replayed.departures
    assert departure.kind == "call"
    assert departure.place.startswith("main.py:")
    assert departure.made[0] == departure.recorded.function
    assert departure.made[1] != departure.recorded.arguments
    assert talk.calls[departure.number - 1] is departure.recorded
    assert (replayed.kind, replayed.value) == ("departed", None)


@pytest.mark.parametrize(
    ("before", "after", "made", "recorded"),
    [
        ('print("asking")', 'print("asking them")', "asking them\n", "asking\n"),
        ('    print("asking")\n', "", None, "asking\n"),
        ("session.send(reply)", "print(1)\n    session.send(reply)", "1\n", None),
    ],
    ids=["other", "fewer", "more"],
)
def test_a_difference_in_what_is_said_is_noted_and_the_run_goes_on(replays, talk, before, after, made, recorded):
    replayed = edited(replays, talk, before, after)
    (departure,) = replayed.departures
    assert departure.kind == "output"
    assert (departure.made and departure.made[1][1]) == made
    if recorded is not None:
        assert departure.recorded.arguments[1] == recorded
    assert (replayed.kind, replayed.value) == ("return", talk_value(talk))


def test_another_value_is_a_departure_at_the_end(replays, talk):
    replayed = edited(replays, talk, "return reply", "return reply.upper()")
    (departure,) = replayed.departures
    assert departure.kind == "ending"
    assert departure.text == 'returned "HELLO THERE!"; the recording returned "Hello there!"'
    assert departure.number == len(talk.calls) + 1


def test_one_that_ends_early_names_the_call_it_does_not_make(replays, talk):
    replayed = edited(replays, talk, "    reply = str", "    return 'x'\n    reply = str")
    first = replayed.departures[0]
    assert (first.kind, first.made, first.text) == ("ending", None, 'returned "x"')
    assert first.recorded.function == "model.render-chat"


def test_one_that_goes_on_names_the_call_that_nobody_answers(replays, talk):
    replayed = edited(replays, talk, "    return reply\n", "    return await session.receive()\n")
    (departure,) = replayed.departures
    assert (departure.kind, departure.made, departure.recorded) == ("call", ("session.receive", []), None)
    assert departure.number == len(talk.calls) + 1
    assert "main" in departure.place


def test_one_that_never_ends_does(replays, talk):
    replayed = edited(replays, talk, "    return reply\n", "    while True:\n        await asyncio.sleep(0)\n")
    assert replayed.departures[-1].kind == "call"


def test_other_sleeps_depart(engine, replays):
    source = "import asyncio\nasync def main():\n    await asyncio.sleep({})\n    print(1)\n"
    recording = record(engine, source.format(0.005))
    assert replays.replay(recording).departures == []
    (departure,) = replays.replay(recording, bundle(source.format(0.5))).departures
    assert (departure.kind, departure.made[0]) == ("call", "futures.wait-any")


def test_more_looks_at_the_clock_and_more_chance_are_counted_and_given(engine, replays):
    source = "import random, time\nasync def main():\n    a = time.monotonic()\n    return a\n"
    recording = record(engine, source)
    more = source.replace("return a", "return [time.monotonic() > a, len(random.SystemRandom().randbytes(8))]")
    first, second = (replays.replay(recording, bundle(more)) for _ in range(2))
    assert first.value == second.value == [True, 8]
    assert first.num_extra_reads >= 2


# Cut off.


def test_one_that_was_cut_off_is_replayed_as_far_as_it_goes(engine, replays, talk):
    half = Recording(talk.head, talk.entries[: len(talk.entries) // 2])
    replayed = replays.replay(half)
    assert (replayed.departures, replayed.kind) == ([], "cut")
    assert replayed.num_calls == len(half.calls)


def test_a_line_stands_beside_each_call(talk):
    places = {entry.function: entry.place for entry in talk.calls if isinstance(entry, Call)}
    assert places["log.write"] == "main.py:6 in main"
    assert places["generate.start"] == "main.py:9 in main"
    assert places["session.send"] == "main.py:10 in main"


# Other languages.

DRAWS = """
(component
  (import "wasi:random/insecure-seed@0.2.3" (instance $seed
    (export "insecure-seed" (func (result (tuple u64 u64))))))
  (import "wasi:random/random@0.2.3" (instance $random (export "get-random-u64" (func (result u64)))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))
  (core func $seed' (canon lower (func $seed "insecure-seed") (memory $memory)))
  (core func $random' (canon lower (func $random "get-random-u64")))
  (core module $module
    (import "libc" "memory" (memory 1))
    (import "host" "seed" (func $seed (param i32)))
    (import "host" "random" (func $random (result i64)))
    (data (i32.const 63) "\\22")
    (data (i32.const 88) "\\22")
    (func (export "describe") (param i32 i32) (result i32) unreachable)
    (func (export "run") (param i32 i32 i32 i32) (result i32)
      (local $i i32)
      (call $seed (i32.const 200))
      (i64.store (i32.const 216) (call $random))
      (loop $digits
        (i32.store8 (i32.add (i32.const 64) (local.get $i))
          (i32.add (i32.const 48)
            (i32.rem_u (i32.load8_u (i32.add (i32.const 200) (local.get $i))) (i32.const 10))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $digits (i32.lt_u (local.get $i) (i32.const 24))))
      (i32.store (i32.const 4) (i32.const 63))
      (i32.store (i32.const 8) (i32.const 26))
      (i32.const 0))
  )
  (core instance $core (instantiate $module
    (with "libc" (instance $libc))
    (with "host" (instance (export "seed" (func $seed')) (export "random" (func $random'))))))
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


def test_components_of_any_language_draw_what_they_drew(engine, replays):
    manifest = Manifest(name="p", version="1.0", runtime="component")
    recording = record(engine, Bundle(manifest, blobs={"program.wasm": bytes(wat2wasm(DRAWS))}))
    first, second = replays.replay(recording), replays.replay(recording)
    assert first.departures == second.departures == []
    assert first.value == second.value == msgspec.json.decode(recording.end.value)
    assert len(set(first.value)) > 3, "digits that were drawn"


# Large ones.


def test_ten_thousand_calls_are_small_and_replayed_in_a_moment(engine, replays):
    source = "from inferlet import session\nasync def main():\n    for i in range(10_000):\n        session.send(i)\n"
    process = start(engine, source)
    process.wait(60)
    packed = [json.loads(event.data) for event in process.events if event.kind == "trace"]
    assert sum(len(part["data"]) for part in packed) < 400_000
    assert max(len(part["data"]) for part in packed) < 100_000, "in pieces that nobody has to hold for long"
    replayed = replays.replay(recording_of(process))
    assert (replayed.departures, replayed.num_calls) == ([], 10_000)


def test_what_children_said_is_in_the_recording_of_their_parent(engine, replays):
    worker = """
from inferlet import Context, session
async def main(n: int) -> str:
    session.send(n)
    if n == 2:
        raise ValueError("two")
    with Context() as ctx:
        ctx.user("Hi")
        return await ctx.generate(max_tokens=20)
"""
    boss = """
import asyncio
from inferlet import ChildFailed, runtime
async def ask(n: int) -> object:
    async with await runtime.launch("worker", n=n) as child:
        try:
            return [[message async for message in child.messages()], await child.result()]
        except ChildFailed as error:
            return [error.pid, error.failure.message]
async def main() -> list:
    return await asyncio.gather(*(ask(n) for n in range(3)))
"""
    user = f"user-{next(_numbers)}"
    engine.publish(Bundle(Manifest("worker"), {"main.py": worker}), user=user)
    program = Bundle(Manifest("p", launches=("worker",)), {"main.py": boss})
    process = engine.launch(program, user=user, trace=("record",))
    process.wait(60)
    assert process.value[:2] == [[[0], "Hello there!"], [[1], "Hello there!"]]
    recording = recording_of(process)
    replayed = replays.replay(recording)
    assert (replayed.departures, replayed.value) == ([], process.value)
    assert {call.function for call in recording.calls} >= {"runtime.launch", "runtime.next-of-child"}
