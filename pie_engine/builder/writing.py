"""The cache folder, when it cannot be written."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pie_engine.errors import InvalidConfig

_OF_THE_FOLDER = frozenset(
    [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST]
)
"""What a folder can be refused for; anything else is not its fault."""


@contextmanager
def writing_to(cache: Path) -> Iterator[None]:
    """Around work that writes below `cache`. Raises `InvalidConfig` naming the folder and the way out."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_THE_FOLDER:
            raise
        raise InvalidConfig(
            f"cannot write to the cache folder {cache}: {error.strerror}",
            hint="set PIE_CACHE to a folder that you can write to, on a disk with room",
        ) from error
