"""What is installed."""

from __future__ import annotations

DISTRIBUTION = "pie-serving"


def installed_version() -> str:
    from importlib import metadata

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def version_line() -> str:
    from pie_engine.protocol.version import PROTOCOL_VERSION

    return f"pie {installed_version()} (protocol {PROTOCOL_VERSION})"
