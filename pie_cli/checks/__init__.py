"""What `pie doctor` looks at: one file a room, each with a `check`."""

from __future__ import annotations

from pie_cli.checks import daemon, engine, hardware, incidents, models, storage, tools
from pie_cli.checks.finding import Finding
from pie_cli.client import new_client


async def all_findings() -> list[Finding]:
    """Everything found, in the order in which one would repair it."""
    from pie_engine.config import EngineConfig, load_config, load_paths
    from pie_engine.errors import InvalidConfig

    wrong = []
    try:
        config = load_config()
    except InvalidConfig as error:
        wrong = [Finding("config", "problem", error.message, error.hint)]
        try:
            paths = load_paths()
        except InvalidConfig:
            return wrong
        config = EngineConfig(home=str(paths.home), cache=str(paths.cache))
    async with new_client() as client:
        alive = await daemon.check(client, config)
    return [
        *wrong,
        *engine.check(config),
        *hardware.check(),
        *tools.check(),
        *storage.check(config),
        *models.check(config),
        *alive,
        *incidents.check(config),
    ]
