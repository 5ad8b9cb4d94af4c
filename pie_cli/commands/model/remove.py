"""`pie model remove`: take a model or a name away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console, exits
from pie_cli.client import run_async

if TYPE_CHECKING:
    from pie_engine.hub.remove import Removal


def register(app: typer.Typer) -> None:
    app.command("remove")(remove)


def remove(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name, or a hub id with or without @REVISION.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Remove a model from the cache with all its revisions, or one of them; of a name, the name only.

    A model that the running daemon uses is refused.
    """
    from pie_cli.models import models_in_use
    from pie_engine.config import load_config
    from pie_engine.hub.remove import plan_removal, refuse_in_use

    config = load_config()
    removal = plan_removal(model, config.paths.names)
    refuse_in_use(removal, [(model.core, model.folder) for model in run_async(models_in_use())])
    if not yes and not _confirmed(removal):
        console.note("nothing was removed")
        return exits.OK
    removal.remove()
    console.note(f"removed {_described(removal)}")
    if any(model in (section.path, section.draft_model) for section in config.models):
        console.warning(f"the configuration still names {model}")
    return exits.OK


def _confirmed(removal: Removal) -> bool:
    from pie_engine.errors import InvalidInput

    if not console.is_asked():
        raise InvalidInput(f"removing {_described(removal)} has to be confirmed", hint="add --yes")
    return console.ask(f"remove {_described(removal)}?")


def _described(removal: Removal) -> str:
    from pie_cli.sizes import bytes_text

    if not removal.num_bytes:
        return f"{removal.label} ({removal.folder} stays)" if removal.label.startswith("the name") else removal.label
    return f"{removal.label} ({bytes_text(removal.num_bytes)})"
