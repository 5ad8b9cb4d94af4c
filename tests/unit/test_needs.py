"""What the tests say on a machine that lacks a program that they need."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests import needs

MISSING = (
    "none of these programs is installed: no-such-program; with Debian's packages: apt-get install no-such-package"
)


def config(*, is_slow: bool) -> Any:
    return SimpleNamespace(getoption={"--slow": is_slow}.__getitem__)


def test_a_program_that_is_there_is_found_by_any_of_its_names():
    assert needs.program(config(is_slow=True), "dash", "no-such-program", "sh").endswith("/sh")


def test_without_it_a_test_is_skipped():
    with pytest.raises(pytest.skip.Exception, match=MISSING):
        needs.program(config(is_slow=False), "no-such-package", "no-such-program")


def test_with_slow_nothing_is_left_out():
    with pytest.raises(pytest.fail.Exception, match=MISSING):
        needs.program(config(is_slow=True), "no-such-package", "no-such-program")
