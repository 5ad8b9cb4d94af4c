"""What `pie doctor --fix` does by itself: repairs that lose nothing and ask nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pie_cli.checks.finding import Finding
from pie_engine.errors import PieError


def repair(finding: Finding) -> str:
    """Do it; what was done, or why it could not be."""
    assert finding.repair is not None
    name, subject = finding.repair
    try:
        return _REPAIRS[name](subject)
    except (OSError, PieError) as error:
        return f"could not: {error}"


def _make_private(folder: str) -> str:
    path = Path(folder)
    path.chmod((path.stat().st_mode & 0o700) | 0o700)
    return f"{folder} is this user's own now"


def _remove_socket(socket: str) -> str:
    Path(socket).unlink(missing_ok=True)
    return f"removed {socket}"


def _remove_cache(folder: str) -> str:
    """Of compiled code: the next start makes it again."""
    import shutil

    shutil.rmtree(folder)
    return f"removed {folder}"


def _collect(_: str) -> str:
    from pie_cli.leftovers import find_leftovers
    from pie_cli.sizes import bytes_text
    from pie_engine.config import load_config

    config = load_config()
    found = find_leftovers(config.paths, config.gateway.retention_days, is_running=True)
    for each in found:
        each.remove()
    return f"removed {bytes_text(sum(each.num_bytes for each in found))} of old caches"


_REPAIRS: dict[str, Callable[[str], str]] = {
    "make_private": _make_private,
    "remove_socket": _remove_socket,
    "remove_cache": _remove_cache,
    "collect": _collect,
}
