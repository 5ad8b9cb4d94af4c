"""Tests of programs on what `pie build` makes of them."""

from __future__ import annotations

from pie_client import Bundle
from pie_engine.protocol.program import COMPONENT_FILE, Manifest
from pie_testing.built import Builds
from tests.integration.plugin.inner import check

TESTS = """
SOURCE = '''
async def main() -> str:
    return "as it is"
'''

def test_its_program(run):
    assert run(prompt="Hi").value == "built"

def test_a_text(run):
    assert run(SOURCE).value == "as it is"
"""
BUILT = Bundle(Manifest(name="built"), {"main.py": "async def main(prompt: str) -> str:\n    return 'built'\n"})


def test_programs_are_built_where_that_is_asked_for(project, monkeypatch):
    monkeypatch.setattr(Builds, "component_of", lambda self, program: BUILT)
    check(project, TESTS, failed=1, passed=1)
    check(project, TESTS, "--pie-built", passed=2)


def test_a_component_is_one_already():
    component = Bundle(Manifest(name="p", runtime="component"), blobs={COMPONENT_FILE: b"\0asm"})
    assert Builds(lambda text: None).component_of(component) is component
