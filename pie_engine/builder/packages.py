"""The packages of a program: chosen once, locked beside pie.toml, kept by content in the cache, put into the bundle."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from pie_engine.builder import pip
from pie_engine.builder.build import remove_unused
from pie_engine.builder.lock import write_whole
from pie_engine.builder.lockfile import LOCK_FILE, Lock, read_lock, text_of
from pie_engine.builder.wheel import files_of, package_of
from pie_engine.builder.writing import writing_to
from pie_engine.errors import InvalidProgram

Say = Callable[[str], None]
"""Told what is being done when it takes longer."""


def packages_of(
    root: Path, requires: Sequence[str], cache: Path, *, say: Say, locked_only: bool = False, upgrade: bool = False
) -> Path:
    """The folder with the packages of the program in `root`; from pie.lock, which is written when it does not fit.

    locked_only: an unfitting pie.lock is refused instead. upgrade: packages are chosen anew in any case.
    Raises `InvalidProgram` naming the package that cannot be had, and why.
    """
    lock = read_lock(root)
    if lock is None or upgrade or not lock.fits(requires):
        if locked_only:
            what = "is missing" if lock is None else "does not fit `dependencies` in pie.toml"
            raise InvalidProgram(f"{root / LOCK_FILE} {what}", hint="`pie build` without `--locked` writes it")
        return _choose(root, requires, cache, say)
    folder = _folder(lock, cache)
    if not folder.is_dir():
        say(f"fetching {_count(lock)} of {LOCK_FILE}")
        with _draft(cache) as draft:
            pip.fetch(lock.package, draft)
            _store(draft, folder)
    with suppress(OSError):  # a cache that can only be read is as good
        folder.touch()
    return folder


def _choose(root: Path, requires: Sequence[str], cache: Path, say: Say) -> Path:
    say("choosing packages")
    with _draft(cache) as draft:
        lock = Lock(list(requires), [package_of(wheel) for wheel in pip.resolve(requires, draft)])
        folder = _folder(lock, cache)
        _store(draft, folder)
    try:
        write_whole(root / LOCK_FILE, text_of(lock).encode())
    except OSError as error:
        raise InvalidProgram(f"cannot write {root / LOCK_FILE}: {error.strerror}") from error
    say(f"wrote {LOCK_FILE}: {', '.join(f'{each.name} {each.version}' for each in lock.package)}")
    return folder


def _folder(lock: Lock, cache: Path) -> Path:
    """Of the wheels of a lock, which may be one for several programs."""
    key = hashlib.blake2b(msgspec.json.encode(lock.package), digest_size=16).hexdigest()
    return cache / "packages" / key


@contextmanager
def _draft(cache: Path) -> Iterator[Path]:
    """A new folder below the cache, to be filled by pip, and gone afterwards."""
    with writing_to(cache):
        parent = cache / "packages"
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix="draft-") as draft:
            folder = Path(draft) / "wheels"
            folder.mkdir()
            yield folder


def _store(draft: Path, folder: Path) -> None:
    """Give it its name once its wheels are known to be good. Another process may have been faster."""
    read_packages(draft)
    try:
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    remove_unused(folder.parent)


def read_packages(folder: Path) -> dict[str, bytes]:
    """Every file by its path in the program. Raises `InvalidProgram`."""
    files: dict[str, bytes] = {}
    for wheel in sorted(folder.glob("*.whl")):
        files |= files_of(wheel)
    return files


def _count(lock: Lock) -> str:
    return "1 package" if len(lock.package) == 1 else f"{len(lock.package)} packages"
