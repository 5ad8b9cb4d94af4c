"""Looking up what a step starts from, without a call of torch for each of its parts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pie_engine.model.kernels.blocks import BLOCKS, WIDTH
from pie_engine.model.kernels.lookup import lookup_kernel
from pie_engine.model.kernels.packed import PackedLinear
from pie_engine.model.kernels.program import row_bytes

_HALF_BITS = 16


class Embedding:
    """Rows of the embedding in fp32, whatever the dtype of the weights."""

    def __init__(self, table: Tensor | PackedLinear, scale: float) -> None:
        """`table` [words, hidden], bf16 or fp32, or packed as a head is. `scale` is multiplied in fp32."""
        self._is_packed = isinstance(table, PackedLinear)
        self._blocks = table if isinstance(table, PackedLinear) and table.kind in BLOCKS else None
        self._numbers = _numbers(table.panels if isinstance(table, PackedLinear) else table)
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
            found = self._numbers[ids // WIDTH, :, ids % WIDTH] if self._is_packed else self._numbers[ids]
            if found.dtype == np.uint16:
                np.left_shift(found, _HALF_BITS, out=out.view(np.uint32), dtype=np.uint32)
            else:
                out[:] = found
        if self._scale != 1:
            out *= self._scale


def _numbers(table: Tensor) -> np.ndarray:
    """NumPy has no bf16: its bits are the upper half of an fp32."""
    return (table.view(torch.uint16) if table.dtype == torch.bfloat16 else table).numpy()
