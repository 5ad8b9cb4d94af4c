"""Is there what `pie build` needs for programs in other languages? Nobody else needs it, so its absence is a note."""

from __future__ import annotations

from pie_cli.checks.finding import Finding
from pie_engine.errors import PieError


def check() -> list[Finding]:
    from pie_engine.builder import rust

    try:
        cargo = rust.require_tools()
    except PieError as error:
        return [Finding("tools", "note", f"{error.message} (`pie build`)", error.hint)]
    return [Finding("tools", "ok", f"cargo {rust.version_of(cargo)} builds for {rust.TARGET}")]
