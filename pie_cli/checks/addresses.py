"""Addresses in the configuration: whether a daemon could use them."""

from __future__ import annotations

from pie_engine.config import EngineConfig
from pie_engine.protocol.collector import traces_url
from pie_engine.protocol.listen import listen_address


def check(config: EngineConfig) -> None:
    """Raises `InvalidConfig` for the first one that it could not."""
    if config.gateway.listen:
        listen_address(config.gateway.listen)
    if config.telemetry.otlp_endpoint:
        traces_url(config.telemetry.otlp_endpoint)
