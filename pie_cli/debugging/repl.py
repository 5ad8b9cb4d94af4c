"""The work of `pie repl`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pie_cli.client import new_client, run_async

if TYPE_CHECKING:
    from pie_client import PieClient

PROGRAM = "async def main() -> None:\n    ...\n"
"""What the daemon knows of it: the prompt is in the user's Python."""


def repl(model: str) -> int:
    return run_async(_repl(model))


async def _repl(model: str) -> int:
    from pie_cli.daemon import ensure_daemon
    from pie_cli.debugging.native import new_place, run_native
    from pie_cli.debugging.pythons import find_python
    from pie_cli.render import TextPrinter
    from pie_engine.config import load_config
    from pie_engine.protocol.program import Bundle, Manifest

    config = load_config()
    bundle = Bundle(Manifest(name="repl"), {"main.py": PROGRAM})
    async with new_client() as client:
        await ensure_daemon(client, config)
        if model:
            await _find_model(client, model)
        with new_place() as place:
            session = {
                "folder": str(place.here),
                "repl": {"model": model, "history": str(config.paths.home / "repl_history")},
            }
            python = find_python(place.sdk, None)
            return await run_native(client, place, python, bundle, {}, TextPrinter(), session)


async def _find_model(client: PieClient, name: str) -> None:
    from pie_engine.errors import NotFound

    names = [str(model["name"]) for model in await client.models()]
    if name not in names:
        raise NotFound(f"no model is called `{name}`", hint=f"models here: {', '.join(names)}")
