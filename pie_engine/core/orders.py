"""What the gateway asks of a core: adapters that come and go while it runs."""

from __future__ import annotations

import logging
from pathlib import Path

from pie_engine.config import ModelSection
from pie_engine.core.links import AdapterLinks
from pie_engine.core.loop import Core
from pie_engine.errors import ErrorInfo, InvalidInput, PieError, info_of
from pie_engine.protocol.to_core import AdapterOrder, LoadAdapter
from pie_engine.protocol.to_gateway import AdapterAnswer

log = logging.getLogger(__name__)


class Orders:
    """Carries them out. What was added is there again when the core is started anew."""

    def __init__(self, core: Core, section: ModelSection, links: AdapterLinks) -> None:
        self._core = core
        self._configured = section.adapters
        self._links = links
        self._failed: dict[str, tuple[Path, ErrorInfo]] = {}

    def restore(self) -> None:
        """Load what was added before. One that cannot be loaded any more is listed with the reason."""
        for name, folder in self._links.all().items():
            if name in self._configured:
                continue
            try:
                self._core.add_adapter(name, folder)
            except PieError as error:
                log.warning("adapter %s cannot be loaded: %s", name, error.message)
                self._failed[name] = (folder, error.info)

    def carry_out(self, order: AdapterOrder) -> AdapterAnswer:
        try:
            if order.name in self._configured:
                raise InvalidInput(
                    f"adapter `{order.name}` is named in the configuration",
                    hint="change `adapters` of the model there, and start the daemon again",
                )
            if isinstance(order, LoadAdapter):
                self._add(order.name, order.folder)
            else:
                self._remove(order.name)
        except Exception as error:
            if not isinstance(error, PieError):
                log.exception("%r", order)
            return AdapterAnswer(order.request, info_of(error))
        return AdapterAnswer(order.request)

    def listed(self) -> list[dict[str, object]]:
        """For the other processes."""
        loaded: list[dict[str, object]] = [
            {
                "name": adapter.name,
                "adapter_id": adapter.adapter_id,
                "folder": str(adapter.folder),
                "rank": adapter.rank,
                "num_bytes": adapter.num_bytes,
                "configured": adapter.name in self._configured,
            }
            for adapter in self._core.facts.adapters.all
        ]
        return loaded + [
            {"name": name, "folder": str(folder), "failed": {"code": error.code, "message": error.message}}
            for name, (folder, error) in self._failed.items()
        ]

    def _add(self, name: str, folder: str) -> None:
        path = Path(folder)
        if not path.is_absolute():
            raise InvalidInput(f"the folder of an adapter has to be an absolute path; got `{folder}`")
        self._core.add_adapter(name, path)
        self._links.put(name, path)
        self._failed.pop(name, None)

    def _remove(self, name: str) -> None:
        if self._failed.pop(name, None) is None:
            self._core.remove_adapter(name)
        self._links.remove(name)
