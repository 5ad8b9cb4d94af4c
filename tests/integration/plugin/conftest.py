"""A project with a program, in which pytest runs within pytest."""

from __future__ import annotations

import pytest

import pie_testing.embedded  # once for all inner runs, which forget what they import  # noqa: F401
from tests.integration.plugin.inner import HELPER, MAIN


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A program with a module beside it."""
    pytester.makefile(".toml", pie='[program]\nname = "greeter"\n')
    pytester.makepyfile(main=MAIN, helper=HELPER)
    return pytester
