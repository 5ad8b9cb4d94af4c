"""The stream of snapshots, out of server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from pie_client.errors import Interrupted
from pie_client.events import Frames
from pie_engine.protocol.stats import SNAPSHOT_EVENT, Snapshot

if TYPE_CHECKING:
    from pie_client.transport import Reply

PAUSE_S = 0.1
"""Before the next attempt, after the connection has broken or was ended."""
_HEAD = f"event: {SNAPSHOT_EVENT}\ndata: ".encode()
_decode = msgspec.json.Decoder(Snapshot).decode


async def snapshots(connect: Callable[[], Awaitable[Reply]]) -> AsyncGenerator[Snapshot, None]:
    """The newest snapshot, each time that one is wanted and there is a newer one. `connect` again after each break;
    what it raises ends this."""
    newest: asyncio.Queue[bytes | Exception] = asyncio.Queue(1)
    # A task of its own, so that nothing gathers between the daemon and a reader that is slow.
    reading = asyncio.create_task(_read(connect, newest))
    try:
        while True:
            found = await newest.get()
            if isinstance(found, Exception):
                raise found
            yield _decode(found)
    finally:
        reading.cancel()
        await asyncio.wait({reading})


async def _read(connect: Callable[[], Awaitable[Reply]], newest: asyncio.Queue[bytes | Exception]) -> None:
    try:
        while True:
            await _read_once(await connect(), newest)
            await asyncio.sleep(PAUSE_S)
    except Exception as error:
        _put(newest, error)


async def _read_once(reply: Reply, newest: asyncio.Queue[bytes | Exception]) -> None:
    frames = Frames()
    try:
        async for piece in reply.pieces():
            for frame in frames.split(piece):
                if frame.startswith(_HEAD):
                    _put(newest, frame.removeprefix(_HEAD))
    except Interrupted:
        pass
    finally:
        await reply.close()


def _put(newest: asyncio.Queue[bytes | Exception], found: bytes | Exception) -> None:
    """In the place of what nobody has taken."""
    if newest.full():
        newest.get_nowait()
    newest.put_nowait(found)
