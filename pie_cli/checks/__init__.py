"""What `pie doctor` looks at: one file a room, each with a `check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pie_cli.checks import daemon, engine, incidents, models, storage
from pie_cli.checks.finding import Finding

if TYPE_CHECKING:
    from pie_client import PieClient


async def all_findings(client: PieClient) -> list[Finding]:
    """Everything found, in the order in which one would repair it."""
    from pie_engine.config import load_config
    from pie_engine.errors import InvalidConfig

    try:
        config = load_config()
    except InvalidConfig as error:
        return [Finding("config", "problem", error.message, error.hint)]
    return [
        *engine.check(config),
        *storage.check(config),
        *models.check(config),
        *await daemon.check(client, config),
        *incidents.check(config),
    ]
