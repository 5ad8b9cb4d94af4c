"""Immortal objects in a component's memory, on components of a few bytes."""

from __future__ import annotations

import struct

import pytest
from wasmtime import Config, Engine, wat2wasm
from wasmtime.component import Component

from inferlet._runtime import heap
from pie_engine.builder import image

TYPE, KIND, TEXT, IMMORTAL_NONE, FREED, TABLE = 64, 80, 96, 112, 128, 256
OBJECTS = {TYPE: (9, TYPE), KIND: (3, TYPE), TEXT: (1, KIND), IMMORTAL_NONE: (7 << 28, KIND)}


def component_of(memory: dict[int, bytes]) -> bytes:
    """A component with one core module, whose data segments are these."""
    data = "".join(
        f'(data (i32.const {address}) "{"".join(f"{chr(92)}{byte:02x}" for byte in content)}")'
        for address, content in memory.items()
    )
    return bytes(wat2wasm(f"(component (core module (memory 1) {data}))"))


def picture(addresses: list[int], objects: dict[int, tuple[int, int]] = OBJECTS) -> bytes:
    memory = {address: struct.pack("<2I", *header) + b"\0" * 8 for address, header in objects.items()}
    memory[TABLE] = struct.pack(f"<{5 + len(addresses)}I", *image.MAGIC, len(addresses), *addresses)
    return component_of(memory)


def count_at(component: bytes, address: int) -> int:
    return image._Image(bytearray(component)).words(address, 1)[0]


def test_the_guest_and_the_host_agree_on_the_magic():
    assert image.MAGIC == heap.MAGIC


def test_the_objects_of_the_table_never_die_and_nothing_else_changes():
    before = picture([TYPE, TEXT, IMMORTAL_NONE])
    after = image.immortalise(before)
    counts = {address: count_at(after, address) for address in OBJECTS}
    assert counts == {TYPE: 5 << 28, KIND: 3, TEXT: 5 << 28, IMMORTAL_NONE: 7 << 28}
    assert len(after) == len(before)
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= 2 * image.WORD
    Component(Engine(Config()), after)


def test_an_address_without_an_object_is_left_alone():
    addresses = [TEXT] * 200 + [FREED]
    before = picture(addresses, {**OBJECTS, FREED: (0, KIND)})
    assert count_at(image.immortalise(before), FREED) == 0
    before = picture(addresses, {**OBJECTS, FREED: (12, 34567)})
    assert count_at(image.immortalise(before), FREED) == 12


def test_a_picture_that_is_not_as_expected_is_refused():
    with pytest.raises(image.ImageError, match="1 of 2 addresses"):
        image.immortalise(picture([TEXT, FREED]))
    with pytest.raises(image.ImageError, match="no table"):
        image.immortalise(component_of({TYPE: b"abc"}))
    with pytest.raises(image.ImageError, match="no memory"):
        image.immortalise(bytes(wat2wasm("(component)")))
    with pytest.raises(image.ImageError, match="not a component"):
        image.immortalise(bytes(wat2wasm("(module)")))
    with pytest.raises(image.ImageError, match="do not fit"):
        image.immortalise(component_of({TABLE: struct.pack("<5I", *image.MAGIC, 10**6)}))
