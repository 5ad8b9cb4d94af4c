"""The LoRA adapters of a model: names for what the driver has loaded, within a budget of memory."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pie_engine.config import MIB
from pie_engine.driver.base import Driver
from pie_engine.errors import Busy, InvalidInput, LimitExceeded, NotFound
from pie_engine.model.lora.files import AdapterFiles

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """A name that programs may use."""

    name: str
    adapter_id: str
    """Digest of its files: what the KV that it computes is told apart by."""
    folder: Path
    rank: int
    num_bytes: int


class Adapters:
    """By name. Two names of the same content are loaded once."""

    def __init__(self, driver: Driver, model: str, budget_mb: int) -> None:
        self._driver = driver
        self._model = model
        self._budget_bytes = budget_mb * MIB
        self._loaded: dict[str, LoadedAdapter] = {}

    @property
    def all(self) -> list[LoadedAdapter]:
        return list(self._loaded.values())

    @property
    def num_bytes(self) -> int:
        """Memory that they take."""
        return sum({adapter.adapter_id: adapter.num_bytes for adapter in self.all}.values())

    def check(self, adapter_id: str) -> None:
        """Raises `NotFound` when none of that content is loaded."""
        if adapter_id and not self._names_of(adapter_id):
            raise NotFound(f"the adapter {adapter_id} is not loaded with {self._model} any more")

    def name_of(self, adapter_id: str) -> str:
        """One of its names."""
        return self._names_of(adapter_id)[0]

    def add(self, name: str, folder: str | Path, users_of: Callable[[str], Mapping[str, int]]) -> LoadedAdapter:
        """Load what is in `folder` under `name`, in place of what had the name.

        `users_of` gives the contexts with an adapter id, counted by process. Raises what reading it raises, `Busy` when
        something else has the name and is in use, and `LimitExceeded` (`memory_limit`) with the numbers.
        """
        check_name(name)
        files = AdapterFiles.open(folder)
        before = self._loaded.get(name)
        if before is not None and before.adapter_id == files.adapter_id:
            return before
        num_bytes = self._driver.adapter_bytes(files)
        if before is not None:
            self._refuse_use(before, users_of)
        self._check_budget(name, files.adapter_id, num_bytes, before)
        if before is not None:
            self._drop(before)
        self._driver.load_adapter(files)
        log.info("adapter %s of %s: %s, %d bytes", name, self._model, files.folder, num_bytes)
        ranks = {info.shape[0] for tensor, info in files.tensors.items() if ".lora_A." in tensor}
        adapter = LoadedAdapter(name, files.adapter_id, files.folder, max(ranks, default=0), num_bytes)
        self._loaded[name] = adapter
        return adapter

    def remove(self, name: str, users_of: Callable[[str], Mapping[str, int]]) -> None:
        """Unload it. Raises `NotFound`, and `Busy` naming the processes that use it."""
        adapter = self.of_name(name)
        self._refuse_use(adapter, users_of)
        self._drop(adapter)

    def of_name(self, name: str) -> LoadedAdapter:
        adapter = self._loaded.get(name)
        if adapter is None:
            raise unknown_adapter(name, self._model, list(self._loaded))
        return adapter

    def _drop(self, adapter: LoadedAdapter) -> None:
        del self._loaded[adapter.name]
        if not self._names_of(adapter.adapter_id):
            self._driver.unload_adapter(adapter.adapter_id)

    def _refuse_use(self, adapter: LoadedAdapter, users_of: Callable[[str], Mapping[str, int]]) -> None:
        users = users_of(adapter.adapter_id)
        if users and len(self._names_of(adapter.adapter_id)) == 1:
            uses = ", ".join(f"{pid} ({count} context{'s' * (count > 1)})" for pid, count in sorted(users.items()))
            raise Busy(
                f"adapter `{adapter.name}` of {self._model} is in use by {uses}",
                hint="wait until these processes have ended, or end them",
            )

    def _check_budget(self, name: str, adapter_id: str, num_bytes: int, before: LoadedAdapter | None) -> None:
        """Without what is replaced."""
        others = {other.adapter_id: other.num_bytes for other in self.all if other is not before}
        used = sum(others.values())
        if adapter_id not in others and used + num_bytes > self._budget_bytes:
            raise LimitExceeded.of(
                "memory_limit",
                f"adapter `{name}` needs {_mib(num_bytes)} MiB; {_mib(used)} of the {_mib(self._budget_bytes)} MiB "
                f"for adapters of {self._model} are in use",
                hint="remove another one, or raise `adapter_memory_mb` of the model in the configuration",
            )

    def _names_of(self, adapter_id: str) -> list[str]:
        return [adapter.name for adapter in self.all if adapter.adapter_id == adapter_id]


def check_name(name: str) -> None:
    """Raises `InvalidInput`: a name is part of addresses and of file names."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"`{name}` cannot be the name of an adapter", hint="use 1 to 64 letters, digits, dots, `-` and `_`"
        )


def unknown_adapter(name: str, model: str, known: list[str]) -> NotFound:
    hint = f"adapters of {model}: {', '.join(sorted(known))}" if known else "load one: `pie adapter add NAME FOLDER`"
    return NotFound(f"{model} has no adapter called `{name}`", hint=hint)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / MIB:.1f}"
