"""`pie.toml`: read, and refused with what would be right."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import tomli

from pie_client.walk import source_text
from pie_engine.config import MAX_ENDOWMENT, nearest_hint
from pie_engine.errors import InvalidProgram, NotFound
from pie_engine.protocol.program import GUEST_PYTHON, NAME, SECRET, VERSION, Limits, Manifest

MANIFEST_FILE = "pie.toml"

_PROGRAM_KEYS = tuple(field for field in Manifest.__struct_fields__ if field != "limits")
_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|~=|>|<)\s*(\d+(?:\.\d+)*)(\.\*)?\s*")
_REQUIREMENT = re.compile(r"\s*[A-Za-z0-9][A-Za-z0-9._-]*\s*($|[\[(<>=!~;@])")
"""How a requirement begins (PEP 508): pip reads the rest."""
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}


def read_manifest(path: str | Path) -> Manifest:
    """Of a folder with a `pie.toml`, or of the file itself. Raises `InvalidProgram` naming the key and the nearest."""
    file = Path(path)
    if file.is_dir():
        file /= MANIFEST_FILE
    try:
        data = tomli.loads(source_text(file, file.read_bytes()))
    except OSError as error:
        raise NotFound(f"cannot read {file}: {error.strerror}") from error
    except tomli.TOMLDecodeError as error:
        raise InvalidProgram(f"{file}: {error}") from error
    return _manifest(data, file)


def _manifest(data: dict[str, Any], file: Path) -> Manifest:
    _refuse_unknown(data, ("program", "limits"), file, "")
    program, limits = _table(data, "program", file), _table(data, "limits", file)
    _refuse_unknown(program, _PROGRAM_KEYS, file, "program.")
    _refuse_unknown(limits, Limits.__struct_fields__, file, "limits.")
    if "name" not in program:
        raise InvalidProgram(f"{file}: there is no `name` in `[program]`", hint='write `[program]`, then `name = "…"`')
    _refuse_wrong(program, _PROGRAM_RULES, file, "program")
    _refuse_wrong(limits, _LIMIT_RULES, file, "limits")
    _refuse_other_python(program.get("python", ""), file)
    return msgspec.convert({**program, "limits": limits}, Manifest)


def _table(data: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    table = data.get(name, {})
    if not isinstance(table, dict):
        raise InvalidProgram(f"{file}: `{name}` is not a table", hint=f"write `[{name}]`")
    return table


def _refuse_unknown(table: dict[str, Any], known: tuple[str, ...], file: Path, where: str) -> None:
    for key in table:
        if key not in known:
            raise InvalidProgram(f"{file}: unknown key `{where}{key}`", hint=nearest_hint(key, known))


# Values.


class _Rule(NamedTuple):
    is_met: Callable[[Any], bool]
    wanted: str


def _refuse_wrong(table: dict[str, Any], rules: dict[str, _Rule], file: Path, name: str) -> None:
    for key, value in table.items():
        if not rules[key].is_met(value):
            raise InvalidProgram(
                f"{file}: `{key}` in `[{name}]` is `{_typed(value)}`", hint=f"it must be {rules[key].wanted}"
            )


def _refuse_other_python(clauses: str, file: Path) -> None:
    if not all(_allows(clause) for clause in clauses.split(",") if clause.strip()):
        here = ".".join(map(str, GUEST_PYTHON))
        raise InvalidProgram(
            f"{file}: the program asks for Python `{clauses}`, and the sandbox has {here}",
            hint="change `python` in `[program]`, or leave it out",
        )


def _allows(clause: str) -> bool:
    """Whether one clause of a version specifier (PEP 440) lets the sandbox's Python in, whatever its patch level."""
    found = _CLAUSE.fullmatch(clause)
    assert found is not None
    sign, text, is_prefix = found.groups()
    parts = tuple(map(int, text.split(".")))
    if is_prefix or sign == "~=":
        prefix = parts if is_prefix else parts[:-1]
        is_inside = GUEST_PYTHON[: len(prefix)] == prefix[:2]
        return is_inside != (sign == "!=") and (sign != "~=" or parts[:2] <= GUEST_PYTHON)
    wanted = (*parts, 0)[:2]
    if len(parts) > 2 and wanted == GUEST_PYTHON:
        return True
    return _COMPARISONS[sign](GUEST_PYTHON, wanted)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_reference(value: str) -> bool:
    """`name` or `name@version`"""
    name, at, version = value.partition("@")
    return bool(NAME.fullmatch(name)) and (not at or bool(VERSION.fullmatch(version)))


def _is_specifier(value: object) -> bool:
    return isinstance(value, str) and all(_CLAUSE.fullmatch(clause) for clause in value.split(","))


def _is_module(value: object) -> bool:
    return isinstance(value, str) and all(part.isidentifier() for part in value.split("."))


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and math.isfinite(value)


def _is_endowment(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_ENDOWMENT


def _typed(value: object) -> str:
    """As one would write it in TOML, near enough."""
    return json.dumps(value, ensure_ascii=False, default=str)


_PROGRAM_RULES = {
    "name": _Rule(
        lambda value: _is_text(value) and bool(NAME.fullmatch(value)),
        "letters, digits, `.`, `_` and `-`, with a letter or digit first, 100 of them at most",
    ),
    "version": _Rule(
        lambda value: _is_text(value) and bool(VERSION.fullmatch(value)), 'text without spaces, like `"0.1.0"`'
    ),
    "runtime": _Rule(lambda value: value in ("python", "component"), '`"python"` or `"component"`'),
    "entry": _Rule(_is_module, 'the name of a module, like `"main"` or `"package.module"`'),
    "description": _Rule(_is_text, "text in quotes"),
    "dependencies": _Rule(
        lambda value: (
            isinstance(value, list)
            and all(_REQUIREMENT.match(each) for each in value if _is_text(each))
            and all(map(_is_text, value))
        ),
        'packages as pip writes them, like `["tabulate>=0.9"]`',
    ),
    "python": _Rule(_is_specifier, 'versions of Python, like `">=3.11"`'),
    "endowment": _Rule(
        _is_endowment, f"a number of credits from 0 to {MAX_ENDOWMENT}; leave it out for what all programs get"
    ),
    "launches": _Rule(
        lambda value: isinstance(value, list) and all(_is_text(each) and _is_reference(each) for each in value),
        'a list of programs, like `["worker", "critic@0.2.0"]`',
    ),
    "secrets": _Rule(
        lambda value: isinstance(value, list) and all(_is_text(name) and SECRET.fullmatch(name) for name in value),
        'a list of names, like `["API_KEY"]`',
    ),
}
_SECONDS = _Rule(_is_positive, "a number of seconds above 0; leave it out for the engine's own limit")
_LIMIT_RULES = {
    "memory_mb": _Rule(
        lambda value: _is_positive(value) and isinstance(value, int),
        "a whole number above 0; leave it out for the engine's own limit",
    ),
    "cpu_s": _SECONDS,
    "wall_s": _SECONDS,
    "output_mb": _Rule(_is_positive, "a number above 0; leave it out for the engine's own limit"),
}
