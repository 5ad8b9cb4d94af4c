"""`pie new`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_cli import project
from pie_cli.main import invoke

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "templates" / "chat"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pie.toml").write_text('[program]\nname = "{{name}}"\n')
    (folder / "pkg" / "util.py").write_text("NAME = '{{name}}'\n")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "util.pyc").write_bytes(b"\x00")
    (tmp_path / "templates" / "agent").mkdir()
    monkeypatch.setattr(project, "_templates", lambda: tmp_path / "templates")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path / "templates"


def test_new_copies_the_template_under_its_name(capsys: Capture) -> None:
    assert invoke(["new", "hello"]) == 0
    assert Path("hello/pie.toml").read_text() == '[program]\nname = "hello"\n'
    assert Path("hello/pkg/util.py").read_text() == "NAME = 'hello'\n"
    assert not Path("hello/__pycache__").exists()
    assert capsys.readouterr().err == 'created hello: pie.toml, pkg/util.py\nrun it: pie run hello "Who are you?"\n'


def test_a_path_with_a_space_is_quoted(capsys: Capture) -> None:
    assert invoke(["new", "my programs/hello"]) == 0
    assert "run it: pie run 'my programs/hello' \"Who are you?\"\n" in capsys.readouterr().err


def test_an_agent_is_asked_for_something_to_calculate(templates: Path, capsys: Capture) -> None:
    (templates / "agent" / "main.py").touch()
    assert invoke(["new", "helper", "--template", "agent"]) == 0
    assert 'run it: pie run helper "What is 12 * 30?"\n' in capsys.readouterr().err


def test_new_without_a_name_is_called_like_the_template() -> None:
    assert invoke(["new"]) == 0
    assert Path("chat/pie.toml").exists()


def test_the_last_part_of_a_path_is_the_name() -> None:
    assert invoke(["new", "some/where/hello"]) == 0
    assert "hello" in Path("some/where/hello/pie.toml").read_text()


def test_an_empty_folder_is_fine_and_a_full_one_refused(capsys: Capture) -> None:
    Path("hello").mkdir()
    assert invoke(["new", "hello"]) == 0
    assert invoke(["new", "hello"]) == 2
    assert "error: `hello` exists already\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["x", "--template", "chta"], "error: there is no template `chta`\nhint: did you mean `chat`?\n"),
        (["x", "--template", "zzz"], "error: there is no template `zzz`\nhint: templates: agent, chat\n"),
        (["Bad Name!"], "error: `Bad Name!` cannot be the name of a program\n"),
        (["/dev/null/x"], "error: cannot make `/dev/null/x`: Not a directory\nhint: choose a folder that you can"),
    ],
)
def test_what_cannot_be_made_is_explained(words: list[str], text: str, capsys: Capture) -> None:
    assert invoke(["new", *words]) == 2
    assert text in capsys.readouterr().err
    assert list(Path.cwd().iterdir()) == []
