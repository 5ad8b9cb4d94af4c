"""Python programs as standalone components: one real build that runs in the real sandbox, and what cannot be built."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_client import pack
from pie_engine.builder.build import build
from pie_engine.builder.python import PythonBuilder
from pie_engine.builder.record import bundle_of_component, data_files_of
from pie_engine.builder.wasm import imports_of
from pie_engine.config import HostSection
from pie_engine.embedded import Embedded, EmbeddedProcess
from pie_engine.errors import InvalidProgram
from pie_engine.protocol.program import Bundle
from tests.wheels import make_wheel

TIMEOUT_S = 500
"""A component is compiled before it runs, on one core."""
CACHE = Path(__file__).parents[2] / "build" / "test-cache"
MAIN = '''
"""Everything that a component has to bring along."""
import asyncio
import importlib.metadata
import importlib.resources
from pathlib import Path

import shapes
from inferlet import runtime
from parts.names import name_of

async def main(n: int, limit: int = 3) -> dict:
    """Draw."""
    if n > limit:
        raise ValueError(name_of(n))
    await asyncio.sleep(0.001)
    return {
        "program": runtime.program,
        "name": name_of(n),
        "data": Path("data/words.txt").read_text(),
        "table": list(shapes.table()),
        "version": importlib.metadata.version("shapes"),
    }
'''
SHAPES = (
    "import importlib.resources\n\ndef table():\n"
    "    return importlib.resources.files('shapes').joinpath('t.bin').read_bytes()\n"
)


def say_nothing(text, fraction):
    pass


def outcome(engine: Embedded, bundle: Bundle, **arguments: object) -> EmbeddedProcess:
    process = engine.launch(bundle, arguments)
    process.wait(TIMEOUT_S)
    return process


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    wheels, root = tmp_path / "wheels", tmp_path / "drawing"
    for folder in (wheels, root / "parts", root / "data"):
        folder.mkdir(parents=True)
    make_wheel(wheels, "shapes", {"shapes/__init__.py": SHAPES, "shapes/t.bin": b"\xff\x01"}, version="1.5")
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(wheels)), ("PIE_CACHE", str(CACHE))):
        monkeypatch.setenv(name, value)
    (root / "pie.toml").write_text('[program]\nname = "drawing"\nversion = "0.2"\ndependencies = ["shapes"]\n')
    (root / "main.py").write_text(MAIN)
    (root / "parts" / "names.py").write_text("def name_of(n):\n    return f'number {n}'\n")
    (root / "data" / "words.txt").write_text("one two")
    return root


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_build_holds_the_program_its_packages_and_its_data(program, tmp_path):
    source = pack(program)
    built = build(PythonBuilder(), source, tmp_path / "cache", say_nothing)
    assert built.is_new
    record = built.record
    assert (record.manifest.name, record.digest, record.packages) == ("drawing", source.digest, {"shapes": "1.5"})
    assert record.signature is not None
    assert [p.name for p in record.signature.parameters] == ["n", "limit"]
    assert sorted(data_files_of(built.component)) == ["data/words.txt", "shapes/t.bin"]
    assert "pie:core/context@0.1.0" in imports_of(built.component)
    (tmp_path / "drawing.wasm").write_bytes(built.component)
    assert pack(tmp_path / "drawing.wasm") == bundle_of_component(built.component, record)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_component_does_what_its_source_does(program, tmp_path):
    source = pack(program)
    built = build(PythonBuilder(), source, tmp_path / "cache", say_nothing)
    component = bundle_of_component(built.component, built.record)
    with Embedded(HostSection(warm_instances=1)) as engine:
        results = [outcome(engine, bundle, n=2) for bundle in (source, component)]
        assert results[0].value == results[1].value
        assert results[1].value == {
            "program": "drawing",
            "name": "number 2",
            "data": "one two",
            "table": [255, 1],
            "version": "1.5",
        }
        errors = [outcome(engine, bundle, n=7).error for bundle in (source, component)]
        assert errors[0] == errors[1]
        assert errors[1] is not None
        assert errors[1].message == "ValueError: number 7"
        assert 'File "main.py", line 15, in main' in errors[1].traceback
        refused = outcome(engine, component, m=7).error
        assert refused is not None
        assert refused.code == "invalid_input"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "words", "hint"),
    [
        ("async def main(:\n", "SyntaxError in main.py, line 1", ""),
        ("async def main(): ...\n", "SyntaxError in late.py, line 1", ""),
        ("import numpy\n", "numpy needs native code", "math"),
        ("import nowhere\n", "No module named 'nowhere'", "`dependencies` of pie.toml"),
        ("def main(): ...\n", "`main` in main.py is not async", "async def"),
    ],
)
def test_what_can_never_start_is_not_built(tmp_path, source, words, hint):
    (tmp_path / "main.py").write_text(source)
    (tmp_path / "late.py").write_text("x = =\n")
    with pytest.raises(InvalidProgram, match=words) as caught:
        build(PythonBuilder(), pack(tmp_path), tmp_path / "cache", say_nothing)
    assert hint in caught.value.hint


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_program_that_wants_its_data_when_it_is_imported_is_built(tmp_path, monkeypatch):
    monkeypatch.setenv("PIE_CACHE", str(CACHE))
    (tmp_path / "main.py").write_text("WORD = open('word.txt').read()\n\nasync def main() -> str:\n    return WORD\n")
    (tmp_path / "word.txt").write_text("cherry")
    built = build(PythonBuilder(), pack(tmp_path), tmp_path / "cache", say_nothing)
    assert built.record.signature is None
    with Embedded(HostSection(warm_instances=1)) as engine:
        assert outcome(engine, bundle_of_component(built.component, built.record)).value == "cherry"
