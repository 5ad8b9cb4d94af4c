"""`pie new`: a program to start from."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli import console

QUESTIONS = {"chat": "Who are you?", "agent": "What is 12 * 30?"}
"""What one asks first: the agent needs a reason to call its tool."""


def register(app: typer.Typer) -> None:
    app.command("new")(new)


def new(
    name: Annotated[str, typer.Argument(help="Folder to make; its last part names the program.")] = "",
    template: Annotated[str, typer.Option(help="What to start from: `chat` or `agent`.")] = "chat",
) -> None:
    """Make a program from a template."""
    import shlex
    from pathlib import Path

    from pie_cli.project import create_program

    folder = Path(name or template)
    files = create_program(folder, template)
    console.note(f"created {folder}: {', '.join(str(file) for file in files)}")
    console.note(f'run it: pie run {shlex.quote(str(folder))} "{QUESTIONS.get(template, QUESTIONS["chat"])}"')
