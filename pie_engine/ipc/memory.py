"""Memory that the C library keeps back."""

from __future__ import annotations

from ctypes import CDLL


def give_memory_back() -> None:
    """Return what the C allocator holds of things that are gone to the operating system. Takes milliseconds."""
    trim = getattr(CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
