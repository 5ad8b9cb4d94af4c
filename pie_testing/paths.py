"""`import tools` in a test means the module of the program that the test belongs to."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

MANIFEST = "pie.toml"


class ProgramPath:
    """Puts one program's folder at a time on `sys.path`; modules of the one before are imported anew when it is back.

    Programs are tested together, and many have a `main` and a `tools`.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._kept: dict[Path, dict[str, ModuleType]] = {}

    def enter(self, test: Path) -> None:
        """From here on code of the test file `test` is imported or run."""
        folder = next((folder for folder in test.parents if (folder / MANIFEST).is_file()), None)
        if folder == self._folder:
            return
        self.leave()
        if folder is not None:
            sys.path.insert(0, str(folder))
            sys.modules.update(self._kept.pop(folder, {}))
            self._folder = folder

    def leave(self) -> None:
        """No program any more."""
        if self._folder is None:
            return
        if str(self._folder) in sys.path:
            sys.path.remove(str(self._folder))
        self._kept[self._folder] = own = {
            name: module for name, module in sys.modules.items() if _is_of(module, self._folder)
        }
        for name in own:
            del sys.modules[name]
        self._folder = None


def _is_of(module: ModuleType, folder: Path) -> bool:
    """Whether it was found through the folder; tests are imported by their own path, and stay."""
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_relative_to(folder):
        return False
    inside = Path(file).relative_to(folder).with_suffix("").parts
    inside = inside[:-1] if inside[-1] == "__init__" else inside
    return module.__name__ == ".".join(inside)
