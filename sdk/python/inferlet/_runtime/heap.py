"""Arranges Python's memory before the runtime's picture of it is taken.

Every instance shares that picture and copies a page (4 KiB) of it when it first writes there. Launching a program is
mostly these copies, so the fewer pages a program writes to, the sooner it starts. Two things scatter its writes over
the whole heap, and both can be had out of the way while the runtime is built:

- Free slots between the objects of the build, which new objects would take: they are filled, and new objects lie side
  by side behind them.
- Reference counts of the objects of the build, which change whenever one is used. `Lasting` tells the host where these
  objects are, and the host makes them immortal (PEP 683) in the picture: Python does not count what never dies.
"""

from __future__ import annotations

import gc
from array import array
from types import CodeType, FrameType, GeneratorType

MAGIC = (0x5049455F, 0x4C415354, 0x494E475F, 0x4F424A53)
"""Before the addresses, so that the host finds them in the picture."""
CHUNK_STEP, CHUNK_HEADER_BYTES, MAX_SMALL_CHUNK = 16, 4, 512
"""How malloc rounds sizes up; Python has no pools of its own on WASI. Small sizes are filled one by one."""
LARGE_CHUNKS = (65536, 32768, 16384, 8192, 4096, 3072, 2048, 1536, 1024, 768, 640, 576)
ENOUGH_SMALL, ENOUGH_LARGE = 64, 4
"""When so many objects of a size have found no hole, there is none."""
_HEADER_BYTES = b"".__sizeof__()


class Lasting:
    """All objects that are there now. They are held for good, so that no address comes to mean another one."""

    def __init__(self) -> None:
        self.objects = _reachable()
        # As the host will find it in memory: the magic, how many, and their addresses.
        self.table = array("I", (*MAGIC, len(self.objects)))
        self.table.extend(map(id, self.objects))
        self.end = max(*map(id, self.objects), self.table.buffer_info()[0])


class Filler:
    """Nothing but bytes where there were holes."""

    def __init__(self, end: int) -> None:
        """`end`: an address above everything that lasts."""
        gc.collect()  # also empties Python's lists of free objects, which would hand out old places again
        small = range(MAX_SMALL_CHUNK, CHUNK_STEP, -CHUNK_STEP)
        self.pieces = [_fill(size, ENOUGH_LARGE, end) for size in LARGE_CHUNKS]
        self.pieces += [_fill(size, ENOUGH_SMALL, end) for size in small]


def fill() -> Filler:
    """Fills the holes between all objects that are there now, as long as the result is held."""
    return Filler(max(map(id, _reachable())))


def _fill(size: int, enough: int, end: int) -> list[bytes]:
    """Take every hole of `size` bytes below the address `end`."""
    pieces = []
    num_fresh = 0
    while num_fresh < enough:
        piece = bytes(size - CHUNK_HEADER_BYTES - _HEADER_BYTES)
        pieces.append(piece)
        num_fresh = num_fresh + 1 if id(piece) > end else 0
    return pieces


def _reachable() -> list[object]:
    """What the collector tracks, and what hangs on that. Not what is running just now."""
    gc.collect()
    found: list[object] = []
    seen = {id(found)}
    todo = gc.get_objects()
    seen |= {id(todo), id(seen)}
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, FrameType | GeneratorType):
            continue
        seen.add(id(value))
        found.append(value)
        # The collector does not know what code holds.
        todo += _parts_of(value) if isinstance(value, CodeType) else gc.get_referents(value)
    return found


def _parts_of(code: CodeType) -> list[object]:
    names = [code.co_name, code.co_qualname, code.co_filename, code.co_names]
    return [*names, code.co_consts, code.co_linetable, code.co_exceptiontable]
