"""What is installed."""

from __future__ import annotations


def version_line() -> str:
    from pie_engine.protocol.version import PROTOCOL_VERSION, pie_version

    return f"pie {pie_version()} (protocol {PROTOCOL_VERSION})"
