"""`runtime`: who the program is."""

from __future__ import annotations

from pie_engine.host.imports import Function
from pie_engine.host.process import Process


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


FUNCTIONS: dict[str, Function] = {
    "process-id": process_id,
    "program": program,
    "version": version,
    "store-code": store_code,
    "at": at,
    "secret": secret,
}
