"""Standalone components."""

from __future__ import annotations

import time

import pytest
from wasmtime import wat2wasm
from wasmtime.component import Component

from pie_engine.builder.componentize import wit_digest
from pie_engine.builder.record import Record, with_record
from pie_engine.config import MIB
from pie_engine.errors import InvalidProgram
from pie_engine.host import components
from pie_engine.host.components import fitting, load_component
from pie_engine.host.engine import Ticker
from pie_engine.host.fibres import FibreRunner
from pie_engine.host.imports import Imports
from pie_engine.host.interfaces import INTERFACES
from pie_engine.protocol.program import Bundle, Limits, Manifest
from pie_engine.protocol.to_gateway import Described
from pie_engine.protocol.to_host import (
    Describe,
)

STANDALONE = """
(component
  (core module $module
    (memory (export "memory") 1)
    (data (i32.const 64) "[42]")
    (data (i32.const 96) "{\\22doc\\22:\\22Answer.\\22}")
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func $text (param $data i32) (param $size i32) (result i32)
      (i32.store (i32.const 4) (local.get $data))
      (i32.store (i32.const 8) (local.get $size))
      (i32.const 0))
    (func (export "describe") (param i32 i32) (result i32) (call $text (i32.const 96) (i32.const 17)))
    (func (export "run") (param i32 i32 i32 i32) (result i32) (call $text (i32.const 64) (i32.const 4)))
  )
  (core instance $core (instantiate $module))
  (alias core export $core "memory" (core memory $memory))
  (alias core export $core "realloc" (core func $realloc))
  (alias core export $core "describe" (core func $describe'))
  (alias core export $core "run" (core func $run'))
  (func $describe (param "bundle" string) (result (result string (error string)))
    (canon lift (core func $describe') (memory $memory) (realloc $realloc)))
  (func $run (param "bundle" string) (param "input" string) (result (result string (error string)))
    (canon lift (core func $run') (memory $memory) (realloc $realloc)))
  (instance $program (export "describe" (func $describe)) (export "run" (func $run)))
  (export "pie:core/program@0.1.0" (instance $program))
)
"""


def standalone(wasm: bytes) -> Bundle:
    return Bundle(Manifest(name="p", version="1.0", runtime="component"), blobs={"program.wasm": wasm})


def test_a_standalone_component_is_compiled_once_and_run(inline, tmp_path):
    program = standalone(bytes(wat2wasm(STANDALONE)))
    inline.host.receive_order(Describe(1, program.digest, program))
    pids = [inline.launch(program) for _ in range(3)]
    inline.run_to_end()
    assert [inline.ending(pid) for pid in pids] == [("return", [42])] * 3
    described = next(report for report in inline.reports if isinstance(report, Described))
    assert described.signature is not None
    assert described.signature.doc == "Answer."
    assert len(list((tmp_path / "components").iterdir())) == 1


@pytest.mark.parametrize(
    ("wasm", "words"),
    [(b"no wasm", "no WebAssembly component"), (bytes(wat2wasm("(component)")), "does not export"), (b"", "no WebAss")],
)
def test_what_is_no_program_is_refused(inline, wasm, words):
    error = inline.error(standalone(wasm))
    assert error.code == "invalid_program"
    assert words in error.message


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ('(import "pie:core/nothing@0.1.0" (instance (export "f" (func))))', "imports pie:core/nothing@0.1.0#f"),
        ('(import "pie:core/futures@0.9.0" (instance (export "wait-any" (func))))', "futures@0.9.0#wait-any, which"),
        (
            '(import "wasi:http/handler@0.2.0" (instance (export "f" (func))))',
            "imports instance `wasi:http/handler@0.2",
        ),
    ],
)
def test_what_was_built_for_another_version_is_refused_in_words(inline, wanted, words):
    error = inline.error(standalone(bytes(wat2wasm(STANDALONE.replace("(component", f"(component {wanted}", 1)))))
    assert error.code == "invalid_program"
    assert words in error.message
    assert error.hint == "build it for this version of Pie"


def test_a_function_of_another_type_is_refused_in_words(engine):
    wanted = '(import "pie:core/futures@0.1.0" (instance (export "wait-any" (func (param "x" u8)))))'
    component = Component(engine, wat2wasm(STANDALONE.replace("(component", f"(component {wanted}", 1)))
    ticker = Ticker(engine)
    with pytest.raises(InvalidProgram, match="its functions have other types"), fitting():
        FibreRunner(ticker, component, Imports(INTERFACES), 64 * MIB)
    ticker.close()


def recorded(**changes: object) -> bytes:
    fields = {"language": "python", "digest": "d", "pie": "0.0.9", "wit": wit_digest()}
    record = Record(manifest=Manifest(name="p"), **(fields | changes))  # type: ignore[arg-type]
    return with_record(bytes(wat2wasm(STANDALONE)), record, {"data/words.txt": b"one two"})


def test_a_component_of_other_interfaces_names_both_versions(inline):
    error = inline.error(standalone(recorded(wit="other")))
    assert error.code == "invalid_program"
    assert error.message.startswith("the component was built by Pie 0.0.9, whose interfaces are not those of this Pie")
    assert error.hint.startswith("build it again with `pie build`; or end an older daemon")


def test_a_component_sees_the_data_files_that_it_has_brought_along(inline, tmp_path):
    program = standalone(recorded())
    assert inline.run(program) == ("return", [42])
    assert (tmp_path / program.digest / "data" / "words.txt").read_text() == "one two"


def test_who_waits_for_a_component_is_told_and_the_wait_is_not_its_own_time(inline, monkeypatch):
    def compile_slowly(*arguments: object):
        time.sleep(1.3)
        return load_component(*arguments)

    monkeypatch.setattr(components, "load_component", compile_slowly)
    manifest = Manifest(name="p", version="1.0", runtime="component", limits=Limits(wall_s=1.0))
    pid = inline.launch(Bundle(manifest, blobs={"program.wasm": bytes(wat2wasm(STANDALONE))}))
    inline.run_to_end()
    assert inline.events(pid) == [
        ("started", {"program": "p", "version": "1.0"}),
        ("log", {"level": "info", "message": "compiling the component of p, once"}),
        ("return", [42]),
    ]


def test_a_bundle_without_its_component_is_refused(inline):
    error = inline.error(Bundle(Manifest(name="p", runtime="component")))
    assert (error.code, "program.wasm" in error.message) == ("invalid_program", True)


RUST_NAMES = """    (func $_ZN4core9panicking5panic17h0123456789abcdefE (unreachable))
    (func $_ZN7tickets5parse17h0123456789abcdefE (call $_ZN4core9panicking5panic17h0123456789abcdefE))
    (func (export "run") (param i32 i32 i32 i32) (result i32)
      (call $_ZN7tickets5parse17h0123456789abcdefE) (i32.const 0))
"""


def test_a_trap_names_the_functions_of_rust(inline):
    run = '    (func (export "run") (param i32 i32 i32 i32) (result i32) (call $text (i32.const 64) (i32.const 4)))\n'
    assert run in STANDALONE
    error = inline.error(standalone(bytes(wat2wasm(STANDALONE.replace(run, RUST_NAMES, 1)))))
    assert error.message == "the program broke off: wasm trap: wasm `unreachable` instruction executed"
    assert error.traceback == "WebAssembly backtrace (innermost call first):\n  tickets::parse\n"
