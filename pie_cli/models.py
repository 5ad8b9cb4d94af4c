"""What the model commands share: the model that was typed, and those that the running daemon uses."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from pie_cli.client import new_client
from pie_engine.config import EngineConfig


def folder_of(model: str, config: EngineConfig) -> Path:
    """The folder of a model by name, path or hub id. Raises `NotFound`."""
    from pie_engine.hub.places import resolve

    return resolve(model, config.paths).absolute()


async def models_in_use() -> list[tuple[str, str]]:
    """Name of a core of the running daemon and folder, of its model and its draft model; nothing where none runs."""
    from pie_cli.daemon import find_daemon

    async with new_client() as client:
        health = await find_daemon(client)
    cores = [member for member in health.members if member.role == "core"] if health else []
    details: list[tuple[str, dict[str, Any]]] = [(core.name, core.detail) for core in cores]
    models = [(name, model) for name, detail in details for model in (detail, detail.get("draft_model", {}))]
    return [(name, str(model["folder"])) for name, model in models if model.get("folder")]


def require_modules(what: str, *modules: str) -> None:
    """Raises `NotInstalled` when a module of the extra `engine` is not there."""
    from pie_cli.daemon import INSTALL_HINT, NotInstalled

    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise NotInstalled(f"{what} needs {', '.join(missing)}, which is not installed", hint=INSTALL_HINT)
