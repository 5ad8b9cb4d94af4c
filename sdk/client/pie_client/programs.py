"""How a program is named in a call: by where it lies, by its bundle, or by what it was uploaded as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pie_client.bundle import pack
from pie_client.errors import explained
from pie_client.walk import BUILT
from pie_engine.errors import NotFound, PieError
from pie_engine.protocol.program import Bundle

Program = str | Path | Bundle
"""A folder, a `.py` file or what `pie build` made; a bundle; or the reference of an uploaded program: digest, `name`,
`name@version`.

A text is a path when it has a slash or ends in `.py`, `.wasm` or `.pie`: "./hello" is the folder, "hello" the uploaded
program."""


def named(program: Program) -> dict[str, Any]:
    """The part of a launch request that says which program."""
    if isinstance(program, Bundle):
        return {"bundle": program}
    if isinstance(program, Path) or is_path(program):
        return {"bundle": packed(program)}
    return {"program": program}


def packed(path: str | Path) -> Bundle:
    """The bundle of a folder or a file. Raises `NotFound` and `InvalidProgram`."""
    try:
        return pack(Path(path).expanduser())
    except PieError as error:
        raise explained(error) from None


def with_folder(error: NotFound, program: Program) -> NotFound:
    """The same, saying so when there is a folder that `program` may have meant."""
    if isinstance(program, str) and Path(program).exists():
        hint = f'there is a folder of this name here: write "./{program}" to launch it'
        return explained(NotFound(error.message, hint=hint))
    return error


def is_path(text: str) -> bool:
    """References to uploaded programs hold no slash and do not end in `.py`, `.wasm` or `.pie`."""
    return "/" in text or "\\" in text or text in (".", "..") or text.endswith((".py", *BUILT))
