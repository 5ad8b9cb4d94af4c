"""Components and bundles as files, without a build: sections, records, archives, and what happens once."""

from __future__ import annotations

import importlib.metadata
import os
import threading
import time
from pathlib import Path

import msgspec
import pytest
from wasmtime import wat2wasm

from inferlet._runtime import rehearsal
from pie_client import pack
from pie_engine.builder import build as building
from pie_engine.builder import componentize
from pie_engine.builder import python as python_builder
from pie_engine.builder.archive import archive_of, bundle_of
from pie_engine.builder.build import Made, build
from pie_engine.builder.record import Record, bundle_of_component, data_files_of, read_record, record_of, with_record
from pie_engine.builder.wasm import WasmError, custom_section, imports_of, with_section
from pie_engine.errors import Internal, InvalidProgram, Unsupported
from pie_engine.protocol.program import Bundle, Manifest

EMPTY = bytes(wat2wasm("(component)"))
MANIFEST = Manifest(name="p", version="1.0")
RECORD = Record(manifest=MANIFEST, language="python", digest="d", pie="0.1.0", wit="w")
BUNDLE = Bundle(MANIFEST, {"main.py": "x = 1\n", "b/é.txt": "é"}, {"a.bin": b"\xff"})


# The format.


def test_a_custom_section_comes_back_and_the_component_stays_valid():
    component = with_section(with_section(EMPTY, "pie:a", b"x" * 300), "pie:b", b"")
    assert custom_section(component, "pie:a") == b"x" * 300
    assert custom_section(component, "pie:b") == b""
    assert custom_section(component, "pie:c") is None


def test_imports_of_every_kind_are_named():
    text = """(component
      (import "b:c/d@1.0.0" (instance (export "f" (func))))
      (import "plain" (func))
      (import "t" (type (sub resource)))
      (type $u u32)
      (import "u" (type (eq $u)))
      (import "m" (core module))
      (import "a:b/c" (instance)))"""
    assert imports_of(bytes(wat2wasm(text))) == ["a:b/c", "b:c/d@1.0.0", "m", "plain", "t", "u"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a WebAssembly component"),
        (b"\x7fELF0000", "not a WebAssembly component"),
        (bytes(wat2wasm("(module)")), "a core module, not a component"),
        (EMPTY + b"\0\xff", "cut off"),
        (EMPTY + b"\0\x20abc", "a section ends at byte"),
    ],
)
def test_what_is_no_component_is_named(data, words):
    with pytest.raises(WasmError, match=words):
        imports_of(data)
    with pytest.raises(InvalidProgram, match=rf"x\.wasm: .*{words}"):
        read_record(data, "x.wasm")


# Records.


def test_a_component_says_how_it_was_built_and_brings_its_data_along():
    component = with_record(EMPTY, RECORD, {"b": b"2", "a": b"1"})
    assert record_of(component) == RECORD
    assert list(data_files_of(component).items()) == [("a", b"1"), ("b", b"2")]
    assert (record_of(EMPTY), data_files_of(EMPTY)) == (None, {})


def test_a_record_of_another_version_is_passed_over_or_refused():
    later = msgspec.json.encode({**msgspec.to_builtins(RECORD), "new": 1})
    assert record_of(with_section(EMPTY, "pie:record", later)) == RECORD
    with pytest.raises(InvalidProgram, match="built by another version of Pie"):
        record_of(with_section(EMPTY, "pie:record", b"{}"))
    with pytest.raises(InvalidProgram, match="damaged"):
        data_files_of(with_section(EMPTY, "pie:files", b"PK"))


# Archives.


def test_the_same_program_is_the_same_bytes(tmp_path, monkeypatch):
    first = archive_of(BUNDLE)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    other = Bundle(MANIFEST, dict(reversed(BUNDLE.files.items())), BUNDLE.blobs)
    assert archive_of(other) == first
    assert bundle_of(first, "p.pie") == BUNDLE
    (tmp_path / "p.pie").write_bytes(first)
    assert pack(tmp_path / "p.pie").digest == BUNDLE.digest


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"PK", "p.pie is damaged"), (archive_of(BUNDLE).replace(b"pie.json", b"pie.jsom"), "no pie.json")],
)
def test_what_is_no_bundle_is_refused(data, words):
    with pytest.raises(InvalidProgram, match=words):
        bundle_of(data, "p.pie")


def test_a_bundle_of_a_later_version_says_so():
    data = archive_of(BUNDLE).replace(b'"name"', b'"nane"')
    with pytest.raises(InvalidProgram, match=r"damaged|another version"):
        bundle_of(data, "p.pie")


# Building once.


class Stub:
    """Stands in for a builder."""

    def __init__(self, name: bytes = b"1") -> None:
        self.num = 0
        self.seconds = 0.0
        self.failure: BaseException | None = None
        self._name = name

    def key(self) -> bytes:
        return self._name

    def make(self, bundle: Bundle, folder: Path, progress) -> Made:
        self.num += 1
        (folder / "something").write_text("on the way")
        time.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        return Made(EMPTY, RECORD, {})


def say_nothing(text, fraction):
    pass


def test_the_same_bundle_is_built_once_and_another_one_or_tool_again(tmp_path):
    stub = Stub()
    first = build(stub, BUNDLE, tmp_path, say_nothing)
    second = build(stub, BUNDLE, tmp_path, say_nothing)
    assert (first.is_new, second.is_new, stub.num) == (True, False, 1)
    assert (first.component, first.record) == (second.component, second.record)
    build(stub, Bundle(MANIFEST, {"main.py": "x = 2\n"}), tmp_path, say_nothing)
    build(Stub(b"2"), BUNDLE, tmp_path, say_nothing)
    assert len(list((tmp_path / "builds").glob("*.wasm"))) == 3


def test_two_at_once_build_once(tmp_path):
    stub, said = Stub(), []
    stub.seconds = 0.2
    work = [
        threading.Thread(target=build, args=(stub, BUNDLE, tmp_path, lambda text, _: said.append(text)))
        for _ in range(2)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert stub.num == 1
    assert said == ["waiting for another process to build it"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), InvalidProgram("no")])
def test_what_ends_a_build_leaves_nothing(tmp_path, failure):
    stub = Stub()
    stub.failure = failure
    with pytest.raises(type(failure)):
        build(stub, BUNDLE, tmp_path, say_nothing)
    assert [path.suffix for path in (tmp_path / "builds").iterdir()] == [".lock"]
    stub.failure = None
    assert build(stub, BUNDLE, tmp_path, say_nothing).is_new


def test_half_a_file_is_built_again(tmp_path):
    stub = Stub()
    build(stub, BUNDLE, tmp_path, say_nothing)
    (path,) = (tmp_path / "builds").glob("*.wasm")
    path.write_bytes(path.read_bytes()[:-5])
    assert build(stub, BUNDLE, tmp_path, say_nothing).is_new


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    from pie_engine.builder import lock

    target = tmp_path / "out.wasm"
    lock.write_whole(target, b"old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(lock.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        lock.write_whole(target, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["out.wasm"]
    assert target.read_bytes() == b"old"


def test_what_nobody_has_used_for_a_while_goes(tmp_path):
    old, draft = tmp_path / "old.wasm", tmp_path / "build-x"
    old.touch()
    draft.mkdir()
    for path in (old, draft):
        os.utime(path, (0, 0))
    (tmp_path / "new.wasm").touch()
    building.remove_unused(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new.wasm"]


def test_without_componentize_py_the_way_out_is_named(tmp_path, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(componentize, "version", missing)
    with pytest.raises(Unsupported, match="componentize-py is not installed") as caught:
        build(python_builder.PythonBuilder(), BUNDLE, tmp_path, say_nothing)
    assert "extra `engine`" in caught.value.hint


# What the guest says while it is built.


def test_the_guest_and_the_host_agree_on_the_report():
    report = {"signature": {"doc": "é \n \0"}}
    said = rehearsal.report_of({"other": 1})[:-3] + b"\0\0" + rehearsal.report_of(report) + b"\0"
    assert python_builder._report_in(said) == report
    assert python_builder._report_in(b"nothing " + rehearsal.REPORT) is None


def test_a_rehearsal_compiles_every_module_and_reads_the_signature():
    files = {
        "main.py": "x = 1\n",
        "part.py": "y = 2\n",
        "old.py": "print 'two'\n",
        "p-1.dist-info/METADATA": "Name: p\n",
    }
    bundle = msgspec.json.encode({"name": "p", "version": "1", "entry": "main", "files": files}).decode()
    text, report = rehearsal.rehearse(bundle, lambda given: (given == bundle, '{"doc": "Answer."}'))
    assert report == {"signature": {"doc": "Answer."}}
    assert sorted(msgspec.json.decode(text)["code"]) == ["main.py", "part.py"]


def test_modules_of_packages_and_of_tests_are_not_the_programs_own():
    record = 'shapes/__init__.py,sha256=x,3\n"p-1.data/purelib/odd, name.py",,\np-1.dist-info/RECORD,,\n'
    files = {
        **dict.fromkeys(("main.py", "pkg/__init__.py", "pkg/deep.py", "tests.py", "shapes/mine.py"), ""),
        **dict.fromkeys(("pkg/tests/broken.py", "my-data.py", "2nd/part.py", "words.txt"), ""),
        **dict.fromkeys(("shapes/__init__.py", "odd, name.py"), ""),
        "p-1.dist-info/RECORD": record,
    }
    own = Bundle(Manifest(name="p"), files=files).own_modules()
    assert own == ["main.py", "pkg/__init__.py", "pkg/deep.py", "tests.py", "shapes/mine.py"]


def test_importlib_finds_the_packages_of_a_bundle(monkeypatch):
    import importlib.metadata
    import sys

    from inferlet._runtime.importer import BundleImporter

    files = {
        "Zope_Thing-1.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: Zope.Thing\nVersion: 1.5\n",
        "Zope_Thing-1.5.dist-info/entry_points.txt": "[pies]\napple = thing:main\n",
        "thing.py": "",
    }
    monkeypatch.setattr(sys, "meta_path", [BundleImporter(files, {})])
    assert importlib.metadata.version("zope-thing") == "1.5"
    assert [point.name for point in importlib.metadata.entry_points(group="pies")] == ["apple"]
    assert [each.metadata["Name"] for each in importlib.metadata.distributions()] == ["Zope.Thing"]
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("thing")


# The builder for Python, with a stand-in for componentize-py; test_standalone.py has the real one.


def test_a_python_build_holds_the_program_its_packages_and_its_data(tmp_path, monkeypatch):
    given = {}

    def made(app, folder, wasm, modules):
        given.update(modules)
        report = {"signature": {"doc": "Draw.", "parameters": [{"name": "n", "schema": {}}]}}
        wasm.write_bytes(with_section(EMPTY, "memory", rehearsal.report_of(report)))

    monkeypatch.setattr(python_builder, "componentize", made)
    files = {"main.py": "x = 1\n", "shapes-1.5.dist-info/METADATA": "Name: shapes\nVersion: 1.5\n"}
    source = Bundle(Manifest(name="drawing", version="0.2"), files, {"words.txt": b"one two"})
    built = build(python_builder.PythonBuilder(), source, tmp_path, say_nothing)
    record = built.record
    assert built.is_new
    assert (record.manifest.name, record.digest, record.packages) == ("drawing", source.digest, {"shapes": "1.5"})
    assert record.signature is not None
    assert [parameter.name for parameter in record.signature.parameters] == ["n"]
    assert data_files_of(built.component) == {"words.txt": b"one two"}
    (tmp_path / "drawing.wasm").write_bytes(built.component)
    assert pack(tmp_path / "drawing.wasm") == bundle_of_component(built.component, record)
    module: dict[str, str] = {}
    exec(given[python_builder.PROGRAM_MODULE], module)
    told = msgspec.json.decode(module["BUNDLE"])
    assert (told["name"], told["version"], told["files"]["main.py"]) == ("drawing", "0.2", "x = 1\n")


def test_what_the_program_said_while_it_was_built_is_its_error(tmp_path, monkeypatch):
    error = {"code": "invalid_program", "message": "SyntaxError in main.py, line 1", "hint": "mend it"}
    said = f"thread panicked\n{rehearsal.report_of({'error': error}).decode()}\nnote: run again"

    def failed(*_):
        raise componentize.ComponentizeFailed(said)

    monkeypatch.setattr(python_builder, "componentize", failed)
    with pytest.raises(InvalidProgram, match=r"SyntaxError in main\.py") as caught:
        build(python_builder.PythonBuilder(), BUNDLE, tmp_path, say_nothing)
    assert caught.value.hint == "mend it"
    said = "out of memory"
    with pytest.raises(Internal, match="componentize-py cannot build the component: out of memory"):
        build(python_builder.PythonBuilder(), BUNDLE, tmp_path, say_nothing)
    monkeypatch.setattr(python_builder, "componentize", lambda _app, _folder, wasm, _modules: wasm.write_bytes(EMPTY))
    with pytest.raises(Internal, match="said nothing while it was built"):
        build(python_builder.PythonBuilder(), BUNDLE, tmp_path, say_nothing)
