"""From a driver's name to a driver. Each is imported only when it is asked for, so the fake needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pie_engine.driver.base import Driver
from pie_engine.errors import InvalidConfig, Unsupported

DRIVERS = ("cpu", "fake")


def check_memory(
    name: str, folder: str | Path, settings: Mapping[str, Any], draft: str | Path, draft_settings: Mapping[str, Any]
) -> None:
    """Whether the model in `folder` and its draft model fit into memory together, before either is loaded.

    The settings are arguments of `load_driver`. Raises `ModelError` with the numbers, and what opening them raises.
    """
    if name == "cpu":
        from pie_engine.driver.cpu_choice import choose

        need = choose(draft, **draft_settings).need()
        choose(folder, **settings).check_fits(need.weights + need.kv)


def load_driver(
    name: str,
    model_folder: str | Path,
    *,
    dtype: str = "auto",
    num_threads: int = 0,
    deterministic: bool = False,
    page_size: int = 16,
    max_context_tokens: int = 0,
    kv_bytes: int = 0,
    num_pages: int = 0,
    kernels: Literal["auto", "compiled", "torch"] = "auto",
    quantize: Literal["none", "int8", "int4"] = "none",
    script: str | Path | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> Driver:
    """Load the model in `model_folder` on driver `name` (`cpu` or `fake`).

    `max_context_tokens=0` means the model's own. `kv_bytes` or, where it is not 0, `num_pages` says what its KV pages
    will take: a model that does not fit with them is refused before it is loaded. `script` is a JSON file of
    `FakeScript`, for the fake only; `progress` is told of what takes long. Raises `Unsupported` for an unknown or
    absent driver, `InvalidConfig` for a number out of range, and what loading the model raises.
    """
    for field, value, least in (("page_size", page_size, 1), ("num_threads", num_threads, 0)):
        if value < least:
            raise InvalidConfig(f"{field} is {value}", hint=f"it must be at least {least}")
    if script is not None and name != "fake":
        raise Unsupported(f"driver {name!r} takes no script", hint="only the fake driver is scriptable")
    if name == "cpu":
        from pie_engine.driver.cpu import CpuDriver

        return CpuDriver.load(
            model_folder,
            dtype=dtype,
            num_threads=num_threads,
            deterministic=deterministic,
            page_size=page_size,
            max_context_tokens=max_context_tokens,
            kv_bytes=kv_bytes,
            num_pages=num_pages,
            kernels=kernels,
            quantize=quantize,
            progress=progress,
        )
    if name == "fake":
        from pie_engine.driver.fake import FakeDriver

        return FakeDriver.load(model_folder, page_size=page_size, script=script)
    what = "the cuda driver is not part of this build" if name == "cuda" else f"there is no driver {name!r}"
    raise Unsupported(what, hint=f"drivers here: {', '.join(DRIVERS)}")
