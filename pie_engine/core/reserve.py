"""How many KV pages the configuration asks for, in the device's memory and in the host's."""

from __future__ import annotations

import logging

from pie_engine.config import MIB, ModelSection
from pie_engine.errors import OutOfPages
from pie_engine.hub.memory import available_bytes

log = logging.getLogger(__name__)


def num_slots_of(section: ModelSection, page_bytes: int) -> int:
    """KV pages in host memory that the configuration asks for; at most half of what is free, since it is not needed."""
    asked, available = section.offload_memory_mb * MIB, available_bytes()
    if asked > available // 2:
        log.warning("offload_memory_mb = %d, but %d MiB are free: half of that", asked // MIB, available // MIB)
    return min(asked, available // 2) // page_bytes


def num_pages_of(section: ModelSection, page_bytes: int) -> int:
    """KV pages that the configuration asks for."""
    num_pages = section.num_pages or section.kv_memory_mb * MIB // page_bytes
    if num_pages < 1:
        raise OutOfPages(
            f"kv_memory_mb = {section.kv_memory_mb} does not hold one KV page of {page_bytes} bytes",
            hint="raise `kv_memory_mb` of the model in the configuration",
        )
    return num_pages
