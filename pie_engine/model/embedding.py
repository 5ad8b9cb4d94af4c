"""Looking up what a step starts from, without a call of torch for each of its parts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pie_engine.model.kernels.blocks import BLOCKS, WIDTH
from pie_engine.model.kernels.lookup import lookup_kernel
from pie_engine.model.kernels.packed import PackedLinear
from pie_engine.model.kernels.program import row_bytes
from pie_engine.model.kernels.start import start_halves, start_words


class Embedding:
    """Rows of the embedding in fp32, whatever the dtype of the weights."""

    def __init__(self, table: Tensor | PackedLinear, scale: float) -> None:
        """`table` [words, hidden], bf16 or fp32, or packed as a head is. `scale` is multiplied in fp32."""
        self._blocks = table if isinstance(table, PackedLinear) and table.kind in BLOCKS else None
        if self._blocks is None:
            is_packed = isinstance(table, PackedLinear)
            numbers = table.panels if isinstance(table, PackedLinear) else table
            is_half = numbers.dtype == torch.bfloat16
            # NumPy has no bf16: its bits are the upper half of an fp32.
            self._numbers = numbers.reshape(-1).view(torch.uint16 if is_half else torch.uint32).numpy()
            self._start = start_halves if is_half else start_words
            self._lies = (WIDTH, numbers[0].numel(), WIDTH) if is_packed else (1, numbers.shape[1], 1)
        self._scale = np.float32(scale)

    def into(self, ids: np.ndarray, out: np.ndarray) -> None:
        """Write the rows of `ids` [tokens] to `out` [tokens, hidden]."""
        if self._blocks is not None:
            table = self._blocks
            lookup = lookup_kernel(table.kind)
            lookup(
                table.panels.data_ptr(), row_bytes(table.panels), table.num_inputs, ids, out.ctypes.data, out.strides[0]
            )
        else:
            self._start(self._numbers, *self._lies, ids, out.view(np.uint32))
        if self._scale != 1:
            out *= self._scale
