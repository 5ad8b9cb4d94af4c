"""`pie new`: a program to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pie_cli import console


def register(app: typer.Typer) -> None:
    app.command("new")(new)


def new(
    name: Annotated[str, typer.Argument(help="Folder to make; its last part names the program.")] = "",
    template: Annotated[str, typer.Option(help="What to start from; `chat` unless told otherwise.")] = "",
    listing: Annotated[bool, typer.Option("--list", help="Show the templates and leave.")] = False,
) -> None:
    """Make a program from a template. On a terminal, without arguments, it asks for both."""
    from pie_cli.templates import DEFAULT, create_program, list_templates

    if listing:
        console.table(("TEMPLATE", "WHAT IT DOES"), [(each.name, each.description) for each in list_templates()])
        return
    if not name and not template and console.is_asked() and console.is_terminal():
        name, template = _ask_name(), _ask_template()
    template = template or DEFAULT
    created = create_program(Path(name or template).expanduser(), template)
    console.note(f"created {created.folder}: {', '.join(str(file) for file in created.files)}")
    console.note(f"run it: {created.command}")


def _ask_name() -> str:
    from pie_cli.templates import check_folder
    from pie_engine.errors import InvalidInput

    def checked(answer: str) -> str:
        if not answer:
            raise InvalidInput("a program needs a name", hint="it is the folder, too: `hello` say")
        check_folder(Path(answer).expanduser())
        return answer

    return console.ask_text("name of the program: ", checked)


def _ask_template() -> str:
    from pie_cli.templates import DEFAULT, check_template, list_templates

    known = list_templates()
    width = max(len(each.name) for each in known)
    for number, each in enumerate(known, 1):
        console.note(f"  {number}  {each.name:{width}}  {each.description}")

    def checked(answer: str) -> str:
        is_number = answer.isdecimal() and 1 <= int(answer) <= len(known)
        chosen = known[int(answer) - 1].name if is_number else answer or DEFAULT
        check_template(chosen)
        return chosen

    return console.ask_text(f"template, by number or name [{DEFAULT}]: ", checked)
