"""How much a test tries where more is only better: less in `make test` than with `--slow`."""

from __future__ import annotations

from hypothesis import settings

SLOW_PROFILE = "slow"
"""Hypothesis' profile of a run with `--slow`: the root conftest.py loads it before tests are collected."""


def count(quick: int, slow: int) -> int:
    """Examples of a property, or draws of a distribution."""
    return slow if settings.get_current_profile_name() == SLOW_PROFILE else quick
