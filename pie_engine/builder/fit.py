"""Whether a component was built for the interfaces of this version of Pie."""

from __future__ import annotations

from functools import cache

from pie_engine.builder.componentize import wit_digest
from pie_engine.builder.record import Record, record_of
from pie_engine.builder.wasm import Bytes, WasmError
from pie_engine.errors import InvalidProgram
from pie_engine.protocol.version import pie_version

_our_wit = cache(wit_digest)


def fits(record: Record) -> bool:
    """The same WIT, word for word: a function of the same name may have had another type."""
    return record.wit == _our_wit()


def refuse_other_interfaces(component: Bytes) -> None:
    """Raises `InvalidProgram` naming both versions. Foreign components do not say; linking them tells."""
    try:
        record = record_of(component)
    except WasmError:
        return  # compiling it says what is wrong
    if record is not None and not fits(record):
        raise InvalidProgram(
            f"the component was built by Pie {record.pie}, whose interfaces are not those of this Pie {pie_version()}",
            hint="build it again with `pie build`; or end an older daemon with `pie stop`, and run it again",
        )
