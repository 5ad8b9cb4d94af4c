"""Every command that a page names, in a block or in a sentence, is one that there is, with options that there are."""

from __future__ import annotations

import re

import pytest
import tomli

from tests.commands import commands_of, complaint, words_of
from tests.pages import PAGES, ROOT, SHELL, WRITTEN, all_blocks

FENCE = re.compile(r"^\s*```.*?^\s*```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`pie ([^`]+)`")
UNIX = {"cd", "curl", "git", "python", "sed", "source"}
"""Other programs, whose words are theirs."""
LINES = [
    (str(block), words)
    for block in all_blocks()
    if block.language in SHELL and block.page != "docs/http.md"
    for command in commands_of(block.text)
    for words in words_of(command)
]


def spans() -> list[tuple[str, str]]:
    """(page, words behind `pie`) of every command in a sentence."""
    found = []
    for page in PAGES:
        if page != WRITTEN:
            text = FENCE.sub("", page.read_text("utf-8"))
            found += [(str(page.relative_to(ROOT)), re.sub(r"\s+", " ", each)) for each in SPAN.findall(text)]
    return sorted(set(found))


def readable(words: str) -> list[str]:
    """What stands for more is left out."""
    (found,) = words_of(re.sub(r"…|\.\.\.", "", words))
    return found


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words) <= set(targets)


def check_pip(words: list[str]) -> None:
    extras = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words[0] == "install"
    for extra in re.findall(r"\[(\w+)\]", " ".join(words)):
        assert extra in extras
    if "--constraint" in words:
        assert (ROOT / words[words.index("--constraint") + 1]).is_file()


def check_pie(words: list[str]) -> None:
    assert complaint(words) == ""


CHECKS = {"pie": check_pie, "make": check_make, "pip": check_pip}


@pytest.mark.parametrize(("block", "words"), LINES, ids=lambda each: each if isinstance(each, str) else " ".join(each))
def test_a_command_of_a_block_is_understood(block, words):
    if words[0] not in UNIX:
        CHECKS[words[0]](words[1:])


@pytest.mark.parametrize(("page", "words"), spans())
def test_a_command_in_a_sentence_is_understood(page, words):
    said = complaint(readable(words))
    # It may be named without what it works on, and a group without its commands.
    assert said == "" or said.startswith(("Missing ", "Usage: ")) or "requires an argument" in said or " needs " in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("runn hello", "there is no `pie runn hello`"),
        ("config gett", "there is no `pie config gett`"),
        ("ps --wach", "No such option: --wach"),
        ("run --watsh hello", "`pie run` has no option `--watsh`"),
        ("gc --older-than soon", "Invalid value for '--older-than'"),
        ("logs", "Missing argument"),
    ],
)
def test_what_is_wrong_is_found(words, said):
    assert said in complaint(words.split())
