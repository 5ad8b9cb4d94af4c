"""Adapters over HTTP: what the cores have loaded, and orders to them to load and unload."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec

from pie_engine.config import EngineConfig
from pie_engine.errors import Lost, NotFound
from pie_engine.gateway.exchange import Exchange
from pie_engine.protocol.http import AdapterRequest, AdapterView
from pie_engine.protocol.to_core import AdapterOrder, LoadAdapter, UnloadAdapter
from pie_engine.protocol.to_daemon import Member
from pie_engine.protocol.to_gateway import AdapterAnswer

_LOOK_S = 0.002
_TELLING_S = 5.0
"""How long to wait at most until everybody has been told."""


class Adapters:
    """A change is answered when the hosts know of it: a program that is launched then finds it so."""

    def __init__(self, config: EngineConfig, exchange: Exchange) -> None:
        self._models = [section.label for section in config.models]
        self._exchange = exchange

    def list(self) -> list[AdapterView]:
        return [view for member in self._cores() for view in _views(member)]

    async def add(self, asked: AdapterRequest) -> AdapterView:
        """Raises what the core refuses it with."""
        core = self._core(asked.model)
        await self._order(core, LoadAdapter(next(self._exchange.requests), asked.name, asked.folder))
        return await self._seen(core, asked.name, is_there=True)

    async def remove(self, model: str, name: str) -> None:
        core = self._core(model)
        await self._order(core, UnloadAdapter(next(self._exchange.requests), name))
        await self._seen(core, name, is_there=False)

    async def _order(self, core: Member, order: AdapterOrder) -> None:
        answer = await self._exchange.ask_core(core.boot_id, order)
        assert isinstance(answer, AdapterAnswer)
        if answer.error is not None:
            raise answer.error.raised()

    async def _seen(self, core: Member, name: str, *, is_there: bool) -> AdapterView:
        """The daemon tells everybody at once, hosts first."""
        view = AdapterView(name, core.name)
        for _ in range(int(_TELLING_S / _LOOK_S)):
            now = next((member for member in self._cores() if member.boot_id == core.boot_id), None)
            found = {} if now is None else {view.name: view for view in _views(now) if view.failed is None}
            if now is None or (name in found) == is_there:
                return found.get(name, view)
            await asyncio.sleep(_LOOK_S)
        return view

    def _cores(self) -> Iterator[Member]:
        return (member for member in self._exchange.members if member.role == "core")

    def _core(self, model: str) -> Member:
        model = model or self._models[0]
        for member in self._cores():
            if member.name == model:
                if not member.is_ready:
                    raise Lost.of(
                        "core_lost", f"the core of model {model} is not running", hint="try again in a moment"
                    )
                return member
        raise NotFound(f"no model is called {model!r}", hint=f"models here: {', '.join(self._models)}")


def _views(member: Member) -> list[AdapterView]:
    adapters = member.detail.get("adapters", [])
    assert isinstance(adapters, list)
    return [msgspec.convert({**adapter, "model": member.name}, AdapterView) for adapter in adapters]
