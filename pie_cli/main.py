"""The entry point: one command line in, an exit code out, and what becomes of errors."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from pie_cli import console, exits


def main() -> NoReturn:
    """The `pie` command."""
    console.prepare()
    sys.exit(invoke(sys.argv[1:]))


def invoke(args: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        result = _dispatch(args)
    except console.OutputClosed:
        return exits.OK
    except console.OutputFailed as error:
        console.error(str(error), "send the output elsewhere")
        return exits.PROGRAM_FAILED
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except Exception as error:
        return _report(error)
    return result if isinstance(result, int) else exits.OK


def _dispatch(args: list[str]) -> object:
    _refuse_undecoded(args)
    is_completion = "_PIE_COMPLETE" in os.environ
    if args[:1] == ["run"] and not is_completion:
        # typer would take 90 ms to hand these words on as they are.
        from pie_cli.launch import run_words

        return run_words(args[1:])
    from pie_cli.app import build_app

    has_verb = bool(args) and not args[0].startswith("-")
    # Help is written by typer.
    with contextlib.nullcontext() if has_verb and "--help" not in args else console.written_data():
        return build_app(has_options=is_completion or not has_verb)(args, prog_name="pie", standalone_mode=False)


def _refuse_undecoded(args: list[str]) -> None:
    """Bytes that are no text cannot travel to a program, as names of files neither."""
    for word in args:
        if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
            from pie_engine.errors import InvalidInput

            shown = os.fsencode(word).decode("utf-8", "backslashreplace")
            raise InvalidInput(f"`{shown}` is not UTF-8", hint="write it in UTF-8, or rename the file")


def _report(error: Exception) -> int:
    """Show an error that ends the command; returns the exit code."""
    if hasattr(error, "format_message"):
        return _report_usage(error)
    from pie_engine.errors import PieError

    if isinstance(error, PieError):
        from pie_cli.render import report

        report(error)
        return exits.exit_code_of(error)
    return _report_bug(error)


def _report_usage(error: Exception) -> int:
    """An error of the command line itself, from typer."""
    message = str(error.format_message())  # type: ignore[attr-defined]
    if type(error).__name__ == "NoArgsIsHelpError":
        console.note(message)
        return exits.USAGE
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "pie"
    console.error(message[:1].lower() + message[1:].rstrip("."), f"see `{command} --help`")
    return exits.USAGE


def _report_bug(error: Exception) -> int:
    import traceback

    console.passed_on("".join(traceback.format_exception(error)))
    console.error(f"{type(error).__name__}: {error}", "this is a bug in pie: please report it with the text above")
    return exits.PROGRAM_FAILED
