"""Weights of few bits, as they lie in a panel of 32 outputs: in blocks of inputs, each behind its scales. No numba.

    block   scales [32] and lowest numbers [32], in 16 bits; groups
    group   factors of the scale [32] and of the lowest number [32], a byte each; quants
    quants  8 bits: [inputs, 32]; 4 bits: [inputs / 2, 32], of two inputs the first one in the lower half of a byte

A weight is `scale * (quant + offset) + lowest`, computed in fp32. What a kind does not have is not there: lowest
numbers, or factors, without which a block has one group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WIDTH = 32
"""Outputs of a panel."""
_SCALE_BYTES = 2
SPAN = 256
"""Inputs after which every kind begins a new block."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A kind of weights."""

    name: str
    bits: Literal[4, 8]
    """Quants of 8 bits have a sign."""
    inputs: int
    """Of a block. The last one of a panel may be shorter if it has one group of 8 bits."""
    scale: Literal["bfloat16", "float16"]
    has_lowest: bool = False
    group_inputs: int = 0
    """Of a group with factors; 0: there are none. Factors of scales have no sign if there are lowest numbers."""
    offset: int = 0

    @property
    def has_factors(self) -> bool:
        return self.group_inputs > 0

    @property
    def num_tables(self) -> int:
        """Scales, and lowest numbers."""
        return 1 + self.has_lowest

    @property
    def header_bytes(self) -> int:
        return self.num_tables * _SCALE_BYTES * WIDTH

    @property
    def factor_bytes(self) -> int:
        return self.num_tables * WIDTH if self.has_factors else 0

    @property
    def group_bytes(self) -> int:
        return self.factor_bytes + self.quant_bytes(self.group_inputs or self.inputs)

    @property
    def block_bytes(self) -> int:
        return self.header_bytes + self.inputs // (self.group_inputs or self.inputs) * self.group_bytes

    def quant_bytes(self, num_inputs: int) -> int:
        return num_inputs * WIDTH * self.bits // 8

    def panel_bytes(self, num_inputs: int) -> int:
        rest = num_inputs % self.inputs
        return num_inputs // self.inputs * self.block_bytes + (
            self.header_bytes + self.quant_bytes(rest) if rest else 0
        )

    def takes(self, num_inputs: int) -> bool:
        """Whether a row of so many inputs is whole blocks, or can end in a shorter one."""
        return num_inputs % self.inputs == 0 or (self.bits == 8 and not self.has_factors)


BLOCKS = {
    kind.name: kind
    for kind in (
        # Of `quantize`: one scale for each output, which every block repeats; or a range for each group.
        Blocks("int8", 8, SPAN, "bfloat16"),
        Blocks("int4", 4, 32, "bfloat16", has_lowest=True, offset=-8),
        # Of GGUF files.
        Blocks("q8_0", 8, 32, "float16"),
        Blocks("q4_0", 4, 32, "float16", offset=-8),
        Blocks("q4_1", 4, 32, "float16", has_lowest=True),
        Blocks("q6_k", 8, SPAN, "float16", group_inputs=16),
        Blocks("q4_k", 4, SPAN, "float16", has_lowest=True, group_inputs=32),
        Blocks("q5_k", 8, SPAN, "float16", has_lowest=True, group_inputs=32),
    )
}
"""By name."""
