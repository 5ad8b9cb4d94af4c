"""Work on long rows that gives a row the same bits alone and in a batch, whatever the number of threads."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_BLOCK = 128
_MIN_BLOCKED = 8192


def row_sums(values: Tensor) -> Tensor:
    """Sum of each row [rows, n] → [rows, 1].

    In blocks: a plain sum of a single long row is split among the threads, and rounds otherwise than that of many rows.
    """
    rows, size = values.shape
    whole = size - size % _BLOCK
    if not whole:
        return values.sum(-1, keepdim=True)
    sums = values[:, :whole].reshape(rows, whole // _BLOCK, _BLOCK).sum(-1).sum(-1, keepdim=True)
    return sums if whole == size else sums + values[:, whole:].sum(-1, keepdim=True)


def likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Value and index of each row's maximum, NaN if there is one: [rows, vocab] → two of [rows].

    In two levels, because a plain maximum is vectorized on the CPU and one with its index is not: 8 times faster
    where there is much to look at. The choice depends on the vocabulary alone, never on the number of rows.
    """
    rows, vocab = logits.shape
    if vocab % _BLOCK or vocab < _MIN_BLOCKED:
        highest, index = logits.max(-1)
        return highest, index
    blocks = logits.reshape(rows, vocab // _BLOCK, _BLOCK)
    highest, block = blocks.amax(-1).max(-1)
    return highest, block * _BLOCK + blocks[torch.arange(rows), block].argmax(-1)


def ranked(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row in falling order, and their indices: [rows, n] → two of [rows, count].

    On the CPU. A row with fewer entries above -inf ends in -inf with index 0. NumPy sorts with the vector instructions
    of the processor, and a bound from the maxima of blocks leaves it little to sort: 4 to 6 times as fast as `topk`.
    """
    rows, size = values.shape
    array = values.numpy()
    if count == size:
        order = np.argsort(-array, axis=1)
        return torch.from_numpy(np.take_along_axis(array, order, 1)), torch.from_numpy(order)
    ids = np.zeros((rows, count), np.int64)
    largest = np.full((rows, count), -np.inf, np.float32)
    for index, maxima in enumerate(_block_maxima(values).numpy()):
        found = _largest(array[index], count, maxima)
        ids[index, : len(found)] = found
        largest[index, : len(found)] = array[index, found]
    return torch.from_numpy(largest), torch.from_numpy(ids)


def _block_maxima(values: Tensor) -> Tensor:
    rows, size = values.shape
    whole = size - size % _BLOCK
    maxima = values[:, :whole].reshape(rows, whole // _BLOCK, _BLOCK).amax(-1)
    return maxima if whole == size else torch.cat([maxima, values[:, whole:].amax(-1, keepdim=True)], -1)


def _largest(row: np.ndarray, count: int, maxima: np.ndarray) -> np.ndarray:
    """Indices of the `count` largest entries above -inf, in falling order, the first of equal ones first."""
    if count <= len(maxima):
        # Each of the `count` largest maxima is an entry, so no entry that is wanted lies below the least of them.
        bound = np.partition(maxima, len(maxima) - count)[len(maxima) - count]
        found = np.flatnonzero(row >= bound if bound > -np.inf else row > bound)
    else:
        found = np.argpartition(row, len(row) - count)[len(row) - count :]
        found = found[row[found] > -np.inf]
    return found[np.argsort(-row[found], kind="stable")[:count]]
