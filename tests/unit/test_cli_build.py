"""`pie build` and `pie inspect`, with a small component in place of what componentize-py or cargo make."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import msgspec
import pytest
from wasmtime import wat2wasm

from pie_cli.main import invoke
from pie_client import bundle, pack
from pie_engine.builder import python as python_builder
from pie_engine.builder import rust
from pie_engine.builder.build import Made
from pie_engine.builder.componentize import wit_digest
from pie_engine.builder.record import Record, read_record
from pie_engine.builder.wasm import with_section
from pie_engine.errors import InvalidProgram
from pie_engine.protocol.program import Bundle, Parameter, Signature

Capture = pytest.CaptureFixture[str]
COMPONENT = bytes(
    wat2wasm(
        '(component (import "pie:core/context@0.1.0" (instance)) (import "wasi:clocks/wall-clock@0.2.9" (instance)))'
    )
)
SIGNATURE = Signature(parameters=[Parameter("prompt", {"type": "string"}), Parameter("n", {}, False, 3)])
CARGO = """#!/bin/sh
case "$1" in
  --version) echo "cargo 1.99.0 (stub)"; exit 0;;
esac
echo "   Compiling crate ($*)" >&2
{body}
"""
ARTIFACT = '{"reason": "compiler-artifact", "filenames": ["%s"]}'


class Builder:
    """Stands in for componentize-py."""

    num = 0

    def key(self) -> bytes:
        return b"stub"

    def make(self, bundle: Bundle, folder: Path, progress) -> Made:
        type(self).num += 1
        progress("building the component", 0.5)
        record = Record(
            manifest=bundle.manifest,
            language="python",
            digest=bundle.digest,
            pie="0.1.0",
            wit=wit_digest(),
            tools={"componentize-py": "1"},
            packages={"shapes": "1.5"},
            signature=SIGNATURE,
        )
        return Made(COMPONENT, record, bundle.guest_files()[1])


class RefusingBuilder(Builder):
    """Where the sandbox's Python does not understand a module."""

    def make(self, bundle: Bundle, folder: Path, progress) -> Made:
        raise InvalidProgram("SyntaxError in late.py, line 1: invalid syntax")


@pytest.fixture(autouse=True)
def hello(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "hello"
    (root / "data").mkdir(parents=True)
    program = 'name = "hello"\nversion = "0.2"\ndescription = "Says hello"\nsecrets = ["KEY"]\n'
    (root / "pie.toml").write_text(f"[program]\n{program}[limits]\nmemory_mb = 128\n")
    (root / "main.py").write_text("async def main(): ...\n")
    (root / "data" / "words.txt").write_text("one")
    monkeypatch.setenv("PIE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(python_builder, "PythonBuilder", Builder)
    monkeypatch.setattr(Builder, "num", 0)
    monkeypatch.chdir(tmp_path)
    return root


def without_times(text: str) -> str:
    return re.sub(r"in [\d.]+ s", "in <time>", text)


def test_a_build_goes_to_dist_and_is_told(capsys: Capture) -> None:
    assert invoke(["build", "hello"]) == 0
    out, err = capsys.readouterr()
    assert out == "hello/dist/hello-0.2.wasm\n"
    digest = pack("hello").digest
    size = Path("hello/dist/hello-0.2.wasm").stat().st_size
    assert without_times(err) == (
        "building the component …\n"
        f"built hello 0.2, {size} B in <time>\n"
        "imports pie:core: context\n"
        "imports wasi: clocks\n"
        "packages: shapes 1.5\n"
        f"digest: {digest}\n"
    )


def test_what_has_not_changed_is_not_built_again(capsys: Capture) -> None:
    for words in (["build", "hello"], ["build", "hello"], ["build", "hello", "-o", "other.wasm"]):
        assert invoke(words) == 0
    told = [line.split(" ")[0] for line in capsys.readouterr().err.splitlines() if "hello 0.2" in line]
    assert told == ["built", "unchanged:", "built"]
    assert Builder.num == 1, "neither the output nor another output makes it another program"
    assert Path("other.wasm").read_bytes() == Path("hello/dist/hello-0.2.wasm").read_bytes()
    Path("hello/main.py").write_text("async def main() -> int: ...\n")
    assert invoke(["build", "hello"]) == 0
    assert Builder.num == 2


def test_what_is_built_into_the_folder_stays_out_of_the_program(hello: Path) -> None:
    before = pack(hello).digest
    assert invoke(["build", "hello", "-o", "hello/hello.wasm"]) == 0
    assert invoke(["build", "hello", "--bundle", "-o", "hello/hello.pie"]) == 0
    assert invoke(["build", "hello"]) == 0
    assert pack(hello).digest == before


def test_a_bundle_holds_no_module_that_the_sandbox_cannot_compile(
    hello: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hello / "tests").mkdir()
    (hello / "tests" / "bad.py").write_text("x = =\n")
    assert invoke(["build", "hello", "--bundle"]) == 0
    assert Builder.num == 0
    (hello / "late.py").write_text("x = =\n")
    assert invoke(["build", "hello", "--bundle"]) == 0, "it may be new to this Python, and is not to the sandbox's"
    assert Builder.num == 1
    (hello / "late.py").write_text("x = = 1\n")
    monkeypatch.setattr(python_builder, "PythonBuilder", RefusingBuilder)
    capsys.readouterr()
    assert invoke(["build", "hello", "--bundle", "-o", "other.pie"]) == 2
    assert capsys.readouterr().err.endswith("error: SyntaxError in late.py, line 1: invalid syntax\n")
    assert not Path("other.pie").exists()


def test_a_bundle_is_the_same_bytes(capsys: Capture) -> None:
    assert invoke(["build", "hello", "--bundle"]) == 0
    first = Path("hello/dist/hello-0.2.pie").read_bytes()
    os.utime("hello/main.py", (0, 0))
    assert invoke(["build", "hello", "--bundle", "-o", "again.pie"]) == 0
    assert Path("again.pie").read_bytes() == first
    assert pack("again.pie") == pack("hello")
    assert invoke(["build", "hello", "--bundle"]) == 0
    assert "unchanged: hello 0.2" in capsys.readouterr().err


def test_ctrl_c_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke(["build", "hello"]) == 0
    before = Path("hello/dist/hello-0.2.wasm").read_bytes()
    Path("hello/main.py").write_text("async def main() -> str: ...\n")

    def interrupt(*_: object) -> Made:
        raise KeyboardInterrupt

    monkeypatch.setattr(Builder, "make", interrupt)
    assert invoke(["build", "hello"]) == 130
    assert [path.name for path in Path("hello/dist").iterdir()] == ["hello-0.2.wasm"]
    assert Path("hello/dist/hello-0.2.wasm").read_bytes() == before


def test_what_is_too_large_to_run_is_said_at_once(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(bundle, "MAX_COMPONENT_BYTES", 1024)
    assert invoke(["build", "hello"]) == 0
    assert "does not run" not in capsys.readouterr().err
    Path("hello/data/words.txt").write_text("one " * 1000)
    assert invoke(["build", "hello"]) == 0
    assert "warning: a daemon takes components of at most 1.0 KiB: this one does not run\n" in capsys.readouterr().err
    assert invoke(["run", "hello/dist/hello-0.2.wasm"]) == 2
    assert "holds 0.0 MiB" in capsys.readouterr().err


def test_one_file_is_a_program_too(capsys: Capture) -> None:
    Path("tiny.py").write_text("async def main(): ...\n")
    assert invoke(["build", "tiny.py"]) == 0
    assert capsys.readouterr().out == "dist/tiny-0.0.0.wasm\n"


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["nowhere"], "there is no file or folder `nowhere`", "pie new"),
        (["hello", "-o", "hello"], "`hello` is a folder", "behind `-o`"),
        (["hello", "-o", "hello/main.py/x.wasm"], "cannot write hello/main.py/x.wasm: ", "-o"),
        (["done.wasm"], "done.wasm is built already", "pie inspect done.wasm"),
        (["built"], "built holds a component already", "runs it as it is"),
    ],
)
def test_what_cannot_be_built_says_why(words: list[str], message: str, hint: str, capsys: Capture) -> None:
    Path("done.wasm").write_bytes(COMPONENT)
    Path("built").mkdir()
    Path("built/pie.toml").write_text('[program]\nname = "built"\nruntime = "component"\n')
    Path("built/program.wasm").write_bytes(COMPONENT)
    assert invoke(["build", *words]) in (2, 4)
    error, way_out = capsys.readouterr().err.splitlines()[-2:]
    assert message in error
    assert hint in way_out


# Looking.


def test_inspect_shows_what_a_component_is(capsys: Capture) -> None:
    assert invoke(["build", "hello"]) == 0
    capsys.readouterr()
    assert invoke(["inspect", "hello/dist/hello-0.2.wasm"]) == 0
    out = capsys.readouterr().out
    component = pack("hello/dist/hello-0.2.wasm")
    assert out == (
        "name:        hello 0.2\n"
        "kind:        component\n"
        f"size:        {len(component.blobs['program.wasm'])} B\n".replace("1024 B", "1.0 KiB")
        + "description: Says hello\n"
        "limits:      memory_mb 128\n"
        f"digest:      {component.digest}\n"
        f"built from:  {pack('hello').digest}\n"
        "built by:    pie 0.1.0, componentize-py 1\n"
        "permissions: generates text with the models of the engine\n"
        "             reads its own 1 data file\n"
        "             reads the secrets KEY\n"
        "             no network, no processes, no files to write\n"
        "imports:     pie:core: context\n"
        "             wasi: clocks\n"
        "packages:    shapes 1.5\n"
        "files:       data/words.txt (3 B)\n"
        "parameters:  prompt\n"
        "             n = 3\n"
    )


def test_inspect_as_json_has_everything(capsys: Capture) -> None:
    assert invoke(["build", "hello", "--bundle", "-o", "h.pie"]) == 0
    capsys.readouterr()
    assert invoke(["inspect", "h.pie", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["manifest"]["name"]) == ("bundle", "hello")
    assert facts["files"] == {"data/words.txt": 3, "main.py": 22}
    assert facts["digest"] == pack("hello").digest
    assert invoke(["inspect", "hello", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "source"


def test_a_component_of_somebody_else_can_be_looked_at_but_not_run(capsys: Capture) -> None:
    Path("foreign.wasm").write_bytes(COMPONENT)
    assert invoke(["inspect", "foreign.wasm"]) == 0
    assert "imports:     pie:core: context\n" in capsys.readouterr().out
    with pytest.raises(InvalidProgram, match="was not built by `pie build`") as caught:
        pack("foreign.wasm")
    assert 'runtime = "component"' in caught.value.hint


def test_a_component_for_other_interfaces_is_marked(capsys: Capture) -> None:
    record = Record(manifest=pack("hello").manifest, language="python", digest="d", pie="0.0.9", wit="other")
    Path("old.wasm").write_bytes(with_section(COMPONENT, "pie:record", msgspec.json.encode(record)))
    assert invoke(["inspect", "old.wasm"]) == 0
    assert "note:        built for other interfaces" in capsys.readouterr().out


def test_what_is_no_component_is_refused(capsys: Capture) -> None:
    Path("text.wasm").write_text("hello")
    assert invoke(["inspect", "text.wasm"]) == 2
    assert "error: text.wasm: this is not a WebAssembly component\n" in capsys.readouterr().err


# Rust.


@pytest.fixture
def crate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A crate, and a PATH on which there is nothing yet."""
    root = tmp_path / "crate"
    (root / "src").mkdir(parents=True)
    (root / "target" / "debris").mkdir(parents=True)
    (root / "target" / "debris" / "x.bin").write_bytes(b"\xff")
    (root / "Cargo.toml").write_text('[package]\nname = "crate"\nversion = "0.3.0"\n')
    (root / "src" / "lib.rs").write_text("// nothing")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setattr(
        rust.shutil, "which", lambda tool: str(path) if (path := tmp_path / "bin" / tool).exists() else None
    )
    return root


def install(name: str, script: str) -> None:
    path = Path("bin") / name
    path.write_text(script)
    path.chmod(0o755)


def install_rust(body: str, *, with_target: bool = True) -> None:
    install("cargo", CARGO.replace("{body}", body))
    install("rustc", f"#!/bin/sh\necho {Path('sysroot').absolute()}\n")
    if with_target:
        Path("sysroot/lib/rustlib/wasm32-wasip2").mkdir(parents=True)


def test_a_crate_is_built_by_cargo_whose_output_passes_through(crate: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = crate.parent / "made.wasm"
    made.write_bytes(COMPONENT)
    install_rust(f"echo '{ARTIFACT % made}'; echo 'not json'")
    assert invoke(["build", "crate"]) == 0
    out, err = capfd.readouterr()
    assert out == "crate/dist/crate-0.3.0.wasm\n"
    assert (
        "   Compiling crate (build --release --target wasm32-wasip2 --message-format json-render-diagnostics)\n" in err
    )
    record = read_record(Path("crate/dist/crate-0.3.0.wasm").read_bytes(), "x")
    assert record is not None
    assert (record.language, record.tools, record.manifest.runtime) == ("rust", {"cargo": "1.99.0"}, "component")
    (crate / "pie.toml").write_text('[program]\nname = "named"\nversion = "1.0"\n')
    assert invoke(["build", "crate"]) == 0
    assert capfd.readouterr().out == "crate/dist/named-1.0.wasm\n"


def test_a_crate_makes_no_bundle(crate: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(["build", "crate", "--bundle"]) == 2
    assert capfd.readouterr().err == (
        "error: crate is a Rust program, and its sources do not run\n"
        "hint: `pie build crate` makes a component, which does\n"
    )
    assert not (crate / "dist").exists()


def test_cargo_decides_what_is_built_again(crate: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = crate.parent / "made.wasm"
    made.write_bytes(COMPONENT)
    install_rust(f"echo '{ARTIFACT % made}'")
    for _ in range(2):
        assert invoke(["build", "crate"]) == 0
    assert capfd.readouterr().err.count("Compiling crate") == 2


@pytest.mark.parametrize(
    ("prepare", "message", "hint"),
    [
        (lambda: None, "cargo is not installed", rust.INSTALL_CARGO),
        (lambda: install("cargo", CARGO), "rustc is not installed", rust.INSTALL_CARGO),
        (lambda: install_rust("", with_target=False), "its target is not installed", "rustup target add wasm32-wasip2"),
        (lambda: install_rust("exit 101"), "cargo cannot build crate (exit status 101)", ""),
        (lambda: install_rust(""), "crate builds no .wasm file", "cdylib"),
    ],
)
def test_what_is_missing_for_rust_is_named_with_the_command(
    crate: Path, prepare, message: str, hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare()
    assert invoke(["build", "crate"]) != 0
    err = capfd.readouterr().err
    assert message in err
    assert hint in err


def test_what_rustup_says_is_one_line_and_its_own_command(crate: Path, capfd: pytest.CaptureFixture[str]) -> None:
    install_rust("")
    said = "error: no default is configured\\nhelp: run 'rustup default stable' now\\n\\nStack backtrace:\\n 0: x"
    install("rustc", f'#!/bin/sh\nprintf "{said}" >&2; test "$RUST_BACKTRACE" = 0 && exit 1\n')
    assert invoke(["build", "crate"]) == 1
    assert capfd.readouterr().err.splitlines()[-2:] == [
        "error: rustc does not work: no default is configured",
        "hint: rustup default stable",
    ]


def test_a_crate_may_ask_for_a_tool_chain_of_its_own(crate: Path, capfd: pytest.CaptureFixture[str]) -> None:
    install_rust("", with_target=False)
    install("rustc", f"#!/bin/sh\ntest -f Cargo.toml && echo {Path('own').absolute()}\n")
    Path("own/lib/rustlib/wasm32-wasip2").mkdir(parents=True)
    assert invoke(["build", "crate"]) == 2
    assert "crate builds no .wasm file" in capfd.readouterr().err


def test_a_crate_does_not_run_as_it_is(crate: Path) -> None:
    with pytest.raises(InvalidProgram, match="is a Rust program") as caught:
        pack(crate)
    assert "pie build" in caught.value.hint
    (crate / "Cargo.toml").write_text("[workspace]\n")
    assert invoke(["build", "crate"]) == 2
