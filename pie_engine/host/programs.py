"""Programs by content: what their guests are handed, made once, and the code objects that their imports left here."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from pie_engine.builder.record import data_files_of
from pie_engine.builder.writing import writing_to
from pie_engine.errors import InvalidProgram
from pie_engine.protocol.program import COMPONENT_FILE, Bundle, Manifest
from pie_engine.protocol.to_host import KEPT_COMPONENTS

MAX_PROGRAMS = 256
MAX_CODE_RATIO = 20
"""Compiled code may be this much longer than its source, in base64; more would not come from a compiler."""
MIN_CODE_CHARS = 64 * 1024
UNUSED_DAYS = 7
FILE_TIME = 946684800
"""When data files were last changed, as their program sees it: the same wherever and whenever it runs."""


class Program:
    """One bundle."""

    def __init__(self, digest: str, bundle: Bundle) -> None:
        self.digest = digest
        self.bundle = bundle
        self.manifest: Manifest = bundle.manifest
        self.name = bundle.manifest.name
        self.version = bundle.manifest.version
        self._sources: dict[str, str] = {}
        self._files: dict[str, bytes] | None = None
        """Read when they are needed: a component that cannot be read is kept all the same."""
        if not self.is_component:
            self._sources, self._files = bundle.guest_files()
            _check_paths(self._files)
        self._code: dict[str, str] = {}
        self._text: str | None = None

    @property
    def is_component(self) -> bool:
        return self.manifest.runtime == "component"

    @property
    def _data(self) -> dict[str, bytes]:
        """What its guest is to see as files. A standalone component brings its own along. Raises `InvalidProgram`."""
        if self._files is None:
            files = data_files_of(self.component)
            _check_paths(files)
            self._files = files
        return self._files

    @property
    def component(self) -> bytes:
        """Of a standalone one. Raises `InvalidProgram` when the bundle has none."""
        wasm = self.bundle.blobs.get(COMPONENT_FILE)
        if wasm is None:
            raise InvalidProgram(f"the bundle has no {COMPONENT_FILE}", hint="build it, then upload it again")
        return wasm

    def text(self) -> str:
        """The bundle as its guest gets it, JSON; a standalone component needs none."""
        if self.is_component:
            return ""
        if self._text is None:
            self._text = msgspec.json.encode(self._for_guest()).decode()
        return self._text

    def watched_text(self, *, with_code: bool) -> str:
        """The same for a run that says where its calls come from; `with_code`: what was compiled before goes along."""
        if self.is_component:
            return ""
        code = self._code if with_code else {}
        return msgspec.json.encode({**self._for_guest(), "code": code, "watched": True}).decode()

    def compiled_text(self) -> str:
        """The same for a look at it that compiles all its own modules."""
        if self.is_component:
            return ""
        return msgspec.json.encode({**self._for_guest(), "compiled": self.bundle.own_modules()}).decode()

    def _for_guest(self) -> dict[str, Any]:
        manifest = self.manifest
        head = {"name": manifest.name, "version": manifest.version, "entry": manifest.entry}
        return {**head, "files": self._sources, "code": self._code}

    def store_code(self, path: str, code: str) -> None:
        """Keep the compiled form of a source file for the next launch. The first one stays."""
        source = self._sources.get(path)
        if source is None or path in self._code or len(code) > MIN_CODE_CHARS + MAX_CODE_RATIO * len(source):
            return
        self._code[path] = code
        self._text = None

    @property
    def has_data(self) -> bool:
        """Whether it has files that its guest is to see as such."""
        return bool(self._data)

    def data_folder(self, parent: Path) -> Path:
        """Those files, written below `parent` once; guests see them read-only, so all share one folder."""
        folder = parent / self.digest
        if not folder.is_dir():
            with writing_to(parent):
                self._write_data(folder)
        with suppress(OSError):  # a folder that can only be read is as good
            os.utime(folder)
        return folder

    def _write_data(self, folder: Path) -> None:
        """Under its own name only when complete: another host may be doing the same."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix="draft-"))
        for path, content in self._data.items():
            target = draft / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            os.utime(target, (FILE_TIME, FILE_TIME))
        try:
            draft.rename(folder)
        except OSError:  # the other one was faster
            shutil.rmtree(draft)


class ProgramCache:
    """The programs that were last used.

    By user too: the code that a program's run leaves behind is only ever run on behalf of the same user.
    """

    def __init__(self) -> None:
        self._programs: OrderedDict[tuple[str, str], Program] = OrderedDict()
        self._components: OrderedDict[str, Program] = OrderedDict()

    def get(self, user: str, digest: str, bundle: Bundle) -> Program:
        if bundle.manifest.runtime == "component":
            return self._component(digest, bundle)
        key = (user, digest)
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = Program(digest, bundle)
            if len(self._programs) > MAX_PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return program

    def _component(self, digest: str, bundle: Bundle) -> Program:
        """Kept in the order in which the gateway speaks of them, which counts along."""
        program = self._components.get(digest)
        if program is None:
            program = self._components[digest] = Program(digest, bundle)
            if len(self._components) > KEPT_COMPONENTS:
                self._components.popitem(last=False)
        self._components.move_to_end(digest)
        return program


def remove_unused_data(parent: Path) -> None:
    """Data folders that no host has used for a while."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for folder in parent.glob("*"):
        if folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)


def _check_paths(paths: Iterable[str]) -> None:
    for path in paths:
        _check_path(path)


def _check_path(path: str) -> None:
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise InvalidProgram(f"the bundle has a file with the path {path!r}", hint="paths are relative, with `/`")
