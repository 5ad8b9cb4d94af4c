"""Puts the code that every launch runs side by side in memory, while the runtime is built.

Python writes into code when it runs: counters of its adaptive interpreter, and which way a branch went. An instance
copies each page that it writes to, and functions lie wherever they were compiled. So those that a small program runs
are made anew, one behind the other; they have to be specialised again afterwards.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType


def gather(run: Callable[[], object], seal: Callable[[], object]) -> None:
    """Move the code that `run` runs to one place.

    `run` has been run often. As long as what `seal` gives is held, new objects lie one behind the other.
    """
    gc.collect()
    functions = [value for value in gc.get_objects() if isinstance(value, FunctionType)]
    _renew(functions, _specialised(functions))
    fresh = {id(code): (code, code._co_code_adaptive) for code in _codes(functions)}  # type: ignore[attr-defined]
    run()
    # The counters of fresh code change whenever it is run.
    changed = [code for code, before in fresh.values() if code._co_code_adaptive != before]  # type: ignore[attr-defined]
    fresh.clear()
    holder = seal()
    _renew(functions, changed)
    del holder


def _specialised(functions: Iterable[FunctionType]) -> list[CodeType]:
    """Code that has been run so often that Python has made another of it."""
    return [code for code in _codes(functions) if code._co_code_adaptive != code.co_code]  # type: ignore[attr-defined]


def _codes(functions: Iterable[FunctionType]) -> list[CodeType]:
    """Of the functions, and of those that they define in turn; each once."""
    found: dict[int, CodeType] = {}
    todo = [function.__code__ for function in functions]
    while todo:
        code = todo.pop()
        if id(code) not in found:
            found[id(code)] = code
            todo += [value for value in code.co_consts if isinstance(value, CodeType)]
    return list(found.values())


def _renew(functions: Iterable[FunctionType], codes: Iterable[CodeType]) -> None:
    """Put a fresh copy in the place of each of `codes`, and of what defines one of them."""
    # By identity: code that is written twice is equal.
    wanted, copies = {id(code) for code in codes}, dict[int, CodeType]()

    def copy_of(code: CodeType) -> CodeType:
        copy = copies.get(id(code))
        if copy is None:
            constants = tuple(copy_of(value) if isinstance(value, CodeType) else value for value in code.co_consts)
            is_same = all(new is old for new, old in zip(constants, code.co_consts, strict=True))
            copy = code if is_same and id(code) not in wanted else code.replace(co_consts=constants)
            copies[id(code)] = copy
        return copy

    originals = [function.__code__ for function in functions]  # held, so that none takes another one's identity
    for function, original in zip(functions, originals, strict=True):
        copy = copy_of(original)
        if copy is not original:
            function.__code__ = copy
