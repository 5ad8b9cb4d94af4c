"""Memory that a process gives back."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from pie_engine.ipc.memory import clean_mappings, let_go_of_libraries

HEADER = "7f000000{}000-7f000000{}000 {} 00000000 fe:00 {}    /usr/lib/libllvm.so"
FIELDS = ["Size:  4 kB", "Rss:  4 kB", "Anonymous:  {} kB", "VmFlags: rd ex mr mw me"]


def entry(*, start: int = 1, access: str = "r-xp", inode: int = 31, anonymous: int = 0) -> str:
    header = HEADER.format(start, start + 1, access, inode)
    return "\n".join([header, *FIELDS]).format(anonymous) + "\n"


def test_only_what_is_as_its_file_has_it_is_given_up() -> None:
    kept = [entry(access="rw-p"), entry(access="r--s"), entry(access="---p"), entry(inode=0), entry(anonymous=4)]
    clean = [entry(start=2), entry(start=3, access="r--p")]
    assert list(clean_mappings("".join([kept[0], clean[0], *kept[1:], clean[1], kept[0]]))) == [
        (0x7F0000002000, 4096),
        (0x7F0000003000, 4096),
    ]


def test_libraries_work_on_when_their_pages_are_given_up(tmp_path: Path) -> None:
    (tmp_path / "library").write_bytes(b"code" * mmap.PAGESIZE)
    with (tmp_path / "library").open("rb") as file:
        library = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    assert library[:4] == b"code"
    before = resident_bytes()
    let_go_of_libraries()
    assert resident_bytes() < before
    assert library[:4] == b"code"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
