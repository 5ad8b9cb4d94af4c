"""Makes the objects of the Python runtime immortal in the picture of its memory, before that is compiled.

An instance copies each page of the picture that it writes to. Python writes to an object whenever it is used, since
that counts its references, unless the object is immortal (PEP 683). Python has no way to say so of its own objects, so
it is said here: `inferlet._runtime.heap` leaves a table of addresses, and the count at each becomes what CPython's
`Include/refcount.h` takes for immortal where pointers have 32 bits.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from pie_engine.builder.wasm import (
    CORE_DATA_SECTION,
    CORE_MODULE,
    CORE_MODULE_SECTION,
    HEADER_BYTES,
    WasmError,
    component_sections,
    sections,
    unsigned,
)

MAGIC = (0x5049455F, 0x4C415354, 0x494E475F, 0x4F424A53)
"""Before the table; `heap.MAGIC`."""

ACTIVE_SEGMENT, PASSIVE_SEGMENT = 0, 1
I32_CONST, END = 0x41, 0x0B

IMMORTAL = 5 << 28
MIN_IMMORTAL = 1 << 30
WORD = 4
MAX_META_TYPES = 4
MAX_ODD_SHARE = 0.01


class ImageError(ValueError):
    """The component is not laid out as expected; it works as it is, only slower."""


class Segment(NamedTuple):
    """`num_bytes` of the file from `offset` on become the memory from `address` on."""

    address: int
    num_bytes: int
    offset: int


def immortalise(component: bytes) -> bytes:
    """The component with the objects in its table immortal. Raises `ImageError`; then nothing has been changed."""
    image = _Image(bytearray(component))
    (num_objects,) = image.words(image.table + WORD * len(MAGIC), 1)
    addresses = image.words(image.table + WORD * (len(MAGIC) + 1), num_objects)
    num_odd = 0
    for address in addresses:
        if image.is_object(address):
            image.immortalise(address)
        else:
            num_odd += 1
    if num_odd > MAX_ODD_SHARE * num_objects:
        raise ImageError(f"{num_odd} of {num_objects} addresses do not look like Python objects")
    return bytes(image.file)


class _Image:
    """The memory that a component starts with, and where in the file each byte of it is."""

    def __init__(self, file: bytearray) -> None:
        self.file = file
        self._segments = sorted(_segments(file))
        if not self._segments:
            raise ImageError("the component has no memory of its own")
        self._starts = [segment.address for segment in self._segments]
        last = self._segments[-1]
        self._memory = bytearray(last.address + last.num_bytes)
        for address, num_bytes, offset in self._segments:
            self._memory[address : address + num_bytes] = file[offset : offset + num_bytes]
        self.table = self._memory.find(struct.pack(f"<{len(MAGIC)}I", *MAGIC))
        if self.table < 0:
            raise ImageError("the runtime has left no table of its objects")
        self._types: dict[int, bool] = {0: False}

    def words(self, address: int, num: int) -> tuple[int, ...]:
        if address + WORD * num > len(self._memory):
            raise ImageError(f"{num} words at {address} do not fit into {len(self._memory)} bytes of memory")
        return struct.unpack_from(f"<{num}I", self._memory, address)

    def is_object(self, address: int) -> bool:
        """Whether there is a count that somebody holds, and then a type."""
        if address % WORD or address + 2 * WORD > len(self._memory):
            return False
        count, kind = self.words(address, 2)
        return count > 0 and self._is_type(kind)

    def _is_type(self, address: int) -> bool:
        """The type of its type (and so on) is at last `type`, which is its own."""
        if address not in self._types:
            self._types[address] = self._leads_to_type(address)
        return self._types[address]

    def _leads_to_type(self, address: int) -> bool:
        for _ in range(MAX_META_TYPES):
            if address % WORD or not 0 < address <= len(self._memory) - 2 * WORD:
                return False
            _, kind = self.words(address, 2)
            if kind == address:
                return True
            address = kind
        return False

    def immortalise(self, address: int) -> None:
        (count,) = self.words(address, 1)
        if count >= MIN_IMMORTAL:
            return
        segment = self._segments[bisect_right(self._starts, address) - 1]
        if address + WORD > segment.address + segment.num_bytes:
            return  # the rest of the count is a run of zeros, which the file leaves out
        struct.pack_into("<I", self.file, segment.offset + address - segment.address, IMMORTAL)


def _segments(file: bytearray) -> Iterator[Segment]:
    """The data of all core modules in a component."""
    try:
        for section, start, end in component_sections(file):
            if section == CORE_MODULE_SECTION and file[start : start + HEADER_BYTES] == CORE_MODULE:
                for part, begin, _ in sections(file, start + HEADER_BYTES, end):
                    if part == CORE_DATA_SECTION:
                        yield from _active_segments(file, begin)
    except WasmError as error:
        raise ImageError(str(error)) from error


def _active_segments(file: bytes | bytearray, at: int) -> Iterator[Segment]:
    """Those of a data section whose address is a constant."""
    num_segments, at = unsigned(file, at)
    for _ in range(num_segments):
        flags, at = unsigned(file, at)
        address = None
        if flags == ACTIVE_SEGMENT:
            operation, at = file[at], at + 1
            value, at = unsigned(file, at)
            if file[at] != END:
                raise ImageError("a data segment has an address that is an expression")
            address, at = (value if operation == I32_CONST else None), at + 1
        elif flags != PASSIVE_SEGMENT:
            raise ImageError("the component has several memories")
        num_bytes, at = unsigned(file, at)
        if address is not None:
            yield Segment(address, num_bytes, at)
        at += num_bytes
