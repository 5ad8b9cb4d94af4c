"""A daemon of a bench's own, in a home that goes with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import tomli_w

from pie_engine.config import ModelSection

PIE = [sys.executable, "-m", "pie_cli"]


class OwnDaemon(NamedTuple):
    """Where it lives, and what `pie` needs to find it."""

    folder: Path
    """For whatever the bench writes."""
    home: Path
    env: dict[str, str]


@contextmanager
def own_daemon(section: ModelSection | None = None) -> Iterator[OwnDaemon]:
    """One that serves `section`, or what the user's configuration says, which is pie-tiny if it says nothing."""
    with tempfile.TemporaryDirectory(prefix="pie-b-") as name:
        folder, home = Path(name), Path(name) / "home"
        home.mkdir()
        env = {**os.environ, "PIE_HOME": str(home)}
        if section is not None:
            config = folder / "config.toml"
            config.write_text(tomli_w.dumps({"models": [msgspec.to_builtins(section)]}))
            env["PIE_CONFIG"] = str(config)
        subprocess.run([*PIE, "serve", "--background"], env=env, check=True, stdout=subprocess.DEVNULL)
        try:
            yield OwnDaemon(folder, home, env)
        finally:
            subprocess.run([*PIE, "stop"], env=env, check=False, stdout=subprocess.DEVNULL)
