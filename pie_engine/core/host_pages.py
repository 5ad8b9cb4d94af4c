"""The memory of the host tier: what was in KV pages of the device, in slots (`kv.tier` says which)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pie_engine.driver.base import Driver, KvPages


class HostPages:
    """Reserved at once and taken from the system slot by slot, as they are written for the first time."""

    def __init__(self, driver: Driver, num_slots: int) -> None:
        """The driver must have its KV memory."""
        page = driver.read_pages([0]) if num_slots else {}
        self._arrays = {name: np.empty((num_slots, *array.shape[1:]), array.dtype) for name, array in page.items()}

    @property
    def regions(self) -> list[tuple[int, int]]:
        """Address and bytes."""
        return [(array.ctypes.data, array.nbytes) for array in self._arrays.values()]

    def write(self, slots: Sequence[int], pages: KvPages) -> None:
        for name, array in pages.items():
            self._arrays[name][slots] = array

    def read(self, slots: Sequence[int]) -> KvPages:
        return {name: array[slots] for name, array in self._arrays.items()}
