"""Command lines as pages show them, read by the real command line without anything being run."""

from __future__ import annotations

import re
import shlex
from functools import cache
from typing import Any

import typer.main

from pie_cli.app import build_app
from pie_cli.debugging.debug import DEBUG
from pie_cli.options import RUN, split_target

VERBS = {"run": RUN, "debug": DEBUG}
_SEPARATOR = re.compile(r"\s+(?:&&|\|\||\||;)\s+")
_REDIRECTED = re.compile(r"\s+2?[<>]{1,2}\s*\S+")
_COMMENT = re.compile(r"(?:^|\s+)#(?:\s.*)?$")


def commands_of(text: str) -> list[str]:
    """The commands of a shell block: those behind `$`, or of a script every line; without comments."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [command for line in lines if (command := _COMMENT.sub("", line).strip())]


def words_of(command: str) -> list[list[str]]:
    """The words of each command in a line."""
    return [shlex.split(_REDIRECTED.sub("", part)) for part in _SEPARATOR.split(command)]


@cache
def _group() -> Any:
    return typer.main.get_command(build_app())


def complaint(words: list[str]) -> str:
    """What the command line would say of the words behind `pie`; nothing where it would go on."""
    try:
        _parse(words)
    except Exception as error:
        return str(error.format_message()) if hasattr(error, "format_message") else str(error)
    return ""


def _parse(words: list[str]) -> None:
    if words[0] in VERBS:
        _, rest = split_target(words[1:], VERBS[words[0]])
        assert rest or "--help" in words, "Missing argument 'TARGET'."
        return
    command, name, rest = _group(), "pie", list(words)
    parent = command.make_context(name, [], resilient_parsing=True)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"there is no `pie {' '.join(words)}`"
        command, name, rest = command.commands[rest[0]], rest[0], rest[1:]
    if "--help" not in rest:
        command.make_context(name, rest, parent=parent)
