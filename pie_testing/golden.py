"""Golden outputs: what a program said the last time that somebody looked at it, kept beside its test."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from pie_engine.errors import InvalidInput
from pie_testing.result import Result

FOLDER = "golden"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Golden:
    """`golden(result)`: equal to the file `golden/TEST.txt` beside the test, which `pie test --update` writes."""

    def __init__(self, folder: Path, test: str, *, updates: bool, owners: dict[Path, str], node: str) -> None:
        """owners: which test, by its node, has which file; of the whole run, and added to here."""
        self.updated: list[Path] = []
        """What has been written."""
        self._owners = owners
        self._node = node
        self._folder = folder / FOLDER
        self._test = re.sub(r"[^A-Za-z0-9._-]+", "-", test).strip("-.")
        self._updates = updates
        self._used: set[str] = set()

    def __call__(self, value: Any, name: str = "") -> None:
        """Compare a `Result`, a text or any JSON value. `name`: where one test has several."""
        __tracebackhide__ = True
        path = self._path(name, is_json=not isinstance(value, Result | str))
        self._own(path)
        text = _text_of(value)
        if self._updates:
            self._write(path, text)
        elif not path.exists():
            raise AssertionError(
                f"there is no golden file {path}\nhint: `pie test --update` (pytest --pie-update) writes it"
            )
        elif (expected := path.read_text("utf-8")) != text:
            lines = difflib.unified_diff(expected.splitlines(), text.splitlines(), path.name, "this run", lineterm="")
            shown = "\n".join(lines)
            raise AssertionError(
                f"it is not as in {path}:\n{shown}\nhint: if it is right now, `pie test --update` takes it over"
            )

    def _path(self, name: str, *, is_json: bool) -> Path:
        if name and not _NAME.fullmatch(name):
            raise InvalidInput(f"`{name}` cannot be the name of a golden file", hint="use letters, digits, `-` and `_`")
        if name in self._used:
            raise InvalidInput("a test with several golden outputs names them", hint='golden(…, "second")')
        self._used.add(name)
        return self._folder / f"{self._test}{'.' if name else ''}{name}.{'json' if is_json else 'txt'}"

    def _own(self, path: Path) -> None:
        """Raises `InvalidInput` where a test of the same name, in another file or class, has it already."""
        if (owner := self._owners.setdefault(path, self._node)) != self._node:
            hint = 'rename one of the tests, or name the output: golden(…, "second")'
            raise InvalidInput(f"{path} is the golden file of {owner} already", hint=hint)

    def _write(self, path: Path, text: str) -> None:
        if path.exists() and path.read_text("utf-8") == text:
            return
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        self.updated.append(path)


def _text_of(value: Any) -> str:
    if isinstance(value, Result):
        return value.transcript()
    if isinstance(value, str):
        return value if value.endswith("\n") else value + "\n"
    return json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
