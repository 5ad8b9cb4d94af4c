"""The work of `pie run`: launch a program and be at its other end until it has ended."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from pie_cli import console, exits
from pie_cli.client import new_client, run_async
from pie_cli.options import read_options, split_target

if TYPE_CHECKING:
    from pie_cli.options import Values
    from pie_cli.recordings.write import Recorder
    from pie_client import PieClient
    from pie_engine.protocol.http import ProcessUsage, ProgramView
    from pie_engine.protocol.program import Bundle, Signature
    from pie_engine.protocol.to_host import TraceKind


def run_words(words: list[str]) -> int:
    """`pie run` with everything behind it."""
    from pie_engine.errors import InvalidInput

    before, rest = split_target(words)
    if before.own.get("help") and not rest:
        from pie_cli.help import run_help

        console.data_line(run_help())
        return exits.OK
    if not rest:
        message = "TARGET is missing: a folder, a file or the name of an uploaded program"
        raise InvalidInput(message, hint="see `pie run --help`")
    return run_async(_run(rest[0], rest[1:], before.own))


async def _run(target: str, words: list[str], own: dict[str, object]) -> int:
    from pie_cli.daemon import ensure_daemon
    from pie_cli.project import resolve_target
    from pie_engine.config import load_config

    config = load_config()
    program = resolve_target(target)
    async with new_client() as client:
        await ensure_daemon(client, config)
        view = await _described(client, program)
        values = read_options(target, _signature(view), words)
        values.own = own | values.own
        if values.own.get("help"):
            return _show_help(target, view)
        # What was uploaded may be replaced meanwhile; what is here goes along, since nothing keeps it there, unless it
        # is tens of MiB that have just arrived.
        is_there = isinstance(program, str) or program.manifest.runtime == "component"
        runs = view.digest if is_there else program
        return await _launch(client, target, runs, _signature(view), values)


async def _described(client: PieClient, program: Bundle | str) -> ProgramView:
    """The program as the daemon knows it, with its signature."""
    from pie_engine.errors import NotFound

    if not isinstance(program, str):
        return await client.describe(program)
    try:
        view = await client.program(program)
    except NotFound as error:
        message = f"`{program}` is neither a file or folder nor the name of an uploaded program"
        raise NotFound(message, hint="`pie new NAME` makes a program to start from") from error
    console.note(f"note: running the uploaded {view.name}@{view.version}")
    return view


async def _launch(client: PieClient, target: str, program: Bundle | str, signature: Signature, values: Values) -> int:
    from pie_cli.arguments import arguments_of

    own = values.own
    arguments, used_stdin = arguments_of(target, signature, values)
    with _recorder(own.get("record")) as recorder:
        trace: tuple[TraceKind, ...] = ("record",) if recorder else ()
        if own.get("detach"):
            process = await client.launch_process(program, arguments, on_disconnect="detach", trace=trace)
            console.data_line(process.pid)
            if recorder:
                console.note(f"`pie logs {process.pid} --record {recorder.path}` writes the recording, now or later")
            return exits.OK
        from pie_cli.attach import follow, stdin_has_lines
        from pie_cli.render import JsonPrinter, TextPrinter
        from pie_cli.summary import Timing

        timing = Timing()
        process = await client.launch_process(program, arguments, on_disconnect="terminate", trace=trace)
        sends_stdin = not used_stdin and bool(own.get("interactive", stdin_has_lines()))
        printer = JsonPrinter() if own.get("json") else TextPrinter()
        on_trace = recorder.take if recorder else None
        code = await follow(process, printer, timing, sends_stdin=sends_stdin, on_trace=on_trace)
        if code == exits.OK and own.get("summary", console.is_terminal()):
            console.note(console.paint(timing.line(await _usage(client, process.pid)), console.DIM))
        return exits.PROGRAM_FAILED if recorder and recorder.has_failed and code == exits.OK else code


def _recorder(path: object) -> AbstractContextManager[Recorder | None]:
    """For `--record`; None without it."""
    if path is None:
        return nullcontext()
    from pie_cli.recordings.write import Recorder

    return Recorder(str(path))


async def _usage(client: PieClient, pid: str) -> ProcessUsage | None:
    import msgspec

    from pie_engine.protocol.http import ProcessUsage

    view = await client.inspect(pid)
    return msgspec.convert(view["usage"], ProcessUsage) if view["usage"] and view["state"] == "ended" else None


def _show_help(target: str, view: ProgramView) -> int:
    from pie_cli.help import program_help

    console.data_line(program_help(target, view.name, _signature(view)))
    return exits.OK


def _signature(view: ProgramView) -> Signature:
    from pie_engine.protocol.program import Signature

    return view.signature or Signature()
