"""Rows from here to there: what the layers and the head start from."""

from __future__ import annotations

from pie_engine.model.kernels.jit import compiled

_HALF_BITS = 16


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


@compiled("void(float32[:, ::1], int64[::1], float32[:, ::1])")
def pick(rows, places, out):
    """out[number] begins with the row at `places[number]`."""
    for number in range(len(places)):
        for index in range(rows.shape[1]):
            out[number, index] = rows[places[number], index]
