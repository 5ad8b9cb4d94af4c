"""Runs of pytest within pytest, on a program and tests of its own."""

from __future__ import annotations

import pytest

MAIN = """
from inferlet import Context, session
from helper import check

async def main(prompt: str, max_tokens: int = 64) -> str:
    \"\"\"Answer.\"\"\"
    ctx = Context()
    ctx.user(prompt)
    print("asking")
    check(prompt)
    async for chunk in ctx.generate(max_tokens=max_tokens):
        session.send(chunk.text)
    return ctx.last_text
"""
HELPER = """
def check(prompt):
    if prompt == "fail":
        raise ValueError("no luck")
"""
QUIET = (
    *("-p", "pie_testing.plugin", "-p", "no:randomly", "-o", "asyncio_default_fixture_loop_scope=function"),
    *("-p", "no:faulthandler"),  # it would take the signals away by which wasmtime in this process sees a trap
)
"""With the plugin, and without what other plugins of these tests' environment would do or say."""


def check(project: pytest.Pytester, tests: str, *args: str, **outcomes: int) -> pytest.RunResult:
    """Run `tests` of the program with the plugin."""
    folder = project.path / "tests"
    folder.mkdir(exist_ok=True)
    (folder / "test_main.py").write_text("import pytest\n" + tests)
    result = project.runpytest_inprocess(*QUIET, *args)
    result.assert_outcomes(**(outcomes or {"passed": 1}))
    return result
