"""Fetch one file of a hub into the cache: resumed where it was cut, checked before it gets its name.

The library's own download into the cache starts anew in each process and checks sizes only, so the partial file, the
lock and the checksum are ours; the bytes come through the library.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pie_engine.errors import PullFailed
from pie_engine.hub import checksum
from pie_engine.hub.remote import RemoteFile, RemoteModel, http_error, translated
from pie_engine.locks import try_lock

Progress = Callable[[str, float | None], None]
"""What is being done, and how much of it is (0 to 1)."""

CHUNK_BYTES = 1 << 20
"""Written at once, and lost when a connection breaks."""
MAX_BREAKS = 5
"""Connections in a row that may break without a byte."""
_POLL_S = 0.1


class Blobs:
    """The files of one cached repository, by their checksums."""

    def __init__(self, model: RemoteModel, progress: Progress) -> None:
        self._model, self._progress = model, progress
        folder = model.hub_id.folder
        self._folder = folder / "blobs"
        self._locks = folder.parent / ".locks" / folder.name

    def path(self, file: RemoteFile) -> Path:
        return self._folder / file.checksum

    def partial(self, file: RemoteFile) -> Path:
        """Where it grows. It stays when we are interrupted."""
        return self._folder / f"{file.checksum}.incomplete"

    def missing_bytes(self, file: RemoteFile) -> int:
        """How much of it has still to come."""
        if self.path(file).is_file():
            return 0
        partial = self.partial(file)
        return file.size - (min(partial.stat().st_size, file.size) if partial.is_file() else 0)

    def fetch(self, file: RemoteFile) -> bool:
        """Make the file whole; returns whether anything had to be fetched. Raises `PullFailed` or `NotFound`."""
        with translated(self._model.hub_id, self._model.endpoint):
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._locked(file):
                return self._fetch_locked(file)

    def _fetch_locked(self, file: RemoteFile) -> bool:
        path = self.path(file)
        if path.is_file():
            if self._is_right(path, file):
                return False
            path.unlink()
        partial = self.partial(file)
        for _ in range(2):
            self._download(file, partial)
            if self._is_right(partial, file):
                os.replace(partial, path)
                return True
            # A partial file may be damaged by what is in between, or by a crash: once from the beginning.
            partial.unlink()
        endpoint, hub_id = self._model.endpoint, self._model.hub_id
        raise PullFailed(
            f"{file.path} of {hub_id} arrived twice with another checksum than {endpoint} says",
            hint="something between here and the hub changes it: try another network or --endpoint",
        )

    def _is_right(self, path: Path, file: RemoteFile) -> bool:
        if path.stat().st_size != file.size:
            return False
        done = 0

        def count(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            self._progress(f"checking {file.path}", done / max(file.size, 1))

        return checksum.compute(path, checksum.kind_of(file.checksum), count) == file.checksum

    def _download(self, file: RemoteFile, partial: Path) -> None:
        """Append what is missing, over as many connections as it takes. Raises what the last one raised."""
        num_breaks = 0
        while True:
            before = _size(partial)
            try:
                self._download_once(file, partial)
                return
            except http_error() as error:
                is_answer = getattr(error, "response", None) is not None
                num_breaks = 0 if _size(partial) > before else num_breaks + 1
                if is_answer or num_breaks > MAX_BREAKS:
                    raise
                time.sleep(min(0.1 * 2**num_breaks, 5))

    def _download_once(self, file: RemoteFile, partial: Path) -> None:
        from huggingface_hub import constants
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils.tqdm import disable_progress_bars

        constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES
        # What there is to say, we say.
        disable_progress_bars()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        if _size(partial) > file.size:
            partial.unlink()
        with partial.open("ab") as target:
            done = target.tell()
            if done == file.size:
                return
            http_get(
                self._model.url(file.path),
                _Watched(target, file, self._progress),  # type: ignore[arg-type]
                resume_size=done,
                headers={**build_hf_headers(library_name="pie"), "Accept-Encoding": "identity"},
                expected_size=file.size,
            )

    @contextmanager
    def _locked(self, file: RemoteFile) -> Iterator[None]:
        """The lock that the Hugging Face libraries take, too."""
        self._locks.mkdir(parents=True, exist_ok=True)
        with (self._locks / f"{file.checksum}.lock").open("w") as lock:
            while not try_lock(lock):
                self._progress(f"waiting for another process that fetches {file.path}", None)
                time.sleep(_POLL_S)
            yield


class _Watched:
    """The partial file as the library writes to it."""

    def __init__(self, target: BinaryIO, file: RemoteFile, progress: Progress) -> None:
        self._target, self._file, self._progress = target, file, progress
        self._report()

    def write(self, data: bytes) -> int:
        written = self._target.write(data)
        self._report()
        return written

    def truncate(self, size: int | None = None) -> int:
        return self._target.truncate(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def _report(self) -> None:
        self._progress(f"fetching {self._file.path}", self._target.tell() / max(self._file.size, 1))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
