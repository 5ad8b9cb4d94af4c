"""Every example of docs/testing-programs.md, and the test of docs/first-inferlet.md, as they stand there."""

from __future__ import annotations

import re
from typing import Any

import pytest

import pie_testing.embedded  # once for all inner runs, which forget what they import  # noqa: F401
from tests.integration.plugin.inner import QUIET
from tests.pages import ROOT, blocks_of, checked_by

STORY = """
from inferlet import Context

async def main() -> str:
    ctx = Context()
    ctx.user("Tell me a story.")
    return await ctx.generate(max_tokens=8)
"""


def test_every_example_passes(pytester: pytest.Pytester) -> None:
    program, *tests = (block.text for block in checked_by(__file__, "docs/testing-programs.md"))
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
    *_, program = (block.text for block in blocks_of(ROOT / "docs" / "first-inferlet.md") if block.kind == "program")
    (test,) = checked_by(__file__, "docs/first-inferlet.md")
    pytester.makepyfile(main=program)
    (pytester.mkdir("tests") / "test_main.py").write_text(test.text)
    pytester.runpytest_inprocess(*QUIET).assert_outcomes(passed=1)


def test_a_recording_is_a_test(daemon: Any, pytester: pytest.Pytester) -> None:
    (test,) = checked_by(__file__, "docs/record-replay.md")
    pytester.makepyfile(main=STORY)
    folder = pytester.mkdir("tests")
    (folder / "test_story.py").write_text(test.text)
    (pytester.path / "pie.toml").write_text('[program]\nname = "story"\n')
    done = daemon.pie("run", "--record", str(folder / "story.rec"), str(pytester.path))
    assert done.returncode == 0, done.stderr
    pytester.runpytest_inprocess(*QUIET).assert_outcomes(passed=1)
    pytester.makepyfile(main=STORY.replace("max_tokens=8", "max_tokens=9"))
    pytester.runpytest_inprocess(*QUIET).assert_outcomes(failed=1)
