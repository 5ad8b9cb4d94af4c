"""Packing a program: what goes in, what stays out, what is refused, and that an edit is always seen."""

from __future__ import annotations

import os
import time

import pytest

from pie_client import bundle as bundle_module
from pie_client import pack, read_manifest
from pie_engine.errors import InvalidProgram, NotFound
from pie_engine.protocol.program import Limits, Manifest

MAIN = "async def main() -> None: ...\n"


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "my program!"
    root.mkdir()
    (root / "main.py").write_text(MAIN)
    return root


def write(root, **files):
    for name, data in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


def test_a_folder_without_a_manifest_is_a_program_of_its_name(folder):
    packed = pack(folder)
    assert packed.manifest == Manifest(name="my-program")
    assert packed.files == {"main.py": MAIN}


def test_one_file_is_a_program(tmp_path):
    file = tmp_path / "hello world.py"
    file.write_text(MAIN)
    packed = pack(str(file))
    assert packed.manifest == Manifest(name="hello-world", entry="hello world")
    assert packed.files == {"hello world.py": MAIN}


def test_what_goes_in_and_what_stays_out(folder):
    write(
        folder,
        pkg__deep_dot_py="x = 1",
        data__words_dot_txt="é\r\n",
        data__table_dot_bin=b"\xff\x00",
        _dot_env="SECRET",
        _dot_git__config="x",
        pkg____pycache____deep_dot_pyc=b"x",
        tests__test_main_dot_py="x",
        pkg__tests__kept_dot_py="",
        env__pyvenv_dot_cfg="",
        env__lib_dot_py="x",
    )
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"x")
    packed = pack(folder)
    assert sorted(packed.files) == ["data/words.txt", "main.py", "pkg/deep.py", "pkg/tests/kept.py"]
    assert packed.files["data/words.txt"] == "é\r\n"
    assert packed.blobs == {"data/table.bin": b"\xff\x00"}


def test_the_manifest(folder):
    write(folder, pie_dot_toml='[program]\nname = "a"\nversion = "1.2"\nentry = "app"\n[limits]\nmemory_mb = 64\n')
    write(folder, app_dot_py=MAIN)
    wanted = Manifest(name="a", version="1.2", entry="app", limits=Limits(memory_mb=64))
    assert pack(folder).manifest == read_manifest(folder) == read_manifest(folder / "pie.toml") == wanted


@pytest.mark.parametrize(
    ("text", "part", "hint"),
    [
        ('[program]\nname = "a"\nversoin = "1"', "program.versoin", "version"),
        ('[program]\nname = "a"\n[limits]\nmemory = 3', "limits.memory", "memory_mb"),
        ('[progam]\nname = "a"', "progam", "program"),
        ("program = 3", "program", "[program]"),
        ('[program]\nversion = "1"', "name", ""),
        ('[program]\nname = "a"\nruntime = "ruby"', "ruby", ""),
        ("[program", "pie.toml", ""),
    ],
)
def test_a_bad_manifest_names_the_key_and_the_nearest(folder, text, part, hint):
    write(folder, pie_dot_toml=text)
    with pytest.raises(InvalidProgram) as caught:
        pack(folder)
    assert part in caught.value.message
    assert hint in caught.value.hint


def test_programs_that_cannot_be_packed(folder, tmp_path, monkeypatch):
    with pytest.raises(NotFound, match="nowhere"):
        pack(tmp_path / "nowhere")
    write(tmp_path, notes_dot_txt="x", empty__readme_dot_md="x", latin_dot_py=b"x = '\xe9'")
    for path, part in (("notes.txt", "not a Python file"), ("empty", "no module `main`"), ("latin.py", "UTF-8")):
        with pytest.raises(InvalidProgram, match=part):
            pack(tmp_path / path)
    write(folder, lib__fast_dot_so=b"\x7fELF")
    with pytest.raises(InvalidProgram, match=r"lib/fast\.so is native"):
        pack(folder)
    (folder / "lib" / "fast.so").unlink()
    monkeypatch.setattr(bundle_module, "MAX_BUNDLE_BYTES", 1000)
    write(folder, big_dot_txt="x" * 2000)
    with pytest.raises(InvalidProgram) as caught:
        pack(folder)
    assert "big.txt" in caught.value.hint
    monkeypatch.setattr(bundle_module, "MAX_FILES", 1)
    with pytest.raises(InvalidProgram, match="more than 1 files"):
        pack(folder)


def test_a_component_is_its_wasm_alone(folder):
    write(folder, pie_dot_toml='[program]\nname = "c"\nruntime = "component"\n')
    with pytest.raises(InvalidProgram, match=r"program\.wasm"):
        pack(folder)
    write(folder, program_dot_wasm=b"\0asm")
    packed = pack(folder)
    assert (packed.files, packed.blobs) == ({}, {"program.wasm": b"\0asm"})


def test_every_edit_is_seen_at_once(folder):
    main = folder / "main.py"
    for number in range(200):
        main.write_text(f"x = {number % 10}")
        assert pack(folder).files["main.py"] == f"x = {number % 10}"


def test_an_edit_that_keeps_size_and_mtime_is_seen(folder):
    main = folder / "main.py"
    os.utime(main, ns=(10**18, 10**18))
    pack(folder)
    main.write_text(MAIN.replace("main", "niam"))
    os.utime(main, ns=(10**18, 10**18))
    assert "niam" in pack(folder).files["main.py"]


def test_a_settled_folder_is_not_read_again(folder, monkeypatch):
    monkeypatch.setattr(bundle_module, "SETTLED_S", 0.0)
    time.sleep(0.02)
    first = pack(folder)
    assert pack(folder) is first
    write(folder, new_dot_py="")
    time.sleep(0.02)
    second = pack(folder)
    assert "new.py" in second.files
    (folder / "new.py").unlink()
    assert pack(folder) == first


def test_the_manifest_and_what_is_for_people_are_no_data_files(tmp_path):
    for name in ("pie.toml", "README.md", "LICENSE", "main.py", "prompts/README.md", "words.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('[program]\nname = "a"\n' if name == "pie.toml" else "x = 1\n")
    assert sorted(pack(tmp_path).files) == ["main.py", "prompts/README.md", "words.txt"]
