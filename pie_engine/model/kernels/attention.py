"""Paged attention, page by page, for decode rows and prefill chunks alike.

A page of keys is [head_dim, 16] for each head and a page of values [16, head_dim]: both are panels of `tile`. The rows
of a tile are queries of one key-value head, token after token. Whatever tile a row is in, its own sums run over the
same pages in the same order, so its output is the same bit for bit in a chunk, alone and in any batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pie_engine.model.kernels.jit import compiled
from pie_engine.model.kernels.kinds import Kind
from pie_engine.model.kernels.panel import make_short_panel
from pie_engine.model.kernels.support import LANES, PAGE_SIZE
from pie_engine.model.kernels.vector import (
    clear_row,
    fetch,
    make_scatter,
    number_at,
    put_number,
    scale_row,
    softmax,
    softmax_seen,
)

MAX_ROWS = 24
"""Queries of a tile."""
NO_WINDOW = 1 << 40
FIRST_SIGHT, SIGHT_COLUMNS = 4, 3
"""Where in a row of `spans` the columns of the first kind of window begin, and how many each kind has."""

_ONE, _NO_SINK = np.float32(1), np.float32(-np.inf)


def scratch_numbers(head_dim: int, max_pages: int) -> int:
    """fp32 numbers that `attend` works in: queries, outputs, scores and sums of weights of a tile."""
    return MAX_ROWS * (2 * head_dim + max_pages * PAGE_SIZE + 1)


def make_attend(kind: Kind) -> Any:
    """The kernel `attend` (see `_attend`) over keys and values of this kind."""
    return compiled(
        "void(int64, int64, int64, int64, int64[:, ::1], int64[::1], int64, int64, int64, int64, float32, int64,"
        " int64, int64, int64, int64, int64, int64, int64)",
        name=f"attend_{kind.name}",
        score=make_short_panel(1, kind, adds=False),
        mix_wide=make_short_panel(2, kind, adds=True),
        mix_narrow=make_short_panel(1, kind, adds=True),
        number_bytes=kind.num_bytes,
    )(_attend)


def make_write(kind: Kind) -> Any:
    """The kernel `write` (see `_write`) into keys and values of this kind."""
    return compiled(
        "void(int64, int64, int64, int64, int64, int64, int64, int64[::1], int64, int64)",
        name=f"write_{kind.name}",
        scatter=make_scatter(to_bf16=kind.name == "bfloat16"),
        number_bytes=kind.num_bytes,
    )(_write)


def _attend(
    queries, query_stride, keys, values, spans, tables, group, num_kv_heads, head_dim, window, soft_cap, sinks,
    out, out_stride, scratch, max_pages, sight, part, num_parts,
):  # fmt: skip
    """Attend for every `num_parts`-th pair of a span and a key-value head, beginning with the one at `part`.

    queries  address of fp32 [tokens, num_kv_heads * group * head_dim], scaled; tokens `query_stride` bytes apart
    keys     address of [pages, num_kv_heads * head_dim, 16];  values [pages, 16, num_kv_heads * head_dim]
    spans    [n, 4 + 3 * kinds]: first token in the batch, number of tokens, slot of the first, where its table begins;
             then three columns for each kind of window, those of this one from `sight` on: the address of words
             [tokens, pages] whose bits say which slots a token sees, the number of slots, where their table begins.
             Without an address a query sees the last `window` slots up to its own
    out      address of fp32 [tokens, num_kv_heads * group * head_dim], `out_stride` bytes apart
    scratch  address of `scratch_numbers`, for this part alone
    `soft_cap` 0: none.
    `sinks` [heads] are the scores of a key that every query has besides, and that has no value; their address, or 0.
    """
    row_bytes = head_dim * 4
    kv_row_bytes = head_dim * number_bytes
    kv_bytes = num_kv_heads * kv_row_bytes
    page_bytes = kv_bytes * PAGE_SIZE
    score_stride = max_pages * PAGE_SIZE * 4
    tile, mixed = scratch, scratch + MAX_ROWS * row_bytes
    scores = mixed + MAX_ROWS * row_bytes
    totals = scores + MAX_ROWS * score_stride
    for item in range(part, len(spans) * num_kv_heads, num_parts):
        span, head = item // num_kv_heads, item % num_kv_heads
        first, length, start, table = spans[span, 0], spans[span, 1], spans[span, 2], spans[span, 3]
        words = spans[span, sight]
        if words:
            table = spans[span, sight + 2]
        query_bytes, head_bytes = head * group * row_bytes, head * kv_row_bytes
        for top in range(0, length * group, MAX_ROWS):
            num_rows = min(MAX_ROWS, length * group - top)
            end = start + (top + num_rows - 1) // group + 1
            begin = max(0, start + top // group + 1 - window) // PAGE_SIZE * PAGE_SIZE
            if words:
                begin, end = 0, spans[span, sight + 1]
            num_slots = (end - begin + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
            for row in range(num_rows):
                token, query = (top + row) // group, (top + row) % group
                at = queries + (first + token) * query_stride + query_bytes + query * row_bytes
                scale_row(at, head_dim, _ONE, tile + row * row_bytes)
                clear_row(mixed + row * row_bytes, head_dim)
            for slot in range(begin, end, PAGE_SIZE):
                at = keys + tables[table + slot // PAGE_SIZE] * page_bytes + head_bytes * PAGE_SIZE
                to = scores + (slot - begin) * 4
                following = tables[table + min(slot + PAGE_SIZE, end - 1) // PAGE_SIZE] * page_bytes
                fetch(keys + following + head_bytes * PAGE_SIZE, kv_row_bytes * PAGE_SIZE)
                score(num_rows, tile, row_bytes, at, PAGE_SIZE * number_bytes, head_dim, to, score_stride)
            for row in range(num_rows):
                seen = start + (top + row) // group + 1
                row_scores = scores + row * score_stride
                sink = number_at(sinks + (head * group + (top + row) % group) * 4) if sinks else _NO_SINK
                if words:
                    at = words + (top + row) // group * (num_slots // PAGE_SIZE) * 2
                    total = softmax_seen(row_scores, at, num_slots, soft_cap, sink)
                else:
                    total = softmax(row_scores, max(0, seen - window) - begin, seen - begin, num_slots, soft_cap, sink)
                put_number(totals + row * 4, total)
            for slot in range(begin, end, PAGE_SIZE):
                at = values + tables[table + slot // PAGE_SIZE] * page_bytes + head_bytes
                weights = scores + (slot - begin) * 4
                following = tables[table + min(slot + PAGE_SIZE, end - 1) // PAGE_SIZE] * page_bytes
                for line in range(PAGE_SIZE):
                    fetch(values + following + head_bytes + line * kv_bytes, kv_row_bytes)
                # Slots behind the last query may hold what an earlier owner left there, NaN even.
                count = min(PAGE_SIZE, end - slot)
                column = 0
                while column + 2 * LANES <= head_dim:
                    here, to = at + column * number_bytes, mixed + column * 4
                    mix_wide(num_rows, weights, score_stride, here, kv_bytes, count, to, row_bytes)
                    column += 2 * LANES
                if column < head_dim:
                    here, to = at + column * number_bytes, mixed + column * 4
                    mix_narrow(num_rows, weights, score_stride, here, kv_bytes, count, to, row_bytes)
            for row in range(num_rows):
                token, query = (top + row) // group, (top + row) % group
                to = out + (first + token) * out_stride + query_bytes + query * row_bytes
                scale_row(mixed + row * row_bytes, head_dim, _ONE / number_at(totals + row * 4), to)


def _write(new_keys, key_stride, new_values, value_stride, keys, values, kv_size, slots, first, last):
    """Put the key and value [kv_size] of tokens `first … last - 1` into their slots, `page * 16 + offset`."""
    for token in range(first, last):
        page, offset = slots[token] // PAGE_SIZE, slots[token] % PAGE_SIZE
        to = keys + (page * kv_size * PAGE_SIZE + offset) * number_bytes
        scatter(new_keys + token * key_stride, kv_size, to, PAGE_SIZE * number_bytes)
        scatter(
            new_values + token * value_stride, kv_size, values + slots[token] * kv_size * number_bytes, number_bytes
        )
