"""`pie model list`: the models that are at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console
from pie_cli.client import run_async

if TYPE_CHECKING:
    from pie_cli.models import InUse
    from pie_engine.hub.catalogue import Entry

HEADER = ("MODEL", "SIZE", "ARCHITECTURE", "DTYPE", "SOURCE", "STATE")


def register(app: typer.Typer) -> None:
    app.command("list")(list_models)


def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Show the models that are here: shipped, named, in the hub cache, and configured.

    Each is shown by what `pie serve --model` and `path` in the configuration take.
    """
    import msgspec

    from pie_cli.models import models_in_use
    from pie_engine.config import load_config
    from pie_engine.hub.catalogue import catalogue

    entries = catalogue(load_config())
    in_use = _names_of(run_async(models_in_use()), entries)
    if as_json:
        models = [msgspec.to_builtins(entry) | {"in_use": entry.name in in_use} for entry in entries]
        console.data_line(msgspec.json.encode({"models": models}).decode())
        return
    console.table(HEADER, [_row(entry, in_use) for entry in entries], right=frozenset({1}))


def _names_of(models: list[InUse], entries: list[Entry]) -> set[str]:
    """Those under which the models were asked for; where that is none of them, all names of their folders."""
    found: set[str] = set()
    for model in models:
        names = {entry.name for entry in entries if entry.folder == model.folder}
        found |= {model.path} & names or names
    return found


def _row(entry: Entry, in_use: set[str]) -> tuple[str, ...]:
    from pie_cli.sizes import bytes_text

    size = bytes_text(entry.size_bytes) if entry.size_bytes else "-"
    return (entry.name, size, entry.architecture or "-", entry.dtype or "-", entry.source, _state(entry, in_use))


def _state(entry: Entry, in_use: set[str]) -> str:
    if entry.problem:
        return f"broken: {entry.problem}"
    if entry.name in in_use:
        return "in use"
    return "configured" if entry.is_configured else ""
