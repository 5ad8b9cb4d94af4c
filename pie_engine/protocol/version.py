"""The version that CLI, client and daemon agree on, and its header; and the version that is installed."""

PROTOCOL_VERSION = 1
PROTOCOL_HEADER = "Pie-Protocol"
DISTRIBUTION = "pie-serving"


def pie_version() -> str:
    """`unknown` where Pie runs without having been installed."""
    # Loads slowly, and few ask.
    from importlib import metadata

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"
