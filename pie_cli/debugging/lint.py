"""What a Python that is older than the sandbox's cannot run of a program. It may be run by any Python that has `ast`:
`python lint.py` takes the files as JSON from stdin, and gives the first `Problem` as JSON."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

NEWER_MODULES = frozenset({"annotationlib", "compression", "concurrent.interpreters", "string.templatelib"})
"""Of the standard library of the sandbox's Python; 3.13 has none of these."""


class Problem(NamedTuple):
    """Where it is, what this Python does, and what the sandbox's does."""

    path: str
    line: int
    what: str
    """As behind `Python 3.11`."""
    but: str
    """As behind `the sandbox's 3.14`."""


def problem_in(files: Mapping[str, str]) -> Problem | None:
    """The first one. `files`: texts by path."""
    return next((problem for path, text in files.items() for problem in _problems(path, text)), None)


def _problems(path: str, text: str) -> Iterator[Problem]:
    try:
        tree = ast.parse(text.removeprefix("\ufeff"), path)
    except SyntaxError as error:
        yield Problem(path, error.lineno or 0, f"cannot parse this: {error.msg}", "can")
        return
    for node in ast.walk(tree):
        for name in _imported(node):
            newer = next((each for each in NEWER_MODULES if f"{name}.".startswith(f"{each}.")), None)
            if newer is not None:
                yield Problem(path, node.lineno, f"has no module `{newer}`", "has")  # type: ignore[attr-defined]


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


if __name__ == "__main__":
    json.dump(problem_in(json.load(sys.stdin)), sys.stdout)
