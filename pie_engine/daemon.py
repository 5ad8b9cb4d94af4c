"""Composition root: `python -m pie_engine.daemon [--config-json JSON]` runs the engine of one home folder.

It starts and supervises the gateway, the hosts and the cores, each a process of its own, and holds no HTTP itself.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from pie_engine.config import EngineConfig, load_config
from pie_engine.errors import Busy, InvalidConfig, PieError
from pie_engine.supervise.home import DaemonLock, prepare_home, remove_stale_files
from pie_engine.supervise.supervisor import Commands, Supervisor

EXIT_ALREADY_RUNNING = 75
EXIT_CANNOT_START = 78

COMMANDS: Commands = {
    "gateway": (sys.executable, "-m", "pie_engine.gateway"),
    "host": (sys.executable, "-m", "pie_engine.host"),
    "core": (sys.executable, "-m", "pie_engine.core"),
}


def main(argv: Sequence[str] | None = None, commands: Commands = COMMANDS) -> int:
    """Runs until it is stopped. What keeps it from starting goes to stderr: `error: …`, `hint: …` and `code: …`."""
    try:
        run(load_config(_overrides(argv)), commands)
    except PieError as error:
        hint = f"hint: {error.hint}\n" if error.hint else ""
        sys.stderr.write(f"error: {error.message}\n{hint}code: {error.code}\n")
        return EXIT_ALREADY_RUNNING if isinstance(error, Busy) else EXIT_CANNOT_START
    return 0


def run(config: EngineConfig, commands: Commands = COMMANDS) -> None:
    """Until stopped. Raises `Busy` when a daemon of this home runs, `InvalidConfig` when the home cannot be used."""
    paths = config.paths
    prepare_home(paths)
    lock = DaemonLock(paths.daemon_lock)
    try:
        remove_stale_files(paths)
        logging.basicConfig(
            filename=paths.logs / "daemon.log",
            level=config.log_level.upper(),
            format="%(asctime)s daemon %(levelname)s %(name)s: %(message)s",
        )
        Supervisor(config, commands).run()
    finally:
        lock.release()


def _overrides(argv: Sequence[str] | None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m pie_engine.daemon", description=__doc__)
    parser.add_argument("--config-json", default="{}", help="settings over those of the configuration file")
    text = parser.parse_args(argv).config_json
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidConfig(f"--config-json: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
