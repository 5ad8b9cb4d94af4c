"""The pages that come from the code: `python -m pie_cli.docs [cli|errors]` writes one to stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pie_cli import console, exits

Page = Callable[[], str]


def cli_page() -> str:
    """docs/cli.md: the help of every verb, and the exit codes."""
    import typer.main

    from pie_cli.app import build_app

    group: Any = typer.main.get_command(build_app())
    parts = ["# The `pie` command", _GENERATED, _block(_help_of(group, None, "pie"))]
    with group.make_context("pie", [], resilient_parsing=True) as parent:
        for name, command in group.commands.items():
            parts += _verb(command, parent, name, "##")
    codes = [(str(code), meaning) for code, meaning in exits.MEANINGS.items()]
    parts += ["## Exit codes", _table("code", "meaning", rows=codes)]
    parts += ["## Environment", _table("variable", "meaning", rows=_ENVIRONMENT)]
    return "\n\n".join(parts) + "\n"


def errors_page() -> str:
    """docs/errors.md: every code, its class, its exit code and its meaning."""
    rows = []
    for code, cls in sorted(_codes().items()):
        error = cls("")
        error.code = code
        rows.append((f"`{code}`", f"`{cls.__name__}`", str(exits.exit_code_of(error)), _MEANINGS[code]))
    table = _table("code", "class", "exit code", "meaning", rows=rows)
    return "\n\n".join(["# Errors", _GENERATED, _ERRORS_TEXT, table]) + "\n"


PAGES: dict[str, Page] = {"cli.md": cli_page, "errors.md": errors_page}

_GENERATED = "_Written by `make docs` from the code._"
_ERRORS_TEXT = """\
Every error has a code that stays, a message that names the thing and, where there is a way out, a hint. Over HTTP it is
`{"error": {"code", "message", "hint", "retry", "traceback"}}`; of a process it is the data of its `error` event; in
Python it is raised as the class; `pie` writes it to stderr and exits with the code below."""
_ENVIRONMENT = [
    ("`PIE_HOME`", "data folder of the daemon: sockets, database, logs"),
    ("`PIE_CACHE`", "where built runtimes are kept"),
    ("`PIE_CONFIG`", "the configuration file, see [configuration.md](configuration.md)"),
    ("`PIE_LOG_LEVEL`", "`debug`, `info`, `warning` or `error`"),
    ("`NO_COLOR`", "any value: no colour"),
]
_MEANINGS = {
    "already_running": "A daemon of this user is running already.",
    "busy": "The object is in use or a queue is full; the same request can succeed later.",
    "cancelled": "The process was terminated by its owner.",
    "child_failed": "A program that it had launched ended with an error, and it let that one through.",
    "child_limit": "The program has as many children as it may have, or may launch none in its generation.",
    "context_too_long": "More tokens than the model's context; the message has the numbers.",
    "core_lost": "The core that held the program's contexts died; it is started again.",
    "cpu_limit": "The program computed for too long between two calls to the engine.",
    "error": "An error of a kind that this version does not know.",
    "exception": "The program raised an exception; its traceback comes along.",
    "host_lost": "The host that ran the program died; it is started again.",
    "host_recycled": "The host was started anew to get rid of a program that could not be ended.",
    "internal": "A bug of Pie.",
    "interrupted": "The connection broke in the middle; what was asked may or may not have happened.",
    "invalid_config": "The configuration file, an environment variable or an option has a wrong value.",
    "invalid_input": "A value from outside is wrong; the message names it.",
    "invalid_program": "The program cannot start: manifest, syntax, no `main`, native package.",
    "limit_exceeded": "A limit of the process was hit.",
    "daemon_stopped": "The daemon was stopped while the program was running.",
    "lost": "The daemon died while the program was running.",
    "disk_limit": "What was to be saved does not fit: the disk or the user's share of it is full.",
    "memory_limit": "More memory was needed than there may be: of a program, or for the adapters of a model.",
    "model_error": "The checkpoint cannot be loaded.",
    "no_daemon": "No daemon answers.",
    "not_found": "There is no such program, process, model or context.",
    "not_installed": "The extra that holds the engine is not installed.",
    "out_of_pages": "The program can never fit in the KV pages that there are; the message has the numbers.",
    "output_limit": "The program sent and printed more than it may.",
    "protocol_mismatch": "Command and daemon are of versions that do not understand each other.",
    "pull_failed": "A model cannot be fetched from the hub: access, connection, checksum or disk.",
    "queue_limit": "More processes than the daemon takes; try again later.",
    "start_failed": "The daemon or one of its parts does not start, or does not stop. Exit code 2 when the "
    "configuration is the reason, 4 when there is no such model.",
    "unsupported": "This driver, model or build does not have what was asked for.",
    "wall_limit": "The program ran longer than it may.",
}


def main(words: list[str]) -> None:
    """Writes one page to stdout."""
    name = words[0] if words else "cli"
    console.data(PAGES[f"{name}.md"]())


def _codes() -> dict[str, type[Any]]:
    """Every code with its class: the engine's tree, and what client and command line add to it."""
    from pie_cli import daemon
    from pie_engine import errors

    own = [cls for cls in vars(daemon).values() if isinstance(cls, type) and issubclass(cls, errors.PieError)]
    return {**errors._BY_CODE, **{cls.code: cls for cls in own}, "exception": errors.PieError}


def _help_of(command: Any, parent: Any, name: str) -> str:
    with command.make_context(name, [], parent=parent, resilient_parsing=True) as context:
        return str(command.get_help(context))


def _verb(command: Any, parent: Any, name: str, heading: str) -> list[str]:
    """A verb, and below it those that it has itself."""
    path = f"{parent.command_path} {name}"
    parts = [f"{heading} {path}", _block(_help_of(command, parent, name))]
    if inner := getattr(command, "commands", {}):
        with command.make_context(name, [], parent=parent, resilient_parsing=True) as context:
            for verb, below in inner.items():
                parts += _verb(below, context, verb, f"{heading}#")
    return parts


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"


def _table(*header: str, rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
