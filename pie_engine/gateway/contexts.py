"""Saved contexts for people: what there is, and files on their way out and in. All of it waits for the disk."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pie_engine.config import MIB, EngineConfig
from pie_engine.errors import Busy, NotFound
from pie_engine.gateway.exchange import Exchange
from pie_engine.protocol.http import ContextView, SightView
from pie_engine.protocol.sight import Sight
from pie_engine.store import portable
from pie_engine.store.contexts import SavedContexts
from pie_engine.store.manifest import Manifest


class _Adapter(msgspec.Struct, frozen=True):
    name: str
    adapter_id: str = ""


class _Loaded(msgspec.Struct, frozen=True):
    """What KV depends on, of a model as it is loaded now."""

    model_id: str = ""
    page_size: int = 0
    adapters: list[_Adapter] = []

    def can_use(self, manifest: Manifest) -> bool:
        is_same = (self.model_id, self.page_size) == (manifest.model_id, manifest.page_size)
        has_adapter = not manifest.adapter or _Adapter(manifest.adapter, manifest.adapter_id) in self.adapters
        return is_same and has_adapter


class ContextShelf:
    """The saved contexts of all users and models. An empty model is the default one."""

    def __init__(self, config: EngineConfig, exchange: Exchange) -> None:
        self._saved = SavedContexts(config.paths.saved_contexts)
        self._sections = {section.label: section for section in config.models}
        self._exchange = exchange

    def list(self, user: str, model: str) -> list[ContextView]:
        """Of one model, or without one of all with which this user has saved something."""
        models = [model] if model else self._saved.models(user)
        return [
            self._view(label, found) if isinstance(found, Manifest) else ContextView(name, label, failed=found.info)
            for label in models
            for name, found in self._saved.scan(user, label).items()
        ]

    def find(self, user: str, model: str, name: str) -> ContextView:
        """Raises `NotFound`, and `InvalidInput` when it is damaged."""
        model = model or self._default
        return self._view(model, self._saved.read(user, model, name))

    def delete(self, user: str, model: str, name: str) -> None:
        """Raises `NotFound`."""
        self._saved.delete(user, model or self._default, name)

    def export(self, user: str, model: str, name: str) -> tuple[int, Iterator[bytes]]:
        """See `store.portable.export`."""
        return portable.export(self._saved, user, model or self._default, name)

    def receive(self, user: str, model: str) -> portable.Import:
        """A file that is about to come. Raises `NotFound`, and `Busy` while the model is not loaded."""
        model = model or self._default
        if model not in self._sections:
            raise NotFound(f"no model is called `{model}`", hint=f"models here: {', '.join(self._sections)}")
        loaded = self._loaded(model)
        if loaded is None:
            raise Busy(f"model {model} is not loaded", hint="`pie ps` shows its state; import again when it is there")
        quota_bytes = self._sections[model].saved_contexts_mb * MIB
        return portable.Import(
            self._saved, user, model, model_id=loaded.model_id, page_size=loaded.page_size, quota_bytes=quota_bytes
        )

    def view(self, model: str, manifest: Manifest) -> ContextView:
        """Of what has been imported."""
        return self._view(model or self._default, manifest)

    @property
    def _default(self) -> str:
        return next(iter(self._sections))

    def _view(self, model: str, manifest: Manifest) -> ContextView:
        loaded = self._loaded(model)
        return ContextView(
            name=manifest.name,
            model=model,
            tokens=len(manifest.tokens),
            bytes=manifest.blob_bytes,
            saved=manifest.saved_at,
            model_id=manifest.model_id,
            page_size=manifest.page_size,
            adapter=manifest.adapter,
            sight=_sight(manifest.seen),
            fits=None if loaded is None else loaded.can_use(manifest),
        )

    def _loaded(self, model: str) -> _Loaded | None:
        """None: it is not."""
        for member in self._exchange.members:
            if member.role == "core" and member.name == model and member.is_ready:
                return msgspec.convert(member.detail, _Loaded)
        return None


def _sight(sight: Sight | None) -> SightView | None:
    if sight is None:
        return None
    window, sinks = sight.windows[-1][1:] if sight.windows else (None, 0)
    return SightView(
        window=window,
        sinks=sinks,
        dropped=sight.num_dropped,
        masked=len(sight.masks),
        moved=bool(sight.jumps),
        pages_gone=sight.num_gone,
    )
