"""The way out of slips that everybody makes once, and of which Python's own message tells only half."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import inferlet
from inferlet.sampler import SamplerOptions
from inferlet.stream import Stream

AWAIT = "`await` it first: `text = await ctx.generate(…)`"
ASYNC_FOR = "write `async for chunk in ctx.generate(…)`, or `await` it for the whole text"
SAMPLING = frozenset(SamplerOptions.__annotations__)
_UNAWAITED = re.compile(r"\b(Stream|coroutine)\b")
_KEYWORD = re.compile(r"generate\w*\(\) got an unexpected keyword argument '(\w+)'")


def of_slip(error: BaseException) -> str:
    """Empty for what is none of them."""
    for kind, find in _FINDERS:
        if isinstance(error, kind) and (hint := find(error)):
            return hint
    return ""


def _of_name(error: BaseException) -> str:
    name = getattr(error, "name", "")
    return f"write `from inferlet import {name}`" if name in inferlet.__all__ else ""


def _of_attribute(error: BaseException) -> str:
    owner, name = getattr(error, "obj", None), getattr(error, "name", "")
    if inspect.iscoroutine(owner) or (isinstance(owner, Stream) and hasattr(str, name)):
        return AWAIT
    return ""


def _of_type(error: BaseException) -> str:
    text = str(error)
    found = _KEYWORD.search(text)
    if found and found[1] in SAMPLING:
        return f"how tokens are chosen is the first argument: `ctx.generate(Sampler({found[1]}=…))`"
    if text == "'Stream' object is not iterable":
        return ASYNC_FOR
    return AWAIT if _UNAWAITED.search(text) else ""


def _of_runtime(error: BaseException) -> str:
    is_nested = "cannot be called from a running event loop" in str(error)
    return "`main` runs on an event loop already: `await` it" if is_nested else ""


_FINDERS: tuple[tuple[type[BaseException], Callable[[BaseException], str]], ...] = (
    (NameError, _of_name),
    (AttributeError, _of_attribute),
    (TypeError, _of_type),
    (RuntimeError, _of_runtime),
)
