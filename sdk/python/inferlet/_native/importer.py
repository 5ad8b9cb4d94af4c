"""Imports a program from the files that its author edits, so that debuggers know them by their paths."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

from inferlet._runtime import failures
from inferlet._runtime.importer import BundleImporter


class LocalImporter(BundleImporter):
    """The bundle's finder, whose code comes from files of this machine."""

    def __init__(self, files: dict[str, str], local: Mapping[str, str]) -> None:
        """`local`: where a file of the bundle lies; those that are not there (packages) go by their own names."""
        super().__init__(files, {})
        self._local = dict(local)
        self._paths = {where: path for path, where in self._local.items()}

    def owns(self, filename: str) -> bool:
        return filename in self._paths or super().owns(filename)

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = super().find_spec(name, path, target)
        if spec is None:
            self._refuse_absent(name)
        elif spec.origin in self._local:
            spec.origin = self._local[spec.origin]
        return spec

    def code_of(self, path: str) -> CodeType:
        return compile(self.files[path], self._local.get(path, path), "exec", dont_inherit=True)

    def relative(self, text: str) -> str:
        """With the names that files have in the sandbox."""
        for where, path in self._paths.items():
            text = text.replace(where, path)
        return text

    def _refuse_absent(self, name: str) -> None:
        """What the sandbox does not have is not there for the program here either. Debuggers may import it."""
        top = name.partition(".")[0]
        is_there = top == "inferlet" or (top in sys.stdlib_module_names and top not in failures.NOT_IN_SANDBOX)
        if not is_there and self._is_imported_by_program():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def _is_imported_by_program(self) -> bool:
        frame: Any = sys._getframe(1)
        here = frame.f_code.co_filename
        while frame is not None and (frame.f_code.co_filename == here or "importlib" in frame.f_code.co_filename):
            frame = frame.f_back
        return frame is not None and self.owns(frame.f_code.co_filename)
