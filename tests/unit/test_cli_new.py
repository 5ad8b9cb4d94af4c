"""`pie new`."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from pie_cli import templates as pie_templates
from pie_cli.main import invoke

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "templates" / "chat"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pie.toml").write_text('[program]\nname = "{{name}}"\ndescription = "Chats"\n')
    (folder / "README.md").write_text('# {{name}}\n\n```\npie run . "Who are you?"\npie run . --help\n```\n')
    (folder / "pkg" / "util.py").write_text("NAME = '{{name}}'\n")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "util.pyc").write_bytes(b"\x00")
    agent = tmp_path / "templates" / "agent"
    agent.mkdir()
    (agent / "pie.toml").write_text('[program]\nname = "{{name}}"\ndescription = "Calls tools"\n')
    shared = tmp_path / "templates" / "_shared"
    (shared / ".github").mkdir(parents=True)
    (shared / ".github" / "test.yml").write_text("name: ${{ github.workspace }}\n")
    monkeypatch.setattr(pie_templates, "_folder", lambda: tmp_path / "templates")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path / "templates"


def test_new_copies_the_template_under_its_name(capsys: Capture) -> None:
    assert invoke(["new", "hello"]) == 0
    assert Path("hello/pie.toml").read_text() == '[program]\nname = "hello"\ndescription = "Chats"\n'
    assert Path("hello/pkg/util.py").read_text() == "NAME = 'hello'\n"
    assert Path("hello/.github/test.yml").read_text() == "name: ${{ github.workspace }}\n"
    assert not Path("hello/__pycache__").exists()
    assert capsys.readouterr().err == (
        'created hello: .github/test.yml, README.md, pie.toml, pkg/util.py\nrun it: pie run hello "Who are you?"\n'
    )


def test_a_path_with_a_space_is_quoted(capsys: Capture) -> None:
    assert invoke(["new", "my programs/hello"]) == 0
    assert "run it: pie run 'my programs/hello' \"Who are you?\"\n" in capsys.readouterr().err


def test_without_a_readme_it_is_run_as_it_is(capsys: Capture) -> None:
    assert invoke(["new", "helper", "--template", "agent"]) == 0
    assert capsys.readouterr().err.endswith("run it: pie run helper\n")


def test_list_shows_the_templates(capsys: Capture) -> None:
    assert invoke(["new", "--list"]) == 0
    assert capsys.readouterr().out == "TEMPLATE  WHAT IT DOES\nagent     Calls tools\nchat      Chats\n"
    assert list(Path.cwd().iterdir()) == []


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


def test_a_new_repository_is_an_empty_folder(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    Path("hello/.git").mkdir(parents=True)
    monkeypatch.chdir("hello")
    assert invoke(["new", "."]) == 0
    assert 'name = "hello"' in Path("pie.toml").read_text()
    assert invoke(["new", "."]) == 2
    assert "error: `.` exists already\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["x", "--template", "chta"], "error: there is no template `chta`\nhint: did you mean `chat`?\n"),
        (["x", "--template", "ag"], "error: there is no template `ag`\nhint: did you mean `agent`?\n"),
        (["x", "--template", "zzz"], "error: there is no template `zzz`\nhint: templates: agent, chat\n"),
        (["Bad Name!"], "error: `Bad Name!` cannot be the name of a program\n"),
        (["/dev/null/x"], "error: cannot make `/dev/null/x`: Not a directory\nhint: choose a folder that you can"),
    ],
)
def test_what_cannot_be_made_is_explained(words: list[str], text: str, capsys: Capture) -> None:
    assert invoke(["new", *words]) == 2
    assert text in capsys.readouterr().err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_is_interrupted_leaves_nothing(failure: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def fail_in_the_middle(path: Path, *args: Any) -> int:
        if path.name == "util.py":
            write(path, "half")
            raise failure
        return write(path, *args)

    monkeypatch.setattr(Path, "write_text", fail_in_the_middle)
    Path("here").mkdir()
    assert invoke(["new", "some/where/hello"]) != 0
    assert invoke(["new", "here"]) != 0
    assert list(Path.cwd().rglob("*")) == [Path.cwd() / "here"]


class Terminal(io.StringIO):
    """A terminal on which somebody has typed ahead."""

    def isatty(self) -> bool:
        return True


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> Terminal:
    """Put a person before the command; returns what is shown there."""
    shown = Terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdin", Terminal(text))
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


@pytest.mark.parametrize("template", ["1\n", "agent\n"])
def test_on_a_terminal_it_asks(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = typed(monkeypatch, "hello\n" + template)
    assert invoke(["new"]) == 0
    assert "Calls tools" in Path("hello/pie.toml").read_text()
    assert shown.getvalue() == (
        "name of the program:   1  agent  Calls tools\n  2  chat   Chats\n"
        "template, by number or name [chat]: created hello: .github/test.yml, pie.toml\n"
        "run it: pie run hello\n"
    )


def test_a_wrong_answer_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    shown = typed(monkeypatch, "\nfull\nhello\n9\nchta\n\n").getvalue
    assert invoke(["new"]) == 0
    assert "Chats" in Path("hello/pie.toml").read_text()
    assert "error: a program needs a name\n" in shown()
    assert "error: `full` exists already\nhint: choose another name, or an empty folder\n" in shown()
    assert "error: there is no template `9`\nhint: templates: agent, chat\n" in shown()
    assert "error: there is no template `chta`\nhint: did you mean `chat`?\n" in shown()


@pytest.mark.parametrize("text", ["", "hello\n"])
def test_who_stops_answering_gets_nothing(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = typed(monkeypatch, text)
    assert invoke(["new"]) == 130
    assert shown.getvalue().endswith(": \n"), "what the shell shows next begins a line"
    assert list(Path.cwd().iterdir()) == []


def test_with_arguments_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = typed(monkeypatch, "")
    assert invoke(["new", "hello"]) == 0
    assert invoke(["new", "--template", "agent"]) == 0
    assert "[chat]" not in shown.getvalue()
