"""What the model commands share: the model that was typed, and those that the running daemon uses."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

from pie_cli.client import new_client
from pie_engine.config import EngineConfig


def folder_of(model: str, config: EngineConfig) -> Path:
    """The folder of a model by name, path or hub id. Raises `NotFound`."""
    from pie_engine.hub.places import resolve

    return resolve(model, config.paths).absolute()


class InUse(NamedTuple):
    """A model or a draft model of a core."""

    core: str
    folder: str
    path: str
    """What was asked for: a name, a hub id or a folder."""


async def models_in_use() -> list[InUse]:
    """Those of the running daemon; nothing where none runs."""
    from pie_cli.daemon import find_daemon

    async with new_client() as client:
        health = await find_daemon(client)
    cores = [member for member in health.members if member.role == "core"] if health else []
    models: list[InUse] = []
    for core in cores:
        detail: dict[str, Any] = core.detail
        draft = detail.get("draft_model", {})
        models.append(InUse(core.name, detail.get("folder", ""), detail.get("path", "")))
        models.append(InUse(core.name, draft.get("folder", ""), draft.get("model", "")))
    return [model for model in models if model.folder]


def require_modules(what: str, *modules: str) -> None:
    """Raises `NotInstalled` when a module of the extra `engine` is not there."""
    from pie_cli.daemon import INSTALL_HINT, NotInstalled

    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise NotInstalled(f"{what} needs {', '.join(missing)}, which is not installed", hint=INSTALL_HINT)
