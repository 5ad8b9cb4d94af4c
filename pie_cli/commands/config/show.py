"""`pie config show`: what holds, and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console

if TYPE_CHECKING:
    from pie_cli.settings import Effective


def register(app: typer.Typer) -> None:
    app.command("show")(show)


def show(
    key: Annotated[str, typer.Argument(metavar="[KEY]", help="Only this one's value, `host.num_hosts` say.")] = "",
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not at its default.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Show the settings that the next daemon starts with, and where each comes from."""
    from pie_cli import settings
    from pie_engine.config import config_file

    rows = settings.effective()
    if key:
        _show_one(settings.find(rows, key), as_json=as_json)
        return
    if changed:
        rows = [row for row in rows if row.source != settings.DEFAULT]
    if as_json:
        import msgspec

        console.data_line(msgspec.json.encode({"file": str(config_file()), "settings": rows}).decode())
        return
    if rows:
        console.table(
            ("SETTING", "VALUE", "FROM"), [(row.key, settings.toml_value(row.value), row.source) for row in rows]
        )
    elif changed:
        console.note("everything is at its default")
    if not config_file().exists():
        console.note(f"there is no {config_file()} yet: `pie config init` writes one")


def _show_one(row: Effective, *, as_json: bool) -> None:
    import msgspec

    if as_json:
        console.data_line(msgspec.json.encode(row).decode())
    elif isinstance(row.value, str):
        console.data_line(row.value)
    else:
        console.data_line(msgspec.json.encode(row.value).decode())
