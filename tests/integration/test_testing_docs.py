"""Every example of docs/testing-programs.md, and the test of docs/first-inferlet.md, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pie_testing.embedded  # once for all inner runs, which forget what they import  # noqa: F401
from tests.integration.plugin.inner import QUIET

DOCS = Path(__file__).parents[2] / "docs"


def blocks_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)


def test_every_example_passes(pytester: pytest.Pytester) -> None:
    program, *tests = blocks_of("testing-programs.md")
    pytester.makepyfile(main=program)
    folder = pytester.mkdir("tests")
    for number, source in enumerate(tests):
        (folder / f"test_{number}.py").write_text(source)
    num_tests = sum(len(re.findall(r"^(?:async )?def test_", source, re.MULTILINE)) for source in tests)
    written = pytester.runpytest_inprocess(*QUIET, "--pie-update")
    result = pytester.runpytest_inprocess(*QUIET)
    assert num_tests > 8
    for each in (written, result):
        each.assert_outcomes(passed=num_tests + 1)  # one has two parameters
    assert (folder / "golden" / "transcript.txt").read_text().splitlines()[-1] == 'return: "Paris."'


def test_the_first_inferlet_passes_its_test(pytester: pytest.Pytester) -> None:
    *_, program, test = blocks_of("first-inferlet.md")
    pytester.makepyfile(main=program)
    (pytester.mkdir("tests") / "test_main.py").write_text(test)
    pytester.runpytest_inprocess(*QUIET).assert_outcomes(passed=1)
