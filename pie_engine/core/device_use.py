"""How busy the device is, as NVML says it; without NVIDIA's library, or another kind of device, nobody knows."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


class DeviceMeter:
    """Asks NVML in a thread of its own, once a second: an answer may take milliseconds, and a step must not wait."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.use: float | None = None
        """0 to 1, lately."""
        self.memory_bytes = 0
        """Of the device that are taken, by whomever."""
        self._nvml, self._handle = nvml, handle
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="device-meter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self.use = self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu / 100
                self.memory_bytes = int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
            except Exception as error:  # a device that has fallen off the bus, or one that does not count
                log.warning("NVML says nothing of the device any more: %s", error)
                self.use, self.memory_bytes = None, 0
                return
            if self._is_over.wait(LOOK_EVERY_S):
                return


def device_meter(device: str) -> DeviceMeter | None:
    """Of a device like `cuda:0`. None: it is none of NVIDIA's, or NVML is not there (`pip install nvidia-ml-py`)."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    try:
        import pynvml  # type: ignore[import-not-found]

        pynvml.nvmlInit()
        name = physical_name(int(index or 0), os.environ.get("CUDA_VISIBLE_DEVICES"))
        by_index = name.isdigit()
        find = pynvml.nvmlDeviceGetHandleByIndex if by_index else pynvml.nvmlDeviceGetHandleByUUID
        return DeviceMeter(pynvml, find(int(name) if by_index else name))
    except Exception as error:
        log.info("the use of %s is not known: %s", device, error)
        return None


def physical_name(index: int, visible: str | None) -> str:
    """What NVML calls CUDA's device `index`: a number or a UUID, by the value of `CUDA_VISIBLE_DEVICES`."""
    names = [name.strip() for name in visible.split(",")] if visible else []
    return names[index] if index < len(names) else str(index)
