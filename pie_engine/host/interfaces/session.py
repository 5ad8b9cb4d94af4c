"""`session`: the client at the other end."""

from __future__ import annotations

from pie_engine.errors import Busy
from pie_engine.host.events import one_line
from pie_engine.host.imports import Function
from pie_engine.host.mailbox import Drain, Receive
from pie_engine.host.process import Process


def send(process: Process, value: str) -> None:
    process.output("message", one_line(value, "the message"))


def receive(process: Process) -> int:
    waiting = Receive(process.next_id(), process.mailbox)
    process.futures.add(waiting)
    process.mailbox.wait(waiting)
    return waiting.handle


def finish_receive(process: Process, message: int) -> str:
    value = process.futures.get(message, Receive).take()
    process.futures.remove(message)
    return value


def drain(process: Process) -> int:
    return process.add_drain()


def finish_drain(process: Process, done: int) -> None:
    if not process.futures.get(done, Drain).is_done:
        raise Busy("no client has seen everything yet", hint="wait for the future first")
    process.futures.remove(done)


FUNCTIONS: dict[str, Function] = {
    "send": send,
    "receive": receive,
    "finish-receive": finish_receive,
    "drain": drain,
    "finish-drain": finish_drain,
}
