"""GGUF's matrices of few bits as they are: quants and scales, each type as the kind of the kernels that it fits.

The layouts are those of https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h; `raw` are the bytes of blocks,
[outputs, blocks, bytes of one].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pie_engine.model.quants import Quants

_BITS = torch.arange(8, dtype=torch.uint8)


def quants_of(dtype: str, raw: Tensor) -> Quants:
    """A matrix of type `dtype`, one of `index.KEPT`."""
    return _READ[dtype](raw)


def _q8_0(raw: Tensor) -> Quants:
    return Quants("q8_0", _flat(raw[..., 2:]).view(torch.int8), _half(raw, 0))


def _q4_0(raw: Tensor) -> Quants:
    return Quants("q4_0", _flat(_halves(raw[..., 2:])), _half(raw, 0))


def _q4_1(raw: Tensor) -> Quants:
    return Quants("q4_1", _flat(_halves(raw[..., 4:])), _half(raw, 0), _half(raw, 2))


def _q5_0(raw: Tensor) -> Quants:
    """The fifth bits of a block are 32 of their own."""
    fifth = (raw[..., 2:6].unsqueeze(-1) >> _BITS & 1).flatten(-2)
    return Quants("q8_0", _flat(_halves(raw[..., 6:]) | fifth << 4).view(torch.int8) - 16, _half(raw, 0))


def _q4_k(raw: Tensor) -> Quants:
    """Of each 32 bytes the lower halves are a group, and the upper halves the next one."""
    return _with_ranges("q4_k", raw, _halves(_split(raw[..., 16:], 4, 32)).flatten(-2))


def _q5_k(raw: Tensor) -> Quants:
    """The fifth bit of number i of group g is bit g of byte i."""
    fifth = (raw[..., 16:48].unsqueeze(-2) >> _BITS.unsqueeze(1) & 1).flatten(-2)
    quants = _halves(_split(raw[..., 48:], 4, 32)).flatten(-2) | fifth << 4
    return _with_ranges("q5_k", raw, quants.view(torch.int8))


def _with_ranges(kind: str, raw: Tensor, quants: Tensor) -> Quants:
    """Scales and lowest numbers of 6 bits: the first four of each in bytes of their own."""
    low, middle, high = _split(raw[..., 4:16], 3, 4).unbind(-2)
    scales = torch.cat([low & 63, high & 15 | low >> 6 << 4], dim=-1)
    lowest = torch.cat([middle & 63, high >> 4 | middle >> 6 << 4], dim=-1)
    return Quants(kind, _flat(quants), _half(raw, 0), -_half(raw, 2), _flat(scales), _flat(lowest))


def _q6_k(raw: Tensor) -> Quants:
    """Per half of a block, 64 bytes of lower parts and 32 of upper ones of two bits each."""
    lower = _halves(_split(raw[..., :128], 2, 64))
    upper = (_split(raw[..., 128:192], 2, 1, 32) >> _BITS[::2].unsqueeze(1) & 3).flatten(-2)
    quants = (lower | upper << 4).flatten(-2).view(torch.int8) - 32
    factors = raw[..., 192:208].contiguous().view(torch.int8)
    return Quants("q6_k", _flat(quants), _half(raw, 208), scale_factors=_flat(factors))


_READ: dict[str, Callable[[Tensor], Quants]] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}


def _halves(part: Tensor) -> Tensor:
    """Lower halves of all bytes, then upper ones."""
    return torch.cat([part & 15, part >> 4], dim=-1)


def _split(part: Tensor, *sizes: int) -> Tensor:
    return part.reshape(*part.shape[:-1], *sizes)


def _half(raw: Tensor, at: int) -> Tensor:
    """fp16 at a byte of each block, [outputs, blocks]."""
    return raw[..., at : at + 2].contiguous().view(torch.float16).squeeze(-1)


def _flat(part: Tensor) -> Tensor:
    return part.flatten(1).contiguous()
