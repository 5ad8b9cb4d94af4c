"""What the applications of this package do while they are built: patch Python, warm it up, and lay its memory out."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

from inferlet._loop import HostLoop
from inferlet._runtime import heap, patches, program
from inferlet._runtime.warmup import WarmUp


def prepare(loop: HostLoop) -> WarmUp:
    """Patch Python and warm it up. Modules beside this package cannot be found any more after this."""
    streams = sys.stdout, sys.stderr
    try:
        patches.install(loop)
        return program.prepare(loop)
    except BaseException:
        sys.stdout, sys.stderr = streams  # so that the build can show what is wrong
        raise


def settle() -> tuple[heap.Lasting, heap.Filler]:
    """The last act: what is there now lives as long as the instance, so it is never counted or scanned again. The
    result is to be kept. Programs are short."""
    lasting = heap.Lasting()
    filler = heap.Filler(lasting.end)
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    return lasting, filler


def result(outcome: program.Outcome, fail: Callable[[str], Any]) -> str:
    """The value as JSON, or `fail` raised with the error as JSON."""
    is_ok, text = outcome
    if is_ok:
        return text
    raise fail(text)
