"""The binary format of WebAssembly components, as far as one looks at a file without running it: sections and imports.

https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md
"""

from __future__ import annotations

from collections.abc import Iterator

HEADER_BYTES = 8
CORE_MODULE = b"\0asm\x01\0\0\0"
COMPONENT = b"\0asm\x0d\0\x01\0"
CUSTOM_SECTION, CORE_MODULE_SECTION, IMPORT_SECTION = 0, 1, 10
CORE_DATA_SECTION = 11

_CORE_MODULE_SORT, _VALUE_SORT, _TYPE_SORT = 0x00, 0x02, 0x03
_MAX_LEB_SHIFT = 63


class WasmError(ValueError):
    """The file is no component, or is cut off."""


Bytes = bytes | bytearray | memoryview


def sections(file: Bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Id, start and end of the content of each section of a component or module."""
    while at < end:
        section = file[at]
        num_bytes, start = unsigned(file, at + 1)
        at = start + num_bytes
        if at > end:
            raise WasmError(f"a section ends at byte {at}, and the file at {end}")
        yield section, start, at


def component_sections(file: Bytes) -> Iterator[tuple[int, int, int]]:
    """The same of a whole component. Raises `WasmError`."""
    head = bytes(file[:HEADER_BYTES])
    if head == CORE_MODULE:
        raise WasmError("this is a core module, not a component")
    if head != COMPONENT:
        raise WasmError("this is not a WebAssembly component")
    return sections(file, HEADER_BYTES, len(file))


def custom_section(file: Bytes, name: str) -> bytes | None:
    """The content of the component's own custom section `name`."""
    for section, start, end in component_sections(file):
        if section == CUSTOM_SECTION:
            found, at = _name(file, start)
            if found == name:
                return bytes(file[at:end])
    return None


def with_section(file: bytes, name: str, content: bytes) -> bytes:
    """The component with one more custom section, at its end."""
    head = name.encode()
    body = _leb128(len(head)) + head + content
    return b"".join((file, bytes([CUSTOM_SECTION]), _leb128(len(body)), body))


def imports_of(file: Bytes) -> list[str]:
    """The names of what a component wants to be given, like `pie:core/context@0.1.0`, sorted."""
    names = []
    for section, start, _ in component_sections(file):
        if section == IMPORT_SECTION:
            num, at = unsigned(file, start)
            for _ in range(num):
                name, at = _name(file, at + 1)  # behind a byte that says which kind of name it is
                at = _after_description(file, at)
                names.append(name)
    return sorted(names)


def _after_description(file: Bytes, at: int) -> int:
    """Behind an `externdesc`: a sort, for some of them a bound, and an index."""
    sort, at = file[at], at + 1
    if sort in (_CORE_MODULE_SORT, _VALUE_SORT):
        at += 1
    elif sort == _TYPE_SORT:
        is_equal, at = file[at] == 0, at + 1
        if not is_equal:
            return at
    return unsigned(file, at)[1]


def _name(file: Bytes, at: int) -> tuple[str, int]:
    num_bytes, at = unsigned(file, at)
    return bytes(file[at : at + num_bytes]).decode(errors="replace"), at + num_bytes


def unsigned(file: Bytes, at: int) -> tuple[int, int]:
    """A LEB128 number, and what comes after it."""
    value = shift = 0
    while True:
        if at >= len(file) or shift > _MAX_LEB_SHIFT:
            raise WasmError("the file is cut off")
        byte = file[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _leb128(value: int) -> bytes:
    parts = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        parts.append(low | (0x80 if value else 0))
        if not value:
            return bytes(parts)
