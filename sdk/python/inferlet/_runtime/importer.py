"""Imports the modules of a program from memory, as Python would import them from the program's folder."""

from __future__ import annotations

import base64
import binascii
import linecache
import marshal
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.resources.readers import FileReader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from inferlet import _transport
from inferlet._runtime.distributions import distributions

ROOT = "/"
"""Where the host mounts the program's data files; also the working folder."""

BYTE_ORDER_MARK = "\ufeff"
"""What some editors begin a file with; Python skips it."""


class BundleImporter:
    """Finder of a bundle's modules. File names are relative to the program's folder: `main.py`, `pkg/util.py`."""

    def __init__(self, files: dict[str, str], code: dict[str, str]) -> None:
        """`files`: text by path. `code`: compiled code by path, as `runtime.store-code` was given it."""
        self.files = {path: text.removeprefix(BYTE_ORDER_MARK) for path, text in files.items()}
        self._code = code
        self._modules, self._namespaces = _module_paths(files)

    @property
    def module_names(self) -> list[str]:
        return sorted(self._modules)

    def path_of(self, name: str) -> str | None:
        """The file of a module; None if the program has no such module."""
        return self._modules.get(name)

    def owns(self, filename: str) -> bool:
        """Whether a code object's file is one of the program's."""
        return filename in self.files

    def install(self) -> None:
        """Become the first finder. A module of the program wins over one of the standard library with its name."""
        sys.meta_path.insert(0, self)
        for name in self._modules.keys() & sys.modules.keys():
            del sys.modules[name]
        for path in self._modules.values():
            linecache.cache[path] = (lambda path=path: self.files[path],)  # type: ignore[assignment]

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        file = self._modules.get(name)
        if file is not None:
            is_package = file.endswith("/__init__.py")
            spec = ModuleSpec(name, BundleLoader(self, name, file), origin=file, is_package=is_package)
            spec.has_location = True
            if is_package:
                spec.submodule_search_locations = [file.removesuffix("/__init__.py")]
            return spec
        if name in self._namespaces:
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [name.replace(".", "/")]
            return spec
        return None

    def find_distributions(self, context: Any = None) -> Iterator[Any]:
        """For `importlib.metadata`."""
        return distributions(self.files, None if context is None else context.name, ROOT)

    def code_of(self, path: str) -> CodeType:
        """Compiled code of a file; what had to be compiled is left with the host for the next launch."""
        stored = self._code.get(path)
        if stored is not None:
            try:
                return marshal.loads(base64.b64decode(stored))
            except (ValueError, EOFError, TypeError, binascii.Error):
                pass  # of another build of Python: compile it again
        code = compile(self.files[path], path, "exec", dont_inherit=True)
        _transport.host.runtime.store_code(path, base64.b64encode(marshal.dumps(code)).decode("ascii"))
        return code


class BundleLoader:
    """Loader of one module; also gives source, data files and resources, as the standard loaders do."""

    def __init__(self, importer: BundleImporter, name: str, path: str) -> None:
        self._importer = importer
        self.name = name
        self.path = path

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._importer.code_of(self.path), module.__dict__)

    def is_package(self, name: str) -> bool:
        return self.path.endswith("/__init__.py")

    def get_filename(self, name: str) -> str:
        return self.path

    def get_source(self, name: str) -> str:
        return self._importer.files[self.path]

    def get_code(self, name: str) -> CodeType:
        return self._importer.code_of(self.path)

    def get_data(self, path: str) -> bytes:
        text = self._importer.files.get(str(path))
        return Path(ROOT, path).read_bytes() if text is None else text.encode("utf-8")

    def get_resource_reader(self, name: str) -> FileReader:
        return _Resources(self)


class _Resources(FileReader):
    """`importlib.resources.files(package)`: the package's folder below the mount."""

    def __init__(self, loader: BundleLoader) -> None:
        self.path = Path(ROOT, loader.path).parent


def _module_paths(files: dict[str, str]) -> tuple[dict[str, str], set[str]]:
    """Modules by dotted name, and packages without `__init__.py`. A package wins over a module of its name."""
    modules: dict[str, str] = {}
    packages: set[str] = set()
    for path in files:
        if path.endswith(".py"):
            name = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
            if name != "__init__" and modules.get(name, "").count("/") <= path.count("/"):
                modules[name] = path
            packages.update(_parents(name))
    return modules, packages - modules.keys()


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
