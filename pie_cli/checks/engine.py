"""Is the engine installed, and its Python runtime built?"""

from __future__ import annotations

import sys

from pie_cli.checks.finding import Finding
from pie_cli.daemon import INSTALL_HINT, missing_engine_modules
from pie_cli.versions import version_line
from pie_engine.config import EngineConfig


def check(config: EngineConfig) -> list[Finding]:
    python = ".".join(str(part) for part in sys.version_info[:3])
    return [Finding("version", "ok", f"{version_line()} on Python {python}"), _installed(config), _runtime(config)]


def _installed(config: EngineConfig) -> Finding:
    missing = missing_engine_modules(config)
    if missing:
        return Finding("engine", "problem", f"the engine is not installed: no {', '.join(missing)}", INSTALL_HINT)
    return Finding("engine", "ok", "the engine is installed")


def _runtime(config: EngineConfig) -> Finding:
    built = sorted(config.paths.cache.glob("**/*.cwasm"))
    if not built:
        return Finding("runtime", "note", "the Python runtime is not built yet: the first start does it, in about 15 s")
    return Finding("runtime", "ok", f"the Python runtime is built ({config.paths.cache})")
