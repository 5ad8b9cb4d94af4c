"""Names in a trap's message: those of the program, as they stand in its source."""

from __future__ import annotations

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
