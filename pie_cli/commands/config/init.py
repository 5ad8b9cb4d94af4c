"""`pie config init`: a file to start from."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli import console


def register(app: typer.Typer) -> None:
    app.command("init")(init)


def init(
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file that is there; it is kept as `.bak`.")
    ] = False,
) -> None:
    """Write a config.toml that names every setting with its default, each behind a `#`."""
    from pie_cli import settings
    from pie_engine.config import config_file
    from pie_engine.errors import InvalidInput

    path = config_file()
    if path.exists():
        if not force:
            raise InvalidInput(
                f"{path} is there already",
                hint="`pie config set KEY VALUE` changes a setting; `pie config init --force` begins anew",
            )
        path.replace(path.with_name(f"{path.name}.bak"))
    settings.write(path, settings.template())
    console.note(f"wrote {path}")
