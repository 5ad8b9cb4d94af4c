"""The packages of a program: chosen, locked and vendored by pip from a folder of wheels, without a network."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from pie_client.bundle import Packages, pack
from pie_engine.builder.archive import archive_of
from pie_engine.builder.lockfile import read_lock
from pie_engine.errors import InvalidProgram
from tests.wheels import make_wheel

MAIN = "import shapes\n\nasync def main() -> str:\n    return shapes.NAME\n"
HERE = f"cp311-cp311-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> Path:
    """A folder that is all that pip knows."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIE_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def program(tmp_path):
    def make(*dependencies: str, name: str = "drawing") -> Path:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        listed = ", ".join(f'"{each}"' for each in dependencies)
        (root / "pie.toml").write_text(f'[program]\nname = "{name}"\ndependencies = [{listed}]\n')
        (root / "main.py").write_text(MAIN)
        return root

    return make


def test_packages_are_chosen_locked_and_travel_with_the_program(wheels, program):
    make_wheel(wheels, "points", {"points.py": "ZERO = 0\n"}, version="1.2")
    make_wheel(wheels, "points", {"points.py": "ZERO = 0\n"}, version="2.0")
    make_wheel(
        wheels,
        "shapes",
        {
            "shapes/__init__.py": "NAME = 'circle'\n",
            "shapes/py.typed": "",
            "shapes/table.bin": b"\xff",
            "shapes-1.0.dist-info/licenses/LICENSE": "do as you like",
        },
        requires=["points<2", 'tomli; python_version < "3.14"', 'pywin32; sys_platform == "win32"'],
    )
    root, said = program("shapes>=1"), []
    bundle = pack(root, Packages(say=said.append))
    assert sorted(bundle.files) == [
        "main.py",
        "points-1.2.dist-info/METADATA",
        "points-1.2.dist-info/RECORD",
        "points.py",
        "shapes-1.0.dist-info/METADATA",
        "shapes-1.0.dist-info/RECORD",
        "shapes-1.0.dist-info/licenses/LICENSE",
        "shapes/__init__.py",
    ]
    assert list(bundle.blobs) == ["shapes/table.bin"]
    assert "A long story" not in bundle.files["shapes-1.0.dist-info/METADATA"]
    assert said == ["choosing packages", "wrote pie.lock: points 1.2, shapes 1.0"]
    lock = read_lock(root)
    assert lock is not None
    assert [(each.name, each.version) for each in lock.package] == [("points", "1.2"), ("shapes", "1.0")]
    texts, files = bundle.guest_files()
    assert "shapes-1.0.dist-info/METADATA" in texts
    assert bundle.own_modules() == ["main.py"]
    assert list(files) == ["shapes/table.bin"], "licences go along, and no guest sees them"


@pytest.mark.slow
def test_a_lock_is_kept_until_it_is_to_be_changed(wheels, program, tmp_path):
    make_wheel(wheels, "shapes", {"shapes.py": "NAME = 'old'\n"}, version="1.0")
    root = program("shapes")
    first = archive_of(pack(root))
    make_wheel(wheels, "shapes", {"shapes.py": "NAME = 'new'\n"}, version="1.1")
    text = (root / "pie.lock").read_text()
    (tmp_path / "cache").rename(tmp_path / "gone")
    (root / "main.py").touch()
    said: list[str] = []
    assert archive_of(pack(root, Packages(locked=True, say=said.append))) == first, "the same bytes, fetched again"
    assert said == ["fetching 1 package of pie.lock"]
    assert (root / "pie.lock").read_text() == text
    upgraded = pack(root, Packages(upgrade=True))
    assert upgraded.files["shapes.py"] == "NAME = 'new'\n"
    assert 'version = "1.1"' in (root / "pie.lock").read_text()


@pytest.mark.slow
def test_a_changed_manifest_chooses_anew_unless_it_must_not(wheels, program):
    make_wheel(wheels, "shapes", {"shapes.py": "NAME = 1\n"})
    make_wheel(wheels, "other", {"other.py": ""})
    root = program("shapes")
    with pytest.raises(InvalidProgram, match=r"pie\.lock is missing"):
        pack(root, Packages(locked=True))
    pack(root)
    program("shapes", "other")
    with pytest.raises(InvalidProgram, match="does not fit `dependencies`"):
        pack(root, Packages(locked=True))
    assert "other.py" in pack(root).files


@pytest.mark.slow
def test_another_wheel_than_the_locked_one_is_refused(wheels, program, tmp_path):
    make_wheel(wheels, "shapes", {"shapes.py": "NAME = 1\n"})
    root = program("shapes")
    pack(root)
    make_wheel(wheels, "shapes", {"shapes.py": "import evil\n"})
    (tmp_path / "cache").rename(tmp_path / "gone")
    (root / "main.py").write_text(MAIN + "\n")
    with pytest.raises(InvalidProgram, match="its hash is another") as caught:
        pack(root)
    assert "--upgrade" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "tag", "words", "hint"),
    [
        ("numpy", "cp314-cp314-macosx_99_0_arm64", "`numpy` needs native code", "standard library has math"),
        pytest.param("fastmath", HERE, "`fastmath` needs native code", "pure Python", marks=pytest.mark.slow),
        pytest.param("nowhere", None, "no pure-Python wheel of `nowhere`", "check its name", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_run_in_the_sandbox_is_refused_by_name(wheels, program, name, tag, words, hint):
    if tag is not None:
        make_wheel(wheels, name, {f"{name}.py": ""}, tag=tag)
    make_wheel(wheels, "shapes", {"shapes.py": ""}, requires=[name])
    root = program("shapes")
    with pytest.raises(InvalidProgram, match=words) as caught:
        pack(root)
    assert hint in caught.value.hint
    assert not (root / "pie.lock").exists()


@pytest.mark.slow
def test_a_version_that_does_not_exist_is_not_native_code(wheels, program):
    make_wheel(wheels, "shapes", {"shapes.py": ""}, version="1.0")
    with pytest.raises(InvalidProgram, match=r"no pure-Python wheel of `shapes==99\.0`") as caught:
        pack(program("shapes==99.0"))
    assert "version in `dependencies`" in caught.value.hint


@pytest.mark.slow
def test_an_index_that_cannot_be_reached_is_not_blamed_on_the_package(wheels, program, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(InvalidProgram, match="pip cannot reach the index that it fetches `shapes` from") as caught:
        pack(program("shapes"))
    assert "PIP_FIND_LINKS" in caught.value.hint


@pytest.mark.slow
def test_a_package_for_other_versions_of_python_is_passed_over(wheels, program):
    make_wheel(wheels, "shapes", {"shapes.py": "NAME = 1\n"}, version="1.0")
    make_wheel(wheels, "shapes", {"shapes.py": "NAME = 2\n"}, version="2.0", requires_python="<3.14")
    assert pack(program("shapes")).files["shapes.py"] == "NAME = 1\n"


@pytest.mark.slow
def test_native_code_in_a_wheel_that_claims_to_be_pure_is_found(wheels, program):
    make_wheel(wheels, "shapes", {"shapes/__init__.py": "", "shapes/_fast.so": b"\x7fELF"})
    with pytest.raises(InvalidProgram, match=r"`shapes` holds native code \(shapes/_fast\.so\)"):
        pack(program("shapes"))


@pytest.mark.slow
def test_a_module_of_the_program_must_not_hide_a_package(wheels, program):
    make_wheel(wheels, "shapes", {"shapes/__init__.py": ""})
    root = program("shapes")
    (root / "shapes.py").write_text("")
    with pytest.raises(InvalidProgram, match="has a module `shapes`, and so has one of its `dependencies`"):
        pack(root)


@pytest.mark.parametrize(
    "text", ["format = 9\nrequires = []\n", "requires = 1\n", "[[", "requires = []\npackage = [1]\n"]
)
def test_a_lock_that_cannot_be_used_says_what_to_do(wheels, program, text):
    root = program("shapes")
    (root / "pie.lock").write_text(text)
    with pytest.raises(InvalidProgram) as caught:
        pack(root)
    assert str(root / "pie.lock") in caught.value.message
    assert caught.value.hint.startswith("remove it")
