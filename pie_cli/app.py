"""The verbs of `pie`, for typer."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli import console, exits, words
from pie_cli.commands import (
    adapter,
    attach,
    bid,
    build,
    config,
    context,
    debug,
    dev,
    diff,
    doctor,
    endow,
    gc,
    inspect,
    kill,
    logs,
    model,
    monitor,
    new,
    pause,
    profile,
    ps,
    repl,
    replay,
    resume,
    run,
    secret,
    send,
    serve,
    stats,
    stop,
    test,
    upload,
)

COMMANDS = (
    new,
    run,
    debug,
    dev,
    repl,
    build,
    upload,
    inspect,
    test,
    replay,
    diff,
    profile,
    serve,
    stop,
    ps,
    monitor,
    stats,
    logs,
    attach,
    send,
    kill,
    pause,
    resume,
    bid,
    endow,
    model,
    adapter,
    context,
    config,
    secret,
    gc,
    doctor,
)
"""In the order of the help."""
EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in exits.MEANINGS.items()) + "."


def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.", is_eager=True)] = False,
) -> None:
    """Programmable LLM serving: your Python program runs inside the engine and drives generation itself."""
    if version:
        from pie_cli.versions import version_line

        console.data_line(version_line())
        raise typer.Exit


def build_app(*, has_options: bool = True) -> typer.Typer:
    """The command line. `has_options`: those before the verb; typer loads pydantic for them, which takes 130 ms."""
    words.take_as_they_are()
    app = typer.Typer(name="pie", rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=has_options)
    app.callback(no_args_is_help=True, epilog=EPILOG, invoke_without_command=True, add_help_option=has_options)(root)
    for command in COMMANDS:
        command.register(app)
    return app
