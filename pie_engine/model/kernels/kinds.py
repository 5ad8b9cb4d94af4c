"""How vectors of weights become fp32 in registers, whatever they are in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from pie_engine.model.kernels import vector
from pie_engine.model.kernels.blocks import BLOCKS, SPAN, WIDTH, Blocks
from pie_engine.model.kernels.support import LANES
from pie_engine.model.kernels.vector import INT, VECTOR

NUM_VECTORS = WIDTH // LANES
"""Of a panel."""
_BYTES, _WORDS = (ir.VectorType(ir.IntType(bits), LANES) for bits in (8, 32))
_HALVES = ir.VectorType(ir.HalfType(), LANES)
_LOWER_HALF, _HALF_BITS = (ir.Constant(_WORDS, [number] * LANES) for number in (15, 4))

Body = Callable[[Any, list[Any]], None]
"""Emits what is done with the number of an input and its weights, vectors of fp32."""
Scaled = tuple[list[Any], list[Any]]
"""Vectors of scales and of lowest numbers; there may be none of these."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Numbers as they are, input after input: [inputs, 32] in a panel."""

    name: str
    num_bytes: int
    load: Callable[[Any, Any], Any]
    """(builder, address) → vector of fp32."""

    @property
    def span_bytes(self) -> int:
        """Of `SPAN` inputs of a panel."""
        return SPAN * WIDTH * self.num_bytes

    def each_input(
        self, builder: Any, w: Any, stride: Any, count: Any, num_vectors: int, body: Body, ahead: int = 0
    ) -> None:
        """A loop over `count` inputs, `stride` bytes apart and of `num_vectors` vectors each, that begin at `w`.

        What lies `ahead` bytes behind is asked for at the same time.
        """
        with cgutils.for_range(builder, count) as loop:
            at = builder.add(w, builder.mul(loop.index, stride))
            size = LANES * self.num_bytes
            if ahead:
                for line in range(0, num_vectors * size, vector.CACHE_LINE):
                    vector.prefetch(builder, _behind(builder, at, ahead + line))
            body(loop.index, [self.load(builder, _behind(builder, at, index * size)) for index in range(num_vectors)])


@dataclass(frozen=True, slots=True)
class BlockKind:
    """`blocks.Blocks`. Used as `Kind` is, for whole panels."""

    blocks: Blocks

    @property
    def name(self) -> str:
        return self.blocks.name

    @property
    def span_bytes(self) -> int:
        return SPAN // self.blocks.inputs * self.blocks.block_bytes

    def each_input(
        self, builder: Any, w: Any, _stride: Any, count: Any, num_vectors: int, body: Body, ahead: int = 0
    ) -> None:
        assert num_vectors == NUM_VECTORS, num_vectors
        blocks, size = self.blocks, ir.Constant(INT, self.blocks.inputs)
        num_blocks = builder.sdiv(builder.add(count, ir.Constant(INT, blocks.inputs - 1)), size)
        with cgutils.for_range(builder, num_blocks) as loop:
            first = builder.mul(loop.index, size)
            block = builder.add(w, builder.mul(loop.index, ir.Constant(INT, blocks.block_bytes)))
            scaled, groups = self._header(builder, block), _behind(builder, block, blocks.header_bytes)
            if blocks.has_factors:
                self._each_group(builder, groups, first, scaled, body, ahead)
            else:
                left = builder.sub(count, first)
                here = builder.select(builder.icmp_signed("<", left, size), left, size)
                self._each_quant(builder, groups, first, here if blocks.bits == 8 else size, scaled, body, ahead)

    def _each_group(self, builder: Any, at: Any, first: Any, scaled: Scaled, body: Body, ahead: int) -> None:
        blocks, size = self.blocks, ir.Constant(INT, self.blocks.group_inputs)
        with cgutils.for_range(builder, ir.Constant(INT, blocks.inputs // blocks.group_inputs)) as loop:
            group = builder.add(at, builder.mul(loop.index, ir.Constant(INT, blocks.group_bytes)))
            start = builder.add(first, builder.mul(loop.index, size))
            quants = _behind(builder, group, blocks.factor_bytes)
            self._each_quant(builder, quants, start, size, self._times_factors(builder, scaled, group), body, ahead)

    def _header(self, builder: Any, at: Any) -> Scaled:
        load, size = (_load_bf16 if self.blocks.scale == "bfloat16" else _load_f16), LANES * 2
        tables = [
            load(builder, _behind(builder, at, index * size)) for index in range(self.blocks.num_tables * NUM_VECTORS)
        ]
        scales, lowest = tables[:NUM_VECTORS], tables[NUM_VECTORS:]
        if self.blocks.offset:
            offset = vector.constant(self.blocks.offset)
            if lowest:
                pairs = zip(scales, lowest, strict=True)
                lowest = [vector.operation(builder, "fma", offset, scale, least) for scale, least in pairs]
            else:
                lowest = [builder.fmul(offset, scale) for scale in scales]
        return scales, lowest

    def _times_factors(self, builder: Any, scaled: Scaled, at: Any) -> Scaled:
        widen = builder.zext if self.blocks.has_lowest else builder.sext
        places = iter(range(2 * NUM_VECTORS))

        def times(number: Any) -> Any:
            factor = builder.sitofp(
                widen(_load_bytes(builder, _behind(builder, at, next(places) * LANES)), _WORDS), VECTOR
            )
            return builder.fmul(number, factor)

        scales, lowest = scaled
        return [times(scale) for scale in scales], [times(least) for least in lowest]

    def _each_quant(
        self, builder: Any, at: Any, first: Any, count: Any, scaled: Scaled, body: Body, ahead: int
    ) -> None:
        scales, lowest = scaled

        def weights(quants: list[Any]) -> list[Any]:
            numbers = [builder.sitofp(quant, VECTOR) for quant in quants]
            if not lowest:
                return [builder.fmul(number, scale) for number, scale in zip(numbers, scales, strict=True)]
            parts = zip(numbers, scales, lowest, strict=True)
            return [vector.operation(builder, "fma", number, scale, least) for number, scale, least in parts]

        def stored(index: Any, widen: Callable[[Any, Any], Any]) -> list[Any]:
            place = builder.add(at, builder.mul(index, ir.Constant(INT, WIDTH)))
            if ahead:
                vector.prefetch(builder, _behind(builder, place, ahead))
            return [
                widen(_load_bytes(builder, _behind(builder, place, LANES * part)), _WORDS)
                for part in range(NUM_VECTORS)
            ]

        if self.blocks.bits == 8:
            with cgutils.for_range(builder, count) as loop:
                body(builder.add(first, loop.index), weights(stored(loop.index, builder.sext)))
            return
        with cgutils.for_range(builder, builder.lshr(count, ir.Constant(INT, 1))) as loop:
            even = builder.add(first, builder.shl(loop.index, ir.Constant(INT, 1)))
            pairs = stored(loop.index, builder.zext)
            body(even, weights([builder.and_(pair, _LOWER_HALF) for pair in pairs]))
            body(_behind(builder, even, 1), weights([builder.lshr(pair, _HALF_BITS) for pair in pairs]))


AnyKind = Kind | BlockKind


def _behind(builder: Any, address: Any, offset: int) -> Any:
    return builder.add(address, ir.Constant(INT, offset)) if offset else address


def _load_bytes(builder: Any, address: Any) -> Any:
    return _load(builder, address, _BYTES, 1)


def _load_bf16(builder: Any, address: Any) -> Any:
    """bf16 is the upper half of fp32."""
    narrow = _load(builder, address, ir.VectorType(ir.IntType(16), LANES), 2)
    return builder.bitcast(builder.shl(builder.zext(narrow, _WORDS), ir.Constant(_WORDS, [16] * LANES)), VECTOR)


def _load_f16(builder: Any, address: Any) -> Any:
    return builder.fpext(_load(builder, address, _HALVES, 2), VECTOR)


def _load(builder: Any, address: Any, kind: Any, align: int) -> Any:
    loaded = builder.load(builder.inttoptr(address, kind.as_pointer()))
    loaded.align = align
    return loaded


PLAIN = {kind.name: kind for kind in (Kind("float32", 4, vector.load), Kind("bfloat16", 2, _load_bf16))}
"""Of weights, keys and values."""
KINDS: dict[str, AnyKind] = {**PLAIN, **{name: BlockKind(blocks) for name, blocks in BLOCKS.items()}}
"""Of weights."""
