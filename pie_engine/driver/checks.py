"""What every driver asserts of a step: a page table that is wrong is our bug, and must never become wrong text."""

from __future__ import annotations

from collections.abc import Container, Sequence

from pie_engine.driver.base import Capabilities, KvPages, Row
from pie_engine.protocol.sampling import NO_PROBES


def check_rows(rows: Sequence[Row], capabilities: Capabilities, num_pages: int) -> None:
    """Token ids, positions and page ids are in range, tables are long enough, and no two rows write one page."""
    size, written = capabilities.page_size, list[int]()
    for row in rows:
        assert row.tokens, "a row without tokens"
        assert row.start >= 0, f"position {row.start}"
        assert row.layout is not None or row.end <= capabilities.max_context_tokens, f"{row.end} positions"
        assert len(row.page_ids) * size >= row.end, f"{len(row.page_ids)} pages for {row.end} positions"
        _check_range(row.tokens, capabilities.vocab_size, "token id")
        _check_range(row.page_ids, num_pages, "page id")
        written += row.page_ids[row.start // size : (row.end - 1) // size + 1]
    assert len(set(written)) == len(written), f"two rows write one of the pages {sorted(written)}"


def special(rows: Sequence[Row]) -> list[Row]:
    """Those that ask for more than a token of the model as it is: few of them, mostly none."""
    return [
        row
        for row in rows
        if row.want_logprob
        or row.probes is not NO_PROBES
        or row.draft_uniforms
        or row.adapter
        or row.layout is not None
    ]


def check_wishes(rows: Sequence[Row], capabilities: Capabilities, adapters: Container[str]) -> None:
    """What `special` rows ask for can be had: adapters are loaded, layouts, probes and drafts are in order."""
    for row in rows:
        if row.adapter:
            assert row.adapter in adapters, f"adapter {row.adapter} is not loaded"
        if row.layout is not None:
            assert capabilities.has_layouts, "a layout for a model whose attention is its own"
            row.layout.check(row.start, row.end, capabilities.max_context_tokens)
        if row.probes is not NO_PROBES or row.draft_uniforms:
            _check_extras(row, capabilities)


def _check_extras(row: Row, capabilities: Capabilities) -> None:
    assert row.probes.top_k <= capabilities.max_top_k, f"top_k {row.probes.top_k}"
    _check_range(row.probes.logprobs_of, capabilities.vocab_size, "token id")
    assert len(row.draft_uniforms) < len(row.tokens), "a row of drafts alone"
    num_masks = len(row.draft_uniforms) if row.mask is not None else 0
    assert len(row.draft_masks) == num_masks, f"{len(row.draft_masks)} masks for {num_masks} drafts"


def check_pairs(pairs: Sequence[tuple[int, int]], num_pages: int) -> None:
    for source, destination in pairs:
        _check_range((source, destination), num_pages, "page id")


def check_pages(page_ids: Sequence[int], num_pages: int, pages: KvPages | None = None) -> None:
    _check_range(page_ids, num_pages, "page id")
    for name, array_of in (pages or {}).items():
        assert len(array_of) == len(page_ids), f"`{name}` has {len(array_of)} pages, {len(page_ids)} are to be written"


def _check_range(ids: Sequence[int], limit: int, what: str) -> None:
    if ids:
        assert min(ids) >= 0, f"{what} {min(ids)} out of range"
        assert max(ids) < limit, f"{what} {max(ids)} out of range (there are {limit})"
