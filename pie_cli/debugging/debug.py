"""The work of `pie debug`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pie_cli import console, exits
from pie_cli.client import new_client, run_async
from pie_cli.options import ENDOWMENT, HELP, INPUT, JSON, Verb, own_option, read_options, split_target
from pie_engine.errors import InvalidInput, NotFound, Unsupported

if TYPE_CHECKING:
    from pie_engine.protocol.program import Bundle

DEBUG = Verb(
    "debug",
    (
        INPUT,
        JSON,
        own_option("pm", "boolean", "Open pdb where the program has failed, before it ends."),
        own_option("listen", "string", "Let an IDE attach its debugger at HOST:PORT; needs debugpy."),
        own_option("wait", "boolean", "With --listen: begin when the IDE is there."),
        own_option("python", "string", "The Python to use, instead of the one that is the most like the sandbox's."),
        ENDOWMENT,
        HELP,
    ),
)


def debug_words(words: list[str]) -> int:
    """`pie debug` with everything behind it."""
    before, rest = split_target(words, DEBUG)
    if before.own.get("help") and not rest:
        from pie_cli.help import debug_help

        console.data_line(debug_help())
        return exits.OK
    if not rest:
        raise InvalidInput("TARGET is missing: a folder or a .py file", hint="see `pie debug --help`")
    return run_async(_debug(rest[0], rest[1:], before.own))


async def _debug(target: str, words: list[str], own: dict[str, object]) -> int:
    from pie_cli.arguments import arguments_of
    from pie_cli.daemon import ensure_daemon
    from pie_cli.debugging.native import new_place, run_native
    from pie_cli.debugging.pythons import check_debugpy, check_sources, find_python
    from pie_cli.launch import wishes_of
    from pie_cli.render import JsonPrinter, TextPrinter
    from pie_cli.stdin import Stdin
    from pie_engine.config import load_config
    from pie_engine.protocol.program import Signature

    config = load_config()
    bundle = _local(target)
    async with new_client() as client:
        await ensure_daemon(client, config)
        view = await client.describe(bundle)
        signature = view.signature or Signature()
        values = read_options(target, signature, words, DEBUG)
        values.own = own | values.own
        if values.own.get("help"):
            from pie_cli.help import program_help

            console.data_line(program_help(target, view.name, signature, DEBUG))
            return exits.OK
        listen = _address(values.own)
        arguments = arguments_of(target, signature, values, Stdin(), DEBUG)
        printer = JsonPrinter() if values.own.get("json") else TextPrinter()
        with new_place() as place:
            wanted = values.own.get("python")
            python = find_python(place.sdk, None if wanted is None else str(wanted), needs_debugpy=bool(listen))
            check_sources(python, bundle.files)
            if listen:
                check_debugpy(python)
            folder, files = _files(target, bundle)
            session = {
                "folder": str(folder),
                "files": files,
                "listen": listen,
                "wait": bool(values.own.get("wait")),
                "pm": bool(values.own.get("pm")),
            }
            return await run_native(client, place, python, bundle, arguments, printer, session, **wishes_of(values.own))


def _local(target: str) -> Bundle:
    """Its bundle. Raises when there is nothing here that a debugger could step through."""
    from pie_cli.project import resolve_target

    bundle = resolve_target(target)
    if isinstance(bundle, str):
        raise NotFound(
            f"there is no file or folder `{target}`: a program is debugged in its own files",
            hint="give its folder, or its .py file",
        )
    if bundle.manifest.runtime == "component":
        message = f"`{target}` is a component, which no Python can step through"
        raise Unsupported(message, hint="debug the source that it was built from")
    return bundle


def _files(target: str, bundle: Bundle) -> tuple[Path, dict[str, str]]:
    """The program's folder, and where each of its own modules lies; its packages came from elsewhere."""
    path = Path(target).expanduser().absolute()
    folder = path if path.is_dir() else path.parent
    modules = (path for path in bundle.files if path.endswith(".py"))
    return folder, {path: str(folder / path) for path in modules if (folder / path).is_file()}


def _address(own: dict[str, object]) -> str:
    """HOST:PORT, or nothing. Raises `InvalidInput`."""
    listen = str(own.get("listen") or "")
    if not listen and own.get("wait"):
        raise InvalidInput("`--wait` is for `--listen`", hint="like `--listen 127.0.0.1:5678 --wait`")
    host, _, port = listen.rpartition(":")
    if listen and not (port.isdigit() and int(port) < 65536):
        raise InvalidInput(f"`--listen` needs HOST:PORT, got `{listen}`", hint="like `--listen 127.0.0.1:5678`")
    return f"{host or '127.0.0.1'}:{port}" if listen else ""
