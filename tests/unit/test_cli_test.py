"""`pie test` before and behind pytest: what is refused, what pytest is asked, and what its outcome means."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_cli import exits, testing
from pie_cli.main import invoke


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_main.py").write_text("def test_it(): ...\n")
    (tmp_path / "pie.toml").write_text('[program]\nname = "p"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What pytest would have been asked; all its tests pass."""
    calls: list[list[str]] = []

    def run(args: list[str]) -> int:
        calls.append(args)
        return 0

    monkeypatch.setattr(testing, "_run_pytest", run)
    return calls


def test_the_program_of_this_folder_is_tested(program, asked):
    assert invoke(["test"]) == exits.OK
    plugins = ["-p", "pie_testing.plugin", "-p", "pie_testing.quiet"]
    assert asked == [[*plugins, "--import-mode=importlib", "--pie-engine=embedded", "."]]


def test_options_go_to_pytest_and_what_is_behind_dashes_as_it_is(program, asked):
    words = ["tests/test_main.py::test_it", "-k", "it and not that", "--junit", "report.xml", "--update"]
    words += ["--engine", "daemon", "--model", "pie-tiny", "--built", "--", "-x", "--pdb"]
    assert invoke(["test", *words]) == exits.OK
    assert asked[0][5:] == [
        "--pie-engine=daemon",
        "-k",
        "it and not that",
        "--junitxml=report.xml",
        "--pie-update",
        "--pie-model=pie-tiny",
        "--pie-built",
        "-x",
        "--pdb",
        "tests/test_main.py::test_it",
    ]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nowhere"], exits.NOT_FOUND, "there is no file or folder `nowhere`"),
        (["pie.toml"], exits.USAGE, "`pie.toml` is no test file"),
        (["--junit", "no/such/report.xml"], exits.USAGE, "its folder does not exist"),
        (["--replay", "nothing.rec"], exits.NOT_FOUND, "there is no recording `nothing.rec`"),
        (["--engine", "cloud"], exits.USAGE, "embedded"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(program, asked, capsys, words, code, says):
    assert invoke(["test", *words]) == code
    assert says in capsys.readouterr().err
    assert asked == []


def test_a_broken_manifest_is_explained(program, asked, capsys):
    (program / "pie.toml").write_text('[program]\nnam = "p"\n')
    assert invoke(["test"]) == exits.USAGE
    said = capsys.readouterr().err
    assert "pie.toml" in said
    assert "did you mean `name`?" in said
    assert asked == []


def test_a_folder_without_tests_says_where_they_would_be(program, asked, capsys):
    (program / "tests" / "test_main.py").unlink()
    assert invoke(["test"]) == exits.NOT_FOUND
    said = capsys.readouterr().err
    assert "there are no tests in `.`" in said
    assert "tests/test_main.py" in said


def test_without_pytest_it_says_how_to_get_it(program, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert invoke(["test"]) == exits.DAEMON
    said = capsys.readouterr().err
    assert "pytest is not installed" in said
    assert "pie-serving[test]" in said


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(0, exits.OK), (1, exits.PROGRAM_FAILED), (2, exits.INTERRUPTED), (3, exits.PROGRAM_FAILED), (4, exits.USAGE)],
)
def test_exit_codes_say_what_pytest_said(program, monkeypatch, outcome, code):
    monkeypatch.setattr(testing, "_run_pytest", lambda args: outcome)
    assert invoke(["test"]) == code


def test_where_nothing_matches_it_says_what(program, monkeypatch, capsys):
    monkeypatch.setattr(testing, "_run_pytest", lambda args: 5)
    assert invoke(["test", "-k", "that"]) == exits.NOT_FOUND
    assert "no test matches `-k that`" in capsys.readouterr().err
