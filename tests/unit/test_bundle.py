"""Packing a program: what goes in, what stays out, what is refused, and that an edit is always seen."""

from __future__ import annotations

import os
import sys
import time

import msgspec
import pytest

from pie_client import bundle as bundle_module
from pie_client import pack, read_manifest, walk
from pie_engine.errors import InvalidProgram, NotFound
from pie_engine.gateway import bundles
from pie_engine.protocol.program import NAME, VERSION, Bundle, Limits, Manifest

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
        node_modules__left__gyp_dot_py="x",
        web__node_modules__left__index_dot_js="x",
    )
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"x")
    for left_behind in ("main.py~", "#main.py#", "main.py___jb_tmp___"):
        (folder / left_behind).write_text("x")
    packed = pack(folder)
    assert sorted(packed.files) == ["data/words.txt", "main.py", "pkg/deep.py", "pkg/tests/kept.py"]
    assert packed.files["data/words.txt"] == "é\r\n"
    assert packed.blobs == {"data/table.bin": b"\xff\x00"}


def test_the_manifest(folder):
    program = '[program]\nname = "a"\nversion = "1.2"\nentry = "app"\nendowment = 0.5\n'
    write(folder, pie_dot_toml=f"{program}[limits]\nmemory_mb = 64\n")
    write(folder, app_dot_py=MAIN)
    wanted = Manifest(name="a", version="1.2", entry="app", endowment=0.5, limits=Limits(memory_mb=64))
    assert pack(folder).manifest == read_manifest(folder) == read_manifest(folder / "pie.toml") == wanted


@pytest.mark.parametrize(
    ("text", "part", "hint"),
    [
        ('[program]\nname = "a"\nversoin = "1"', "program.versoin", "version"),
        ('[program]\nname = "a"\n[limits]\nmemory = 3', "limits.memory", "memory_mb"),
        ('[progam]\nname = "a"', "progam", "program"),
        ("program = 3", "program", "[program]"),
        ('[program]\nversion = "1"', "there is no `name` in `[program]`", "[program]"),
        ("", "there is no `name` in `[program]`", "[program]"),
        ('[program]\nname = "Bad Name!"', '`name` in `[program]` is `"Bad Name!"`', "letters, digits"),
        ("[program]\nname = 3", "`name` in `[program]` is `3`", "letters, digits"),
        ('[program]\nname = "a"\nversion = 1', "`version` in `[program]` is `1`", '"0.1.0"'),
        ('[program]\nname = "a"\nruntime = "ruby"', '`runtime` in `[program]` is `"ruby"`', '`"component"`'),
        ('[program]\nname = "a"\nentry = "main.py:run"', "`entry` in `[program]`", "module"),
        ('[program]\nname = "a"\npython = "new"', '`python` in `[program]` is `"new"`', ">=3.11"),
        ('[program]\nname = "a"\npython = ">=3.20"', "asks for Python `>=3.20`, and the sandbox has 3.14", "`python`"),
        ('[program]\nname = "a"\n[limits]\nmemory_mb = -5', "`memory_mb` in `[limits]` is `-5`", "whole number"),
        ('[program]\nname = "a"\n[limits]\nmemory_mb = 1.5', "`memory_mb` in `[limits]` is `1.5`", "whole number"),
        ('[program]\nname = "a"\n[limits]\nmemory_mb = "64"', '`memory_mb` in `[limits]` is `"64"`', "whole number"),
        ('[program]\nname = "a"\n[limits]\nwall_s = 0', "`wall_s` in `[limits]` is `0`", "leave it out"),
        ('[program]\nname = "a"\n[limits]\ncpu_s = inf', "`cpu_s` in `[limits]`", "seconds above 0"),
        ('[program]\nname = "a"\n[limits]\noutput_mb = true', "`output_mb` in `[limits]` is `true`", "above 0"),
        ('[program]\nname = "a"\nendowment = -1', "`endowment` in `[program]` is `-1`", "from 0 to 1000000"),
        ('[program]\nname = "a"\nendowment = nan', "`endowment` in `[program]` is `NaN`", "from 0 to 1000000"),
        ('[program]\nname = "a"\nendowment = true', "`endowment` in `[program]` is `true`", "from 0 to 1000000"),
        ('[program]\nname = "a"\nendowment = 1e7', "`endowment` in `[program]` is `10000000.0`", "from 0 to 1000000"),
        ("[program", "pie.toml", ""),
    ],
)
def test_a_bad_manifest_names_the_key_and_the_nearest(folder, text, part, hint):
    write(folder, pie_dot_toml=text)
    with pytest.raises(InvalidProgram) as caught:
        pack(folder)
    assert part in caught.value.message
    assert str(folder / "pie.toml") in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("specifier", "is_met"),
    [
        (">=3.11", True), (">= 3.11, <4", True), ("~=3.11", True), ("==3.14.*", True), ("==3.*", True), (">3", True),
        ("!=3.12.*", True), (">=3.14.2", True), ("<3.14", False), ("==3.11.*", False), ("~=3.11.2", False),
        ("!=3.14.*", False), ("~=3.15", False), (">=4", False), (">3.14", False), ("==3.14", True),
    ],
)  # fmt: skip
def test_the_python_that_a_program_asks_for(folder, specifier, is_met):
    write(folder, pie_dot_toml=f'[program]\nname = "a"\npython = "{specifier}"\n')
    if is_met:
        assert read_manifest(folder).python == specifier
    else:
        with pytest.raises(InvalidProgram, match="asks for Python"):
            read_manifest(folder)


def test_one_rule_for_names_on_both_sides():
    for name in ("hello", "hello.v2", "Bad Name!", "-x", "x" * 101):
        if NAME.fullmatch(name) and VERSION.fullmatch("0.1.0"):
            bundles.check_bundle(Bundle(Manifest(name=name), files={"main.py": ""}))
        else:
            with pytest.raises(InvalidProgram, match="cannot be a program's name"):
                bundles.check_bundle(Bundle(Manifest(name=name), files={"main.py": ""}))


def test_a_limit_of_nothing_is_refused_by_the_engine_too():
    for limits in ('{"memory_mb": 0}', '{"wall_s": -1}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(limits, type=Limits)


def test_a_byte_order_mark_before_source_and_manifest_is_dropped(folder):
    mark = b"\xef\xbb\xbf"
    write(folder, pie_dot_toml=mark + b'[program]\nname = "a"\n', main_dot_py=mark + MAIN.encode())
    write(folder, words_dot_csv=mark + b"one")
    packed = pack(folder)
    assert packed.manifest.name == "a"
    assert packed.files == {"main.py": MAIN, "words.csv": "\ufeffone"}
    assert pack(folder / "main.py").files == {"main.py": MAIN}


# Links.


def test_links_to_files_and_folders_are_followed(folder, tmp_path):
    write(tmp_path, shared__words__one_dot_txt="1", shared__util_dot_py="x = 1")
    (folder / "words").symlink_to("../shared/words")
    (folder / "util.py").symlink_to("../shared/util.py")
    write(folder, pkg__a_dot_py="")
    (folder / "alias").symlink_to("pkg")
    (folder / ".hidden").symlink_to("nowhere")
    (folder / "tests").symlink_to("nowhere")
    assert sorted(pack(folder).files) == ["alias/a.py", "main.py", "pkg/a.py", "util.py", "words/one.txt"]
    write(tmp_path, shared__words__two_dot_txt="2")
    assert "words/two.txt" in pack(folder).files


@pytest.mark.parametrize("target", ["nowhere", "loop", ".", "..", "/", "../my program!"])
def test_a_link_that_leads_nowhere_or_back_is_refused_by_name(folder, target):
    (folder / "loop").symlink_to(target)
    with pytest.raises(InvalidProgram) as caught:
        pack(folder)
    assert f"{folder / 'loop'} is a link to {target}, " in caught.value.message


def test_links_that_lead_to_each_other_are_refused(folder):
    write(folder, a__x_dot_py="", b__y_dot_py="")
    (folder / "a" / "b").symlink_to("../b")
    (folder / "b" / "a").symlink_to("../a")
    with pytest.raises(InvalidProgram, match="it has no end"):
        pack(folder)


# What is no program.


def test_what_is_neither_file_nor_folder_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/null", tmp_path / "pipe"):
        with pytest.raises(InvalidProgram, match="neither a file nor a folder"):
            pack(path)
    with pytest.raises(NotFound):
        pack("x" * 5000)


def test_what_cannot_be_read_is_named(folder, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InvalidProgram, match=r"cannot read .*my program!: Permission denied"):
        pack(folder)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system refuses such names itself")
def test_a_name_that_is_not_utf8_is_refused(folder):
    with open(os.fsencode(folder) + b"/caf\xe9.txt", "wb"):
        pass
    with pytest.raises(InvalidProgram, match=r"caf\\xe9\.txt is not UTF-8"):
        pack(folder)


def test_an_entry_that_is_not_utf8_is_named(folder):
    write(folder, main_dot_py=b"y = 1\nx = '\xe9'")
    with pytest.raises(InvalidProgram, match=r"main\.py is not UTF-8 in line 2"):
        pack(folder)


def test_a_module_that_is_not_utf8_is_named_and_data_need_not_be(folder):
    write(folder, data__latin_dot_txt=b"caf\xe9", pkg__words_dot_py=b"# caf\xe9")
    with pytest.raises(InvalidProgram, match=r"pkg/words\.py is not UTF-8 in line 1"):
        pack(folder)
    (folder / "pkg" / "words.py").unlink()
    assert pack(folder).blobs == {"data/latin.txt": b"caf\xe9"}


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
    monkeypatch.setattr(walk, "MAX_FILES", 1)
    with pytest.raises(InvalidProgram, match="more than 1 files"):
        pack(folder)


def test_of_too_many_files_it_says_where_they_are(folder, monkeypatch):
    monkeypatch.setattr(walk, "MAX_FILES", 5)
    write(folder, **{f"cache__deep__{i}": "x" for i in range(6)})
    with pytest.raises(InvalidProgram, match="more than 5 files") as caught:
        pack(folder)
    assert caught.value.hint.startswith("`cache/deep` holds 5 of them; what it does not read belongs elsewhere")


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


def test_a_file_in_place_of_a_module_is_told_apart(folder):
    (folder / "pie.toml").write_text('[program]\nname = "a"\nentry = "app.py"\n')
    (folder / "app.py").write_text("async def main(): ...\n")
    with pytest.raises(InvalidProgram) as caught:
        pack(folder)
    assert caught.value.hint == "`entry` is a module, not a file: `app`"
