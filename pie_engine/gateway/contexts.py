"""Saved contexts for people: what there is, and files on their way out and in. All of it waits for the disk."""

from __future__ import annotations

from collections.abc import Iterator

from pie_engine.config import MIB, EngineConfig
from pie_engine.errors import Busy, NotFound
from pie_engine.gateway.exchange import Exchange
from pie_engine.protocol.http import ContextView
from pie_engine.store import portable
from pie_engine.store.contexts import SavedContexts
from pie_engine.store.manifest import Manifest


class ContextShelf:
    """The saved contexts of all users and models. An empty model is the default one."""

    def __init__(self, config: EngineConfig, exchange: Exchange) -> None:
        self._saved = SavedContexts(config.paths.saved_contexts)
        self._sections = {section.label: section for section in config.models}
        self._exchange = exchange

    def list(self, user: str, model: str) -> list[ContextView]:
        """Of one model, or without one of all with which this user has saved something."""
        models = [model] if model else self._saved.models(user)
        return [self._view(name, manifest) for name in models for manifest in self._saved.list(user, name)]

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
        model_id, page_size = loaded
        return portable.Import(
            self._saved, user, model, model_id=model_id, page_size=page_size, quota_bytes=quota_bytes
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
            fits=None if loaded is None else loaded == (manifest.model_id, manifest.page_size),
        )

    def _loaded(self, model: str) -> tuple[str, int] | None:
        """Id and page size of a model; None: it is not loaded."""
        for member in self._exchange.members:
            if member.role == "core" and member.name == model and member.is_ready:
                return str(member.detail.get("model_id", "")), int(str(member.detail.get("page_size", 0)))
        return None
