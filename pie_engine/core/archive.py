"""Saved contexts in the core: KV on its way to the disk and back, beside the loop.

Reading and writing files happens in a thread of its own. The loop only copies pages out of the device when a context
is saved, and into it when one that was opened is about to be used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pie_engine.driver.base import Driver, KvPages
from pie_engine.errors import ErrorInfo, InvalidInput, PieError, info_of
from pie_engine.kv.context import KvContext
from pie_engine.kv.layout import Range, without
from pie_engine.kv.pool import NO_PAGE
from pie_engine.kv.sight import sight_of
from pie_engine.protocol.sight import Sight
from pie_engine.store.contexts import MIB, SavedContexts, check_name

if TYPE_CHECKING:
    from pie_engine.core.save import SaveOperation

log = logging.getLogger(__name__)
T = TypeVar("T")
Shapes = dict[str, tuple[str, tuple[int, ...]]]


class Archive:
    """The saved contexts of one model. Not thread-safe, but for the jobs that it hands to its thread."""

    def __init__(self, saved: SavedContexts, driver: Driver, model: str, quota_mb: int) -> None:
        self._saved = saved
        self._driver = driver
        self._model = model
        self._quota_bytes = quota_mb * MIB
        self._thread: ThreadPoolExecutor | None = None
        self._saves: dict[SaveOperation, Future[None]] = {}
        self._reads: list[Future[KvPages]] = []
        self._shapes: Shapes = {}
        """Of a page, by the names of its parts; what comes from a file need not be what this core has written."""

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way; nobody says when it is there, so the loop has to look."""
        return bool(self._saves or self._reads)

    @property
    def num_writing(self) -> int:
        return len(self._saves)

    def has_news(self) -> bool:
        """Whether something has been read since the last call."""
        num_before = len(self._reads)
        self._reads = [job for job in self._reads if not job.done()]
        return len(self._reads) < num_before

    # Saving.

    def save(self, operation: SaveOperation, user: str, name: str, meta: str) -> None:
        """Write the context of `operation`, which is computed to its end; `take_saved` says when it is done."""
        kv = operation.kv
        tokens = kv.tokens[:]
        pages = self._driver.read_pages([page for page in kv.page_ids[: self._num_pages(tokens)] if page != NO_PAGE])
        adapter_id = operation.context.adapter_id
        adapter = (operation.facts.adapters.name_of(adapter_id), adapter_id) if adapter_id else ("", "")
        self._saves[operation] = self._run(self._write, user, name, tokens, sight_of(kv), pages, meta, adapter)

    def _write(
        self,
        user: str,
        name: str,
        tokens: list[int],
        sight: Sight | None,
        pages: KvPages,
        meta: str,
        adapter: tuple[str, str],
    ) -> None:
        from safetensors.numpy import save

        capabilities = self._driver.capabilities
        self._saved.write(
            user,
            self._model,
            name,
            save(dict(pages)),
            model_id=capabilities.model_id,
            page_size=capabilities.page_size,
            tokens=tokens,
            sight=sight,
            adapter=adapter[0],
            adapter_id=adapter[1],
            meta=meta,
            quota_bytes=self._quota_bytes,
        )

    def take_saved(self) -> list[tuple[SaveOperation, ErrorInfo | None]]:
        """Operations whose context is on the disk, or why it is not."""
        done = [operation for operation, job in self._saves.items() if job.done()]
        return [(operation, _error_of(self._saves.pop(operation))) for operation in done]

    # Opening.

    def backing(self, user: str, name: str, tokens: list[int], adapter_id: str, sight: Sight | None = None) -> Backing:
        """The KV of `tokens`, which were read from the saved context `name`, and see what `sight` says."""
        check_name(name)
        if not self._shapes:
            self._shapes = _shapes(self._driver.read_pages([]))
        return Backing(self, user, name, tokens, adapter_id, sight)

    def read(self, user: str, name: str, tokens: list[int], adapter_id: str, sight: Sight | None) -> Future[KvPages]:
        job = self._run(self._read, user, name, tokens, adapter_id, sight)
        self._reads.append(job)
        return job

    def _read(self, user: str, name: str, tokens: list[int], adapter_id: str, sight: Sight | None) -> KvPages:
        from safetensors.numpy import load

        capabilities = self._driver.capabilities
        manifest = self._saved.read(user, self._model, name)
        is_same = (manifest.model_id, manifest.page_size) == (capabilities.model_id, capabilities.page_size)
        is_same = is_same and (manifest.adapter_id, manifest.seen) == (adapter_id, sight)
        if not is_same or manifest.tokens[: len(tokens)] != tokens:
            raise InvalidInput(f"saved context `{name}` has been replaced")
        pages: KvPages = load(self._saved.read_blob(user, self._model, manifest))
        if _shapes(pages) != self._shapes or {len(part) for part in pages.values()} != {
            self._num_pages(manifest.tokens) - (0 if sight is None else sight.num_gone)
        }:
            raise InvalidInput(f"the KV of saved context `{name}` is not that of its tokens in this model")
        return pages

    def _num_pages(self, tokens: list[int]) -> int:
        return -(-len(tokens) // self._driver.capabilities.page_size)

    def restore(self, kv: KvContext, reading: Reading) -> None:
        """Put KV back where `kv` has reserved pages for it; it is computed up to the end of `reading` then."""
        size, row = self._driver.capabilities.page_size, 0
        first, last = kv.num_computed // size, -(-reading.end // size)
        for start, stop in without([(0, last)], reading.gaps):
            begin = max(start, first)
            if begin < stop:
                rows = slice(row + begin - start, row + stop - start)
                self._driver.write_pages(
                    kv.page_ids[begin:stop], {name: array[rows] for name, array in reading.pages.items()}
                )
            row += stop - start
        kv.advance(reading.end)

    def _run(self, function: Callable[..., T], *args: object) -> Future[T]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "archive")
        return self._thread.submit(function, *args)


class Reading(NamedTuple):
    """KV that has been read, of the first `end` tokens of a context, without the pages `gaps`."""

    pages: KvPages
    end: int
    gaps: Sequence[Range]


class Backing:
    """KV that can be read instead of computed, of the first `num_tokens` tokens of a context and of its forks."""

    def __init__(
        self, archive: Archive, user: str, name: str, tokens: list[int], adapter_id: str, sight: Sight | None
    ) -> None:
        self._archive = archive
        self._user = user
        self._name = name
        self._tokens = tokens
        self._adapter_id = adapter_id
        self._sight = sight
        self.gaps: Sequence[Range] = [] if sight is None else sight.gone
        """Pages of which there is no KV."""
        self._job: Future[KvPages] | None = None
        self.is_gone = False
        """It cannot be read: its KV is computed like any other."""

    @property
    def num_tokens(self) -> int:
        return len(self._tokens)

    @property
    def is_read(self) -> bool:
        """Whether the pages are here."""
        return self._job is not None and self._job.done() and self._job.exception() is None

    def fetch(self) -> KvPages | None:
        """The pages; None: they are on their way, or `is_gone`."""
        if self._job is None:
            self._job = self._archive.read(self._user, self._name, self._tokens, self._adapter_id, self._sight)
        if not self._job.done():
            return None
        error = self._job.exception()
        if error is None:
            return self._job.result()
        self.is_gone = True
        self.drop()
        log.warning("saved context %s of %s is computed again: %s", self._name, self._user, error)
        return None

    def drop(self) -> None:
        """The pages are not needed any more, or not now."""
        self._job = None


def _shapes(pages: KvPages) -> Shapes:
    return {name: (str(part.dtype), part.shape[1:]) for name, part in pages.items()}


def _error_of(job: Future[None]) -> ErrorInfo | None:
    error = job.exception()
    if error is not None and not isinstance(error, PieError):
        log.error("saving a context", exc_info=error)
    return None if error is None else info_of(error)
