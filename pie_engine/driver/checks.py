"""What every driver asserts of a step: a page table that is wrong is our bug, and must never become wrong text."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import chain
from operator import add

from pie_engine.driver.base import Capabilities, KvPages, Row
from pie_engine.protocol.sampling import NO_PROBES


def check_rows(rows: Sequence[Row], capabilities: Capabilities, adapters: Container[str]) -> None:
    """Token ids and positions are in range, tables are long enough, no two rows write one page, and adapters are
    loaded. Page ids: `check_tables`."""
    if not rows:
        return
    # Column by column: all there is to know of one row after the other would cost as much as the rest of a step.
    size, tokens, starts = capabilities.page_size, [row.tokens for row in rows], [row.start for row in rows]
    lengths, tables = list(map(len, tokens)), [row.page_ids for row in rows]
    ends = list(map(add, starts, lengths))
    assert all(lengths), "a row without tokens"
    assert min(starts) >= 0, f"position {min(starts)}"
    laid_out = [row for row in rows if row.layout is not None]
    if laid_out or max(ends) > capabilities.max_context_tokens:
        _check_positions(rows, capabilities)
    short = [end for end, table in zip(ends, tables, strict=True) if len(table) * size < end]
    assert not short, f"too few pages for {short} positions"
    _check_range(list(chain.from_iterable(tokens)), capabilities.vocab_size, "token id")
    written = [table[start // size] for table, start in zip(tables, starts, strict=True)]
    if max(lengths) > 1:
        for table, start, end in zip(tables, starts, ends, strict=True):
            written += table[start // size + 1 : (end - 1) // size + 1]
    assert len(set(written)) == len(written), f"two rows write one of the pages {sorted(written)}"
    for adapter in {row.adapter for row in rows}:
        assert not adapter or adapter in adapters, f"adapter {adapter} is not loaded"
    for row in rows:
        if row.probes is not NO_PROBES or row.draft_uniforms:
            _check_extras(row, capabilities)


def check_tables(rows: Sequence[Row], num_pages: int) -> None:
    """Page ids are in range."""
    for row in rows:
        _check_range(row.page_ids, num_pages, "page id")


def _check_positions(rows: Sequence[Row], capabilities: Capabilities) -> None:
    most_tokens = capabilities.max_context_tokens
    for row in rows:
        if row.layout is None:
            assert row.end <= most_tokens, f"{row.end} positions"
        else:
            assert capabilities.has_layouts, "a layout for a model whose attention is its own"
            row.layout.check(row.start, row.end, most_tokens)


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
    if ids:
        assert min(ids) >= 0, f"{what} {min(ids)} out of range"
        assert max(ids) < limit, f"{what} {max(ids)} out of range (there are {limit})"
