"""The cores as this host sees them: what is to be sent to each, and who gets its answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pie_engine.errors import Lost, NotFound
from pie_engine.host.models import HostAdapter, HostModel
from pie_engine.protocol.to_core import CloseProcess, CoreMessage, OpenProcess

if TYPE_CHECKING:
    from pie_engine.host.market import MarketLook
    from pie_engine.host.operations import Operation, Stream


class CoreView:
    """One core, from its boot to its death."""

    def __init__(self, boot_id: str, model: HostModel) -> None:
        self.boot_id = boot_id
        self.model = model
        self.adapters: dict[str, HostAdapter] = {}
        """By name."""
        self.operations: dict[int, Operation | MarketLook] = {}
        self.streams_taken: dict[int, Stream] = {}
        """Streams from which a program has taken something since the core was last told."""
        self._open_pids: set[str] = set()
        self._outgoing: list[CoreMessage] = []

    def adapter_id(self, name: str) -> str:
        """Of an adapter; an empty name is none. Raises `NotFound`."""
        if not name:
            return ""
        adapter = self.adapters.get(name)
        if adapter is None:
            known = ", ".join(sorted(self.adapters))
            hint = f"adapters of {self.model.name}: {known}" if known else "load it: `pie adapter add NAME FOLDER`"
            raise NotFound(f"{self.model.name} has no adapter called `{name}`", hint=hint)
        return adapter.adapter_id

    def send(self, message: CoreMessage) -> None:
        """Goes out at the end of this turn of the loop."""
        self._outgoing.append(message)

    def open(self, opening: OpenProcess) -> None:
        """Before the first context of a process, and before it looks at the market."""
        if opening.pid not in self._open_pids:
            self._open_pids.add(opening.pid)
            self.send(opening)

    def is_open(self, pid: str) -> bool:
        """Whether the core knows the process."""
        return pid in self._open_pids

    def close(self, pid: str) -> None:
        """Everything of the process goes."""
        if pid in self._open_pids:
            self._open_pids.discard(pid)
            self.send(CloseProcess(pid))

    def take_outgoing(self) -> list[CoreMessage]:
        for stream in self.streams_taken.values():
            if stream.handle in self.operations:
                self.send(stream.delivered())
        self.streams_taken.clear()
        outgoing, self._outgoing = self._outgoing, []
        return outgoing


class Cores:
    """All ready cores, by boot id; the order of the configuration decides which is the default."""

    def __init__(self, model_names: list[str]) -> None:
        """`model_names`: as configured, the default first."""
        self._model_names = model_names
        self._views: dict[str, CoreView] = {}

    def __iter__(self) -> Iterator[CoreView]:
        return iter(list(self._views.values()))

    def configure(self, model_names: list[str]) -> None:
        """Other models from now on, the default first; cores that are there stay."""
        self._model_names = model_names

    def get(self, boot_id: str) -> CoreView | None:
        return self._views.get(boot_id)

    def add(self, boot_id: str, model: HostModel) -> None:
        self._views[boot_id] = CoreView(boot_id, model)

    def remove(self, boot_id: str) -> CoreView | None:
        return self._views.pop(boot_id, None)

    @property
    def are_at_work(self) -> bool:
        """Whether an answer is on its way."""
        return any(view.operations for view in self._views.values())

    @property
    def names(self) -> list[str]:
        """Of the models that programs can use now, the default first."""
        ready = {view.model.name for view in self._views.values()}
        return [name for name in self._model_names if name in ready]

    def of_model(self, name: str) -> CoreView:
        """The core of a model; an empty name is the default. Raises `NotFound`, or `Lost` while it is not up."""
        if not self._model_names:
            raise NotFound("there is no model", hint="this engine was started without one")
        name = name or self._model_names[0]
        view = next((view for view in self._views.values() if view.model.name == name), None)
        if view is not None:
            return view
        if name in self._model_names:
            raise Lost.of(
                "core_lost", f"the core of model {name} is not running", hint="it is being started; try again"
            )
        raise NotFound(f"no model is called {name!r}", hint=f"models here: {', '.join(self._model_names)}")


def core_lost(model: str) -> Lost:
    return Lost.of(
        "core_lost", f"the core that held model {model} died", hint="it is being restarted; run the program again"
    )
