"""`pie config set`: change one setting, and leave the rest of the file as it is."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli import console
from pie_cli.words import NEGATIVE_NUMBERS


def register(app: typer.Typer) -> None:
    app.command("set", context_settings=NEGATIVE_NUMBERS)(set_value)


def set_value(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="`host.num_hosts`, `log_level`, `models.path`, `models.NAME.path`.")
    ],
    value: Annotated[str | None, typer.Argument(metavar="[VALUE]", show_default=False)] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Take it out of the file, so that its default holds.")
    ] = False,
) -> None:
    """Change a setting in config.toml. Comments and order stay; a wrong value is refused before anything is written.

    `models.KEY` is that of the only model; where there are several, `models.NAME.KEY`, and a NAME that is not there
    yet adds a model.
    """
    from pie_cli import settings
    from pie_engine.config import ENVIRONMENT, config_file, load_paths
    from pie_engine.errors import InvalidInput

    if default == (value is not None):
        raise InvalidInput(f"`{key}` needs a VALUE or `--default`", hint=f"pie config set {key} VALUE")
    path = config_file()
    settings.change(path, key, value)
    console.note(f"{path}: `{key}` is at its default again" if default else f"{path}: `{key}` is set")
    if variable := settings.overriding(ENVIRONMENT.get(key, "")):
        console.warning(f"{variable} is set in this shell and wins over the file")
    from pie_cli.daemon import running_daemon

    if running_daemon(load_paths()) is not None:
        console.show_hint("the running daemon keeps its settings: `pie stop`, and the next start reads the file")
