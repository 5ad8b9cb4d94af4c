"""What every driver asserts of a step: a page table that is wrong is our bug, and must never become wrong text."""

from __future__ import annotations

from array import array
from collections.abc import Container, Sequence

import numpy as np

from pie_engine.driver.base import Capabilities, KvPages, Row
from pie_engine.protocol.sampling import NO_PROBES


def check_rows(rows: Sequence[Row], capabilities: Capabilities, num_pages: int, adapters: Container[str]) -> None:
    """Token ids, positions and page ids are in range, tables are long enough, no two rows write one page, and adapters
    are loaded."""
    size, most_tokens = capabilities.page_size, capabilities.max_context_tokens
    all_tokens, all_pages, written = list[int](), array("q"), list[int]()
    for row in rows:
        tokens, start, page_ids = row.tokens, row.start, row.page_ids
        end = start + len(tokens)
        assert tokens, "a row without tokens"
        assert start >= 0, f"position {start}"
        if row.layout is None:
            assert end <= most_tokens, f"{end} positions"
        else:
            assert capabilities.has_layouts, "a layout for a model whose attention is its own"
            row.layout.check(start, end, most_tokens)
        assert len(page_ids) * size >= end, f"{len(page_ids)} pages for {end} positions"
        all_tokens += tokens
        all_pages.extend(page_ids)
        if len(tokens) == 1:
            written.append(page_ids[start // size])
        else:
            written += page_ids[start // size : (end - 1) // size + 1]
        assert not row.adapter or row.adapter in adapters, f"adapter {row.adapter} is not loaded"
        if row.probes is not NO_PROBES or row.draft_uniforms:
            _check_extras(row, capabilities)
    _check_range(all_tokens, capabilities.vocab_size, "token id")
    _check_range(all_pages, num_pages, "page id")
    assert len(set(written)) == len(written), f"two rows write one of the pages {sorted(written)}"


def _check_extras(row: Row, capabilities: Capabilities) -> None:
    """What few rows ask for."""
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
    """All at once: looking at them one by one would cost more than the rest of a step's layout."""
    if not ids:
        return
    values = np.frombuffer(ids if isinstance(ids, array) else array("q", ids), np.int64)
    least, most = values.min(), values.max()
    assert least >= 0, f"{what} {least} out of range"
    assert most < limit, f"{what} {most} out of range (there are {limit})"
