"""The memory of a process: how much it is, and giving back what was needed only to start."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from ctypes import CDLL, c_int, c_size_t, c_void_p
from pathlib import Path

_MADV_DONTNEED = 4
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ (\d+)")


def give_memory_back() -> None:
    """Return what the C allocator holds of things that are gone to the operating system. Takes milliseconds."""
    trim = getattr(CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """Memory that this process has now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux: the most that it has ever been
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def let_go_of_libraries(smaps: Path = Path("/proc/self/smaps")) -> None:
    """Give up the pages of libraries: most were needed only to start. A page comes back when somebody uses it."""
    if smaps.exists():  # Linux
        for start, size in clean_mappings(smaps.read_text()):
            CDLL(None).madvise(c_void_p(start), c_size_t(size), c_int(_MADV_DONTNEED))


def clean_mappings(smaps: str) -> Iterator[tuple[int, int]]:
    """Address and bytes of each mapping of a file that is as the file has it, and that nobody can write to.

    See https://man7.org/linux/man-pages/man5/proc_pid_smaps.5.html.
    """
    mapping: tuple[int, int] | None = None
    for line in smaps.splitlines():
        if header := _MAPPING.match(line):
            start, end, inode = int(header[1], 16), int(header[2], 16), int(header[3])
            mapping = (start, end - start) if inode else None
        elif line[0] in "0123456789abcdef":
            mapping = None
        elif mapping and line.split() == ["Anonymous:", "0", "kB"]:
            # Else the loader has written to it, addresses say: those pages are nowhere but here.
            yield mapping
