"""The work of `pie run`: launch a program and be at its other end until it has ended."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from pie_cli import console, exits
from pie_cli.client import new_client, run_async
from pie_cli.options import lacks_text, read_options, split_target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pie_cli.attach import Ending
    from pie_cli.options import Values
    from pie_cli.profiles.write import Profiler
    from pie_cli.recordings.write import Recorder
    from pie_cli.render import Printer
    from pie_cli.stdin import Stdin
    from pie_client import PieClient
    from pie_engine.protocol.http import ProcessUsage, ProgramView
    from pie_engine.protocol.program import Bundle, Signature
    from pie_engine.protocol.to_host import TraceKind


WATCH = "--watch"


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
    if before.own.get("watch") or WATCH in rest[1:]:
        from pie_cli.rerun import rerun_words

        code = rerun_words(rest[0], rest[1:], before.own)
        if code is not None:
            return code
    return run_async(_run(rest[0], rest[1:], before.own))


async def _run(target: str, words: list[str], own: dict[str, object]) -> int:
    from pie_cli.daemon import ensure_daemon
    from pie_cli.project import resolve_target
    from pie_engine.config import load_config

    config = load_config()
    program = resolve_target(target)
    async with new_client() as client:
        await ensure_daemon(client, config)
        view = await described(client, program)
        values = read_options(target, signature_of(view), words)
        values.own = own | values.own
        if values.own.get("help"):
            return show_help(target, view)
        # What was uploaded may be replaced meanwhile; what is here goes along, since nothing keeps it there, unless it
        # is tens of MiB that have just arrived.
        is_there = isinstance(program, str) or program.manifest.runtime == "component"
        runs = view.digest if is_there else program
        return await _launch(client, target, runs, signature_of(view), values)


async def described(client: PieClient, program: Bundle | str) -> ProgramView:
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
    from pie_cli.stdin import Stdin

    stdin = Stdin()
    arguments = arguments_of(target, signature, values, stdin)
    if values.own.get("detach"):
        return await _detach(client, program, arguments, values.own)
    if lacks_text(signature, arguments):
        _talk(values.own)
    lines = lines_for(values.own, stdin)
    return await run_once(client, program, arguments, values.own, printer_for(values.own), lines=lines)


def _talk(own: dict[str, object]) -> None:
    """Whoever sits at a terminal and gives a program nothing to begin with will type it."""
    from pie_cli.stdin import stdin_is_ours

    if "interactive" not in own and stdin_is_ours():
        own["interactive"] = True
        console.note(console.paint("what you type goes to the program, line by line; Ctrl-D ends it", console.DIM))


async def _detach(
    client: PieClient, program: Bundle | str, arguments: dict[str, object], own: dict[str, object]
) -> int:
    with recorder_for(own) as recorder:
        profiler = profiler_for(own)
        trace = _trace_kinds(recorder, profiler)
        process = await client.launch_process(program, arguments, on_disconnect="detach", trace=trace, **wishes_of(own))
        console.data_line(process.pid)
        if recorder:
            console.note(f"`pie logs {process.pid} --record {recorder.path}` writes the recording, now or later")
        for said in profiler.later(process.pid) if profiler else ():
            console.note(said)
    return exits.OK


def printer_for(own: dict[str, object]) -> Printer:
    from pie_cli.render import JsonPrinter, TextPrinter

    return JsonPrinter() if own.get("json") else TextPrinter()


def lines_for(own: dict[str, object], stdin: Stdin) -> AsyncIterator[str] | None:
    """What the program is sent as messages; None: nothing."""
    from pie_cli.stdin import stdin_has_lines

    return stdin.lines() if own.get("interactive", stdin_has_lines()) else None


async def run_once(
    client: PieClient,
    program: Bundle | str,
    arguments: dict[str, object],
    own: dict[str, object],
    printer: Printer,
    *,
    lines: AsyncIterator[str] | None,
    ending: Ending | None = None,
) -> int:
    """Launch a program, be with it until its end, and return the exit code. `ending`: what ends it, if not Ctrl-C."""
    from pie_cli.attach import follow
    from pie_cli.stdin import stdin_is_ours
    from pie_cli.summary import Timing

    with recorder_for(own) as recorder:
        timing, profiler = Timing(is_typed=lines is not None and stdin_is_ours()), profiler_for(own)
        trace = _trace_kinds(recorder, profiler)
        process = await client.launch_process(
            program, arguments, on_disconnect="terminate", trace=trace, **wishes_of(own)
        )
        takers = [each.take for each in (recorder, profiler) if each]

        def on_trace(data: dict[str, object]) -> None:
            for take in takers:
                take(data)

        async with process:
            code = await follow(process, printer, timing, lines=lines, on_trace=on_trace, ending=ending)
        if code == exits.OK and own.get("summary", console.is_terminal()):
            console.note(console.paint(timing.line(await _usage(client, process.pid)), console.DIM))
        if profiler:
            profiler.finish()
        has_failed = any(each.has_failed for each in (recorder, profiler) if each)
        return exits.PROGRAM_FAILED if has_failed and code == exits.OK else code


def wishes_of(own: dict[str, object]) -> dict[str, Any]:
    """What a launch asks for beside its program."""
    return {"endowment": own["endowment"]} if "endowment" in own else {}


def recorder_for(own: dict[str, object]) -> AbstractContextManager[Recorder | None]:
    """For `--record`; None without it. Raises `InvalidInput` when the file cannot be written."""
    path = own.get("record")
    if path is None:
        return nullcontext()
    from pie_cli.recordings.write import Recorder

    return Recorder(str(path))


def profiler_for(own: dict[str, object]) -> Profiler | None:
    """For `--profile` and `--trace`; None without them. Raises `InvalidInput` when the file cannot be written."""
    path = own.get("trace")
    if not own.get("profile") and path is None:
        return None
    from pie_cli.profiles.write import Profiler

    return Profiler(reports=bool(own.get("profile")), trace_path=None if path is None else str(path))


def _trace_kinds(recorder: Recorder | None, profiler: Profiler | None) -> tuple[TraceKind, ...]:
    kinds: list[TraceKind] = []
    if recorder:
        kinds.append("record")
    if profiler:
        kinds.append("profile")
    return tuple(kinds)


async def _usage(client: PieClient, pid: str) -> ProcessUsage | None:
    import msgspec

    from pie_engine.protocol.http import ProcessUsage

    view = await client.inspect(pid)
    return msgspec.convert(view["usage"], ProcessUsage) if view["usage"] and view["state"] == "ended" else None


def show_help(target: str, view: ProgramView) -> int:
    from pie_cli.help import program_help

    console.data_line(program_help(target, view.name, signature_of(view)))
    return exits.OK


def signature_of(view: ProgramView) -> Signature:
    from pie_engine.protocol.program import Signature

    return view.signature or Signature()
