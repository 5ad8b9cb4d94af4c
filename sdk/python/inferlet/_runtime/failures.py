"""What a failed program reports: code, message, hint, and a traceback of the user's own frames."""

from __future__ import annotations

import asyncio
import difflib
import json
import re
import sys
import traceback
from collections.abc import Callable

from inferlet import errors
from inferlet._loop import Deadlock
from inferlet._runtime import hints

IsUsers = Callable[[str], bool]
"""Whether a file belongs to the program."""

# Packages that people reach for and that need compiled code, with what to use instead.
NATIVE_PACKAGES = {
    "numpy": "the standard library has math, statistics, array and random",
    "pandas": "the standard library has csv, json and sqlite3",
    "scipy": "the standard library has math and statistics",
    "sklearn": "call the model with `Context.forward`, or compute in the client",
    "torch": "the model runs in the engine: use `Context.generate` and `Context.forward`",
    "tensorflow": "the model runs in the engine: use `Context.generate` and `Context.forward`",
    "jax": "the model runs in the engine: use `Context.generate` and `Context.forward`",
    "transformers": "the model runs in the engine: use `Context` and `Model`",
    "tokenizers": "use `Model().tokenizer`",
    "vllm": "the model runs in the engine: use `Context.generate`",
    "pydantic": "use dataclasses or TypedDict; `main` accepts both",
    "pydantic_core": "use dataclasses or TypedDict; `main` accepts both",
    "msgspec": "use json and dataclasses",
    "orjson": "use json",
    "aiohttp": "let the client fetch what is needed and hand it over with `session`",
    "httpx": "let the client fetch what is needed and hand it over with `session`",
    "requests": "let the client fetch what is needed and hand it over with `session`",
    "PIL": "let the client prepare images",
    "cv2": "let the client prepare images",
    "lxml": "use xml.etree.ElementTree",
    "cryptography": "the standard library has hashlib, hmac and secrets",
    "uvloop": "asyncio already runs on the host's own loop",
}
NOT_IN_SANDBOX = {
    "ssl": "a sandbox has no network of its own",
    "_ssl": "a sandbox has no network of its own",
    "ctypes": "a sandbox cannot load native libraries",
    "_ctypes": "a sandbox cannot load native libraries",
    "curses": "there is no terminal here",
    "readline": "there is no terminal here",
    "termios": "there is no terminal here",
    "tkinter": "there is no screen here",
    "multiprocessing": "a sandbox cannot start processes; use asyncio",
    "mmap": "read the file instead",
    "fcntl": "no other process uses your files",
    "bz2": "zlib and gzip are there",
    "lzma": "zlib and gzip are there",
}
PURE_PACKAGES = {"aiohttp", "httpx", "requests"}
"""Named above for their purpose, not for native code."""


def report(error: BaseException, is_users: IsUsers, *, is_terminated: bool = False) -> str:
    """The error's `ErrorInfo` as JSON."""
    code, message, hint = _describe(error, is_terminated)
    info = {"code": code, "message": message, "hint": hint, "traceback": format_traceback(error, is_users)}
    info["retry"] = isinstance(error, errors.PieError) and error.retry
    return json.dumps({key: value for key, value in info.items() if value or key in ("code", "message")})


def _describe(error: BaseException, is_terminated: bool) -> tuple[str, str, str]:
    """Code, message and hint."""
    if isinstance(error, errors.PieError):
        return error.code, error.message, error.hint
    if isinstance(error, asyncio.CancelledError) and is_terminated:
        return "cancelled", "the program was asked to end", ""
    if isinstance(error, MemoryError) or (isinstance(error, BaseExceptionGroup) and error.subgroup(MemoryError)):
        hint = "raise `memory_mb` under [limits] in pie.toml, or hold less at once"
        return "memory_limit", "the program ran out of memory", hint
    if isinstance(error, Deadlock):
        return "exception", str(error), "something has to send, release or set what the program waits for"
    if isinstance(error, SystemExit):
        return "exception", exit_message(error), ""
    message = "".join(traceback.format_exception_only(type(error), error)).strip()
    return "exception", _without_places(message), _hint(error)


def exit_message(stop: SystemExit) -> str:
    """What `sys.exit` was given: a status, or a text."""
    code = 0 if stop.code is None else stop.code
    return f"the program left with exit status {code:d}" if isinstance(code, int) else str(code)


def _hint(error: BaseException) -> str:
    """The way out of an error of Python's own."""
    if isinstance(error, ImportError):
        return import_failure(error, []).hint
    cause = error.__cause__ or error.__context__
    if isinstance(error, OSError) and isinstance(cause, errors.Unsupported):
        return cause.hint  # urllib wraps what a socket raises
    if isinstance(error, FileNotFoundError | PermissionError) and error.filename is not None:
        return "a program sees the data files of its own folder, and can only read them"
    return hints.of_slip(error)


def syntax_failure(error: SyntaxError) -> errors.InvalidProgram:
    """A program that does not compile, with file and line in the message."""
    failure = errors.InvalidProgram(f"{type(error).__name__} in {error.filename}, line {error.lineno}: {error.msg}")
    failure.__cause__ = error
    return failure


def import_failure(error: ImportError, module_names: list[str]) -> errors.InvalidProgram:
    """A program that imports what a sandbox does not have."""
    name = (error.name or "").partition(".")[0]
    message, hint = _without_places(f"{type(error).__name__}: {error}"), ""
    if name in PURE_PACKAGES:
        message, hint = f"{name} cannot be imported: a sandbox has no network of its own", NATIVE_PACKAGES[name]
    elif name in NATIVE_PACKAGES:
        message, hint = f"{name} needs native code, which a sandbox cannot load", NATIVE_PACKAGES[name]
    elif name in NOT_IN_SANDBOX:
        message, hint = f"the module {error.name} does not exist in a sandbox", NOT_IN_SANDBOX[name]
    elif isinstance(error, ModuleNotFoundError):
        hint = _near_hint(error.name or "", module_names)
    elif error.name in sys.modules:
        hint = _did_you_mean(getattr(error, "name_from", None) or "", dir(sys.modules[error.name]))
    failure = errors.InvalidProgram(message, hint=hint)
    failure.__cause__ = error
    return failure


def _near_hint(name: str, module_names: list[str]) -> str:
    return _did_you_mean(name, module_names) or (
        "only the standard library and the program's own files are there; name packages in `dependencies` of pie.toml"
    )


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean `{near[0]}`?" if near else ""


def _without_places(text: str) -> str:
    """Without the files of the runtime that an `ImportError` names: they are on nobody's disk."""
    return re.sub(r"(cannot import name '\w+' from '[\w.]+') \(/[^()]*\)", r"\1", text)


def format_traceback(error: BaseException, is_users: IsUsers) -> str:
    """As Python prints it, without the frames of this package and of what runs `main`. Empty if nothing is left."""
    shown = error.__cause__ if _is_wrapper(error) else error
    if shown is None or isinstance(shown, SystemExit):
        return ""
    drawn = traceback.TracebackException.from_exception(shown, capture_locals=False)
    _trim(drawn, is_users)
    if not drawn.stack and not isinstance(shown, SyntaxError):
        return ""
    return _without_places("".join(drawn.format()))


def _is_wrapper(error: BaseException) -> bool:
    """An error of ours that only says more about its cause."""
    return isinstance(error, errors.InvalidProgram) and error.__cause__ is not None


def _trim(drawn: traceback.TracebackException, is_users: IsUsers) -> None:
    drawn.stack[:] = _own_frames(drawn.stack, is_users)
    for other in (drawn.__cause__, drawn.__context__):
        if other is not None:
            _trim(other, is_users)
    for inner in drawn.exceptions or ():
        _trim(inner, is_users)


def _own_frames(frames: list[traceback.FrameSummary], is_users: IsUsers) -> list[traceback.FrameSummary]:
    """From the first of the user's frames on: the user's and the standard library's."""
    first = next((i for i, frame in enumerate(frames) if is_users(frame.filename)), len(frames))
    return [frame for frame in frames[first:] if not is_ours(frame.filename)]


def is_ours(filename: str) -> bool:
    """Whether a file belongs to this package, or to what Python itself needs to import a module."""
    return _PACKAGE in filename or filename.startswith("<frozen importlib")


_PACKAGE = __file__.rpartition("_runtime/")[0]
