"""`pie inspect`: what is in a program."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli import console


def register(app: typer.Typer) -> None:
    app.command("inspect")(inspect)


def inspect(
    program: Annotated[str, typer.Argument(metavar="FILE", help="A .wasm or .pie file, a .py file, or a folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
) -> None:
    """Show what is in a component or a bundle: manifest, imports, permissions, packages, size, digest.

    Nothing of it is run. Of a folder or a .py file it shows what would travel.
    """
    import os
    from pathlib import Path

    from pie_cli.inspection import facts_of, lines_of

    facts = facts_of(Path(os.path.expanduser(program)))
    if as_json:
        import msgspec

        console.data_line(msgspec.json.encode(facts).decode())
        return
    for line in lines_of(facts):
        console.data_line(line)
