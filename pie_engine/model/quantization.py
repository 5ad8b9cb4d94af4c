"""Which weights are quantized on load, and what they take then. No torch."""

from __future__ import annotations

from typing import Literal

Quantization = Literal["none", "int8", "int4"]

GROUP_SIZE = 32
"""Inputs of int4 that share a scale."""
HEAD_KIND: Quantization = "int8"
"""Of the head, which needs more bits than the layers, and is read as a whole for every token."""
_OUTPUTS_MULTIPLE = 16
"""What torch's packing of int4 asks of the number of outputs."""


def can_quantize(kind: Quantization, num_inputs: int, num_outputs: int) -> bool:
    """Whether a matrix has a size that the kernels take; others stay as they are."""
    if kind == "int8":
        return True
    return kind == "int4" and num_inputs % GROUP_SIZE == 0 and num_outputs % _OUTPUTS_MULTIPLE == 0


def quantized_bytes(kind: Quantization, num_inputs: int, num_outputs: int) -> int:
    """Memory of a quantized matrix with its scales."""
    if kind == "int8":
        return num_outputs * (num_inputs + 2)
    return num_outputs * (num_inputs // 2 + num_inputs // GROUP_SIZE * 4)
