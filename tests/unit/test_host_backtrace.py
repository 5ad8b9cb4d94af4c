"""Names in a trap's message: those of the program, as they stand in its source."""

from __future__ import annotations

import pytest
from wasmtime import Engine, Instance, Module, Store, Trap

from pie_engine.host.backtrace import as_traceback, frames_of

MESSAGE = """error while executing at wasm backtrace:
    0:   0x8f21 - tickets.wasm!__rustc::rust_begin_unwind
    1:   0x9a10 - tickets.wasm!core::panicking::panic_fmt::h5f2a0b1c3d4e5f60
    2:     0x22 - tickets.wasm!tickets::parse::line::h0123456789abcdef
                    at src/parse.rs:17:9
    3:     0x26 - tickets.wasm!<tickets::Order as core::str::FromStr>::from_str::h0123456789abcdef
    4:     0x2b - tickets.wasm!<wasm function 2>
    5:     0x2c - tickets.wasm!wit_bindgen::rt::run

Caused by:
    wasm trap: wasm `unreachable` instruction executed
"""


def test_the_programs_own_functions_are_named() -> None:
    own = ["tickets::parse::line (src/parse.rs:17:9)", "<tickets::Order as core::str::FromStr>::from_str"]
    assert frames_of(MESSAGE) == own


def test_frames_of_an_interpreter_say_nothing() -> None:
    assert frames_of(MESSAGE.replace("5:     0x2c - tickets", "5:     0x2c - libcomponentize_py_runtime")) == []


def test_without_names_there_is_no_traceback() -> None:
    assert as_traceback(frames_of("error while executing\n    0:  0x2b - <unknown>!<wasm function 2>\n")) == ""


def test_an_endless_recursion_is_shortened() -> None:
    message = "".join(f"  {n}:   0x{n:x} - a.wasm!down\n" for n in range(1000))
    assert len(frames_of(message)) == 40


PANIC = {
    "v0": (
        "_RNvNtCsgEmfK2I1SDS_4core9panicking9panic_fmt",
        "_RNvNtCsgEmfK2I1SDS_4core6option13unwrap_failed",
        "_RNvXNtCs6e2MT307i1N_7tickets5parseNtB2_5OrderNtNtNtCsgEmfK2I1SDS_4core3str6traits7FromStr8from_str",
        "_RINvMNtCsgEmfK2I1SDS_4core3stre5parseNtNtCs6e2MT307i1N_7tickets5parse5OrderEBD_",
        "_RNCNvNtCs6e2MT307i1N_7tickets5parse4line0B5_",
        "_RNvNtCs6e2MT307i1N_7tickets5parse4line",
    ),
    "legacy": (
        "_ZN4core9panicking9panic_fmt17h5f2a0b1c3d4e5f60E",
        "_ZN4core6option13unwrap_failed17h0123456789abcdefE",
        "_ZN68_$LT$tickets..parse..Order$u20$as$u20$core..str..traits..FromStr$GT$8from_str17h0123456789abcdefE",
        "_ZN4core3str21_$LT$impl$u20$str$GT$5parse17h76570193a1859f4dE",
        "_ZN7tickets5parse4line28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE",
        "_ZN7tickets5parse4line17h0123456789abcdefE",
    ),
}
"""Symbols that rustc 1.95 writes for a panic in `line` of a crate `tickets`, the innermost first."""


def message_of_trap(symbols: tuple[str, ...]) -> str:
    """Of a module whose functions are called so."""
    bodies = ("unreachable", *(f"call {callee}" for callee in range(len(symbols) - 1)))
    functions = " ".join(f'(func $"{name}" {body})' for name, body in zip(symbols, bodies, strict=True))
    engine = Engine()
    store = Store(engine)
    module = Module(engine, f'(module $tickets {functions} (export "go" (func {len(symbols) - 1})))')
    with pytest.raises(Trap) as trap:
        Instance(store, module, []).exports(store)["go"](store)
    return str(trap.value)


@pytest.mark.parametrize("mangling", PANIC)
def test_names_are_those_of_the_source_in_both_manglings_of_rust(mangling: str) -> None:
    closure = {"v0": "{closure#0}", "legacy": "{{closure}}"}[mangling]
    assert frames_of(message_of_trap(PANIC[mangling])) == [
        "<tickets::parse::Order as core::str::traits::FromStr>::from_str",
        f"tickets::parse::line::{closure}",
        "tickets::parse::line",
    ]


@pytest.mark.parametrize("name", ["<tickets::Order>::new", "<u32 as tickets::Price>::cents", "table[0123]"])
def test_what_is_the_programs_own_stays(name: str) -> None:
    assert frames_of(f"  0: 0x1 - tickets.wasm!{name}\n") == [name]
