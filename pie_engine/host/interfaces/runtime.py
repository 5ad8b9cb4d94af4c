"""`runtime`: who the program is, and its children."""

from __future__ import annotations

from pie_engine.host.events import one_line
from pie_engine.host.family import ChildEvent
from pie_engine.host.imports import Function
from pie_engine.host.process import Process
from pie_engine.protocol.credits import endowment_of


def process_id(process: Process) -> str:
    return process.pid


def program(process: Process) -> str:
    return process.program.name


def version(process: Process) -> str:
    return process.program.version


def store_code(process: Process, path: str, code: str) -> None:
    process.program.store_code(path, code)


def secret(process: Process, name: str) -> str:
    return process.secret(name)


def at(process: Process, place: str, task: str) -> None:
    process.places.now = place, task


def launch(process: Process, program: str, input: str, endowment: float | None) -> int:
    credits = None if endowment is None else endowment_of(endowment)
    return process.family.launch(program, one_line(input, "the input"), credits)


def next_of_child(process: Process, child: int) -> ChildEvent | None:
    return process.family.next_event(child)


def send_to_child(process: Process, child: int, value: str) -> None:
    process.family.send(child, one_line(value, "the message"))


def terminate_child(process: Process, child: int) -> None:
    process.family.terminate(child)


FUNCTIONS: dict[str, Function] = {
    "process-id": process_id,
    "program": program,
    "version": version,
    "store-code": store_code,
    "at": at,
    "secret": secret,
    "launch": launch,
    "next-of-child": next_of_child,
    "send-to-child": send_to_child,
    "terminate-child": terminate_child,
}
