"""Rows from here to there: what the layers and the head start from."""

from __future__ import annotations

from pie_engine.model.kernels.jit import compiled

_HALF_BITS = 16


FAULTS = (
    "",
    "a row without tokens",
    "a position below 0",
    "too few pages for the positions of a row",
    "a page id out of range",
    "two rows write one page",
    "a token id out of range",
)
"""What `lay_out` finds, by number."""


@compiled("int64(int64[::1], int64, int64, int64, int64, int64[::1], int64[::1], int64[:, ::1], int64[:, ::1])")
def lay_out(numbers, num_spans, num_tokens, vocab_size, page_size, tables, writers, spans, places):
    """Where the tokens of a step lie, if slots are positions; or the fault that is in it, and 0 for none.

    numbers  how many tokens each span has, then at which position each starts, then how many pages are in the table of
             each; then the ids of all tokens, then the indices of those that are wanted
    writers  for each page 0, or the step that has written to it last; the number of this one is in its last place
    spans    as `attention.attend` has them, without sights
    places   rows of slots, positions, ids and indices
    """
    num_pages = len(writers) - 1
    step = writers[num_pages] = writers[num_pages] + 1
    token, table = 0, 0
    for row in range(num_spans):
        length, start, size = numbers[row], numbers[num_spans + row], numbers[2 * num_spans + row]
        if length <= 0:
            return 1
        if start < 0:
            return 2
        if start + length > size * page_size:
            return 3
        for place in range(table, table + size):
            if not 0 <= tables[place] < num_pages:
                return 4
        for place in range(table + start // page_size, table + (start + length - 1) // page_size + 1):
            if writers[tables[place]] == step:
                return 5
            writers[tables[place]] = step
        spans[row, 0], spans[row, 1], spans[row, 2], spans[row, 3] = token, length, start, table
        for column in range(4, spans.shape[1]):
            spans[row, column] = 0
        for position in range(start, start + length):
            places[0, token] = tables[table + position // page_size] * page_size + position % page_size
            places[1, token] = position
            token += 1
        table += size
    first = 3 * num_spans
    for index in range(num_tokens):
        if not 0 <= numbers[first + index] < vocab_size:
            return 6
        places[2, index] = numbers[first + index]
    first += num_tokens
    for index in range(len(numbers) - first):
        places[3, index] = numbers[first + index]
    return 0


@compiled("void(uint16[::1], int64, int64, int64, int64[::1], uint32[:, :])")
def start_halves(table, group, group_size, step, ids, out):
    """out[row] = input after input of word `ids[row]`, from bf16 to the bits of fp32.

    Words lie in groups of `group` (1, or the 32 of a panel), each `group_size` numbers long; the inputs of a word are
    `step` numbers apart.
    """
    for row in range(len(ids)):
        place = ids[row] // group * group_size + ids[row] % group
        for index in range(out.shape[1]):
            out[row, index] = table[place + index * step] << _HALF_BITS


@compiled("void(uint32[::1], int64, int64, int64, int64[::1], uint32[:, :])")
def start_words(table, group, group_size, step, ids, out):
    """`start_halves` from fp32."""
    for row in range(len(ids)):
        place = ids[row] // group * group_size + ids[row] % group
        for index in range(out.shape[1]):
            out[row, index] = table[place + index * step]
