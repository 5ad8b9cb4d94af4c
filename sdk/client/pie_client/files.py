"""Files that go to the daemon and come from it, piece by piece: they can be larger than memory."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from pie_client.errors import explained
from pie_engine.errors import InvalidInput, NotFound

PIECE_BYTES = 1 << 20


class FileBody:
    """The body of a request. Raises `NotFound` when there is no such file."""

    def __init__(self, path: str | Path) -> None:
        self._path = path = Path(path).expanduser()
        try:
            self._num_bytes = path.stat().st_size
            path.open("rb").close()
        except FileNotFoundError:
            raise explained(NotFound(f"there is no file {path}", hint="check the path")) from None
        except OSError as error:
            raise explained(_failed("read", path, error)) from None

    def __len__(self) -> int:
        return self._num_bytes

    async def pieces(self) -> AsyncIterator[bytes]:
        """As many bytes as there were in the beginning; a file that is shorter now breaks the request."""
        num_left = self._num_bytes
        with self._path.open("rb") as file:
            while num_left and (piece := await asyncio.to_thread(file.read, min(num_left, PIECE_BYTES))):
                num_left -= len(piece)
                yield piece
        if num_left:
            raise EOFError(f"{self._path} has become shorter")


Body = bytes | FileBody


async def write_file(path: Path, pieces: AsyncIterator[bytes], *, replace: bool) -> int:
    """All of it or nothing: the file has its name when it is whole. Returns its size in bytes.

    Raises `InvalidInput` when it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        num_bytes = 0
        with partial.open("xb") as file:
            async for piece in pieces:
                num_bytes += await asyncio.to_thread(file.write, piece)
        free_path(path, replace=replace)
        os.replace(partial, path)
        return num_bytes
    except OSError as error:
        raise explained(_failed("write", path, error)) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def free_path(path: str | Path, *, replace: bool) -> Path:
    """Where to write. Raises `InvalidInput` when there is a file that may not be replaced."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise explained(InvalidInput(f"{path} is a folder", hint="name the file to write in it"))
    if path.exists() and not replace:
        hint = "choose another file, or replace it: `--replace`, in Python `replace=True`"
        raise explained(InvalidInput(f"{path} is there already", hint=hint))
    return path


def _failed(verb: str, path: Path, error: OSError) -> InvalidInput:
    return InvalidInput(f"cannot {verb} {path}: {error.strerror or error}")
