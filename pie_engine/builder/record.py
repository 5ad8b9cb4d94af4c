"""What a component that Pie has built says of itself, in two custom sections: how it was built, and its data files."""

from __future__ import annotations

import zipfile
from typing import Literal

import msgspec

from pie_engine.builder import wasm
from pie_engine.builder.archive import unzipped, zipped
from pie_engine.errors import InvalidProgram
from pie_engine.protocol.program import COMPONENT_FILE, Bundle, Manifest, Signature

RECORD_SECTION = "pie:record"
FILES_SECTION = "pie:files"
DIST_INFO = ".dist-info"
Language = Literal["python", "rust"]


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a component was built. Fields of later versions are passed over."""

    manifest: Manifest
    language: Language
    digest: str
    """Of the bundle that it was built from."""
    pie: str
    """Version of Pie."""
    wit: str
    """Digest of the interfaces that it was built for."""
    tools: dict[str, str] = {}
    """Versions of what built it."""
    build: str = ""
    """Digest of everything that went into the build: the bundle, the SDK and the tools."""
    packages: dict[str, str] = {}
    """Versions of the packages inside, by name."""
    signature: Signature | None = None
    """None: it can only be read by running the component."""


def with_record(component: bytes, record: Record, files: dict[str, bytes]) -> bytes:
    """The component with its record and its data files."""
    if files:
        component = wasm.with_section(component, FILES_SECTION, zipped({path: files[path] for path in sorted(files)}))
    return wasm.with_section(component, RECORD_SECTION, msgspec.json.encode(record))


def record_of(component: wasm.Bytes) -> Record | None:
    """None: it was not built by Pie. Raises `WasmError` for what is no component, `InvalidProgram` for a bad record."""
    content = wasm.custom_section(component, RECORD_SECTION)
    if content is None:
        return None
    try:
        return msgspec.json.decode(content, type=Record)
    except msgspec.DecodeError as error:
        raise InvalidProgram(
            f"the component was built by another version of Pie: {error}", hint="build it again with `pie build`"
        ) from error


def read_record(component: wasm.Bytes, name: str) -> Record | None:
    """The same of a file. Raises `InvalidProgram` that names it."""
    try:
        return record_of(component)
    except wasm.WasmError as error:
        raise InvalidProgram(f"{name}: {error}", hint="`pie build` makes one of a program's folder") from error


def data_files_of(component: wasm.Bytes) -> dict[str, bytes]:
    """By path; none in a component that Pie has not built. Raises `InvalidProgram` when they are damaged."""
    try:
        content = wasm.custom_section(component, FILES_SECTION)
        return {} if content is None else unzipped(content)
    except wasm.WasmError:
        return {}  # compiling it says what is wrong
    except (zipfile.BadZipFile, OSError) as error:
        raise InvalidProgram(
            f"the data files in {COMPONENT_FILE} are damaged: {error}", hint="build it again"
        ) from error


def bundle_of_component(component: bytes, record: Record) -> Bundle:
    """The component as it travels."""
    manifest = msgspec.structs.replace(record.manifest, runtime="component")
    return Bundle(manifest, blobs={COMPONENT_FILE: component})


def package_versions(bundle: Bundle) -> dict[str, str]:
    """Of the packages that travel with a program, by name."""
    folders = {path.partition("/")[0] for path in bundle.files if path.endswith(f"{DIST_INFO}/METADATA")}
    pairs = (folder.removesuffix(DIST_INFO).rpartition("-") for folder in sorted(folders))
    return {name: version for name, _, version in pairs}
