"""Cores and gateways that answer, die and come back."""

from __future__ import annotations

from pie_engine.protocol.to_core import Flush, Generate
from pie_engine.protocol.to_gateway import Registered
from pie_engine.protocol.to_host import (
    Chunk,
    Deliver,
    EventsStored,
    Flushed,
)
from tests.integration.host.inline_host import WAITER


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
