"""The functions that a component was in when it trapped, by the names in its source."""

from __future__ import annotations

import re

MAX_FRAMES = 40
_FRAME = re.compile(r"^\s*\d+:\s+0x[0-9a-f]+ - (.+)$", re.MULTILINE)
_PLACE = re.compile(r"^\s+at (\S+)$")
_HASH = re.compile(r"::h[0-9a-f]{16}$|(?<=\w)\[[0-9a-f]{8,16}\]")
"""By which Rust tells apart functions of one name, and (in its newer mangling, v0) versions of one crate."""
_BUILT_IN = r"(str|char|bool|never|[iuf](8|16|32|64|128|size)|\[.*\]|\(.*\)|[&*].*)"
_MACHINERY = re.compile(
    r"^(core|std|alloc|__rustc|wit_bindgen|wit_bindgen_rt|rust_begin_unwind|rust_panic|__rust\w*|abort)(::|$)"
    rf"|^<(core|std|alloc)::|^<{_BUILT_IN}(>::| as (core|std|alloc)::)|^(cabi_|__wasm_call_ctors|_start$|dlmalloc)"
)
"""Of panicking, allocating and entering, which is nobody's own code."""
INTERPRETER = "componentize_py"
"""In what Python programs run on; its frames say nothing of them."""


def frames_of(message: str) -> list[str]:
    """The program's own functions in a trap's message, the innermost first; none of a Python program.

    Where the component has debugging information, wasmtime adds the place in the source.
    """
    text = message.partition("Caused by:")[0]
    if INTERPRETER in text:
        return []
    frames: list[str] = []
    is_own = False
    for line in text.splitlines():
        found, place = _FRAME.match(line), _PLACE.match(line)
        if found:
            name = _HASH.sub("", found[1].partition("!")[2])
            is_own = not (_MACHINERY.search(name) or name.startswith("<wasm function"))
            if is_own:
                frames.append(name)
        elif place and is_own:
            frames[-1] = f"{frames[-1]} ({place[1]})"
    return frames[:MAX_FRAMES]


def as_traceback(frames: list[str]) -> str:
    """As people read it; empty where nothing is known."""
    if not frames:
        return ""
    return "\n".join(["WebAssembly backtrace (innermost call first):", *(f"  {frame}" for frame in frames)]) + "\n"
