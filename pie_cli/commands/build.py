"""`pie build`: a standalone component, or a bundle."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli import console


def register(app: typer.Typer) -> None:
    app.command("build")(build)


def build(
    folder: Annotated[str, typer.Argument(metavar="[FOLDER]", help="A program's folder, or a .py file.")] = ".",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to write it, else dist/NAME-VERSION.wasm.")
    ] = "",
    bundle: Annotated[
        bool,
        typer.Option("--bundle", help="The source and its packages in one .pie file instead, always the same bytes."),
    ] = False,
    locked: Annotated[bool, typer.Option("--locked", help="Refuse when pie.lock does not fit pie.toml.")] = False,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Take the newest packages that fit; writes pie.lock.")
    ] = False,
) -> None:
    """Build a standalone component: one file that runs wherever Pie does.

    Python programs take their packages along, as pie.lock names them; a folder with a Cargo.toml is built by cargo.
    What has not changed is not built again. The path of the file goes to stdout.
    """
    import os
    from pathlib import Path

    from pie_cli.building import build_program
    from pie_cli.client import interruptible

    target = Path(os.path.expanduser(folder))
    with interruptible():
        path = build_program(
            target, Path(output).expanduser() if output else None, as_bundle=bundle, locked=locked, upgrade=upgrade
        )
    console.data_line(str(path))
