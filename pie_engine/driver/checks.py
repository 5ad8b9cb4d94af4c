"""What every driver asserts of a step: a page table that is wrong is our bug, and must never become wrong text."""

from __future__ import annotations

from collections.abc import Container, Sequence

from pie_engine.driver.base import Capabilities, KvPages, Row


def check_rows(rows: Sequence[Row], capabilities: Capabilities, num_pages: int, adapters: Container[str]) -> None:
    """Token ids, positions and page ids are in range, tables are long enough, no two rows write one page, and adapters
    are loaded."""
    size, written = capabilities.page_size, set[int]()
    for row in rows:
        assert row.tokens, "a row without tokens"
        assert row.start >= 0, f"position {row.start}"
        if row.layout is None:
            assert row.end <= capabilities.max_context_tokens, f"{row.end} positions"
        else:
            assert capabilities.has_layouts, "a layout for a model whose attention is its own"
            row.layout.check(row.start, row.end, capabilities.max_context_tokens)
        assert len(row.page_ids) * size >= row.end, f"{len(row.page_ids)} pages for {row.end} positions"
        _check_range(row.tokens, capabilities.vocab_size, "token id")
        _check_range(row.page_ids, num_pages, "page id")
        assert row.probes.top_k <= capabilities.max_top_k, f"top_k {row.probes.top_k}"
        if row.probes.logprobs_of:
            _check_range(row.probes.logprobs_of, capabilities.vocab_size, "token id")
        assert len(row.draft_uniforms) < len(row.tokens), "a row of drafts alone"
        num_masks = len(row.draft_uniforms) if row.mask is not None else 0
        assert len(row.draft_masks) == num_masks, f"{len(row.draft_masks)} masks for {num_masks} drafts"
        assert not row.adapter or row.adapter in adapters, f"adapter {row.adapter} is not loaded"
        own = row.page_ids[row.start // size : (row.end - 1) // size + 1]
        assert written.isdisjoint(own), f"two rows write one of the pages {own}"
        written.update(own)


def check_pairs(pairs: Sequence[tuple[int, int]], num_pages: int) -> None:
    for source, destination in pairs:
        _check_range((source, destination), num_pages, "page id")


def check_pages(page_ids: Sequence[int], num_pages: int, pages: KvPages | None = None) -> None:
    if page_ids:
        _check_range(page_ids, num_pages, "page id")
    for name, array in (pages or {}).items():
        assert len(array) == len(page_ids), f"`{name}` has {len(array)} pages, {len(page_ids)} are to be written"


def _check_range(ids: Sequence[int], limit: int, what: str) -> None:
    assert min(ids) >= 0, f"{what} {min(ids)} out of range"
    assert max(ids) < limit, f"{what} {max(ids)} out of range (there are {limit})"
