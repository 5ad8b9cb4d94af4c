"""Where traces are sent."""

from __future__ import annotations

from urllib.parse import urlsplit

from pie_engine.errors import InvalidConfig

PATH = "/v1/traces"


def traces_url(endpoint: str) -> str:
    """Where OTLP over HTTP puts traces, below a collector's address. Raises `InvalidConfig` when it is none."""
    try:
        url = urlsplit(endpoint)
        is_address = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise InvalidConfig(
            f"`otlp_endpoint` under [telemetry] is `{endpoint}`, which is not the address of a collector",
            hint="write it like `http://127.0.0.1:4318`",
        )
    return endpoint.rstrip("/") + PATH
